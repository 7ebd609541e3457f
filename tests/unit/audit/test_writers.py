"""Several processes write one log: no entry is lost, doubled or torn."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from anchorhold.audit.log import Log
from tests.unit.audit.logs import good, records

DAEMON = Path(__file__).parents[3] / "daemon"

# Says which seq it was given for which number, so that the test can hold every answer against the file.
WRITER = """
import json, pathlib, sys
from anchorhold.audit.log import Log
state, name, count, durability = pathlib.Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4]
log = Log.open(state, durability=durability)
given = []
for n in range(count):
    given.append(log.append("limit", name, {"n": n}))
    if n % 1999 == 1998:
        log.checkpoint()
log.checkpoint()
log.close()
print(json.dumps(given))
"""


def run_writers(state: Path, writers: int, count: int, durability: str = "write") -> dict[str, list[int]]:
    running = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(state), f"w{number}", str(count), durability],
            env={**os.environ, "PYTHONPATH": str(DAEMON)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(writers)
    ]
    given = {}
    for number, process in enumerate(running):
        out, _ = process.communicate(timeout=100)
        assert process.returncode == 0
        given[f"w{number}"] = json.loads(out)
    return given


@pytest.mark.slow
@pytest.mark.parametrize(("writers", "count"), [(2, 10_000), (4, 10_000), (24, 200)])
def test_processes_at_once(state_dir: Path, writers: int, count: int) -> None:
    given = run_writers(state_dir, writers, count)
    found = records(state_dir)
    assert [entry["seq"] for entry in found] == list(range(writers * count))
    for name, seqs in given.items():
        mine = [entry for entry in found if entry["session"] == name]
        assert [entry["n"] for entry in mine] == list(range(count))
        assert [entry["seq"] for entry in mine] == seqs
    assert good(state_dir).signed == writers * count


@pytest.mark.slow
def test_processes_at_once_with_fsync(state_dir: Path) -> None:
    run_writers(state_dir, 3, 400, "fsync")
    assert good(state_dir).signed == 1200


def test_without_the_lock_entries_are_lost(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # What the lock is for: two logs that believe they stand at the same place
    one, two = Log.open(state_dir), Log.open(state_dir)
    monkeypatch.setattr(Log, "_catch_up", lambda self, parse=False: None)
    assert one.append("limit", "s", {}) == two.append("limit", "s", {}) == 0
    one.close()
    two.close()


def test_one_waits_far_behind(state_dir: Path) -> None:
    behind, ahead = Log.open(state_dir), Log.open(state_dir)
    assert behind.append("limit", "s", {}) == 0
    for _ in range(1500):
        ahead.append("limit", "s", {})
    assert behind.append("limit", "s", {}) == 1501
    for _ in range(34):
        ahead.append("limit", "s", {})
    assert behind.size == 1502  # a full tail now, renamed or not
    assert behind.append("limit", "s", {}) == 1536
    behind.checkpoint()
    behind.close()
    ahead.close()
    assert good(state_dir).size == 1537


def test_a_tail_renamed_and_not_made_anew(state_dir: Path) -> None:
    # the other process died between its rename and the new tail
    behind, ahead = Log.open(state_dir), Log.open(state_dir)
    for _ in range(257):
        ahead.append("limit", "s", {})
    ahead.close()
    tail = state_dir / "log/tail"
    tail.unlink()
    assert behind.append("limit", "s", {}) == 256
    behind.close()
    assert [entry["seq"] for entry in records(state_dir)] == list(range(257))


def test_a_tail_that_shrinks_or_overflows_is_damage(state_dir: Path) -> None:
    from anchorhold.audit.entry import Encoder
    from anchorhold.errors import AuditError

    log = Log.open(state_dir)
    for _ in range(3):
        log.append("limit", "s", {})
    tail = state_dir / "log/tail"
    data = tail.read_bytes()
    os.truncate(tail, len(data) - 1)
    with pytest.raises(AuditError, match="shorter"):
        log.append("limit", "s", {})
    encoder = Encoder()
    tail.write_bytes(data + b"".join(encoder.entry(seq, "s", "k", "}") for seq in range(3, 300)))
    with pytest.raises(AuditError, match="more than a bundle"):
        log.append("limit", "s", {})
    log.close()
