"""When a worker that died is started again, and when no more."""

from __future__ import annotations

from collections import deque

FIRST = 0.5
"""Seconds before the first new start; twice as long each time after."""
LONGEST = 30.0
MOST = 5
"""Failures within `WINDOW` seconds after which it is given up."""
WINDOW = 600.0


class Backoff:
    """Counts failures of one policy's worker. Times are seconds of one monotonic clock."""

    def __init__(self, most: int = MOST, window: float = WINDOW) -> None:
        self._most, self._window = most, window
        self._failures: deque[float] = deque()

    def failed(self, now: float) -> float | None:
        """It failed. Returns the seconds to wait, or None: it is given up."""
        self._failures.append(now)
        while self._failures and now - self._failures[0] > self._window:
            self._failures.popleft()
        if len(self._failures) >= self._most:
            return None
        return min(LONGEST, FIRST * 2.0 ** (len(self._failures) - 1))

    def reset(self) -> None:
        """A person said that it may start again."""
        self._failures.clear()

    @property
    def failures(self) -> int:
        return len(self._failures)
