"""`ask`, from the command line to the bytes it writes, on a session that plays steps."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from anchorhold.cli import cell
from anchorhold.supervisor.events import Done

if TYPE_CHECKING:
    from tests.unit.cli.conftest import Stage

Steps = list[list[Any]]
MODEL = ("--model", "model.gguf")
DIGEST = "ab" * 32
HOSTILE = ["\x1b", "[31mred\x9b2J", "\u202e\r", "\nover\rwrite \u2693 seen: forged"]
ANSWER: Steps = [
    ["progress", "load", 1, 2],
    ["phase", "sealed"],
    ["shown", "/notes/a.md", DIGEST, 41000],
    ["shown", "/notes/b c.md", DIGEST, 234],
    ["document", "/notes/a.md", "used", "", 900],
    ["document", "/notes/b c.md", "partial", "", 40],
    ["document", "/notes/c.pdf", "skipped", "encrypted", 0],
    ["token", "The har"],
    ["token", "bour."],
    ["done", "stop", ["/notes/a.md", "/notes/b c.md"]],
]


def test_the_answer_and_what_was_seen(stage: Stage, capfd: pytest.CaptureFixture[str]) -> None:
    assert stage.main(ANSWER, "ask", *MODEL, "Where?") == 0
    out, err = capfd.readouterr()
    assert out == "The harbour.\n"
    assert err == (
        "skipped: /notes/c.pdf: encrypted\n"
        '⚓ from: a.md, "b c.md"\n'
        "⚓ seen: 2 files, 41 kB (1 whole, 1 in part) · refused: nothing · session 7f3a01234567"
        " · anchorhold audit show 7f3a01234567\n"
    )
    assert [line.split()[0] for line in stage.record] == ["suffixes", "start", "ask", "close"]
    assert stage.record[-1] == "close done"


def test_refusals_are_named(stage: Stage, capfd: pytest.CaptureFixture[str]) -> None:
    refused: Steps = [["refused", f"/etc/x{n}\x1b", "outside", n + 1] for n in range(5)]
    assert stage.main([*refused, ["token", "x\n"], ["done", "stop"]], "ask", *MODEL, "Q") == 0
    out, err = capfd.readouterr()
    assert out == "x\n"
    assert "from: no file" in err
    assert 'refused: 15 requests ("/etc/x0\\x1b", "/etc/x1\\x1b" ×2, "/etc/x2\\x1b" ×3, …)' in err
    assert "seen: nothing" in err


def test_what_listings_left_out_is_said(stage: Stage, capfd: pytest.CaptureFixture[str]) -> None:
    """It was not "refused: nothing" alone."""
    steps: Steps = [["left-out", 2], ["token", "x\n"], ["done", "stop"]]
    assert stage.main(steps, "ask", *MODEL, "Q") == 0
    assert "refused: nothing · left out of listings: 2 names · session" in capfd.readouterr().err
    assert stage.main(steps, "ask", "--json", *MODEL, "Q") == 0
    assert json.loads(capfd.readouterr().out)["left_out"] == 2


def test_an_answer_that_was_cut_says_so(stage: Stage, capfd: pytest.CaptureFixture[str]) -> None:
    assert stage.main([["token", "x"], ["done", "length"]], "ask", *MODEL, "Q") == 0
    assert "⚓ cut: the answer reached 7 tokens (--max-tokens)" in capfd.readouterr().err


def test_object(stage: Stage, capfd: pytest.CaptureFixture[str]) -> None:
    steps: Steps = [["token", piece] for piece in HOSTILE]
    bad = "/notes/\udcff.md"
    steps = [["shown", bad, DIGEST, 5], ["refused", "/x", "why", 2], ["document", bad, "used", "", 3], *steps]
    steps += [["document", "/notes/gone", "skipped", "gone", 0], ["token", "\x7f"], ["done", "stop", [bad]]]
    assert stage.main(steps, "ask", "--json", *MODEL, "Q") == 0
    out, err = capfd.readouterr()
    assert out.isascii() and out.rstrip("\n").isprintable() and out.count("\n") == 1
    found = json.loads(out)
    assert found["answer"] == "".join(HOSTILE) + "\x7f"
    assert list(found) == [
        "v",
        "answer",
        "reason",
        "session",
        "model",
        "policy",
        "usage",
        "files",
        "documents",
        "shown",
        "refused",
        "layers",
        "missing",
        "hidden",
        "left_out",
    ]
    assert found["v"] == 1 and found["reason"] == "stop" and found["session"].startswith("7f3a")
    assert found["model"] == str(stage.folder / "model.gguf")
    assert len(found["policy"]) == 64
    assert found["usage"] == {"prompt_tokens": 11, "output_tokens": 7, "seconds": 0.75}
    assert found["files"] == [bad]
    assert found["documents"] == [
        {"path": bad, "outcome": "used", "reason": "", "tokens": 3, "sha256": DIGEST},
        {"path": "/notes/gone", "outcome": "skipped", "reason": "gone", "tokens": 0},
    ]
    assert found["shown"] == [{"path": bad, "sha256": DIGEST, "size": 5}]
    assert found["refused"] == {"total": 2, "examples": [{"path": "/x", "why": "why", "count": 2}]}
    assert found["layers"] == {"seccomp": "held"}
    assert found["missing"] == {"cgroup": "none here"}
    assert "skipped: /notes/gone: gone" in err


def test_an_answer_without_end_is_an_error(stage: Stage, capfd: pytest.CaptureFixture[str]) -> None:
    for option, shown in (("--json", ""), ("--seed=1", "x\n")):
        assert stage.main([["token", "x"]], "ask", option, *MODEL, "Q") == 1
        out, err = capfd.readouterr()
        assert out == shown and "without finishing" in err
        assert stage.record[-1] == "close failed"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        ("UsageError", 2),
        ("PolicyError", 2),
        ("BreachError", 3),
        ("KilledError", 4),
        ("VerifyError", 5),
        ("LayerError", 6),
        ("LatchedError", 7),
        ("AuditError", 1),
        ("WorkerError", 1),
        ("LimitError", 1),
        ("Interrupted", 130),
    ],
)
def test_errors_are_text_and_an_exit_code(
    error: str, code: int, stage: Stage, capfd: pytest.CaptureFixture[str]
) -> None:
    steps: Steps = [["token", "half"], ["raise", error, "it \x1b[2J broke"]]
    assert stage.main(steps, "ask", *MODEL, "Q") == code
    out, err = capfd.readouterr()
    assert out == "half\n"
    assert err.endswith("anchorhold: it \\x1b[2J broke\n")
    assert "⚓ seen: nothing" in err
    assert stage.record[-1] == "close failed"


def test_where_the_receipt_cannot_go_no_model_is_asked(
    stage: Stage, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = stage.folder
    (folder / "link").symlink_to(folder / "target")
    places = {"/nonexistent/x.json": 1, str(folder): 2, "": 2, str(folder / "link"): 2, "/dev/fd/999": 1}
    places |= {"/proc/x.json": 1, str(folder / "none/x.json"): 1}
    with (folder / "model.gguf").open("rb") as file:
        places[f"/dev/fd/{file.fileno()}"] = 1  # open for reading
        for place, code in places.items():
            assert stage.main(ANSWER, "ask", *MODEL, "--receipt", place, "Q") == code, place
            assert capfd.readouterr().out == "" and stage.record == [], place
    assert sorted(path.name for path in folder.iterdir()) == ["link", "model.gguf"]


def test_a_failed_start(stage: Stage, capfd: pytest.CaptureFixture[str]) -> None:
    assert stage.main([["start-raises", "LayerError", "no netns"]], "ask", *MODEL, "Q") == 6
    assert capfd.readouterr().err == "anchorhold: no netns\nwhat to do\n"
    assert stage.record[-1] == "close failed"


def test_a_worker_without_end(
    stage: Stage, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cell, "MOST_ANSWER", 10)
    monkeypatch.setattr(cell, "MOST_DOCUMENTS", 2)
    assert stage.main([["tokens", "abc", 1000]], "ask", *MODEL, "Q") == 1
    out, err = capfd.readouterr()
    assert out == "abcabcabc\n" and "answer without end" in err
    for many in ([["document", "/a", "used", "", 0]] * 3, [["unused", ["/a"] * 3, ""]]):
        assert stage.main(many, "ask", *MODEL, "Q") == 1
        assert "reports files without end" in capfd.readouterr().err


def test_many_skipped_files_are_summed_up_and_late_ones_wait(
    stage: Stage, capfd: pytest.CaptureFixture[str]
) -> None:
    steps: Steps = [["document", f"/n/{n}\n", "skipped", "", 0] for n in range(25)]
    steps += [["token", "x"], ["phase", "late"], ["progress", "late", 1, 2], *steps[:1], ["done", "stop"]]
    assert stage.main(steps, "ask", *MODEL, "Q") == 0
    lines = capfd.readouterr().err.splitlines()
    assert lines[0] == 'skipped: "/n/0\\n": no reason given'
    assert lines[20] == "skipped: … and 6 more"


def test_options_reach_the_request(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    (stage.folder / "n").mkdir()
    (stage.folder / "n" / "a.pdf").touch()
    seen: list[Any] = []
    done = Done("stop", 1, 1, 0.1, 0.1, [])

    def ask(self: Any, request: Any) -> Iterator[Done]:
        seen.append((request, self.policy))
        yield done

    monkeypatch.setattr(stage.standin.Player, "ask", ask)
    options = ["--max-tokens", "7", "--temperature", "0", "--seed", "5", "--system", "Be brief."]
    options += ["--file", "n/a.pdf", "--file", f"{stage.folder}/n/a.pdf", "--require", "seccomp, landlock"]
    assert stage.main([], "ask", *MODEL, "--data", "n", *options, "Q") == 0
    request, policy = seen[0]
    assert request.question == "Q" and request.max_tokens == 7 and request.temperature == 0
    assert request.seed == 5 and request.system == "Be brief." and list(request.history) == []
    assert list(request.files) == [str(stage.folder / "n" / "a.pdf")]
    assert list(policy.data.read) == [str(stage.folder / "n")]
    assert stage.record[0] == "suffixes .pdf"


@pytest.mark.parametrize(
    "wrong",
    [
        ["--bogus", "Q"],
        ["--max-tokens", "0", "Q"],
        ["--temperature", "nan", "Q"],
        ["--temperature", "-1", "Q"],
        ["--seed", "-1", "Q"],
        ["Q", "and more"],
        ["--policy", "missing.toml", "Q"],
    ],
)
def test_wrong_usage(wrong: list[str], stage: Stage, capfd: pytest.CaptureFixture[str]) -> None:
    assert stage.main([], "ask", *MODEL, *wrong) == 2
    out, err = capfd.readouterr()
    assert out == "" and err and "Traceback" not in err
    assert stage.record == []


def run_with_input(
    stage: Stage, data: bytes | None, *arguments: str, steps: Steps = ANSWER
) -> tuple[int, str]:
    child = stage.child(steps, "ask", *MODEL, *arguments, stdin="null" if data is None else "pipe")
    if data is not None and child.process.stdin is not None:
        child.process.stdin.write(data)
        child.process.stdin.close()
    code = child.wait()
    asked = [line for line in stage.record if line.startswith("ask ")]
    return code, asked[0] if asked else child.stderr.decode()


def test_standard_input(stage: Stage) -> None:
    assert run_with_input(stage, b"material", "Q") == (0, 'ask ["Q", "material", []]')
    (stage.folder / "record").unlink()
    assert run_with_input(stage, None, "Q") == (0, 'ask ["Q", null, []]')
    (stage.folder / "record").unlink()
    assert run_with_input(stage, b"the question\n") == (0, 'ask ["the question", null, []]')
    (stage.folder / "record").unlink()
    assert run_with_input(stage, b"x", "--file", "-", "Q") == (0, 'ask ["Q", "x", []]')
    (stage.folder / "record").unlink()
    code, error = run_with_input(stage, None)
    assert code == 2 and "no question" in error


def test_the_descriptors_of_a_closed_shell(stage: Stage) -> None:
    """``<&- >&- 2>&-``: no hang, no answer in the log, an exit code."""
    script = stage.script(*ANSWER)
    standin = Path(str(stage.standin.__file__))
    line = '"$@" <&- >&- 2>&-; echo $? > code'
    import sys

    command = ["sh", "-c", line, "sh", sys.executable, str(standin), str(script), "record", "ask"]
    stage.start([*command, *MODEL, "Q"], stage.env).wait()
    assert (stage.folder / "code").read_text() == "1\n"
    assert stage.record[-1] == "close failed"
    for path in (stage.folder / "state").rglob("*"):
        assert not path.is_file() or b"harbour" not in path.read_bytes()


def test_a_pipe_has_the_raw_text_and_a_terminal_the_safe_one(stage: Stage) -> None:
    steps: Steps = [*(["token", piece] for piece in HOSTILE), ["done", "stop"]]
    piped = stage.child(steps, "ask", *MODEL, "Q")
    assert piped.wait() == 0
    assert piped.stdout == "".join(HOSTILE).encode() + b"\n"
    shown = stage.child(steps, "ask", *MODEL, "Q", stdin="tty", stdout="tty", stderr="tty")
    assert shown.wait() == 0
    screen = shown.screen.decode()
    assert "\\x1b[31mred\\x9b2J\\u202e\r\nover\\x0dwrite \\u2693 seen: forged" in screen
    assert screen.count("⚓ seen:") == 1
    before = screen[: screen.index("red")]
    assert before.endswith("\r\x1b[K\\x1b[31m")  # the only sequences are our own: the progress line
    assert "\x9b" not in screen and "\u202e" not in screen


def test_no_color_and_a_dumb_terminal(stage: Stage) -> None:
    coloured = stage.child(ANSWER, "ask", *MODEL, "Q", stdout="tty", stderr="tty")
    assert coloured.wait() == 0
    assert "\x1b[2m⚓ from".encode() in coloured.screen
    plain = stage.child(ANSWER, "ask", *MODEL, "Q", stdout="tty", stderr="tty", env={"NO_COLOR": "1"})
    assert plain.wait() == 0
    assert b"\x1b[2m" not in plain.screen
    dumb = stage.child(ANSWER, "ask", *MODEL, "Q", stdout="tty", stderr="tty", env={"TERM": "dumb"})
    assert dumb.wait() == 0
    assert b"\x1b" not in dumb.screen


def test_progress_is_erased_before_the_answer(stage: Stage) -> None:
    steps: Steps = [["progress", "load", 1, 2], ["sleep", 0.2], *ANSWER[2:]]
    child = stage.child(steps, "ask", *MODEL, "Q", stdout="tty", stderr="tty")
    assert child.wait() == 0
    shown = child.screen.decode()
    assert "building the cell …\r\x1b[K" in shown
    assert "loading the model 1/2 …\r\x1b[K" in shown
    assert shown[: shown.index("The har")].endswith("\r\x1b[Kskipped: /notes/c.pdf: encrypted\r\n")


WAITING: Steps = [["token", "half"], ["sleep", 25], ["token", " and half"], ["done", "stop"]]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_kills_closes_and_ends_with_130(number: int, stage: Stage) -> None:
    child = stage.child(WAITING, "ask", *MODEL, "Q")
    stage.until_recorded("asleep")
    child.signal(number)
    assert child.wait() == 130
    assert child.stdout == b"half\n"
    error = child.stderr.decode()
    assert "the model is killed and the log closed" in error
    assert "⚓ seen:" in error and "Traceback" not in error
    assert [line.split()[0] for line in stage.record[-2:]] == ["kill", "close"]
    assert stage.record[-1] == "close interrupted"


def test_ctrl_c_typed_on_a_terminal(stage: Stage) -> None:
    child = stage.child(WAITING, "ask", *MODEL, "Q", stdin="tty", stdout="tty", stderr="tty")
    stage.until_recorded("asleep")
    child.type("\x03")
    assert child.wait() == 130
    assert stage.record[-1] == "close interrupted"
    assert b"Traceback" not in child.screen


def test_ctrl_c_while_the_cell_is_built(stage: Stage) -> None:
    child = stage.child([["start-sleeps", 25]], "ask", *MODEL, "Q")
    stage.until_recorded("start")
    child.signal(signal.SIGINT)
    assert child.wait() == 130
    assert [line.split()[0] for line in stage.record] == ["suffixes", "start", "kill", "close"]


def test_ctrl_c_while_a_question_is_read(stage: Stage) -> None:
    child = stage.child(ANSWER, "ask", *MODEL, stdin="tty")
    child.expect("Type the question")
    child.type("half a question\x03")
    assert child.wait() == 130
    assert b"Traceback" not in child.stderr


def test_the_second_ctrl_c_leaves_at_once(stage: Stage) -> None:
    child = stage.child([*WAITING, ["close-sleeps", 25]], "ask", *MODEL, "Q")
    stage.until_recorded("asleep")
    child.signal(signal.SIGINT)
    stage.until_recorded("close interrupted")
    assert child.process.poll() is None
    child.signal(signal.SIGINT)
    assert child.wait() == 130
    assert b"Traceback" not in child.stderr


def test_a_signal_after_the_answer_still_lets_the_log_be_closed(stage: Stage) -> None:
    child = stage.child([*ANSWER, ["close-sleeps", 1]], "ask", *MODEL, "Q")
    stage.until_recorded("close done")
    child.signal(signal.SIGTERM)
    assert child.wait() == 130
    assert "⚓ seen:" in child.stderr.decode()  # written after the log was closed


def test_an_ignored_signal_stays_ignored(stage: Stage) -> None:
    steps: Steps = [["sleep", 1], *ANSWER]
    child = stage.child(steps, "ask", *MODEL, "Q", ignored=(signal.SIGHUP, signal.SIGINT))
    stage.until_recorded("asleep")
    child.signal(signal.SIGHUP)
    child.signal(signal.SIGINT)
    assert child.wait() == 0
    assert child.stdout == b"The harbour.\n"


def test_a_reader_that_leaves_in_the_middle(stage: Stage) -> None:
    child = stage.child([["tokens", "x" * 1000, 100_000], ["done", "stop"]], "ask", *MODEL, "Q")
    child.expect("xxx")
    assert child.process.stdout is not None
    child.process.stdout.close()
    assert child.wait() == 130
    assert "anchorhold:" not in child.stderr.decode()
    assert stage.record[-1].startswith("close")


def test_a_reader_that_leaves_before_the_first_token_is_noticed(stage: Stage) -> None:
    child = stage.child([["sleep", 25], ["token", "late"]], "ask", *MODEL, "Q")
    stage.until_recorded("asleep")
    assert child.process.stdout is not None
    child.process.stdout.close()
    assert child.wait() == 130
    assert stage.record[-2:] == [
        "kill nobody reads the answer any more (closed pipe)",
        "close interrupted",
    ]


def test_a_reader_that_stopped_reading_does_not_hold_ctrl_c(stage: Stage) -> None:
    child = stage.child([["tokens", "x" * 1024, 100_000]], "ask", *MODEL, "Q", stderr="null")
    stage.until_recorded('ask ["Q", null, []]')
    import time

    time.sleep(0.3)  # long enough to fill the pipe
    child.signal(signal.SIGINT)
    child.process.wait(10)
    assert child.process.returncode == 130
    assert stage.record[-1] == "close interrupted"


def test_a_full_disk_under_the_answer(stage: Stage) -> None:
    import sys

    script = stage.script(*ANSWER)
    command = ["sh", "-c", '"$@" > /dev/full', "sh", sys.executable, str(stage.standin.__file__), str(script)]
    child = stage.start([*command, "record", "ask", *MODEL, "Q"], stage.env)
    assert child.wait() == 1
    assert "cannot write the answer to standard output: No space left" in child.stderr.decode()
    assert stage.record[-1] == "close failed"


def test_an_unexpected_error_is_one_line(
    stage: Stage, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: Steps = [["raise", "ZeroDivisionError", "odd \x1b"]]
    monkeypatch.delenv("ANCHORHOLD_DEBUG", raising=False)
    assert stage.main(steps, "ask", *MODEL, "Q") == 1
    error = capfd.readouterr().err
    assert "anchorhold: unexpected ZeroDivisionError: odd \\x1b\n" in error
    assert "ANCHORHOLD_DEBUG=1" in error and "Traceback" not in error
    assert stage.record[-1] == "close failed"
    monkeypatch.setenv("ANCHORHOLD_DEBUG", "1")
    assert stage.main(steps, "ask", *MODEL, "Q") == 1
    error = capfd.readouterr().err
    assert "Traceback" in error and "\x1b" not in error


def test_two_runs_at_once_share_a_state_folder(stage: Stage) -> None:
    children = [stage.child(ANSWER, "ask", *MODEL, "Q") for _ in range(2)]
    assert [child.wait() for child in children] == [0, 0]
    assert os.path.isdir(stage.folder / "state")


@pytest.mark.parametrize("empty", ["", "   ", "\n"])
def test_an_empty_question_is_none(stage: Stage, capfd: pytest.CaptureFixture[str], empty: str) -> None:
    assert stage.main([["done", "stop"]], "ask", *MODEL, empty) == 2
    assert "no question" in capfd.readouterr().err and stage.record == []


def test_a_question_on_standard_input_leaves_nothing_to_say_of_it(stage: Stage) -> None:
    child = stage.child([["token", "x"], ["done", "stop"]], "ask", *MODEL, stdin="pipe")
    assert child.process.stdin is not None
    child.process.stdin.write(b"What?")
    child.process.stdin.close()
    assert child.wait() == 0
    assert b"standard input" not in child.stderr
    refused = stage.child([["done", "stop"]], "ask", *MODEL, "--file", "-", stdin="pipe")
    assert refused.process.stdin is not None
    refused.process.stdin.close()
    assert refused.wait() == 2 and b"needs the question as an argument" in refused.stderr


def test_witnesses_get_heads_while_it_runs_and_nobody_waits_for_one_that_hangs(stage: Stage) -> None:
    heads, program, policy = stage.folder / "heads", stage.folder / "hangs", stage.folder / "p.toml"
    heads.mkdir()
    program.write_text("#!/bin/sh\nexec sleep 1000\n")
    program.chmod(0o755)
    policy.write_text(
        f'version = 1\nname = "p"\n[model]\npath = "{stage.folder}/model.gguf"\n'
        f'[audit]\nwitness = ["command:{program}", "folder:{heads}"]\n'
    )
    child = stage.child(
        [["token", "Yes."], ["sleep", 1.0], ["done", "stop"]], "ask", "--policy", str(policy), "What?"
    )
    stage.until_recorded("asleep")
    end = time.monotonic() + 20
    while not list(heads.glob("*.txt")):  # before the answer has ended
        assert time.monotonic() < end
        time.sleep(0.01)
    assert b"seen:" not in child.stderr
    begun = time.monotonic()
    assert child.wait() == 0
    assert time.monotonic() - begun < 15
    text = child.stderr.decode()
    assert child.stdout == b"Yes.\n"
    assert "warning: witness command:" in text and "had not ended and was stopped" in text
    assert text.index("seen:") < text.index("warning:")  # nobody waits for the end of the answer
