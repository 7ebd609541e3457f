"""The door: opens the API's sockets, keeps the gateway, and passes requests to the keepers and answers back.

Constraint: what comes from the gateway is untrusted: each message is checked by its table, and a request only
counts for a caller that this side has let in itself. A thread of its own reads the channel and accepts on
Unix sockets; sinks are called from keepers' threads and never wait for the gateway.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
import time
from collections import Counter, deque
from pathlib import Path

from anchorhold.channel import frames, gateway
from anchorhold.channel.errors import ProtocolError
from anchorhold.errors import AnchorholdError, LayerError, WorkerError
from anchorhold.supervisor.heartbeat import Heartbeat
from anchorhold.supervisor.service.answers import Answer, request_of
from anchorhold.supervisor.service.backend import Refused
from anchorhold.supervisor.service.gate import ENTRY, FIRST_EXTRA_FD, START_SECONDS, Gate
from anchorhold.supervisor.service.listeners import Listener, give_tokens, plan, tls_files
from anchorhold.supervisor.service.peers import Peer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from anchorhold.policy.schema import Policy
    from anchorhold.supervisor.service.backend import Backend

    Message = dict[str, Any]

NOT_HERE = frozenset({"cgroup", "user"})
"""Layers of a worker that a gateway has not: it has no cgroup of its own, and need not be started by root."""
MOST_QUEUED = 128 << 20
"""Bytes that may wait for a gateway that does not read; then it is ended."""
SILENT_SECONDS = 20.0
"""How long a gateway may give no sign of life: one that was stopped, or hangs, keeps every client waiting."""
LAST_SECONDS = 2
"""How long a gateway whose channel was closed may take to end by itself."""
_WORDS = (
    b'{"error": {"message": "This user may not use the service (api.group).", '
    b'"type": "permission_error", "param": null, "code": "wrong_user"}}'
)
FORBIDDEN = (
    b"HTTP/1.1 403 Forbidden\r\ncontent-type: application/json\r\nconnection: close\r\n"
    b"content-length: %d\r\n\r\n%s" % (len(_WORDS), _WORDS)
)
_CHUNK = 1 << 18


class Front:
    """``start`` in a thread that lives as long as the gateway shall; the rest from any."""

    def __init__(
        self,
        policies: list[Policy],
        backend: Backend,
        *,
        runtime: str,
        state_dir: Path,
        inherited: Mapping[str, int] | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        """runtime: folder of sockets; inherited: listening sockets by the policy they are for."""
        self._policies = policies
        self._backend = backend
        self._runtime, self._state_dir = runtime, state_dir
        self._inherited = dict(inherited or {})
        self._environ = environ
        self._listeners: list[Listener] = []
        self._extra: list[int] = []
        self._owned: list[int] = []
        """Memory files that are closed here once the gateway has them."""
        self._gate: Gate | None = None
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._out: deque[memoryview] = deque()
        self._queued = 0
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._frames = frames.FrameReader(gateway.FROM_GATEWAY_LIMIT)
        self._answers: dict[int, Answer] = {}
        self._peers: dict[int, tuple[int, int]] = {}
        """Handed-in connections by number: uid and listener."""
        self._let_in: Counter[tuple[int, int]] = Counter()
        self._next_connection = 0
        self._ready = threading.Event()
        self._heartbeat = Heartbeat(SILENT_SECONDS)
        self._ended = threading.Event()
        self._closing = False
        self._draining = ""
        self.problem = ""
        """Why the gateway was ended, where this side did it."""

    @property
    def layers(self) -> tuple[dict[str, str], dict[str, str]]:
        """What holds the gateway, and what is missing and why."""
        return ({}, {}) if self._gate is None else (self._gate.held, self._gate.missing)

    @property
    def addresses(self) -> dict[str, str]:
        """Where each policy is reached."""
        return {name: one.address for one in self._listeners for name in one.names}

    @property
    def gateway_pid(self) -> int:
        """The launcher that waits for the gateway; -1 when there is none."""
        return -1 if self._gate is None else self._gate.pid

    # ---- start --------------------------------------------------------------------------------

    def start(self, seconds: float = START_SECONDS) -> None:
        """Bind, start the gateway, wait until it serves: no longer than ``seconds``, however it hangs.

        Raises PolicyError, LayerError, WorkerError, OSError; nothing is left open then.
        """
        try:
            self._listeners = plan(self._policies, self._runtime)
            if not self._listeners:
                return
            for listener in self._listeners:
                listener.open(
                    next((self._inherited[n] for n in listener.names if n in self._inherited), None)
                )
                if not listener.unix or listener.api.token:
                    give_tokens(listener, self._state_dir, self._environ)
            self._start_gateway(seconds)
        except BaseException:
            self.close()
            raise

    def _start_gateway(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        try:
            config = self._gateway_config()
            gate = self._gate = Gate()
            gate.start(
                config,
                self._extra,
                descriptors=sum(listener.api.concurrency for listener in self._listeners),
                demand=self._demand,
                entry=ENTRY,
                seconds=seconds,
            )
        finally:
            while self._owned:
                os.close(self._owned.pop())
        self.policies_changed()
        self._thread = threading.Thread(target=self._run, name="front", daemon=True)
        self._thread.start()
        if not self._ready.wait(max(0.0, deadline - time.monotonic())) or self._ended.is_set():
            raise WorkerError("the gateway did not start", detail=gate.said())

    def _gateway_config(self) -> Message:
        """What it is told at the start; `_extra` are the descriptors that it gets. Raises PolicyError."""
        self._extra = []
        configs: list[Message] = []
        for listener in self._listeners:
            assert listener.socket is not None
            fd, tls = -1, None
            if not listener.unix:
                fd = FIRST_EXTRA_FD + len(self._extra)
                self._extra.append(listener.socket.fileno())
                files = tls_files(listener.api)
                if files is not None:
                    self._owned += files
                    tls = (fd + 1, fd + 2)
                    self._extra += files
            configs.append(listener.config(fd, tls))
        return {"listeners": configs}

    def _demand(self, held: dict[str, str], missing: dict[str, str]) -> None:
        """seccomp always; of what policies require, all that a gateway can have. Raises LayerError."""
        wanted = {"seccomp"}.union(*(policy.require for policy in self._policies)) - NOT_HERE
        lacking = sorted(name for name in wanted if name not in held)
        if lacking:
            causes = "; ".join(f"{name}: {missing.get(name, 'not available')}" for name in lacking)
            raise LayerError(
                f"layers that the gateway must have are missing: {causes}",
                hint="[require] layers decides what a cell must have; without an API none is needed.",
            )

    # ---- what the service calls -----------------------------------------------------------------

    def policies_changed(self) -> None:
        """Tell the gateway what describe() says now."""
        if self._gate is not None and not self._ended.is_set():
            served = {name for listener in self._listeners for name in listener.names}
            self.send(
                {
                    "type": "policies",
                    "policies": [one for one in self._backend.describe() if one["name"] in served],
                }
            )

    def alive(self) -> bool:
        """False when the gateway has ended: then close this one and start another."""
        return not self._ended.is_set()

    def drain(self, reason: str, seconds: float) -> None:
        """Take nothing new; wait so long for answers in flight, end those that are left with an error."""
        self._draining = reason
        if self._gate is None or self._ended.is_set():
            return
        self.send({"type": "drain", "reason": reason})
        deadline = time.monotonic() + seconds
        while self._answers and time.monotonic() < deadline and not self._ended.is_set():
            time.sleep(0.01)
        for answer in list(self._answers.values()):
            answer.end(503, "stopping", reason)
            if answer.ticket is not None:
                self._backend.cancel(answer.ticket)
        while self._out and time.monotonic() < deadline + 0.5 and not self._ended.is_set():
            time.sleep(0.01)
        time.sleep(0.05)  # the gateway's own last writes

    def close(self) -> None:
        """The gateway is dead and the sockets are gone when this returns. Once more does nothing."""
        if self._wake_write < 0:
            return  # `start` failed and has closed it; what it raised is what counts
        self._closing = True
        self._wake()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(5.0)
        for answer in list(self._answers.values()):
            self._cancel(answer)
        if self._gate is not None:
            self._gate.close()
        for listener in self._listeners:
            listener.close()
        for name in ("_wake_read", "_wake_write"):
            fd = getattr(self, name)
            setattr(self, name, -1)
            if fd >= 0:
                os.close(fd)

    # ---- the thread ---------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._serve()
        except (ProtocolError, OSError) as error:
            self.problem = f"the gateway was ended: {error}"
        except Exception as error:  # whatever it is: no thread, no gateway, and the service starts another
            self.problem = f"the door failed: {type(error).__name__}: {error}"
        finally:
            assert self._gate is not None
            self._let_go()
            self._ended.set()
            self._ready.set()
            for answer in list(self._answers.values()):
                self._cancel(answer)

    def _let_go(self) -> None:
        """When it is told to end by the end of its channel, it ends by itself; else it is killed."""
        gate = self._gate
        assert gate is not None
        if self._closing:
            with contextlib.suppress(OSError):
                gate.channel.shutdown(socket.SHUT_RDWR)
            poll = select.poll()
            poll.register(gate.child_fd, select.POLLIN)
            poll.poll(LAST_SECONDS * 1000)
        gate.kill()

    def _serve(self) -> None:
        gate = self._gate
        assert gate is not None
        poll = select.poll()
        channel = gate.channel.fileno()
        unix = {
            one.socket.fileno(): index for index, one in enumerate(self._listeners) if one.socket and one.unix
        }
        for fd in (channel, gate.stderr, gate.child_fd, self._wake_read):
            poll.register(fd, select.POLLIN)
        waiting = False
        while not self._closing:
            if self._heartbeat.missed() and not self._still_lives():
                return
            if self._ready.is_set() and self._heartbeat.due():
                self.send({"type": "ping"})
            with self._lock:
                full = bool(self._out)
            if full != waiting:
                poll.modify(channel, select.POLLIN | (select.POLLOUT if full else 0))
                waiting = full
            wait = self._heartbeat.wait() if self._ready.is_set() else SILENT_SECONDS
            for fd, what in poll.poll(1 + int(wait * 1000)):
                if fd == channel:
                    if what & select.POLLOUT:
                        with self._lock:
                            self._write()
                    if what & (select.POLLIN | select.POLLHUP | select.POLLERR) and not self._read():
                        self.problem = "the gateway closed its channel"
                        return
                elif fd in unix:
                    self._accept(unix[fd])
                elif fd == self._wake_read:
                    with contextlib.suppress(BlockingIOError):
                        os.read(fd, 4096)
                elif fd == gate.stderr:
                    if not gate.read_errors():
                        poll.unregister(fd)
                elif fd == gate.child_fd:
                    self.problem = f"the gateway ended; it said: {gate.said()[-500:] or 'nothing'}"
                    return
            if self._ready.is_set() and unix and not self._listening:
                for fd in unix:
                    poll.register(fd, select.POLLIN)
                self._listening = True

    _listening = False

    def _still_lives(self) -> bool:
        """Whether a sign of life waits to be read: we may be those who did not look."""
        if self._read() and self._heartbeat.missed():
            self.problem = f"the gateway gave no sign of life for {SILENT_SECONDS:g} s"
            return False
        return True

    def _accept(self, index: int) -> None:
        """Look at who it is, by the kernel's word, before a byte of it is read by anybody."""
        listener = self._listeners[index]
        assert listener.socket is not None and self._gate is not None
        try:
            connection, _address = listener.socket.accept()
        except OSError:
            return
        with connection:
            try:
                peer = Peer.of(connection)
                if not peer.may(listener.api.group):
                    connection.setblocking(False)
                    connection.send(FORBIDDEN)
                    connection.shutdown(socket.SHUT_WR)
                    connection.recv(_CHUNK)  # what is unread at the close would take the answer away again
                    return
                self._next_connection += 1
                self._gate.hand_in(connection, self._next_connection, index, peer.uid)
            except OSError:
                return  # it has left, or the gateway takes no more for now
            self._peers[self._next_connection] = (peer.uid, index)
            self._let_in[peer.uid, index] += 1

    def _read(self) -> bool:
        """Take what the gateway says. False at its end. Raises ProtocolError."""
        assert self._gate is not None
        try:
            data = self._gate.channel.recv(_CHUNK)
        except BlockingIOError:
            return True
        except ConnectionResetError:
            return False
        for frame in self._frames.feed(data):
            self._take(gateway.decode_from_gateway(frame))
        return bool(data)

    def _take(self, message: Message) -> None:
        kind = message["type"]
        if kind == "ready":
            self._heartbeat.heard()
            self._ready.set()
        elif kind == "pong":
            self._heartbeat.heard()
        elif kind == "cancel":
            answer = self._answers.get(message["id"])
            if answer is not None:
                self._cancel(answer)
        elif kind == "closed":
            peer = self._peers.pop(message["connection"], None)
            if peer is not None:
                self._let_in[peer] -= 1
        else:
            self._submit(message)

    def _submit(self, message: Message) -> None:
        number = message["id"]
        if number in self._answers:
            raise ProtocolError("a number of a request twice")
        answer = self._answers[number] = Answer(self, number)
        if self._draining:
            answer.end(503, "stopping", self._draining)
            return
        if not self._is_let_in(message["principal"], message["policy"]):
            answer.end(403, "wrong_user", "that caller was not let in, or not to this policy")
            return
        try:
            answer.ticket = self._backend.submit(
                message["policy"], request_of(message), answer, receipt=message["receipt"]
            )
        except Refused as refused:
            answer.end(refused.status, refused.code, str(refused), refused.retry_after)
        except AnchorholdError as error:
            answer.failed(error)

    def _is_let_in(self, principal: str, policy: str) -> bool:
        """Whether this side knows of such a caller for that policy: the gateway's word is not enough."""
        kind, _colon, value = principal.partition(":")
        for index, listener in enumerate(self._listeners):
            if policy not in listener.names:
                continue
            if kind == "token" and any(
                digest.startswith(value) and policy in names for digest, names in listener.tokens.items()
            ):
                return True
            if kind == "uid" and not listener.tokens and self._let_in[int(value), index] > 0:
                return True
        return False

    def _cancel(self, answer: Answer) -> None:
        self._answers.pop(answer.number, None)
        if not answer.over:
            answer.over = True
            if answer.ticket is not None:
                self._backend.cancel(answer.ticket)

    # ---- to the gateway, from any thread --------------------------------------------------------

    def send(self, message: Message) -> None:
        """Queue a message, or write it at once where nothing waits. Raises ProtocolError."""
        data = frames.frame(gateway.encode_to_gateway(message), gateway.TO_GATEWAY_LIMIT)
        with self._lock:
            self._out.append(memoryview(data))
            self._queued += len(data)
            if len(self._out) == 1:
                self._write()
            full = bool(self._out)
            if self._queued > MOST_QUEUED:
                self._closing = True
                self.problem = "the gateway did not read what it was sent"
        if full:
            self._wake()

    def _write(self) -> None:
        """With the lock held. What does not fit waits for the thread."""
        gate = self._gate
        assert gate is not None
        try:
            while self._out:
                view = self._out[0]
                sent = gate.channel.send(view, socket.MSG_NOSIGNAL)
                self._queued -= sent
                if sent < len(view):
                    self._out[0] = view[sent:]
                else:
                    self._out.popleft()
        except BlockingIOError:
            return
        except OSError:
            self._out.clear()  # it is gone; the thread finds out why
            self._queued = 0

    def _wake(self) -> None:
        if self._wake_write >= 0:
            with contextlib.suppress(BlockingIOError):
                os.write(self._wake_write, b"x")

    def over(self, answer: Answer) -> None:
        """An answer has come to its end."""
        answer.over = True
        self._answers.pop(answer.number, None)
