"""The gateway's end of the channel: sends requests to the supervisor, sorts what comes back.

Constraint: one thread, one event loop. Whoever waits for an answer holds a `Pending`; what a stranger's
connection can make this process keep is bounded by what it asked for (``max_tokens``) and by the time a slow
client is given.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections import Counter, deque
from collections.abc import Callable
from typing import Any

from anchorhold.channel import frames, gateway
from anchorhold.channel.errors import ProtocolError
from anchorhold.gateway.errors import ApiError, Gone

Message = dict[str, Any]
_CHUNK = 1 << 18


class Pending:
    """One request that was sent, until its ``done`` or ``failed``."""

    __slots__ = ("_gone", "_link", "_queue", "_waiter", "ended", "id", "policy", "principal")

    def __init__(self, link: Link, number: int, policy: str, principal: str) -> None:
        self.id, self.policy, self.principal = number, policy, principal
        self.ended = False
        self._link = link
        self._queue: deque[Message] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._gone = False

    def put(self, message: Message) -> None:
        self._queue.append(message)
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def some(self) -> list[Message]:
        """All that has come by now, at least one message. Raises Gone, and ApiError where it failed."""
        while not self._queue:
            if self._gone:
                raise Gone
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
            self._waiter = None
        if self._gone:
            raise Gone
        found = list(self._queue)
        self._queue.clear()
        return found

    def abandon(self) -> None:
        """The client has left: stop the answer now, and wake whoever waits for it."""
        self._gone = True
        self._link.cancel(self)
        self._wake()


class Link:
    """The channel. ``policies`` is what the supervisor last said of them, by name."""

    def __init__(self, loop: asyncio.AbstractEventLoop, channel: socket.socket) -> None:
        self.policies: dict[str, Message] = {}
        self.draining = ""
        self.in_flight: Counter[str] = Counter()
        self._loop = loop
        self._socket = channel
        channel.setblocking(False)
        self._frames = frames.FrameReader(gateway.TO_GATEWAY_LIMIT)
        self._out: deque[memoryview] = deque()
        self._pending: dict[int, Pending] = {}
        self._next = 0
        self.on_drain: Callable[[], None] = lambda: None

    def start(self) -> None:
        self._loop.add_reader(self._socket.fileno(), self._read)

    # ---- requests -----------------------------------------------------------------------------

    def ask(self, kind: str, policy: str, principal: str, fields: Message) -> Pending:
        """Send a request. Raises ApiError when the supervisor's table would not take it."""
        self._next += 1
        pending = Pending(self, self._next, policy, principal)
        message = {"type": kind, "id": pending.id, "policy": policy, "principal": principal, **fields}
        try:
            self.send(message)
        except ProtocolError as error:
            raise ApiError(400, f"The request cannot be handed on: {error}.", code="invalid_value") from None
        self._pending[pending.id] = pending
        self.in_flight[policy] += 1
        return pending

    def cancel(self, pending: Pending) -> None:
        """Nobody waits for it. What still comes is dropped."""
        if not pending.ended:
            self._end(pending)
            self.send({"type": "cancel", "id": pending.id})

    def _end(self, pending: Pending) -> None:
        pending.ended = True
        self._pending.pop(pending.id, None)
        self.in_flight[pending.policy] -= 1

    # ---- the channel --------------------------------------------------------------------------

    def send(self, message: Message) -> None:
        data = frames.frame(gateway.encode_from_gateway(message), gateway.FROM_GATEWAY_LIMIT)
        self._out.append(memoryview(data))
        if len(self._out) == 1:
            self._write()

    def _write(self) -> None:
        while self._out:
            view = self._out[0]
            try:
                sent = self._socket.send(view)
            except BlockingIOError:
                self._loop.add_writer(self._socket.fileno(), self._write)
                return
            except OSError:
                os._exit(0)  # nobody is there to serve for
            if sent < len(view):
                self._out[0] = view[sent:]
            else:
                self._out.popleft()
        self._loop.remove_writer(self._socket.fileno())

    def _read(self) -> None:
        try:
            data = self._socket.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            os._exit(0)  # the supervisor is gone
        try:
            for frame in self._frames.feed(data):
                self._take(gateway.decode_to_gateway(frame))
        except ProtocolError as error:
            os.write(2, f"the supervisor sent no message of the protocol: {error}\n".encode())
            os._exit(1)

    def _take(self, message: Message) -> None:
        kind = message["type"]
        if kind == "policies":
            self.policies = {one["name"]: one for one in message["policies"]}
            return
        if kind == "ping":
            self.send({"type": "pong"})
            return
        if kind == "drain":
            self.draining = message["reason"]
            self.on_drain()
            return
        pending = self._pending.get(message["id"])
        if pending is None:
            return  # its client has left
        if kind in ("done", "failed"):
            self._end(pending)
        pending.put(message)
