"""The gateway's entries: ``prepare`` in the open, ``begin`` before the last layer, ``serve`` after it.

``prepare`` serves one request over a socket pair of its own, so that everything that is imported or looked up
at first use has been: after the seal there is no file to import from.
"""

from __future__ import annotations

import array
import asyncio
import logging
import os
import socket
import ssl
from typing import Any

from uvicorn.config import Config
from uvicorn.server import ServerState

from anchorhold.gateway.access import MOST_HEAD, Listener
from anchorhold.gateway.app import App, quietly
from anchorhold.gateway.connection import Connection, plain
from anchorhold.gateway.errors import ApiError
from anchorhold.gateway.link import Link
from anchorhold.gateway.metrics import Metrics

HANDSHAKE_SECONDS = 10.0
BUSY = ApiError(503, "Too many connections are open.", code="too_many_connections", retry_after=1)

_listeners: list[Listener] = []
_contexts: dict[int, ssl.SSLContext] = {}
_loops: list[asyncio.AbstractEventLoop] = []


def prepare(config: dict[str, Any]) -> None:
    """Build all that needs a file. config: see `anchorhold.supervisor.service.gate`."""
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "asyncio"):
        logging.getLogger(name).disabled = True
    for number, one in enumerate(config["listeners"]):
        listener = Listener(number, one)
        _listeners.append(listener)
        if listener.tls is not None:
            _contexts[number] = _context(*listener.tls)
    loop = asyncio.SelectorEventLoop()
    try:
        loop.run_until_complete(_warm_up(loop))
    finally:
        loop.close()


def _context(certificate: int, key: int) -> ssl.SSLContext:
    """TLS 1.2 and later, from memory files of the supervisor."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(f"/proc/self/fd/{certificate}", f"/proc/self/fd/{key}")
    context.set_alpn_protocols(["http/1.1"])
    return context


async def _warm_up(loop: asyncio.AbstractEventLoop) -> None:
    """One chat request, streamed, and a few that are refused, over sockets that nobody else has."""
    plain_listener = Listener(0, WARM)
    link_end, supervisor_end = socket.socketpair()
    link = Link(loop, link_end)
    link.policies = {"warm": {**WARM_POLICY}}
    server = _Server(loop, link)
    client, ours = socket.socketpair()
    ours.setblocking(False)
    client.setblocking(False)
    supervisor_end.setblocking(False)
    await server.take(ours, plain_listener, "uid:0", lambda: None)
    for request in WARM_REQUESTS:
        await loop.sock_sendall(client, request)
        if b"chat" in request:
            await loop.sock_recv(supervisor_end, 1 << 16)
            pending = next(iter(link._pending.values()))
            for message in WARM_ANSWER:
                if message["type"] == "done":
                    link._end(pending)
                pending.put(message)
                await asyncio.sleep(0)
        await loop.sock_recv(client, 1 << 16)
    client.close()
    for _turn in range(3):
        await asyncio.sleep(0)
    link_end.close()
    supervisor_end.close()
    if _contexts:
        _handshake(next(iter(_contexts.values())))


def _handshake(context: ssl.SSLContext) -> None:
    """The TLS library loads what it needs when it first meets somebody."""
    theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    theirs.check_hostname, theirs.verify_mode = False, ssl.CERT_NONE
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = context.wrap_bio(to_server, to_client, server_side=True)
    client = theirs.wrap_bio(to_client, to_server)
    for _turn in range(4):
        for end in (client, server):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue


def begin() -> None:
    """Make the event loop, whose own sockets cannot be made later, and let go of the keys' files."""
    for listener in _listeners:
        for fd in listener.tls or ():
            os.close(fd)
    loop = asyncio.SelectorEventLoop()
    loop.set_exception_handler(quietly)
    asyncio.set_event_loop(loop)
    _loops.append(loop)


def serve(handover: int, channel: int, _first: int) -> int:
    """Serve until the supervisor is gone. Returns the exit status."""
    loop = _loops[0]
    link = Link(loop, socket.socket(fileno=channel))
    server = _Server(loop, link)
    link.on_drain = server.drain
    link.start()
    server.listen(socket.socket(fileno=handover), _listeners)
    link.send({"type": "ready"})
    loop.run_forever()
    return 0


class _Server:
    """Takes connections: those that are handed in, and those of the listening sockets that it was given."""

    def __init__(self, loop: asyncio.AbstractEventLoop, link: Link) -> None:
        self._loop, self._link = loop, link
        self.metrics = Metrics()
        self.state = ServerState()
        self._tasks: set[asyncio.Task[None]] = set()
        self.config = Config(
            App(link, self.metrics),
            http=Connection,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            interface="asgi3",
            h11_max_incomplete_event_size=MOST_HEAD,
        )
        self.config.load()
        self._listeners: list[Listener] = []
        self._sockets: list[socket.socket] = []

    def listen(self, handover: socket.socket, listeners: list[Listener]) -> None:
        handover.setblocking(False)
        self._listeners = listeners
        self._loop.add_reader(handover.fileno(), self._handed_in, handover)
        for listener in listeners:
            if listener.fd >= 0:
                bound = socket.socket(fileno=listener.fd)
                bound.setblocking(False)
                self._sockets.append(bound)
                self._loop.add_reader(bound.fileno(), self._accept, bound, listener)

    def _handed_in(self, handover: socket.socket) -> None:
        """A connection of a Unix socket whose peer the supervisor has looked at."""
        try:
            data, control, _flags, _address = handover.recvmsg(64, socket.CMSG_SPACE(4))
        except BlockingIOError:
            return
        if not data:
            os._exit(0)
        number, index, uid = (int(word) for word in data.split())
        fds = array.array("i")
        for level, kind, part in control:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds.frombytes(part[:4])
        if len(fds) != 1:
            return
        listener = self._listeners[index]
        self._begin(
            socket.socket(fileno=fds[0]),
            listener,
            f"uid:{uid}",
            lambda: self._link.send({"type": "closed", "connection": number}),
        )

    def _accept(self, bound: socket.socket, listener: Listener) -> None:
        try:
            connection, _address = bound.accept()
        except OSError:
            return
        self._begin(connection, listener, "", lambda: None)

    def _begin(self, connection: socket.socket, listener: Listener, peer: str, on_end: Any) -> None:
        connection.setblocking(False)
        if listener.open >= listener.concurrency:
            try:
                if listener.tls is None:
                    connection.send(plain(BUSY))
            except OSError:
                pass
            connection.close()
            on_end()
            self.metrics.refused["too_many_connections"] += 1
            return
        task = self._loop.create_task(self.take(connection, listener, peer, on_end))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def take(self, connection: socket.socket, listener: Listener, peer: str, on_end: Any) -> None:
        """Serve one connection, from its handshake on."""
        listener.open += 1
        self.metrics.connections += 1
        ended = False

        def end() -> None:
            nonlocal ended
            if not ended:
                ended = True
                listener.open -= 1
                self.metrics.connections -= 1
                on_end()

        context = _contexts.get(listener.number) if listener.tls is not None else None
        try:
            await self._loop.connect_accepted_socket(
                lambda: Connection(self.config, self.state, listener, peer, end, self._loop),
                connection,
                ssl=context,
                ssl_handshake_timeout=HANDSHAKE_SECONDS if context is not None else None,
            )
        except (OSError, ssl.SSLError):
            connection.close()
            end()

    def drain(self) -> None:
        """Nobody new comes in; connections that have nothing to do end, others after their answer."""
        for bound in self._sockets:
            self._loop.remove_reader(bound.fileno())
        for connection in list(self.state.connections):
            connection.shutdown()


WARM: dict[str, Any] = {
    "unix": True, "fd": -1, "loopback": False, "port": 0, "policies": ["warm"], "tokens": {}, "hosts": [],
    "origins": [], "tls": None, "max_body": 1 << 16, "max_tokens": 16, "concurrency": 1, "queue": 1,
    "read_timeout": 5.0, "write_timeout": 5.0, "idle_timeout": 5.0,
}  # fmt: skip
WARM_POLICY: dict[str, Any] = {
    "name": "warm", "state": "serving", "model": "m", "model_sha256": None, "context": 16, "created": 0,
    "embeddings": False, "figures": {},
}  # fmt: skip
_CHAT = b'{"model":"warm","messages":[{"role":"user","content":"h\\u00e9"}],"stream":true,"temperature":0.5}'
WARM_REQUESTS = (
    b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: "
    + str(len(_CHAT)).encode()
    + b"\r\n\r\n"
    + _CHAT,
    b"GET /nothing HTTP/1.1\r\nhost: x\r\n\r\n",
    b"PUT /metrics HTTP/1.1\r\nhost: x\r\n\r\n",
    b"GET /metrics HTTP/1.1\r\nhost: [::1]:1\r\n\r\n",
    b"bad\r\n\r\n",
)
WARM_ANSWER: tuple[dict[str, Any], ...] = (
    {"type": "started", "name": "warm-1"},
    {"type": "token", "text": "h\u00e9"},
    {
        "type": "done",
        "reason": "stop",
        "prompt_tokens": 1,
        "output_tokens": 1,
        "prompt_seconds": 0.0,
        "output_seconds": 0.0,
        "shown": [],
        "receipt": None,
    },
)
