"""Reads the entries that a report is about, past what cannot be read.

Constraint: a log that was tampered with is reported on as well, and one damaged entry must not hide those
after it. How many could not be read is counted: a report that leaves entries out has to say so.
"""

from __future__ import annotations

from datetime import UTC

from anchorhold.errors import AuditError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime
    from typing import Any

    Entry = dict[str, Any]

FAILURES = 100
"""Where more places are damaged than this, reading ends."""


class Source:
    """Reads once, oldest first. ``read`` gives the entries from a number on, as `query.entries` does with
    ``first``; ``size`` is the number of entries in the log."""

    def __init__(self, read: Callable[[int], Iterator[Entry]], size: int) -> None:
        self._read, self._size = read, size
        self.unreadable = 0
        self.problem = ""  # the first one

    def entries(self) -> Iterator[Entry]:
        """All that can be read."""
        first = 0
        for _ in range(FAILURES):
            try:
                for entry in self._read(first):
                    seq = entry.get("seq")
                    if isinstance(seq, int) and first <= seq < self._size:
                        first = seq
                    first += 1  # a number that was tampered with counts as the next one
                    yield entry
                return
            except AuditError as error:
                self.problem = self.problem or str(error)
            following = self._after(first)
            self.unreadable += max(1, following - first)
            first = following
            if first >= self._size:
                return
        self.unreadable += max(0, self._size - first)

    def _after(self, bad: int) -> int:
        """The next number from which it can be read: steps that double, then halves. A whole bundle is
        passed over in few steps."""
        step = 1
        while bad + step < self._size and not self._readable(bad + step):
            step *= 2
        low, high = bad + step // 2, min(bad + step, self._size)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self._readable(middle) else (middle, high)
        return high

    def _readable(self, seq: int) -> bool:
        try:
            next(self._read(seq), None)
        except AuditError:
            return False
        return True


def chosen(
    entries: Iterator[Entry], *, session: str | None, since: datetime | None, until: datetime | None
) -> Iterator[Entry]:
    """Those of a session (or of all that begin so) and of a time; ``until`` itself is not included."""
    lower = since.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ") if since else ""
    upper = until.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ") if until else "\U0010ffff"
    for entry in entries:
        time = str(entry.get("time", ""))
        if lower <= time < upper and (session is None or str(entry.get("session", "")).startswith(session)):
            yield entry
