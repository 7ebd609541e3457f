"""One target: its queue, its socket, and what it lost.

Two sides use it. Whoever sends calls `offer`; the thread of `Copies` calls all else. Each counts what it
loses in a number of its own, and the queue between them is a deque, so that neither ever waits for the
other.
"""

from __future__ import annotations

import errno
import socket
import time
from collections import deque

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from anchorhold.audit.copies.targets import Target

MOST_ENTRIES = 4_096
MOST_SIZE = 8 << 20
"""Bounds of a queue; its size is about the characters of text in it."""

RETRY_SECONDS = 1.0
BATCH = 64
"""Messages sent before the other targets have their turn."""

EMPTY, MORE, BLOCKED, AWAY = "empty", "more", "blocked", "away"
"""What `drain` left behind: nothing; more; a socket that takes no more now; nobody who listens."""

_FULL = (errno.EAGAIN, errno.EINTR)
_DROPPED = (errno.EMSGSIZE, errno.ENOBUFS, errno.ENOMEM, errno.EPERM, errno.EINVAL)
"""Errors that are about this message; all others are about the connection."""


class Outlet:
    def __init__(self, target: Target, make: Callable[[dict[str, Any]], bytes], most: int) -> None:
        self.target = target
        self._make = make
        self._most = most
        self._queue: deque[tuple[dict[str, Any], int]] = deque()
        self._size_in = self._size_out = 0
        self._refused = 0  # by `offer`
        self._failed = 0  # by the thread
        self._socket: socket.socket | None = None
        self._retry_at = 0.0
        self._message: bytes | None = None  # made, and not sent yet

    @property
    def lost(self) -> int:
        return self._refused + self._failed

    @property
    def waiting(self) -> bool:
        return self._message is not None or bool(self._queue)

    def offer(self, entry: dict[str, Any], size: int) -> None:
        """Queue an entry, or count it as lost. One caller at a time."""
        full = len(self._queue) >= self._most or self._size_in - self._size_out + size > MOST_SIZE
        if full:
            self._refused += 1
        else:
            self._size_in += size
            self._queue.append((entry, size))

    def refuse(self) -> None:
        """Count an entry that cannot even be queued."""
        self._refused += 1

    def drain(self) -> str:
        """Send what is queued as far as it goes without waiting. Says what it left (`EMPTY` ...)."""
        for _ in range(BATCH):
            if self._message is None and not self._next():
                return EMPTY
            if self._message is None:  # that one could not be made
                continue
            if not self._connected():
                return AWAY
            if not self._send(self._message):
                return BLOCKED if self._socket is not None else AWAY
            self._message = None
        return MORE if self.waiting else EMPTY

    def _next(self) -> bool:
        """Make the next message; False where none is queued."""
        if not self._queue:
            return False
        entry, size = self._queue.popleft()
        self._size_out += size
        try:
            self._message = self._make(entry)
        except Exception:  # whatever an entry holds, the thread lives on
            self._failed += 1
        return True

    def _connected(self) -> bool:
        if self._socket is None and time.monotonic() >= self._retry_at:
            try:
                self._socket = self.target.connect()
            except OSError:
                self._retry_at = time.monotonic() + RETRY_SECONDS
        return self._socket is not None

    def _send(self, message: bytes) -> bool:
        """Whether this message is done with: sent, or lost."""
        assert self._socket is not None
        for again in (True, False):
            try:
                self._socket.send(message)
                return True
            except OSError as error:
                if error.errno in _FULL:
                    return False
                if self.target.family == socket.AF_UNIX and error.errno not in _DROPPED:
                    self.disconnect()  # whoever listened has gone; another may come
                    self._retry_at = time.monotonic() + RETRY_SECONDS
                    return False
                self._failed += 1
                if error.errno != errno.ECONNREFUSED or not again:
                    return True
                # UDP: it was an earlier datagram that did not arrive; this one is not sent yet
        return True

    def fileno(self) -> int:
        """The socket, to wait until it takes more; -1 where there is none."""
        return -1 if self._socket is None else self._socket.fileno()

    def disconnect(self) -> None:
        if self._socket is not None:
            if self.target.family != socket.AF_UNIX and self._socket.getsockopt(
                socket.SOL_SOCKET, socket.SO_ERROR
            ):
                self._failed += 1
            self._socket.close()
            self._socket = None

    def close(self) -> None:
        """Count what is left as lost. The thread has ended."""
        self._failed += len(self._queue) + (self._message is not None)
        self._queue.clear()
        self._message = None
        self.disconnect()
