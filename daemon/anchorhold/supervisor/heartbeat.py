"""Asks a worker for a sign of life, and tells when none comes.

A thread of the worker's own answers, also while the engine calculates. What does not answer has been stopped
by somebody, hangs in a library that holds the interpreter, or is no longer the program that it was.

Time is monotonic: that the machine slept does not count (clock_gettime(2), CLOCK_MONOTONIC).
"""

from __future__ import annotations

import time

_OFTEN = 4
"""Questions within the time that may pass without an answer."""


class Heartbeat:
    """Signs of life of one worker. All times in seconds."""

    def __init__(self, most: float | None) -> None:
        """most: how long there may be none; None: nobody asks."""
        self.most = most
        self._asked: float | None = None
        self._heard = time.monotonic()

    def rest(self) -> None:
        """Nothing can be expected now: it is frozen, or its words wait to be read."""
        self._asked = None
        self._heard = time.monotonic()

    def heard(self) -> None:
        """It has answered."""
        self.rest()

    def due(self) -> bool:
        """Whether to ask now; then it counts as asked."""
        if self.most is None or self._asked is not None:
            return False
        now = time.monotonic()
        if now - self._heard < self.most / _OFTEN:
            return False
        self._asked = now
        return True

    def missed(self) -> bool:
        """Whether the time for an answer is over. What it has said until now must have been read before."""
        return self.most is not None and self._asked is not None and self.wait() <= 0.0

    def wait(self) -> float:
        """How long until there is something to do; infinite where nobody asks."""
        if self.most is None:
            return float("inf")
        since = self._heard + self.most / _OFTEN if self._asked is None else self._asked + self.most
        return max(0.0, since - time.monotonic())
