"""Reading goes on after what cannot be read, and what is lost is counted exactly."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anchorhold.audit.report.source import FAILURES, Source, chosen
from anchorhold.errors import AuditError
from tests.unit.audit.report.entries import Maker


class Damaged:
    """A log in bundles of ``width``: ``bad`` entries cannot be read, nor any entry of a ``gone`` bundle."""

    def __init__(self, size: int, bad: set[int], gone: set[int], width: int = 16, first: int = 0) -> None:
        self.size, self.bad, self.gone, self.width, self.start = size, bad, gone, width, first
        self.reads = 0

    def read(self, first: int) -> Iterator[dict[str, Any]]:
        self.reads += 1
        for seq in range(max(first, self.start), self.size):
            if seq in self.bad or seq // self.width in self.gone:
                raise AuditError(f"entry {seq} of the audit log cannot be read")
            yield {"seq": seq}


def sound(log: Damaged) -> list[int]:
    return [s for s in range(log.start, log.size) if s not in log.bad and s // log.width not in log.gone]


@given(
    st.integers(1, 200),
    st.sets(st.integers(0, 199), max_size=5),
    st.sets(st.integers(0, 12), max_size=4),
)
def test_all_that_is_sound_is_read(size: int, bad: set[int], gone: set[int]) -> None:
    log = Damaged(size, bad, gone)
    source = Source(log.read, size)
    read = [entry["seq"] for entry in source.entries()]
    # Two damaged places with something sound between them may be taken for one, never the other way round.
    assert read == sorted(set(read)) and set(read) <= set(sound(log))
    assert len(read) + source.unreadable == size
    assert bool(source.problem) == bool(source.unreadable)


@pytest.mark.parametrize("gone", [{0}, {3}, {0, 1, 2}, {5, 6}])
def test_a_lost_bundle_costs_no_other(gone: set[int]) -> None:
    log = Damaged(1000, {501, 503}, gone, width=64)
    source = Source(log.read, 1000)
    assert [entry["seq"] for entry in source.entries()] == sound(log)
    assert source.unreadable == 1000 - len(sound(log))
    assert log.reads < 60


def test_the_last_entry() -> None:
    source = Source(Damaged(10, {9}, set()).read, 10)
    assert [entry["seq"] for entry in source.entries()] == list(range(9))
    assert source.unreadable == 1


def test_what_was_pruned_is_not_lost() -> None:
    source = Source(Damaged(100, {50}, set(), first=40).read, 100)
    assert len(list(source.entries())) == 59
    assert source.unreadable == 1


def test_it_gives_up_and_says_so() -> None:
    bad = set(range(0, 4 * FAILURES, 2))
    source = Source(Damaged(4 * FAILURES, bad, set()).read, 4 * FAILURES)
    read = len(list(source.entries()))
    assert read < 2 * FAILURES
    assert read + source.unreadable == 4 * FAILURES


def test_numbers_that_were_tampered_with() -> None:
    def read(first: int) -> Iterator[dict[str, Any]]:
        yield from ({"seq": 10**9}, {"seq": -5}, {"seq": "x"}, {})[first:]

    source = Source(read, 4)
    assert len(list(source.entries())) == 4
    assert source.unreadable == 0


def test_time_and_session() -> None:
    make = Maker(datetime(2026, 1, 31, 23, 30, tzinfo=UTC))
    entries = []
    for session in ("aaaa", "aabb", "cccc", ""):
        entries.append(make("limit", session))
        make.at += timedelta(minutes=30)

    def picked(**how: Any) -> list[str]:
        given = {"session": None, "since": None, "until": None, **how}
        return [entry["session"] for entry in chosen(iter(entries), **given)]

    midnight = datetime(2026, 2, 1, tzinfo=UTC)
    assert picked() == ["aaaa", "aabb", "cccc", ""]
    assert picked(session="aa") == ["aaaa", "aabb"]
    assert picked(since=midnight) == ["aabb", "cccc", ""]
    assert picked(until=midnight) == ["aaaa"]
    assert picked(since=midnight.astimezone(timezone(timedelta(hours=5)))) == ["aabb", "cccc", ""]
    assert picked(since=midnight, until=midnight + timedelta(minutes=31)) == ["aabb", "cccc"]
