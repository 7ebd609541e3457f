"""Pruning: whole epochs go, the chain of keys stays."""

from __future__ import annotations

from pathlib import Path

from anchorhold.audit import prune
from anchorhold.audit.log import Log
from anchorhold.audit.query import entries, log_size
from anchorhold.verify.check import verify
from tests.unit.audit.logs import all_bytes, good, session


def chain(state: Path) -> list[str]:
    """Four epochs; the time of the last entry of each."""
    log = Log.open(state)
    times = []
    for number in range(4):
        session(log, f"{number:016x}", 20, end=number != 1)
        log.checkpoint(rotate=number < 3)
        times.append([entry["time"] for entry in entries(state)][-1])
    log.append("session.end", f"{1:016x}", {})  # a session that began in an epoch that will be pruned
    log.checkpoint()
    log.close()
    return times


def test_the_oldest_epochs_go_and_the_rest_verifies(state_dir: Path) -> None:
    times = chain(state_dir)
    vkey = (state_dir / "log/vkey").read_text().strip()
    size = log_size(state_dir)
    assert [one.epoch.number for one in prune.old_epochs(state_dir, times[0])] == [0]
    gone = prune.prune(state_dir, "2999", reason="a year is over", by="test")
    assert [one.epoch.number for one in gone] == [0, 1, 2]
    for number in range(3):
        left = sorted(path.name for path in (state_dir / f"log/{number}").iterdir())
        assert left == ["checkpoint", "end", "vkey"]
    result = good(state_dir)
    assert result.pruned == 3 and result.size == size + 1 and verify(str(state_dir), vkey=vkey).ok
    last = list(entries(state_dir))[-1]
    assert (last["kind"], last["epochs"], last["reason"]) == ("prune", [0, 2], "a year is over")
    assert f"{0:016x}".encode() not in all_bytes(state_dir / "log")
    log = Log.open(state_dir)
    session(log, f"{9:016x}")
    log.checkpoint(rotate=True)
    log.close()
    good(state_dir)


def test_what_was_pruned_is_said_and_not_called_sound(state_dir: Path) -> None:
    """By the key of a later epoch too, with which nothing before it is looked at."""
    chain(state_dir)
    later = (state_dir / "log/3/vkey").read_text().strip()
    prune.prune(state_dir, "2999", reason="r", by="b")
    first = next(iter(entries(state_dir)))["seq"]
    text = good(state_dir).text()
    assert f"pruned   3 epochs; of entries before {first} only signed heads are left" in text
    bundle = next((state_dir / "log/3/tile/entries/000.p").iterdir())
    bundle.write_bytes(bundle.read_bytes().replace(b'"size":12345', b'"size":12346', 1))
    for vkey in (None, later):
        result = verify(str(state_dir), vkey=vkey)
        assert result.proven and result.first_bad is not None and result.first_bad.seq is not None
        assert f"sound    {result.first_bad.seq - first} entries before the first bad one" in result.text()


def test_nothing_old_is_nothing_done(state_dir: Path) -> None:
    chain(state_dir)
    before = list(entries(state_dir))
    assert prune.prune(state_dir, "2000", reason="r", by="b") == []
    assert list(entries(state_dir)) == before


def test_a_forged_end_is_found(state_dir: Path) -> None:
    chain(state_dir)
    prune.prune(state_dir, "2999", reason="r", by="b")
    for number in range(3):
        path = state_dir / f"log/{number}/end"
        data = path.read_bytes()
        for at in range(0, len(data), 7):
            path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
            assert not verify(str(state_dir)).ok, (number, at)
        path.write_bytes(data)
    good(state_dir)
