"""Ends the worker when the engine takes too long over a grammar.

The engine follows all readings of a grammar at once and cannot be stopped in between. Patterns and
enumerations are made so that there is one reading (automaton.py, grammar.py); a schema of many alternatives
within each other can still be made to have very many. Then nothing inside this process helps but its end:
the request fails with a reason, the supervisor starts another worker.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

SECONDS = 2.0
_LOOK = 0.25
STATUS = 3


class Watch:
    """``with watch:`` around a call that may take ``SECONDS``. late: called once when it takes longer."""

    def __init__(self, late: Callable[[], None]) -> None:
        self._late = late
        self._since: float | None = None
        self._armed = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(name="watch", target=self._run, daemon=True)
            self._thread.start()
        self._since = time.monotonic()
        self._armed.set()

    def __exit__(self, *_error: object) -> None:
        self._since = None

    def _run(self) -> None:
        while True:
            self._armed.wait()
            time.sleep(_LOOK)
            since = self._since
            if since is None:
                self._armed.clear()
                if self._since is not None:  # it began between the two lines above
                    self._armed.set()
            elif time.monotonic() - since > SECONDS:
                try:
                    self._late()
                finally:
                    os._exit(STATUS)
