"""Files that are none, or far too long: whoever reads a log of somebody else neither waits nor runs out."""

from __future__ import annotations

import os
import resource
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from anchorhold.audit import redact
from anchorhold.audit.log import Log
from anchorhold.audit.query import entries
from anchorhold.errors import AuditError
from anchorhold.verify import disk
from anchorhold.verify.check import verify
from tests.unit.audit.logs import filled

JOURNAL = "00000000000000aa"


@pytest.fixture
def state(state_dir: Path) -> Iterator[Path]:
    log = filled(state_dir, 300)
    log.close()
    (state_dir / "log/journal").mkdir(exist_ok=True)
    signal.alarm(20)  # a wait without end ends the test
    yield state_dir
    signal.alarm(0)


def test_a_pipe_in_the_place_of_the_lock(state: Path) -> None:
    (state / "log/lock").unlink()
    os.mkfifo(state / "log/lock")
    assert verify(str(state)).ok


def test_a_pipe_in_the_place_of_a_journal(state: Path) -> None:
    os.mkfifo(state / "log/journal" / JOURNAL)
    verify(str(state))
    with pytest.raises(AuditError, match="not a regular file"):
        list(entries(state))


def test_a_journal_longer_than_the_memory(state: Path) -> None:
    with open(state / "log/journal" / JOURNAL, "wb") as file:
        file.truncate(1 << 42)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert len(list(entries(state))) == 300
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000


def test_a_journal_longer_than_the_memory_is_not_set_aside(state: Path) -> None:
    """Whoever settles would have to read what is torn, and write it again."""
    with open(state / "log/journal" / JOURNAL, "wb") as file:
        file.truncate(1 << 42)
    for open_it in (lambda: Log.open(state), lambda: redact.complete(state)):
        with pytest.raises(AuditError, match="longer than any that is written") as raised:
            open_it()
        assert "ulimit" not in raised.value.hint


@pytest.mark.timeout(20)
def test_a_pipe_in_the_place_of_the_key(state: Path) -> None:
    (state / "log/0/key").unlink()
    os.mkfifo(state / "log/0/key", 0o600)
    log = Log.open(state)
    log.append("policy.load", "", {"number": 1})
    with pytest.raises(AuditError, match="not a regular file"):
        log.checkpoint()
    log.close()


def test_many_long_journals(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What they may hold together is bounded, and what is not read is a finding."""
    monkeypatch.setattr(disk, "JOURNAL", 1 << 20)
    for number in range(20):
        with open(state / f"log/journal/{number:016x}", "wb") as file:
            file.truncate(1 << 30)
    found = disk.Disk(str(state / "log"))
    assert sum(len(data) for _, data in found.journals.values()) == 1 << 20
    result = verify(str(state))
    assert not result.ok and "too long to be read" in str(result.first_bad)


def test_a_bundle_of_zeros_is_not_millions_of_entries(state: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with open(state / "log/0/tile/entries/000", "r+b") as file:
        file.truncate(200 << 20)
    begun = time.process_time()
    result = verify(str(state))
    assert not result.ok and "0/tile/entries/000" in str(result.first_bad)
    with pytest.raises(AuditError, match="too long"):
        list(entries(state))
    assert time.process_time() - begun < 3
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000


def test_an_epoch_of_a_number_that_cannot_be_counted_to(state: Path) -> None:
    (state / "log/999999999").mkdir()
    (state / "log/state").unlink()
    result = verify(str(state))
    assert any(str(one) == "1: the epochs up to 999999998 are missing" for one in result.findings)
