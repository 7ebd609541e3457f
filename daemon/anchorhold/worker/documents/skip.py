"""Why a document is left out, and how much of one is too much."""

from __future__ import annotations

import time
from collections.abc import Callable

from anchorhold.worker.failure import Cancelled

MOST_TEXT = 64 << 20  # characters of one document
MOST_UNPACKED = 256 << 20  # bytes of all members of one archive
MOST_PAGES = 5_000
MOST_SECONDS = 60.0  # for one document


class Skip(Exception):
    """This document is left out; the text says why, for the user."""


class Budget:
    """What reading one document may take, checked between pages or the like."""

    def __init__(self, stopped: Callable[[], bool], seconds: float = MOST_SECONDS) -> None:
        self._stopped = stopped
        self._seconds = seconds
        self._until = time.monotonic() + seconds
        self._characters = 0

    def check(self, characters: int = 0) -> None:
        """Raises Skip when it is used up, Cancelled when the request was stopped."""
        if self._stopped():
            raise Cancelled
        if time.monotonic() > self._until:
            raise Skip(f"too large: reading it takes more than {self._seconds:.0f} s")
        self._characters += characters
        if self._characters > MOST_TEXT:
            raise Skip(f"too large: more than {MOST_TEXT >> 20} million characters")
