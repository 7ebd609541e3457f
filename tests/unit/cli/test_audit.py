"""``anchorhold audit list | show | verify`` through the whole command line."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from anchorhold.audit.log import Log
from anchorhold.cli.main import main
from anchorhold.cli.selection import moment
from tests.unit.audit.logs import session

HOSTILE = "/home/a/\x1b]0;owned\x07\x1b[2J\u202eexe.fdp\n  7  2026-01-01 forged\udcff\x9b31m"

FIRST, SECOND = "aaaa111100000000", "aaaa222200000000"
Answer = tuple[int, str, str]


@pytest.fixture
def state(state_dir: Path) -> Path:
    log = Log.open(state_dir)
    session(log, FIRST, 20)
    session(log, SECOND, 2, end=False)
    log.append("grant", SECOND, {"class": "data", "path": HOSTILE, "resolved": "/home/a/\x1b[31m", "size": 1})
    log.append("denial", SECOND, {"call": "openat", "path": "/etc/passwd", "reason": "outside", "count": 3})
    log.append("denial", SECOND, {"call": "socket", "reason": "not \x1b[1m allowed", "count": "x"})
    log.append("policy.load", "", {"note": "y" * 500})
    log.checkpoint()
    log.close()
    return state_dir


@pytest.fixture
def run(state: Path, capfd: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    def run(*arguments: str) -> Answer:
        code = main(["--state-dir", str(state), "audit", *arguments])
        out, err = capfd.readouterr()
        return code, out, err

    return run


def test_list_for_people(run: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setenv("NO_COLOR", "1")
    code, out, err = run("list")
    assert (code, err) == (0, "")
    heading, *lines = out.splitlines()
    assert heading.split() == ["SEQ", "TIME", "(UTC)", "SESSION", "KIND", "WHAT"]
    assert len(lines) == 1 + 26 + 7 + 4
    assert "data /home/a/0 -> /home/a/taxes/2025/roof.pdf" in lines[5]
    assert lines[5].endswith("sha256=abababababab")
    assert "openat /etc/passwd count=3 reason=outside" in out
    assert lines[-1].split()[3:4] == ["-"]
    assert max(map(len, lines)) <= 300


def test_a_narrow_terminal_shows_the_end_of_a_path(
    run: Callable[..., Answer], state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its beginning is the same for all files of a folder: cut at the end, no row would say which it is."""
    log = Log.open(state)
    log.append("grant", SECOND, {"class": "data", "path": "/home/ann/documents/2025/roof.txt", "size": 1})
    log.close()
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    lines = run("list", "--path", "*roof.txt")[1].splitlines()
    assert lines[-1].endswith("data …s/2025/roof.txt …") and max(map(len, lines)) <= 80
    monkeypatch.setenv("COLUMNS", "60")
    lines = run("list")[1].splitlines()
    assert max(map(len, lines)) <= 60


def test_a_pipe_gets_plain_columns_without_a_heading(run: Callable[..., Answer]) -> None:
    code, out, err = run("list")
    rows = [line.split("\t") for line in out.splitlines()]
    assert (code, err) == (0, "") and len(rows) == 1 + 26 + 7 + 4
    assert {len(row) for row in rows} == {7} and [row[0] for row in rows] == [str(at) for at in range(38)]
    seq, time, session, kind, cls, path, rest = rows[5]
    assert (seq, session, kind, cls, path) == ("5", FIRST, "grant", "data", "/home/a/0") and len(time) == 27
    assert "sha256=" + "ab" * 32 in rest.split() and "resolved=/home/a/taxes/2025/roof.pdf" in rest.split()
    assert rows[0][2] == rows[0][4] == rows[0][5] == ""
    assert [row[5] for row in rows if row[3] == "denial"] == ["/etc/passwd", ""]
    assert run("tail", "-n", "1")[1].count("\t") == 6
    assert run("show", FIRST)[1].splitlines()[-1].count("\t") == 6


def test_hostile_paths_are_harmless(run: Callable[..., Answer]) -> None:
    for arguments in (
        ["list"],
        ["show", "34"],
        ["show", "aaaa2222"],
        ["list", "--json"],
        ["show", "34", "--json"],
    ):
        code, out, _ = run(*arguments)
        assert code == 0
        assert out.isascii() or "--json" not in arguments
        assert all(line.replace("\t", "").isprintable() for line in out.splitlines()), arguments
        assert (
            len(
                [
                    line
                    for line in out.splitlines()
                    if "forged" in line and "x1b" not in line and "u001b" not in line
                ]
            )
            == 0
        )


def test_list_as_json_is_the_entries_own_fields(run: Callable[..., Answer], state: Path) -> None:
    code, out, _ = run("list", "--json")
    entries = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [entry["seq"] for entry in entries] == list(range(len(entries)))
    (hostile,) = [entry for entry in entries if entry.get("path") == HOSTILE]
    assert os.fsencode(hostile["path"]) == os.fsencode(HOSTILE)
    assert hostile["n"] == 7


def test_filters(run: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch) -> None:
    def count(*arguments: str) -> int:
        code, out, err = run("list", "--json", *arguments)
        assert (code, err) == (0, "" if out else "no entry matches\n")
        return len(out.splitlines())

    assert count("--session", "aaaa1111") == 26
    assert count("--kind", "denial") == 2
    assert count("--kind", "denial", "--kind", "session.start") == 4
    assert count("--path", "/etc") == 1
    assert count("--path", "passwd") == 1
    assert count("--path", "/home/a/1*", "--session", "aaaa1111") == 11
    assert count("--since", "-1h") == count()
    assert count("--until", "-1h") == 0
    assert count("--since", "2020-01-01", "--until", "2020-12-31T23:59:59Z") == 0
    monkeypatch.setenv("HOME", "/home/a")
    assert count("--path", "~/1", "--kind", "grant") == 2
    assert count("--path", "~", "--kind", "denial") == 0
    monkeypatch.chdir("/etc")
    assert count("--path", "./passwd") == 1
    assert count("--path", "**/etc/*") == 1


def test_a_day_is_included_whole() -> None:
    start, end = moment("2026-01-31"), moment("2026-01-31", end=True)
    assert start is not None and end is not None
    assert (end - start).days == 1
    exact = moment("2026-01-31T00:00", end=True)
    assert exact == start


@pytest.mark.parametrize("text", ["yesterday", "-5x", "2026-13-01", "-999999w", "", "-\u0663d"])
def test_a_time_that_is_none(run: Callable[..., Answer], text: str) -> None:
    code, out, err = run("list", "--since", text)
    assert (code, out) == (2, "")
    assert "is no time" in err and "2026-01-31" in err


def test_show_one_entry(run: Callable[..., Answer]) -> None:
    code, out, _ = run("show", "5")
    assert code == 0
    fields = dict(line.split("\t") for line in out.splitlines())
    assert (fields["seq"], fields["kind"], fields["class"], fields["size"]) == ("5", "grant", "data", "12345")
    code, out, _ = run("show", "5", "--json")
    assert json.loads(out)["seq"] == 5


def test_show_a_session(run: Callable[..., Answer]) -> None:
    code, out, _ = run("show", "aaaa1")
    assert code == 0
    assert "session   aaaa1111" in out
    assert "1 session.end" in out and "no end" not in out
    assert "shown     1 file of class data" in out
    assert "refused   0 requests" in out
    code, out, _ = run("show", "aaaa2222")
    assert "no end" in out
    assert "refused   4 requests" in out  # a count that is no number counts as one
    code, out, _ = run("show", "aaaa2222", "--json")
    assert {json.loads(line)["session"] for line in out.splitlines()} == {SECOND}


@pytest.mark.parametrize("which", ["999999", "bbbb", "", "9" * 40])
def test_show_what_is_not_there(run: Callable[..., Answer], which: str) -> None:
    code, out, err = run("show", which)
    assert (code, out) == (1, "")
    assert "no entry and no session" in err


def test_show_more_than_one(run: Callable[..., Answer]) -> None:
    code, _, err = run("show", "aaaa")
    assert code == 2
    assert "2 sessions begin with 'aaaa'" in err and "aaaa1111" in err


def test_a_session_of_digits(state: Path, run: Callable[..., Answer]) -> None:
    log = Log.open(state)
    session(log, "1234567890123456", 1)
    log.close()
    code, out, _ = run("show", "1234567890")
    assert code == 0 and "session   1234567890123456" in out


def test_verify(run: Callable[..., Answer], state: Path) -> None:
    code, out, err = run("verify")
    assert (code, err) == (0, "")
    assert "the log verifies" in out
    vkey = (state / "log/vkey").read_text().strip()
    code, out, _ = run("verify", "--json", "--key", vkey)
    assert code == 0 and json.loads(out)["ok"] is True


def test_verify_names_the_first_bad_entry(run: Callable[..., Answer], state: Path) -> None:
    (bundle,) = (state / "log/0/tile/entries/000.p").glob("38")
    bundle.write_bytes(bundle.read_bytes().replace(b'"seq":11,"time":"2', b'"seq":11,"time":"3'))
    code, out, err = run("verify")
    assert code == 5
    assert "WRONG    entry 11 (0/tile/entries/000" in out
    assert "entry 11" in err and "does not verify" in err
    code, out, err = run("verify", "--json")
    assert code == 5
    assert json.loads(out)["first_bad"]["seq"] == 11


@pytest.mark.parametrize("command", ["list", "verify"])
def test_no_log_yet(tmp_path: Path, capfd: pytest.CaptureFixture[str], command: str) -> None:
    assert main(["--state-dir", str(tmp_path), "audit", command]) == 1
    assert "there is no audit log" in capfd.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_entry_stops_the_list(run: Callable[..., Answer], state: Path) -> None:
    (bundle,) = (state / "log/0/tile/entries/000.p").glob("38")
    bundle.write_bytes(bundle.read_bytes().replace(b'{"v":2,"seq":9,', b'["v":2,"seq":9,'))
    code, out, err = run("list", "--json")
    assert code == 1
    assert len(out.splitlines()) == 9  # what is before it
    assert "entry 9 " in err and "audit verify" in err


def test_what_is_not_settled_yet_is_listed_too(run: Callable[..., Answer], state: Path) -> None:
    log = Log.open(state)
    log.append("policy.load", "", {"path": "/home/a/fresh.toml"})
    code, out, _ = run("list", "--json", "--kind", "policy.load", "--path", "fresh.toml")
    log.close()
    entry = json.loads(out)
    assert code == 0 and entry["seq"] == 38 and entry["unsettled"] is True


def test_a_kind_that_there_is_not_is_a_mistake(run: Callable[..., Answer]) -> None:
    code, out, err = run("list", "--kind", "grants")
    assert (code, out) == (2, "") and "'grants'" in err and "Kinds: session.start, " in err


def test_a_class_that_there_is_not_is_a_mistake(run: Callable[..., Answer]) -> None:
    code, out, err = run("list", "--class", "foo")
    assert (code, out) == (2, "") and "'foo'" in err and "Classes: data, " in err


def test_the_classes_are_those_of_the_broker() -> None:
    from anchorhold.audit.query import CLASSES
    from tests.support import TOP

    text = "".join(path.read_text() for path in (TOP / "daemon/anchorhold/broker").glob("*.py"))
    assert all(f'"{name}"' in text or name == "stdin" for name in CLASSES)


def test_the_kinds_are_those_of_the_documentation() -> None:
    from anchorhold.audit.query import KINDS
    from tests.support import TOP

    (row,) = [
        line for line in (TOP / "docs/audit-log.md").read_text().splitlines() if line.startswith("| `kind`")
    ]
    assert set(KINDS) == set(row.split("|")[2].replace("`", "").replace(" ", "").split(","))
