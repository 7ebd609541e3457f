"""One line on a terminal while there is nothing to read yet; gone before the answer begins.

The stage comes from the worker and is only looked up; the numbers too, so they are bounded.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from anchorhold.cli.output import Notes

STAGES = {  # of events.Progress and events.Phase, and "start", our own
    "start": "building the cell",
    "boot": "starting the engine",
    "sealed": "loading the model",
    "load": "loading the model",
    "loaded": "reading files",
    "read": "reading files",
    "prompt": "reading the prompt",
}

INTERVAL = 0.05  # seconds: 20 redraws a second at most, however often the worker reports
LARGEST = 10**12


class Progress:
    """Shows nothing unless standard error is a terminal that can erase a line."""

    def __init__(self, notes: Notes, clock: Callable[[], float] = time.monotonic) -> None:
        self._notes = notes
        self._clock = clock
        self._shown = ""
        self._due = 0.0

    def show(self, stage: str, done: int = 0, total: int = 0) -> None:
        if not self._notes.moves:
            return
        now = self._clock()
        words = STAGES.get(stage, "working")
        if 0 < total <= LARGEST and 0 <= done <= total:
            words += f" {done}/{total}" if total != 100 else f" {done} %"
        if words == self._shown or (now < self._due and self._shown.startswith(STAGES.get(stage, "working"))):
            return
        self._shown, self._due = words, now + INTERVAL
        self._notes.write(f"\r\x1b[K{words} …")

    def clear(self) -> None:
        """Erase the line. Must come before anything else is written to the terminal."""
        if self._shown:
            self._shown = ""
            self._notes.write("\r\x1b[K")
