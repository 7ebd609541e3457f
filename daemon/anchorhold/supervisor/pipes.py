"""The three pipes of a worker, as its supervisor holds them: what it is told, what it says, its complaints.

Constraint: nobody waits in here. A worker that does not read is told later; one that speaks faster than it is
heard waits in its own write, since our memory is no buffer.
"""

from __future__ import annotations

import contextlib
import os
import select
from collections import deque

from anchorhold.channel import frames

TYPE_CHECKING = False
if TYPE_CHECKING:
    import queue
    from collections.abc import Callable

    from anchorhold.supervisor.spawn import Launched

STDERR_KEPT = 8192
MOST_WAITING = 64
"""Events that may wait for their reader before the worker's channel is left unread for a while."""
_CHUNK = 1 << 16


class Pipes:
    """Of one worker. All but `put` and `is_awaited` are for the thread that polls."""

    def __init__(
        self,
        launched: Launched,
        poll: select.poll,
        events: queue.SimpleQueue[object],
        take: Callable[[bytes], None],
    ) -> None:
        """poll: where the descriptors are registered; events: what waits for its reader; take: gets each
        frame."""
        self._launched = launched
        self._poll = poll
        self._events = events
        self._take = take
        self._frames = frames.FrameReader()
        self._outgoing: deque[memoryview] = deque()
        self.stderr = bytearray()
        self.held_back = False
        self.closed = False

    def put(self, frame: bytes) -> None:
        """Queue what it is to be told."""
        self._outgoing.append(memoryview(frame))

    def write(self) -> None:
        """As much of it as the pipe takes."""
        if not self._outgoing:
            return
        sink = self._launched.to_worker
        try:
            while self._outgoing:
                view = self._outgoing[0]
                written = os.write(sink, view)
                if written < len(view):
                    self._outgoing[0] = view[written:]
                else:
                    self._outgoing.popleft()
        except BlockingIOError:
            self._poll.register(sink, select.POLLOUT)
            return
        except OSError:
            self._outgoing.clear()  # it has closed its end; its death follows
        with contextlib.suppress(KeyError):
            self._poll.unregister(sink)

    def hold_back(self) -> None:
        """Leave the channel unread where too much waits, and read it again when that is gone."""
        full = self._events.qsize() > MOST_WAITING
        if full != self.held_back and not self.closed:
            self.held_back = full
            self._poll.register(self._launched.from_worker, 0 if full else select.POLLIN)

    def is_awaited(self) -> bool:
        """Whether the channel is unread although it could be read again."""
        return self.held_back and self._events.qsize() <= MOST_WAITING // 2

    def readable(self, events: int) -> None:
        """poll(2) says something of the channel. Raises ProtocolError, and what ``take`` raises."""
        if not self.held_back:
            self.read()
        elif events & ~select.POLLIN:
            self._close()

    def read(self) -> None:
        """What it says just now. Raises as `readable`."""
        try:
            data = os.read(self._launched.from_worker, _CHUNK)
        except BlockingIOError:
            return
        if data:
            self._feed(data)
        else:
            self._close()

    def _close(self) -> None:
        self.closed = True
        self._poll.unregister(self._launched.from_worker)

    def _feed(self, data: bytes) -> None:
        for frame in self._frames.feed(data):
            self._take(frame)

    def read_stderr(self) -> None:
        """What it complains of just now; the end of it is kept."""
        try:
            data = os.read(self._launched.stderr, _CHUNK)
        except BlockingIOError:
            return
        if not data:
            self._poll.unregister(self._launched.stderr)
        self._keep(data)

    def _keep(self, data: bytes) -> None:
        self.stderr += data
        del self.stderr[:-STDERR_KEPT]

    def drain(self, *, channel: bool) -> None:
        """What it had said before it died still counts. channel: also what is no complaint. Raises as
        `readable`."""
        with contextlib.suppress(OSError):
            while data := os.read(self._launched.stderr, _CHUNK):
                self._keep(data)
        if channel:
            with contextlib.suppress(OSError):
                while data := os.read(self._launched.from_worker, _CHUNK):
                    self._feed(data)
