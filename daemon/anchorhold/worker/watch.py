"""Ends the worker when the engine takes too long over a grammar, or too much memory.

The engine follows all readings of a grammar at once and cannot be stopped in between. Patterns and
enumerations are made so that there is one reading (automaton.py, grammar.py); a schema of many alternatives
within each other can still be made to have very many: gigabytes of them in a second. Then nothing inside this
process helps but its end: the request fails with a reason, the supervisor starts another worker.
"""

from __future__ import annotations

import os
import resource
import threading
import time
from collections.abc import Callable

SECONDS = 2.0
MEMORY = 256 << 10
"""KiB that the process may grow by while one grammar is followed; usual ones take less than 10 MiB."""
_LOOK = 0.01
STATUS = 3


class Watch:
    """``with watch:`` around a call that may take ``SECONDS``; ``begin`` before the first for one grammar.

    late: called once when it takes longer, or more than ``MEMORY``.
    """

    def __init__(self, late: Callable[[], None]) -> None:
        self._late = late
        self._since: float | None = None
        self._before = self._grown = 0
        self._armed = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self) -> None:
        """Another grammar: what the process has taken so far is not its doing."""
        self._grown = 0

    def __enter__(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(name="watch", target=self._run, daemon=True)
            self._thread.start()
        # Only what grows within these calls counts: in between, the model itself is read into memory.
        self._before = _peak()
        self._since = time.monotonic()
        self._armed.set()

    def __exit__(self, *_error: object) -> None:
        self._since = None
        self._grown += _peak() - self._before

    def _run(self) -> None:
        while True:
            self._armed.wait()
            time.sleep(_LOOK)
            since = self._since
            if since is None:
                self._armed.clear()
                if self._since is not None:  # it began between the two lines above
                    self._armed.set()
            elif time.monotonic() - since > SECONDS or _peak() - self._before + self._grown > MEMORY:
                try:
                    self._late()
                finally:
                    os._exit(STATUS)


def _peak() -> int:
    """KiB that the process had at most. getrusage(2) needs no /proc, and a cell has none."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
