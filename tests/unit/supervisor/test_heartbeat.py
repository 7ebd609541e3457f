"""When a worker is asked for a sign of life, and when it is missed."""

from __future__ import annotations

import pytest

from anchorhold.supervisor import heartbeat
from anchorhold.supervisor.heartbeat import Heartbeat


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(heartbeat, "time", found)
    return found


def test_it_is_asked_once_a_quarter_of_the_time_after_its_last_sign(clock: Clock) -> None:
    beat = Heartbeat(60.0)
    clock.now += 14.9
    assert not beat.due() and beat.wait() == pytest.approx(0.1)
    clock.now += 0.1
    assert beat.due() and not beat.due()
    assert beat.wait() == 60.0
    clock.now += 5.0
    beat.heard()
    assert beat.wait() == 15.0


def test_it_is_missed_when_it_was_asked_so_long_ago_and_not_before(clock: Clock) -> None:
    beat = Heartbeat(60.0)
    clock.now += 1e6  # nobody asked: we were away ourselves
    assert not beat.missed() and beat.due()
    clock.now += 59.9
    assert not beat.missed()
    clock.now += 0.1
    assert beat.missed()


def test_while_it_rests_nothing_is_missed(clock: Clock) -> None:
    beat = Heartbeat(60.0)
    clock.now += 15
    assert beat.due()
    clock.now += 50
    beat.rest()
    clock.now += 14
    assert not beat.missed() and not beat.due()


def test_off_means_that_nobody_asks(clock: Clock) -> None:
    beat = Heartbeat(None)
    clock.now += 1e9
    assert not beat.due() and not beat.missed() and beat.wait() == float("inf")
