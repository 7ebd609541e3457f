"""Many processes write one log: no event is lost, doubled or torn, and each session's are in their order."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from anchorhold.audit import lock
from anchorhold.audit.log import Log
from anchorhold.errors import AuditError
from tests.unit.audit.logs import good, records

DAEMON = Path(__file__).parents[3] / "daemon"

WRITER = """
import pathlib, sys
from anchorhold.audit import settle
from anchorhold.audit.log import Log
from anchorhold.errors import AuditError
state, name, count, durability = pathlib.Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4]
log = Log.open(state, durability=durability)
log.append("session.start", name, {})
for number in range(1, count - 1):
    log.append("denial", name, {"call": "open", "number": number, "path": f"/home/{name}/{number}"})
    if number % 1999 == 1998:
        log.checkpoint()
log.append("session.end", name, {})
log.checkpoint()
log.close()
"""


def start(state: Path, name: str, count: int, durability: str = "write") -> subprocess.Popen[bytes]:
    sites = [path for path in sys.path if path.endswith("site-packages")]
    return subprocess.Popen(
        [sys.executable, "-S", "-c", WRITER, str(state), name, str(count), durability],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(DAEMON), *sites])},
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("writers", "count", "durability"), [(4, 10_000, "write"), (64, 300, "write"), (8, 200, "fsync")]
)
def test_processes_at_once(state_dir: Path, writers: int, count: int, durability: str) -> None:
    jobs = [start(state_dir, f"{number:016x}", count, durability) for number in range(writers)]
    for job in jobs:
        assert job.wait(timeout=50) == 0
    found = records(state_dir)
    assert [entry["seq"] for entry in found] == list(range(writers * count + 1))
    mine: dict[str, list[int]] = {}
    for entry in found[1:]:
        mine.setdefault(entry["session"], []).append(entry["n"])
        assert entry["kind"] != "denial" or entry["path"] == f"/home/{entry['session']}/{entry['n']}"
    assert mine == {f"{number:016x}": list(range(count)) for number in range(writers)}
    assert good(state_dir).signed == len(found)
    assert list((state_dir / "log/journal").iterdir()) == []


def test_a_stopped_writer_stops_nobody_else(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped anywhere, perhaps with the lock held: others open the log and write; only signing waits."""
    monkeypatch.setattr(lock, "LOCK_SECONDS", 0.1)
    job = start(state_dir, "00000000000000aa", 10**9)
    held = 0
    try:
        while not (state_dir / "log/journal").exists() or not list((state_dir / "log/journal").iterdir()):
            time.sleep(0.01)
        for number in range(40):
            time.sleep(0.01 + number / 2000)
            job.send_signal(signal.SIGSTOP)
            log = Log.open(state_dir)
            log.append("policy.load", "", {"number": number})
            try:
                log.checkpoint()
            except AuditError as error:
                held += 1
                assert f"held by another process ({job.pid}, " in str(error)
                assert "which is stopped" in str(error) and f"kill -CONT {job.pid}" in error.hint
            log.close()
            job.send_signal(signal.SIGCONT)
    finally:
        job.kill()
        job.wait()
    Log.open(state_dir).close()
    found = records(state_dir)
    mine = [entry["n"] for entry in found if entry["session"]]
    assert mine == list(range(len(mine))) and len(mine) > 1000
    assert [entry["number"] for entry in found if entry["kind"] == "policy.load"] == list(range(40))
    assert held, "it was never stopped with the lock held: the test shows too little"
    good(state_dir)


def test_without_the_lock_a_journal_would_be_taken_from_its_writer(state_dir: Path) -> None:
    """What the shared lock on a journal is for: only a dead writer's may be removed."""
    log = Log.open(state_dir)
    log.append("policy.load", "", {"number": 1})
    (path,) = (state_dir / "log/journal").iterdir()
    other = Log.open(state_dir)
    other.checkpoint()
    assert path.exists()
    log.append("policy.load", "", {"number": 2})
    log.close()
    other.checkpoint()
    assert not path.exists()
    other.close()
    assert [entry["number"] for entry in records(state_dir)[1:]] == [1, 2]
