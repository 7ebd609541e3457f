"""``anchorhold audit list``: which data did the model see?"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from anchorhold.audit.index.build import rebuild
from anchorhold.audit.index.filters import Filter
from anchorhold.audit.index.find import find
from anchorhold.audit.index.schema import path_of
from anchorhold.audit.log import Log
from tests.unit.audit.logs import GRANT, session
from tests.unit.cli.runs import DAEMON, FIRST, HOSTILE, LETTER, SECOND, Run, runner, two_runs


@pytest.fixture
def state(state_dir: Path, tmp_path: Path) -> Path:
    (tmp_path / "letter.txt").write_bytes(LETTER)
    two_runs(state_dir)
    return state_dir


@pytest.fixture(params=["scan", "index"])
def run(
    state: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> Run:
    """With an index, and without one."""
    if request.param == "index":
        monkeypatch.setattr("anchorhold.audit.index.find.FEW", 0)
        rebuild(state)
    return runner(state, capfd)


FILTERS: list[tuple[list[str], int]] = [
    (["--digest", "abab"], 4),
    (["--digest", "ABAB"], 4),
    (["--class", "data"], 7),
    (["--class", "runtime"], 1),
    (["--request", f"{FIRST}-2"], 1),
    (["--request", f"{FIRST}-3"], 0),
    (["--request", "cccc-1"], 0),
    (["--session", "cccc"], 0),
    (["--model", "efef"], 7),
    (["--model", "*.gguf"], 7),
    (["--model", "/models"], 7),
    (["--model", "nobody"], 0),
    (["--session", SECOND], 7),
    (["--session", "aaaa", "--kind", "grant"], 5),
    (["--refused"], 2),
    (["--refused", "--kind", "breach"], 1),
    (["--refused", "--kind", "grant"], 0),
    (["--last", "3"], 3),
    (["--limit", "2", "--kind", "grant"], 2),
    (["--class", "data", "--last", "1", "--session", FIRST], 1),
    (["--path", "/etc"], 1),
    (["--path", "*"], 9),
    (["--path", "letter", "--class", "data"], 2),
    (["--since", "-1h", "--refused"], 2),
    (["--until", "-1h"], 0),
]


@pytest.mark.parametrize(("arguments", "count"), FILTERS, ids=[" ".join(one) for one, _ in FILTERS])
def test_filters(run: Run, arguments: list[str], count: int) -> None:
    code, out, err = run("list", "--json", *arguments)
    assert (code, err) == (0, "" if count else "no entry matches\n")
    found = [json.loads(line) for line in out.splitlines()]
    assert len(found) == count
    assert [entry["seq"] for entry in found] == sorted(entry["seq"] for entry in found)
    assert run("list", "--json", "--no-index", *arguments)[:2] == (0, out)


def test_a_listing_that_left_names_out_is_among_what_was_refused(
    state: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the model was not told of a folder was refused to it; of Python's own folders nothing was."""
    log = Log.open(state)
    third = "cccc333300000000"
    session(log, third, 0, end=False)
    for cls, hidden in (("data", 2), ("data", 0), ("runtime", 5), ("data", "x"), ("data", True)):
        log.append(
            "list", third, {"path": "/a", "resolved": "/a", "class": cls, "listed": 1, "hidden": hidden}
        )
    log.checkpoint()
    log.close()
    rebuild(state)
    found = [json.loads(line) for line in run("list", "--refused", "--json")[1].splitlines()]
    assert [(entry["kind"], entry.get("hidden")) for entry in found] == [
        ("denial", None),
        ("breach", None),
        ("list", 2),
    ]
    for arguments in (["--kind", "list"], ["--class", "data"], ["--session", third]):
        out = run("list", "--refused", "--json", *arguments)[1]
        assert [json.loads(line)["hidden"] for line in out.splitlines()] == [2], arguments
        assert run("list", "--refused", "--json", "--no-index", *arguments)[1] == out
    assert "left out  2 names of listings" in run("show", third)[1]


def test_has_a_model_seen_this_file(run: Run, tmp_path: Path) -> None:
    code, out, _ = run("list", "--json", "--file", str(tmp_path / "letter.txt"))
    assert code == 0 and [json.loads(line)["request"] for line in out.splitlines()] == [f"{FIRST}-2"]
    (tmp_path / "other").write_bytes(b"never shown")
    assert run("list", "--file", str(tmp_path / "other")) == (0, "", "no entry matches\n")
    digest = hashlib.sha256(LETTER).hexdigest()
    assert run("list", "--json", "--file", str(tmp_path / "letter.txt"), "--digest", digest[:9])[1] == out
    assert run("list", "--file", str(tmp_path / "letter.txt"), "--digest", "abab")[1] == ""


def test_first_and_last(run: Run) -> None:
    whole = run("list", "--json")[1].splitlines()
    assert run("list", "--json", "--limit", "3")[1].splitlines() == whole[:3]
    assert run("list", "--json", "--last", "3")[1].splitlines() == whole[-3:]
    assert run("list", "--json", "--no-index", "--last", "3")[1].splitlines() == whole[-3:]
    assert run("list", "--json", "--last", "999")[1].splitlines() == whole


def test_csv_is_safe_and_stable(run: Run) -> None:
    code, out, _ = run("list", "--csv", "--session", SECOND)
    rows = list(csv.DictReader(io.StringIO(out)))
    assert code == 0 and len(rows) == 7 and out.isascii()
    assert list(rows[0])[:8] == ["epoch", "seq", "time", "session", "n", "kind", "class", "path"]
    assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r")) for row in rows for cell in row.values())


def test_wrong_words(run: Run) -> None:
    for arguments, words in (
        (["--json", "--csv"], "exclude each other"),
        (["--limit", "1", "--last", "1"], "exclude each other"),
        (["--digest", "xyz"], "is no digest"),
        (["--file", "/nonexistent"], "cannot be read"),
        (["--limit", "0"], "--limit"),
        (["--request", "99"], "'99' is no request"),
        (["--request", "nothing"], "'nothing' is no request"),
        (["--request", FIRST], f"'{FIRST}' is no request"),
        (["--request", f"{FIRST}-0"], "is no request"),
        (["--request", f"{FIRST}0-1"], "is no request"),
        (["--request", f"{FIRST}-2\n"], "is no request"),
        (["--session", "nothing"], "'nothing' is no session"),
        (["--session", f"{FIRST}-2"], "is no session"),
        (["--session", ""], "is no session"),
    ):
        code, out, err = run("list", *arguments)
        assert (code, out) == (1 if words == "cannot be read" else 2, "") and words in err, arguments


def test_what_is_new_is_listed_with_the_rest(run: Run, state: Path) -> None:
    log = Log.open(state)
    log.append("grant", FIRST, {**GRANT, "path": "/settled"})
    log.checkpoint()
    log.append("grant", FIRST, {**GRANT, "path": "/in a journal"})
    _, out, _ = run("list", "--json", "--session", FIRST, "--last", "2")
    log.close()
    assert [json.loads(line)["path"] for line in out.splitlines()] == ["/settled", "/in a journal"]


@pytest.mark.parametrize("content", [b"", b"no database", b"SQLite format 3\0" + bytes(5000)])
def test_a_damaged_index_is_told_and_not_needed(run: Run, state: Path, content: bytes) -> None:
    wanted = run("list", "--json", "--no-index")[1]
    Path(path_of(state)).write_bytes(content)
    code, out, err = run("list", "--json")
    assert (code, out) == (0, wanted)
    assert err.count("\n") <= 1 and ("index" in err or not err)
    assert run("list", "--json") == (0, wanted, "")


def test_a_copy_that_cannot_be_written(open_tmp: Path, unprivileged: Any) -> None:
    """Another user, a read-only place: the answers are those of the log."""
    two_runs(open_tmp / "state")
    for path in [open_tmp / "state", *(open_tmp / "state").rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    arguments = ["--state-dir", open_tmp / "state", "audit", "list", "--json", "--path", "letter"]
    done = unprivileged(
        sys.executable, "-m", "anchorhold", *arguments, env={"PYTHONPATH": str(DAEMON)}, cwd=open_tmp
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 2
    assert not os.path.lexists(path_of(open_tmp / "state"))


def test_a_log_that_this_user_may_not_read_is_no_defect(open_tmp: Path, unprivileged: Any) -> None:
    two_runs(open_tmp / "state")
    commands = (
        ["list"], ["list", "--no-index"], ["key"], ["top"], ["tail"], ["verify"],
        ["report", "--html", str(open_tmp / "r.html")],
    )  # fmt: skip

    def refused(command: list[str]) -> str:
        done = unprivileged(
            sys.executable, "-m", "anchorhold", "--state-dir", open_tmp / "state", "audit", *command,
            env={"PYTHONPATH": str(DAEMON)}, cwd=open_tmp,
        )  # fmt: skip
        assert (done.returncode, done.stdout) == (1, ""), command
        return str(done.stderr)

    for closed in ("state/log", "state"):
        (open_tmp / closed).chmod(0o700)
        words = f"anchorhold: the audit log at {open_tmp / 'state/log'} cannot be read: Permission denied\n"
        assert [refused(command) for command in commands] == [words] * len(commands)
    for path in (open_tmp / "state", open_tmp / "state/log"):
        path.chmod(0o755)
    (open_tmp / "state/log/state").chmod(0o600)  # one file of it alone
    (open_tmp / "state/log/journal").chmod(0o755)
    for command in (["list"], ["verify"]):
        said = refused(command)
        assert "log cannot be read: " in said and "log/state: Permission denied" in said, said
        assert "owner and mode" in said


def test_nothing_is_imported_that_one_answer_does_not_need(state: Path, unmeasured: None) -> None:
    code = (
        "import sys; from anchorhold.cli.main import main; main(sys.argv[1:]); "
        "print(*sorted(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "--state-dir", str(state), "audit", "list", "--path", "letter"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(DAEMON)},
        timeout=30,
        check=True,
    )
    loaded = set(done.stderr.split())
    assert "anchorhold.audit.index.find" in loaded
    assert (
        not {
            "cryptography",
            "subprocess",
            "hashlib.file_digest",
            "anchorhold.audit.log",
            "anchorhold.cli.proof",
            "anchorhold.cli.export",
            "anchorhold.cli.report",
            "anchorhold.audit.export",
        }
        & loaded
    )


def test_colour_is_for_terminals_that_want_it(stage: Any) -> None:
    two_runs(stage.folder / "state")
    shown = stage.child([], "audit", "list", "--refused", stdout="tty")
    assert shown.wait() == 0
    assert b"\x1b[2m     SEQ" in shown.screen and b"\x1b[31m" in shown.screen
    for env in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        plain = stage.child([], "audit", "list", "--refused", stdout="tty", env=env)
        assert plain.wait() == 0 and b"denial" in plain.screen and b"\x1b" not in plain.screen
    piped = stage.child([], "audit", "list")
    assert piped.wait() == 0 and b"\x1b" not in piped.stdout and b"denial" in piped.stdout


def test_hostile_names_do_nothing_to_a_terminal(stage: Any) -> None:
    two_runs(stage.folder / "state")
    for arguments in (["list"], ["list", "--json"], ["list", "--csv"], ["diff"], ["top"], ["tail"]):
        child = stage.child([], "audit", *arguments, stdout="tty", env={"NO_COLOR": "1"})
        assert child.wait() == 0
        screen = child.screen.decode()
        assert "\x1b" not in screen and "\u202e" not in screen and "calc" in screen, arguments


def test_the_hostile_name_would_do_it(state: Path) -> None:
    """The test above can fail: the name is in the log as it is."""
    assert any(entry.get("path") == HOSTILE for entry in find(state, Filter(path=HOSTILE.rpartition("/")[2])))
