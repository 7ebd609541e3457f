"""The queue between the log and its copies, and the thread that empties it.

Constraint: `Copies.send` is called on the way to a grant. It formats nothing, waits for nobody and raises
nothing; its only system call is the one that wakes the thread, and only when that sleeps. The thread lets
go of the interpreter with each message it sends, so it holds nobody up for longer than one message takes to
make.

An entry that meets a full queue is dropped and counted, and so is a message that is too large for its socket.
Where nobody listens it is tried again once a second; meanwhile the queue fills.
"""

from __future__ import annotations

import os
import select
import threading
import time

from anchorhold.audit.copies.outlet import (
    AWAY,
    BLOCKED,
    EMPTY,
    MORE,
    MOST_ENTRIES,
    MOST_SIZE,
    RETRY_SECONDS,
    Outlet,
)
from anchorhold.audit.copies.targets import Target, parse
from anchorhold.audit.copies.withheld import without_names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

CLOSE_SECONDS = 0.25
"""How long the end of a session may wait for a target that is there and does not read."""

GATHER_SECONDS = 0.02
"""How long entries gather once the thread was woken: a burst then costs one waking, not one for each."""


class Copies:
    """Sends entries to all targets. `send` may be called from any thread."""

    def __init__(
        self, targets: Iterable[str | Target], *, names: bool = True, most: int = MOST_ENTRIES
    ) -> None:
        """``names=False`` sends no path and no text that could hold one. PolicyError for a bad target."""
        parsed = [parse(one) if isinstance(one, str) else one for one in dict.fromkeys(targets)]
        self._outlets = [Outlet(one, _maker(one.form, names), most) for one in parsed]
        self._lock = threading.Lock()  # among those who send; the thread never takes it
        self._closing = not self._outlets
        self._deadline = float("inf")
        self._asleep = False
        if self._outlets:
            self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            self._thread = threading.Thread(target=self._run, name="anchorhold-copies", daemon=True)
            self._thread.start()

    @property
    def lost(self) -> int:
        """How many entries did not go out, summed over the targets."""
        return sum(self.lost_by_target().values())

    def lost_by_target(self) -> dict[str, int]:
        return {one.target.text: one.lost for one in self._outlets}

    def send(self, entry: dict[str, Any]) -> None:
        """Queue one entry: a dict as `query.entries` yields it, that nobody changes any more."""
        with self._lock:
            try:
                size = _size(entry)
            except Exception:
                size = MOST_SIZE + 1
            for one in self._outlets:
                if self._closing:
                    one.refuse()
                else:
                    one.offer(entry, size)
            if self._asleep and not self._closing:
                self._asleep = False
                os.eventfd_write(self._wake, 1)

    def close(self, seconds: float = CLOSE_SECONDS) -> None:
        """Send what is queued, for so long at most; what is left counts as lost."""
        with self._lock:
            if self._closing:
                return
            self._deadline = time.monotonic() + seconds
            self._closing = True
        os.eventfd_write(self._wake, 1)
        self._thread.join(seconds + 1)
        if self._thread.is_alive():  # never seen: its sockets do not wait. It keeps them, and ends with us
            return
        os.close(self._wake)
        for one in self._outlets:
            one.close()

    def _run(self) -> None:
        while True:
            left = [one.drain() for one in self._outlets]
            if self._closing and (time.monotonic() >= self._deadline or self._done(left)):
                return
            if MORE not in left:
                self._sleep(left)

    def _done(self, left: list[str]) -> bool:
        """Whether waiting would send nothing more: an end waits for who is slow, not for who is not there."""
        return all(state == AWAY or not one.waiting for one, state in zip(self._outlets, left, strict=True))

    def _sleep(self, left: list[str]) -> None:
        """Until there is something new, a socket takes more, or it is time to try again."""
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        for one, state in zip(self._outlets, left, strict=True):
            if state == BLOCKED:
                poll.register(one.fileno(), select.POLLOUT)
        wait: float | None = RETRY_SECONDS if AWAY in left else None
        self._asleep = True
        # What was queued, or a close, before this flag was up, woke nobody.
        if any(one.waiting for one, state in zip(self._outlets, left, strict=True) if state == EMPTY):
            wait = 0.0
        if self._closing:
            wait = max(0.0, min(GATHER_SECONDS, self._deadline - time.monotonic()))
        events = poll.poll(None if wait is None else wait * 1000)
        self._asleep = False
        if any(fd == self._wake for fd, _event in events):
            os.eventfd_read(self._wake)
            if not self._closing and len(events) == 1:
                time.sleep(GATHER_SECONDS)


def _size(entry: dict[str, Any]) -> int:
    """About how much memory an entry keeps alive."""
    size = 0
    for value in entry.values():
        if isinstance(value, str):
            size += len(value)
        elif isinstance(value, (list, dict)):
            size += len(repr(value))
    return size


def _maker(form: str, names: bool) -> Callable[[dict[str, Any]], bytes]:
    """The function that makes a target's messages."""
    if form == "journald":
        from anchorhold.audit.copies.journald import message
    else:
        from anchorhold.audit.copies.syslog import Syslog

        message = Syslog().message
    return message if names else lambda entry: message(without_names(entry))
