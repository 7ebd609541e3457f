"""The control socket: one request a connection, one answer, for the owner, root and a named group.

Constraint: a client is never trusted with more than its words. It is known by SO_PEERCRED before a byte is
read; its request is one frame of at most `MOST` bytes, strict JSON, within `SECONDS`; whatever else it sends
ends its connection and nothing else. Not more than `CLIENTS` at one time.

Request: ``{"v":1,"command":C,"name":N}``, N a policy's name or null for all. Answer:
``{"v":1,"ok":true,"result":…}`` or ``{"v":1,"ok":false,"error":"…"}``, framed as on the channels.
Sources: unix(7) (SO_PEERCRED), docs/api.md.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
from pathlib import Path

from anchorhold.channel import frames
from anchorhold.channel.errors import ProtocolError
from anchorhold.errors import AnchorholdError, WorkerError
from anchorhold.supervisor.service.peers import Peer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Command = Callable[[str | None, "Peer"], Any]

VERSION = 1
NAME = "control.sock"
MOST = 4096
MOST_ANSWER = 8 << 20
SECONDS = 10.0
CLIENTS = 16


def path_of(runtime: str) -> str:
    return os.path.join(runtime, NAME)


class Control(threading.Thread):
    """Serves the socket until `close`."""

    def __init__(self, runtime: str, commands: dict[str, Command], *, group: str | None = None) -> None:
        """Binds the socket. Raises WorkerError if another service answers there, OSError."""
        super().__init__(name="control", daemon=True)
        self._commands = commands
        self._group = group
        self._places = threading.BoundedSemaphore(CLIENTS)
        self.path = path_of(runtime)
        self._socket = listen(self.path, group)

    def run(self) -> None:
        while True:
            try:
                connection, _address = self._socket.accept()
            except OSError:
                return  # closed, or nothing that could be mended here
            if not self._places.acquire(blocking=False):
                connection.close()
                continue
            threading.Thread(
                target=self._serve, args=(connection,), name="control client", daemon=True
            ).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection, contextlib.suppress(OSError, ProtocolError):
                connection.settimeout(SECONDS)
                peer = Peer.of(connection)
                answer = self._answer(connection, peer)
                data = json.dumps(answer, separators=(",", ":"), default=str).encode("ascii")
                connection.sendall(frames.frame(data, MOST_ANSWER))
        finally:
            self._places.release()

    def _answer(self, connection: socket.socket, peer: Peer) -> dict[str, Any]:
        """Raises OSError and ProtocolError for a client that does not speak in time, or at all."""
        if not peer.may(self._group):
            return _failure(f"uid {peer.uid} may not control this service")
        try:
            untrusted = receive(connection, MOST)
            if untrusted is None:
                raise ProtocolError("nothing was said")
            command, name = parse(untrusted)
        except ProtocolError as error:
            return _failure(str(error))
        handler = self._commands.get(command)
        if handler is None:
            return _failure(f"no such command; there are: {', '.join(self._commands)}")
        try:
            return {"v": VERSION, "ok": True, "result": handler(name, peer)}
        except AnchorholdError as error:
            return _failure(error.message)
        except Exception as error:  # a defect of ours must not end the service
            return _failure(f"the command failed: {type(error).__name__}: {error}")

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        with contextlib.suppress(OSError):
            os.unlink(self.path)


def listen(path: str, group: str | None) -> socket.socket:
    """A listening socket that its owner may use, and the group. Raises WorkerError, OSError."""
    if answers(path):
        raise WorkerError(
            f"another service runs here: {path} answers",
            hint="One service for one runtime directory. Name several policies in one, or stop the other.",
        )
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        before = os.umask(0o177)
        try:
            made.bind(path)
        finally:
            os.umask(before)
        if group is not None:
            import grp

            try:
                os.chown(path, -1, grp.getgrnam(group).gr_gid)
            except KeyError:
                raise WorkerError(f"there is no group {group!r} (control.group)") from None
            os.chmod(path, 0o660)
        made.listen(CLIENTS)
    except BaseException:
        made.close()
        raise
    return made


def answers(path: str) -> bool:
    """Whether somebody listens at this Unix socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except BlockingIOError:
            return True  # it is there, and its queue is full
        except OSError:
            return False
        return True


def parse(untrusted: bytes) -> tuple[str, str | None]:
    """Command and name of a request. Raises ProtocolError."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({key for key, _value in pairs}) != len(pairs):
            raise ProtocolError("a key twice")
        return dict(pairs)

    try:
        request = json.loads(untrusted.decode("utf-8"), object_pairs_hook=once)
    except (ValueError, RecursionError):
        raise ProtocolError("not JSON") from None
    if not isinstance(request, dict) or request.keys() != {"v", "command", "name"}:
        raise ProtocolError('a request is {"v":1,"command":…,"name":…}')
    if type(request["v"]) is not int or request["v"] != VERSION:
        raise ProtocolError(f"version {VERSION} is spoken here")
    command, name = request["command"], request["name"]
    if not isinstance(command, str) or not (name is None or isinstance(name, str)):
        raise ProtocolError("command and name are texts")
    return command, name


def receive(connection: socket.socket, most: int) -> bytes | None:
    """One frame; None at the end. Raises ProtocolError, OSError (TimeoutError)."""
    reader = frames.FrameReader(most)
    while True:
        data = connection.recv(1 << 16)
        if not data:
            return None
        found = reader.feed(data)
        if found:
            if len(found) > 1 or reader.pending:
                raise ProtocolError("one request a connection")
            return found[0]


def _failure(words: str) -> dict[str, Any]:
    return {"v": VERSION, "ok": False, "error": words}


def ask(runtime: str | Path, command: str, name: str | None = None, *, seconds: float = SECONDS) -> Any:
    """A client's whole part. Raises WorkerError, whose text says what the service said; ConnectionError and
    FileNotFoundError where there is none."""
    request = json.dumps({"v": VERSION, "command": command, "name": name}).encode("ascii")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(seconds)
        connection.connect(path_of(os.fspath(runtime)))
        try:
            # Whoever may not speak is answered before it has spoken.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.sendall(frames.frame(request, MOST))
            data = receive(connection, MOST_ANSWER)
        except (TimeoutError, ProtocolError) as error:
            raise WorkerError(f"the service does not answer: {error}") from None
    if data is None:
        raise WorkerError("the service closed the connection", hint="It may be busy: try again.")
    answer = json.loads(data)
    if not answer["ok"]:
        raise WorkerError(str(answer["error"]))
    return answer["result"]
