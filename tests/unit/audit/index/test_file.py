"""The index's file: what is in it and who may see it, when it goes, and who may change it at one time."""

from __future__ import annotations

import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from anchorhold.audit import redact
from anchorhold.audit.index import find as finding
from anchorhold.audit.index.build import Only, rebuild, update
from anchorhold.audit.index.filters import Filter, scan
from anchorhold.audit.index.find import find
from anchorhold.audit.index.schema import DIRTY, NAME, NEW, Unusable, path_of
from anchorhold.audit.log import Log
from anchorhold.audit.query import entries, path_pattern
from tests.support import TOP
from tests.unit.audit.logs import GRANT, filled, good, session

SECRET = "roof-of-the-neighbour"


def content(state: Path) -> list[tuple[object, ...]]:
    """All that an index says, its own numbers left out."""
    base = sqlite3.connect(path_of(state))
    try:
        found: list[tuple[object, ...]] = base.execute(
            "SELECT seq, time, mono, n, size, request, digest, rest, sessions.name, items FROM entries "
            "JOIN sessions ON sessions.id = entries.session LEFT JOIN forms ON forms.id = entries.form "
            "ORDER BY seq"
        ).fetchall()
        found += base.execute("SELECT * FROM odd").fetchall()
        found += base.execute("SELECT * FROM meta WHERE key != 'sealed' ORDER BY key").fetchall()
        found += base.execute("SELECT * FROM blocks ORDER BY number").fetchall()
        return found
    finally:
        base.close()


def more(state: Path, name: str, grants: int) -> None:
    log = Log.open(state)
    session(log, name, grants)
    log.checkpoint()
    log.close()


def everything(state: Path) -> list[dict[str, object]]:
    return list(find(state, Filter()))


def test_only_its_owner_may_read_it_and_it_is_one_file(state_dir: Path) -> None:
    filled(state_dir, 20).close()
    for make in (rebuild, update):
        more(state_dir, f"{make.__name__:_<16}".encode().hex()[:16], 3)
        make(state_dir)
        assert stat.S_IMODE(os.stat(path_of(state_dir)).st_mode) == 0o600
        assert [name for name in os.listdir(state_dir) if name.startswith(NAME)] == [NAME]


def test_brought_up_to_date_it_is_as_if_made_anew(state_dir: Path) -> None:
    filled(state_dir, 300).close()
    rebuild(state_dir)
    for number in range(5):
        more(state_dir, f"{number:016x}", 60 * number)
        update(state_dir)
    grown = content(state_dir)
    rebuild(state_dir)
    assert grown == content(state_dir) and len(grown) > 600


def test_a_redacted_name_is_in_no_file_any_more(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finding, "FEW", 0)
    log = Log.open(state_dir)
    session(log, "00000000000000aa", 3, end=False)
    log.append(
        "grant", "00000000000000aa", {**GRANT, "path": f"/home/{SECRET}", "resolved": f"/home/{SECRET}"}
    )
    log.append("session.end", "00000000000000aa", {"reason": "done"})
    log.checkpoint()
    log.close()
    rebuild(state_dir)
    assert SECRET.encode() in Path(path_of(state_dir)).read_bytes()
    fits = path_pattern(f"/home/{SECRET}")
    count = redact.redact(
        state_dir, lambda entry: fits(str(entry.get("path"))), ("names",), reason="", by="me", path=fits
    )
    assert count == 1
    for after in (lambda: None, lambda: everything(state_dir), lambda: rebuild(state_dir)):
        after()
        held = [
            path for path in state_dir.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()
        ]
        assert held == []
    good(state_dir)


def test_an_index_of_another_log_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finding, "FEW", 0)
    one, two = tmp_path / "one", tmp_path / "two"
    for state, name in ((one, "00000000000000aa"), (two, "00000000000000bb")):
        more(state, name, 5)
        rebuild(state)
    os.replace(path_of(one), path_of(two))
    assert everything(two) == list(entries(two))


def test_nor_is_one_of_another_past(state_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The log was put back to an older state and went on from there."""
    monkeypatch.setattr(finding, "FEW", 0)
    more(state_dir, "00000000000000aa", 5)
    subprocess.run(["cp", "-a", state_dir, tmp_path / "older"], check=True)
    more(state_dir, "00000000000000bb", 5)
    rebuild(state_dir)
    more(tmp_path / "older", "00000000000000cc", 5)
    os.replace(path_of(state_dir), path_of(tmp_path / "older"))
    assert everything(tmp_path / "older") == list(entries(tmp_path / "older"))


def test_a_change_cut_short_is_noticed(state_dir: Path) -> None:
    filled(state_dir, 20).close()
    rebuild(state_dir)
    base = sqlite3.connect(path_of(state_dir))
    base.execute(f"PRAGMA user_version = {DIRTY}")
    base.execute("DELETE FROM entries")
    base.commit()
    base.close()
    assert everything(state_dir) == list(entries(state_dir))
    update(state_dir)
    assert len(content(state_dir)) > 20


def test_one_process_at_a_time(state_dir: Path) -> None:
    filled(state_dir, 20).close()
    with Only(str(state_dir)) as only:
        assert only
        with pytest.raises(Unusable, match="another process"):
            rebuild(state_dir)
    assert rebuild(state_dir) == 20


def test_what_a_crash_left_is_in_nobodys_way(state_dir: Path) -> None:
    filled(state_dir, 20).close()
    (state_dir / NEW).write_bytes(b"half")
    rebuild(state_dir)
    assert not (state_dir / NEW).exists()


@pytest.mark.slow
def test_killed_at_any_moment(state_dir: Path, unmeasured: None) -> None:
    """``kill -9`` while it is made or grows: the next answer is right, and one more makes it whole."""
    filled(state_dir, 2000).close()
    code = (
        "import sys; from anchorhold.audit.index.build import rebuild, update; print(flush=True)\n"
        "while True: rebuild(sys.argv[1]); update(sys.argv[1])"
    )
    for number in range(12):
        more(state_dir, f"{number:016x}", 10)
        child = subprocess.Popen(
            [sys.executable, "-c", code, str(state_dir)],
            env={**os.environ, "PYTHONPATH": str(TOP / "daemon")},
            stdout=subprocess.PIPE,
        )
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(0.013 * number)
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        assert everything(state_dir) == list(entries(state_dir))
    update(state_dir)
    assert not (state_dir / NEW).exists()
    assert everything(state_dir) == list(entries(state_dir))


@pytest.mark.slow
def test_answers_while_it_is_made_and_the_log_grows(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each answer has all that was acknowledged before it was asked for, in order, each once."""
    monkeypatch.setattr(finding, "FEW", 20)
    log = filled(state_dir, 200, sign=False)
    log.append("session.start", "00000000000000aa", {})
    log.checkpoint()
    stop, wrong = threading.Event(), list[str]()
    written = 0

    def write() -> None:
        nonlocal written
        while not stop.is_set():
            log.append("denial", "00000000000000aa", {"number": written, "path": f"/x/{written}"})
            written += 1
            if written % 50 == 0:
                log.checkpoint()
            time.sleep(0.0005)

    def make() -> None:
        while not stop.is_set():
            for one in (update, rebuild):
                try:
                    one(state_dir)
                except (Unusable, sqlite3.Error):
                    continue

    threads = [threading.Thread(target=one) for one in (write, make)]
    for thread in threads:
        thread.start()
    try:
        ends = time.monotonic() + 6
        rounds = 0
        while time.monotonic() < ends:
            before = written
            numbers = [entry["number"] for entry in find(state_dir, Filter(path="/x/*"))]
            if numbers != list(range(len(numbers))) or len(numbers) < before:
                wrong.append(f"{before} {len(numbers)} {numbers[:3]}…{numbers[-3:]}")
            rounds += 1
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        log.close()
    assert wrong == [] and rounds > 5 and written > 200
    assert everything(state_dir) == list(scan(state_dir, Filter()))


@pytest.mark.timeout(30)
@pytest.mark.parametrize("name", [NAME, f"{NAME}-journal"])
def test_a_pipe_in_its_place_is_not_waited_for(state_dir: Path, name: str) -> None:
    filled(state_dir, 20).close()
    rebuild(state_dir)
    (state_dir / name).unlink(missing_ok=True)
    os.mkfifo(state_dir / name)
    code = (
        "import pathlib, sys; from anchorhold.cli.main import main\n"
        "for command in ('list', 'index', 'redact'):\n"
        "    more = ['--path', '/home/a/1', '--yes'] if command == 'redact' else []\n"
        "    print(main(['--state-dir', sys.argv[1], 'audit', command, *more]), file=sys.stderr)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, state_dir],
        env={**os.environ, "PYTHONPATH": str(TOP / "daemon")},
        capture_output=True,
        text=True,
        timeout=20,
    )
    codes = [line for line in run.stderr.splitlines() if line.isdigit()]
    assert codes == ["0", "0", "0"], run.stderr
    assert "/home/a/1\n" not in "".join(f"{one.get('path')}\n" for one in entries(state_dir))
    assert not (state_dir / name).exists()
