"""One connection: uvicorn's HTTP/1.1 with a time limit for each thing a client can be slow at.

``read``: from the first byte of a request (or the connection's begin) to its last. ``write``: a client
that takes nothing of its answer. ``idle``: between requests. A client that leaves is noticed at once, also
while it is being answered, because reading never stops then: bytes that come early wait, up to a bound.
"""

from __future__ import annotations

import asyncio
import http
import json
from collections.abc import Callable
from email.utils import formatdate
from time import time
from typing import Any

import h11
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle
from uvicorn.server import ServerState

from anchorhold.gateway.access import Listener
from anchorhold.gateway.errors import ApiError

MOST_EARLY = 1 << 16
"""Bytes of a next request that a client may send before its answer has ended."""


class Connection(H11Protocol):
    """listener, peer: where it came in, and who is at the other end by the kernel's word ("" for TCP)."""

    def __init__(
        self,
        config: Config,
        state: ServerState,
        listener: Listener,
        peer: str,
        on_end: Callable[[], None],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        super().__init__(config, state, {"connection": self}, loop)
        self.listener, self.peer = listener, peer
        self.timeout_keep_alive = listener.idle  # type: ignore[assignment]  # seconds; call_later takes fractions
        self.on_gone: Callable[[], None] | None = None
        """Called when the client leaves in the middle of an answer."""
        self._on_end = on_end
        self._early = bytearray()
        self._reading: asyncio.TimerHandle | None = None
        self._writing: asyncio.TimerHandle | None = None

    # ---- from the transport -------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as its base
        super().connection_made(transport)
        self._read_until()

    def connection_lost(self, exc: Exception | None) -> None:
        self._done_reading()
        self._done_writing()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)
        gone, self.on_gone = self.on_gone, None
        if gone is not None:
            gone()
        self._on_end()

    def data_received(self, data: bytes) -> None:
        if self._early or self._answering():
            self._early += data
            if len(self._early) > MOST_EARLY:
                self.transport.abort()
            return
        self._read_until()
        second = int(time())
        if second != getattr(self.server_state, "second", 0):
            self.server_state.second = second  # type: ignore[attr-defined]  # ours, beside uvicorn's own
            self.server_state.default_headers = [(b"date", formatdate(second, usegmt=True).encode())]
        super().data_received(data)
        if self._answering():
            self._done_reading()
            self.flow.resume_reading()  # uvicorn stops where a second request follows the first at once

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._writing is None:
            self._writing = self.loop.call_later(self.listener.write, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._done_writing()

    # ---- from uvicorn's own code ----------------------------------------------------------------

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._early and not self.transport.is_closing():
            self.loop.call_soon(self._go_on)

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP. The connection ends, since nobody knows where the next request would begin."""
        self._refuse(ApiError(400, "That is no HTTP/1.1 request, or its head is too long.", code="bad_http"))

    # ---- ours -----------------------------------------------------------------------------------

    def _answering(self) -> bool:
        """A whole request was read, and its answer has not ended."""
        cycle: RequestResponseCycle | None = self.cycle  # None before the first request
        return cycle is not None and not cycle.more_body and not cycle.response_complete

    def _go_on(self) -> None:
        if self._answering() or self.transport.is_closing():
            return
        data, self._early = bytes(self._early), bytearray()
        if data:
            self.data_received(data)

    def _read_until(self) -> None:
        if self._reading is None:
            self._reading = self.loop.call_later(self.listener.read, self._too_slow)

    def _done_reading(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None

    def _done_writing(self) -> None:
        if self._writing is not None:
            self._writing.cancel()
            self._writing = None

    def _too_slow(self) -> None:
        self._reading = None
        if self.transport.is_closing():
            return
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is not None and not cycle.response_complete:
            cycle.disconnected = True
            cycle.message_event.set()
        self._refuse(ApiError(408, "The request did not come in time.", code="timeout"))

    def _refuse(self, error: ApiError) -> None:
        """An answer outside uvicorn's order of things, and the end."""
        cycle: RequestResponseCycle | None = self.cycle
        in_the_middle = cycle is not None and cycle.response_started and not cycle.response_complete
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE, h11.ERROR) and not in_the_middle:
            self.transport.write(plain(error))
        self.transport.close()


def plain(error: ApiError) -> bytes:
    """A whole HTTP answer, for where no machinery runs."""
    body = json.dumps(error.body()).encode()
    phrase = http.HTTPStatus(error.status).phrase
    head = [f"HTTP/1.1 {error.status} {phrase}", "content-type: application/json", "connection: close"]
    head += [f"{key}: {value}" for key, value in error.headers]
    if error.retry_after is not None:
        head.append(f"retry-after: {error.retry_after}")
    head.append(f"content-length: {len(body)}")
    return ("\r\n".join(head) + "\r\n\r\n").encode("latin-1") + body


def connection_of(scope: Any) -> Connection:
    found: Connection = scope["state"]["connection"]
    return found
