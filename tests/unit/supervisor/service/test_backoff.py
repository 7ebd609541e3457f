"""When a worker that died is started again."""

from __future__ import annotations

from anchorhold.supervisor.service.backoff import FIRST, LONGEST, MOST, WINDOW, Backoff


def test_longer_each_time_then_given_up() -> None:
    backoff = Backoff()
    waits = [backoff.failed(float(now)) for now in range(MOST)]
    assert waits[:3] == [FIRST, 2 * FIRST, 4 * FIRST]
    assert all(wait is not None and wait <= LONGEST for wait in waits[:-1])
    assert waits[-1] is None and backoff.failures == MOST


def test_old_failures_are_forgotten() -> None:
    backoff = Backoff()
    for number in range(20):
        assert backoff.failed(number * (WINDOW + 1)) == FIRST


def test_never_longer_than_the_longest() -> None:
    backoff = Backoff(most=100)
    assert [backoff.failed(0.0) for _each in range(50)][-1] == LONGEST


def test_a_person_may_say_again() -> None:
    backoff = Backoff(most=2)
    assert backoff.failed(0.0) is not None and backoff.failed(0.0) is None
    backoff.reset()
    assert backoff.failed(0.0) == FIRST
