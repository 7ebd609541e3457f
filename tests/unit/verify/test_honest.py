"""Forged logs of every honest shape verify, and what is to be told of them is told."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from anchorhold.verify import parallel
from anchorhold.verify.check import verify
from anchorhold.verify.files import read
from anchorhold.verify.result import LogUnreadable
from tests.unit.verify.forge import (
    BOOTED,
    START,
    Forge,
    leaf,
    mth,
    tile_name,
    write,
)
from tests.unit.verify.shapes import (
    HONEST,
    A,
    everything,
    judged,
)


@pytest.mark.parametrize("name", HONEST)
def test_an_honest_log_verifies(name: str, state_dir: Path) -> None:
    result = judged(state_dir, HONEST[name])
    assert result.ok and result.proven, result.text()
    assert not any("run it again" in note for note in result.notes)
    assert result.size and result.text() and result.as_dict()["ok"]


def test_everything_is_counted(state_dir: Path) -> None:
    result = judged(state_dir, everything)
    assert (result.epochs, result.pruned, result.redacted) == (3, 1, 1)
    assert (result.unsettled, result.unsigned, result.open_sessions) == (2, 3, 2)
    assert result.witnessed[0]["entries"] == result.signed


@pytest.mark.parametrize("size", [65_535, 65_536, 65_537, 131_400])
def test_trees_of_three_levels(size: int, state_dir: Path) -> None:
    forge = Forge(state_dir)
    forge.event("session.start", A)
    forge.event("session.sealed", A)
    forge.many(A, size - 3)
    forge.save()
    for processes in (1, 2):
        result = verify(str(state_dir), processes=processes)
        assert result.ok and result.signed == size, result.text()


def test_many_epochs_in_several_processes(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The processes share the bundles of all epochs: a log can have one a day. Findings are the same."""
    monkeypatch.setattr(parallel, "ENOUGH", 2)
    forge = Forge(state_dir)
    for number in range(9):
        forge.session(f"{number:016x}", 100 * number)
        forge.rotate()
    forge.prune(2)
    forge.save()
    assert verify(str(state_dir)).ok
    for name in ("3/tile/entries/000", "7/tile/0/001", "8/openings/002"):
        path = forge.log / name
        path.write_bytes(path.read_bytes()[:-40] + bytes(40))
    shutil.rmtree(forge.log / "5")
    results = [verify(str(state_dir), processes=processes).as_dict() for processes in (1, 2, 3, 7)]
    assert results[0]["bad_entries"] and all(one == results[0] for one in results[1:])


def test_a_process_that_dies_is_no_verdict(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "ENOUGH", 1)
    forge = Forge(state_dir)
    forge.session(A, 2000)
    forge.save()
    monkeypatch.setattr(parallel, "look", lambda *_: os.kill(os.getpid(), 9))
    with pytest.raises(LogUnreadable, match="has died"):
        verify(str(state_dir), processes=2)


def test_the_forge_agrees_with_the_definition(state_dir: Path) -> None:
    """The root is RFC 6962's own, and `many` gives what `grant` gives."""
    forge = Forge(state_dir)
    forge.event("session.start", A)
    forge.event("session.sealed", A)
    forge.many(A, 600)
    assert forge.epoch.root() == mth(forge.epoch.leaves) and len(forge.epoch.leaves) == 603
    forge.save()
    data = (forge.log / "0/tile/entries/001").read_bytes()
    assert leaf(data[2 : 2 + int.from_bytes(data[:2], "big")]) == forge.epoch.leaves[256]
    assert (forge.clock, forge.mono) > (START, BOOTED)
    assert tile_name(1234067) == "x001/x234/067"


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert read(str(tmp_path / "pipe")) is None
    assert read(str(tmp_path)) is None
    assert read("/dev/zero") is None
    (tmp_path / "long").write_bytes(bytes(100))
    assert read(str(tmp_path / "long"), 10) == bytes(11)


def test_a_redaction_cut_short_is_a_note(state_dir: Path) -> None:
    def make(forge: Forge) -> None:
        forge.session(A, 300)
        forge.redact([[10, 19]])
        forge.redact([[15, 24], [270, 280]], erase=False)

    result = judged(state_dir, make)
    assert result.ok and result.redacted == 10
    assert "16 entries that a redaction names are not erased: run it again" in result.notes


def test_a_redaction_of_all_numbers_takes_no_time(state_dir: Path) -> None:
    """Ranges are compared as ranges: a hostile entry can name 10^18 numbers, many times."""

    def make(forge: Forge) -> None:
        forge.session(A, 20)
        seq = forge.seq
        forge.redact([[0, seq - 1]] * 5000, ("names", "digests"), erase=False)

    result = judged(state_dir, make)
    assert result.ok and any("not erased" in note for note in result.notes)


def test_many_runs_of_erased_openings(state_dir: Path) -> None:
    forge = Forge(state_dir)
    forge.event("session.start", A)
    forge.event("session.sealed", A)
    forge.many(A, 1000)
    ranges = [[seq, seq] for seq in range(10, 900, 2)]
    forge.redact(ranges)
    forge.save()
    result = verify(str(state_dir))
    assert result.ok and result.redacted == len(ranges) and not result.notes[1:]
    forge.redact([[11, 11], [13, 14]], ("digests",), tell=False)
    result = verify(str(state_dir))
    assert [(one.seq, one.last) for one in result.findings] == [(11, 11), (13, 14)]


def test_a_clock_that_was_set_is_told(state_dir: Path) -> None:
    def make(forge: Forge) -> None:
        forge.event("session.start", A)
        forge.event("session.sealed", A)
        forge.grant(A, "/1")
        forge.clock -= 3_600_000_000
        forge.grant(A, "/2")
        forge.clock += 7_200_000_000
        forge.mono += 1_000_000_000_000  # suspended: both go on
        forge.clock += 1_000_000_000_000
        forge.event("limit", A)

    result = judged(state_dir, make)
    assert result.ok
    assert "the clock was set back by 3600.0 s before entry 4" in result.notes
    assert "the clock was set forward by 7200.0 s before entry 5" in result.notes


def test_a_flood_of_findings_is_bounded(state_dir: Path) -> None:
    forge = Forge(state_dir)
    for number in range(3000):
        forge.raw(b"x%d" % number)
    for number in range(200):
        write(forge.log / f"0/junk{number}", b"")
    forge.save()
    result = verify(str(state_dir))
    assert (len(result.findings), result.bad_entries) == (1000, 3000) and result.proven
    assert result.findings_left_out == 2000 and len(result.notes) < 60


def test_a_clock_set_back_between_two_sessions_is_told(state_dir: Path) -> None:
    """Forward it is not told from a restart, after which the time since boot is less."""

    def make(forge: Forge) -> None:
        for session, moved in ((A, -3_600_000_000), ("b" * 16, 7_200_000_000), ("c" * 16, 0)):
            forge.event("session.start", session)
            forge.event("session.end", session)
            forge.clock += moved

    result = judged(state_dir, make)
    assert result.ok
    assert [note for note in result.notes if "clock" in note] == [
        "the clock was set back by 3600.0 s before entry 3"
    ]
