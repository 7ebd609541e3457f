"""The command itself: help, the table of commands, completion, start-up, errors before any command runs."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest

import anchorhold
from anchorhold.cli import main as entry
from anchorhold.cli.root import COMMANDS, root

HEAVY = (
    "anchorhold.supervisor",
    "anchorhold.broker",
    "anchorhold.audit",
    "anchorhold.policy",
    "anchorhold.cell",
)


@pytest.fixture(autouse=True)
def no_completion(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("_ANCHORHOLD_COMPLETE", raising=False)
    monkeypatch.delenv("ANCHORHOLD_DEBUG", raising=False)


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    for option in ("-h", "--help"):
        assert entry.main([option]) == 0
        out, err = capsys.readouterr()
        assert all(name in out and words in out for name, (_module, words) in COMMANDS.items())
        assert "Exit codes" in out and "bash_source" in out and "NO_COLOR" in out and err == ""
    assert entry.main(["--version"]) == 0
    assert anchorhold.__version__ in capsys.readouterr().out
    for name in ("ask", "chat"):
        assert entry.main([name, "-h"]) == 0
        out = capsys.readouterr().out
        assert "--max-tokens" in out and "standard" in out


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_of_the_table_exists_and_its_help_is_the_tables(name: str) -> None:
    module, words = COMMANDS[name]
    command = getattr(importlib.import_module(module), name)
    assert isinstance(command, click.Command) and command.name == name
    assert command.get_short_help_str(200).rstrip(".") == words.rstrip(".")
    assert root.get_command(click.Context(root), name) is command
    assert name in root.list_commands(click.Context(root))


def test_wrong_words(capfd: pytest.CaptureFixture[str]) -> None:
    for arguments, words in (
        (["nope"], "No such command 'nope'"),
        (["--nope"], "No such option"),
        (["ask", "--max-tokens", "many", "Q"], "not a valid integer"),
        (["ask", "\x1b[2J", "b"], "unexpected extra argument"),
    ):
        assert entry.main(arguments) == 2
        out, err = capfd.readouterr()
        assert out == "" and words in err and "-h' for help" in err and "\x1b" not in err
    assert entry.main([]) == 2
    assert capfd.readouterr().err.startswith("Usage: anchorhold")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script(
    shell: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("_ANCHORHOLD_COMPLETE", f"{shell}_source")
    assert entry.main([]) == 0
    assert "_ANCHORHOLD_COMPLETE" in capfd.readouterr().out


def test_completion_of_words(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_ANCHORHOLD_COMPLETE", "bash_complete")
    for words, current, expected in (
        ("anchorhold ", "1", [f"plain,{name}" for name in COMMANDS]),
        ("anchorhold a", "1", ["plain,ask", "plain,audit"]),
        ("anchorhold --st", "1", ["plain,--state-dir"]),
        ("anchorhold ask --max", "2", ["plain,--max-tokens"]),
        ("anchorhold ask --file ", "3", ["file,"]),
        ("anchorhold ask --data ", "3", ["dir,"]),
    ):
        monkeypatch.setenv("COMP_WORDS", words)
        monkeypatch.setenv("COMP_CWORD", current)
        assert entry.main([]) == 0
        assert capfd.readouterr().out.split() == expected


def test_start_up_imports_nothing_of_the_other_commands(unmeasured: None) -> None:
    code = "import sys; from anchorhold.cli import root, main; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = done.stdout.split()
    assert not [name for name in loaded if name.startswith(HEAVY)]
    assert not {"cryptography", "sqlite3", "tomllib", "asyncio", "readline"} & set(loaded)
    assert not {"anchorhold.cli.ask", "anchorhold.cli.chat", "anchorhold.cli.audit"} & set(loaded)


def test_as_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "anchorhold", "--version"], capture_output=True, text=True, check=True
    )
    assert anchorhold.__version__ in done.stdout
    assert done.stdout.startswith("anchorhold")


def test_module_entry_in_this_process(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import runpy

    importlib.import_module("anchorhold.__main__")  # alone it runs nothing
    assert capsys.readouterr().out == ""
    monkeypatch.delitem(sys.modules, "anchorhold.__main__")
    monkeypatch.setattr(sys, "argv", ["anchorhold", "--version"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("anchorhold", run_name="__main__")
    assert ended.value.code == 0


def test_an_interrupt_in_any_command(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for error, code, words in (
        (KeyboardInterrupt(), 130, "anchorhold: interrupted\n"),
        (click.Abort(), 130, "anchorhold: interrupted\n"),
        (BrokenPipeError(), 130, ""),
        (OSError(5, "Odd"), 1, "anchorhold: unexpected OSError: [Errno 5] Odd\n"),
        (click.ClickException("plain"), 1, "Error: plain\n"),
        (click.exceptions.Exit(5), 5, ""),
    ):
        monkeypatch.setattr(root, "invoke", _raising(error))
        assert entry.main(["ask"]) == code
        assert capfd.readouterr().err.startswith(words)


def _raising(error: BaseException) -> object:
    def invoke(_context: object) -> None:
        raise error

    return invoke


def test_details_are_for_debugging(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from anchorhold.errors import WorkerError

    monkeypatch.setattr(root, "invoke", _raising(WorkerError("broke", hint="mend it", detail="line 5")))
    assert entry.main(["ask"]) == 1
    assert capfd.readouterr().err == "anchorhold: broke\nmend it\n"
    monkeypatch.setenv("ANCHORHOLD_DEBUG", "1")
    assert entry.main(["ask"]) == 1
    assert capfd.readouterr().err == "anchorhold: broke\nmend it\nline 5\n"


def test_sigint_is_as_it_was_afterwards(capsys: pytest.CaptureFixture[str]) -> None:
    for handler in (signal.SIG_IGN, signal.default_int_handler):
        before = signal.signal(signal.SIGINT, handler)
        try:
            assert entry.main(["--version"]) == 0
            assert signal.getsignal(signal.SIGINT) == handler
        finally:
            signal.signal(signal.SIGINT, before)


def run_shell(line: str, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", line, "bash", sys.executable, "-m", "anchorhold"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=30,
        check=False,
    )


def test_help_into_a_closed_pipe_and_a_full_disk(tmp_path: Path) -> None:
    closed = run_shell('"$@" -h | true; echo ${PIPESTATUS[0]}', tmp_path)
    assert closed.stdout in ("130\n", "0\n") and closed.stderr == ""
    broken = run_shell('sleep 0.5 | true; ("$@" -h; echo $? >&2) | sleep 0', tmp_path)
    assert broken.stderr in ("130\n", "0\n")
    full = run_shell('"$@" -h > /dev/full; echo $?', tmp_path)
    assert full.stdout == "1\n"
    assert full.stderr == "anchorhold: cannot write to standard output: No space left on device\n"


@pytest.mark.parametrize(("full", "expected"), [(False, 130), (True, 1)])
def test_output_that_fails_at_the_last_flush(
    full: bool, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What Python still holds is dropped: its own flush at exit finds a place to write to."""
    saved = os.dup(1)
    reading, writing = os.pipe()
    os.close(reading)
    broken = os.open("/dev/full", os.O_WRONLY) if full else os.dup(writing)
    os.dup2(broken, 1)
    try:
        with os.fdopen(1, "w", buffering=100_000, closefd=False) as held:
            monkeypatch.setattr(sys, "stdout", held)
            held.write("held")
            assert entry.main(["ask", "--no-such-option"]) == expected
            held.flush()
    finally:
        os.dup2(saved, 1)
        for fd in (saved, writing, broken):
            os.close(fd)


def test_without_standard_output(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    assert entry.main(["--version"]) == 0
