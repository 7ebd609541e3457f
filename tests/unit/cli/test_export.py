"""``anchorhold audit export`` through the whole command line."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from anchorhold.audit.export import FORMATS
from anchorhold.audit.export.text import unescape
from anchorhold.audit.log import Log
from anchorhold.cli import export as module
from anchorhold.cli.main import main
from tests.unit.audit.logs import session

HOSTILE = '/home/a/\x1b]0;owned\x07\x1b[2J\u202eexe.fdp\n  7  2026-01-01 forged\udcff\x9b31m,;=1|"'

Answer = tuple[int, bytes, str]


@pytest.fixture
def state(state_dir: Path) -> Path:
    log = Log.open(state_dir)
    session(log, "aaaa111100000000", 20)
    session(log, "aaaa222200000000", 2, end=False)
    log.append(
        "grant",
        "aaaa222200000000",
        {"class": "data", "path": HOSTILE, "resolved": "/home/a/\x1b[31m", "size": 1},
    )
    log.append(
        "denial",
        "aaaa222200000000",
        {"call": "openat", "path": "/etc/passwd", "reason": "outside", "count": 3},
    )
    log.append("breach", "aaaa222200000000", {"call": "openat", "path": "/etc/shadow", "reason": "outside"})
    log.checkpoint()
    log.close()
    return state_dir


@pytest.fixture
def run(state: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> Callable[..., Answer]:
    def run(*arguments: str) -> Answer:
        code = main(["--state-dir", str(state), "audit", "export", *arguments])
        out, err = capfdbinary.readouterr()
        return code, out, err.decode()

    return run


ALL = 1 + 26 + 7 + 3


@pytest.mark.parametrize("form", FORMATS)
def test_each_format_has_a_line_for_each_entry(run: Callable[..., Answer], form: str) -> None:
    code, out, err = run("--format", form)
    assert (code, err) == (0, "")
    lines = out.decode("utf-8").splitlines()
    assert len(lines) == ALL + (form == "csv")
    assert all(line.isprintable() for line in lines)


def test_json_lines_are_the_entries(run: Callable[..., Answer]) -> None:
    _code, out, _err = run("--format", "jsonl")
    entries = [json.loads(line) for line in out.splitlines()]
    assert [entry["seq"] for entry in entries] == list(range(ALL))
    (hostile,) = [entry for entry in entries if entry.get("path") == HOSTILE]
    assert hostile["size"] == 1


def test_csv_and_ocsf_and_cef_name_the_file(run: Callable[..., Answer]) -> None:
    _code, out, _err = run("--format", "csv")
    paths = [unescape(row["path"]) for row in csv.DictReader(io.StringIO(out.decode(), newline=""))]
    assert paths.count(HOSTILE) == 1
    _code, out, _err = run("--format", "ocsf", "--kind", "breach")
    (event,) = [json.loads(line) for line in out.splitlines()]
    assert (event["class_uid"], event["evidences"][0]["file"]["path"]) == (2004, "/etc/shadow")
    _code, out, _err = run("--format", "cef", "--kind", "denial")
    assert b" filePath=/etc/passwd " in out and b" cnt=3 " in out


def test_filters(run: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch) -> None:
    def count(*arguments: str) -> int:
        code, out, err = run("--format", "jsonl", *arguments)
        assert (code, err) == (0, "")
        return len(out.splitlines())

    assert count("--session", "aaaa111100000000") == 26
    assert count("--kind", "denial", "--kind", "breach") == 2
    assert count("--path", "/etc") == 2
    assert count("--since", "-1h") == ALL
    assert count("--until", "-1h") == 0
    monkeypatch.chdir("/etc")
    assert count("--path", "./passwd") == 1


@pytest.mark.parametrize("form", FORMATS)
def test_where_there_is_no_log_nothing_is_written(
    form: str, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """A heading alone would look like a log without entries."""
    assert main(["--state-dir", str(tmp_path / "none"), "audit", "export", "--format", form]) == 1
    out, err = capfdbinary.readouterr()
    assert out == b"" and b"there is no audit log" in err


def test_nothing_matches(run: Callable[..., Answer]) -> None:
    assert run("--format", "jsonl", "--session", "f")[:2] == (0, b"")
    assert run("--format", "csv", "--session", "f")[1].startswith(b'"epoch","seq"')


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "--format"),
        (["--format", "xml"], "xml"),
        (["--format", "csv", "--kind", "grants"], "'grants'"),
        (["--format", "csv", "--since", "yesterday"], "is no time"),
    ],
)
def test_mistakes(run: Callable[..., Answer], tmp_path: Path, arguments: list[str], said: str) -> None:
    code, out, err = run(*arguments, "-o", str(tmp_path / "out"))
    assert (code, out) == (2, b"") and said in err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("form", FORMATS)
def test_a_file_holds_what_standard_output_would(
    run: Callable[..., Answer], tmp_path: Path, form: str
) -> None:
    file = tmp_path / "out"
    assert run("--format", form, "-o", str(file)) == (0, b"", "")
    assert file.read_bytes() == run("--format", form)[1] == run("--format", form, "-o", "-")[1]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_file_is_replaced_whole_and_a_link_stays_a_link(run: Callable[..., Answer], tmp_path: Path) -> None:
    old, link = tmp_path / "old", tmp_path / "link"
    old.write_text("old")
    link.symlink_to(old)
    assert run("--format", "jsonl", "-o", str(link))[0] == 0
    assert link.is_symlink() and len(old.read_bytes().splitlines()) == ALL


def test_an_entry_that_cannot_be_read_leaves_the_last_export(
    run: Callable[..., Answer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from anchorhold.audit import query
    from anchorhold.errors import AuditError

    real = query.entries

    def damaged(*arguments: object, **options: object) -> object:
        for number, entry in enumerate(real(*arguments, **options)):  # type: ignore[arg-type]
            if number == 9:
                raise AuditError("entry 9 of the audit log cannot be read")
            yield entry

    monkeypatch.setattr(query, "entries", damaged)
    file = tmp_path / "out"
    file.write_text("last good")
    code, out, err = run("--format", "jsonl", "-o", str(file))
    assert (code, out) == (1, b"") and "entry 9 " in err
    assert file.read_text() == "last good"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "state"]
    code, out, err = run("--format", "jsonl")
    assert code == 1 and len(out.splitlines()) == 9  # what is before it


def test_a_pipe_gets_the_lines_as_they_come(run: Callable[..., Answer], tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    assert run("--format", "jsonl", "-o", str(pipe))[0] == 0
    reader.join(20)
    assert len(read[0].splitlines()) == ALL and stat.S_ISFIFO(pipe.stat().st_mode)


@pytest.mark.parametrize("name", ["gone/out", "", "state"])
def test_a_file_that_cannot_be_written(run: Callable[..., Answer], tmp_path: Path, name: str) -> None:
    code, out, err = run("--format", "jsonl", "-o", str(tmp_path / name))
    assert (code, out) == (1, b"") and "cannot be written" in err and "Traceback" not in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["state"]


def test_no_space_left(state: Path) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "anchorhold", "--state-dir", state, "audit", "export", "--format", "csv"],
            stdout=full,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(Path(module.__file__).parents[2])},
            timeout=30,
        )
    assert done.returncode == 1 and b"No space left" in done.stderr and b"Traceback" not in done.stderr
    assert main(["--state-dir", str(state), "audit", "export", "--format", "csv", "-o", "/dev/full"]) == 1


def test_no_log_yet(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "out"
    assert main(["--state-dir", str(tmp_path), "audit", "export", "--format", "csv", "-o", str(file)]) == 1
    assert "there is no audit log" in capfd.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("form", FORMATS)
def test_a_terminal_is_sent_nothing_it_obeys(state: Path, form: str) -> None:
    """In an ASCII locale, too, where UTF-8 could come out as controls."""
    log = Log.open(state)
    log.append("grant", "aaaa222200000000", {"class": "data", "path": "/home/a/\u011b\u009b", "size": 1})
    log.close()
    controller, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "anchorhold", "--state-dir", state, "audit", "export", "--format", form],
        stdin=subprocess.DEVNULL,
        stdout=terminal,
        env={**os.environ, "PYTHONPATH": str(Path(module.__file__).parents[2]), "LC_ALL": "POSIX",
             "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
    )  # fmt: skip
    os.close(terminal)
    data = b""
    try:
        while chunk := os.read(controller, 1 << 16):
            data += chunk
    except OSError:  # EIO: the other end is closed
        pass
    finally:
        os.close(controller)
    assert process.wait(30) == 0
    assert b"/home/a/" in data and data.isascii()
    assert all(line.decode("ascii").isprintable() for line in data.splitlines())


def test_the_formats_are_those_of_the_package() -> None:
    assert module.FORMATS == FORMATS
