"""Starts the gateway in its cell, and holds the supervisor's ends of what leads there.

The launcher (`anchorhold.cell.gateway`) gets an empty environment, a session of its own and the descriptors
named there. Constraint: the kernel kills the gateway when the *thread* that called ``start`` ends (prctl(2),
PR_SET_PDEATHSIG), so that must be one that lives as long.
"""

from __future__ import annotations

import array
import contextlib
import marshal
import os
import select
import signal
import socket
import sys
import time

from anchorhold.broker import runtime
from anchorhold.errors import WorkerError
from anchorhold.kernel import pidfd
from anchorhold.supervisor.spawn import NOBODY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

LAUNCHER = os.path.join(
    os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))), "cell", "gateway.py"
)
ENTRY = "anchorhold.gateway.main"
FIRST_EXTRA_FD = 6
START_SECONDS = 30.0
STDERR_KEPT = 8192
MEMORY = 2 << 30
"""Bytes of address space: what bodies and answers that wait may come to, and the interpreter."""
DESCRIPTORS_BESIDE = 32
MESSAGE_MAX = 1 << 16
RIGHTS = {"child": 1, "cell": 0}


class Gate:
    """One gateway process. ``held`` and ``missing``: its layers by name, as the launcher says."""

    def __init__(self) -> None:
        self.pid = -1
        self.child_fd = -1
        self.held: dict[str, str] = {}
        self.missing: dict[str, str] = {}
        self.errors = bytearray()
        self.handover, self._handover_theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.channel, self._channel_theirs = socket.socketpair()
        self.stderr, self._stderr_theirs = os.pipe()
        os.set_blocking(self.stderr, False)
        self.channel.setblocking(False)

    def start(
        self,
        gateway: dict[str, Any],
        extra: Sequence[int],
        *,
        descriptors: int,
        demand: Callable[[dict[str, str], dict[str, str]], None],
        entry: str = ENTRY,
        seconds: float = START_SECONDS,
    ) -> None:
        """Spawn, and return when the last layer is on and it was told to serve.

        gateway: the entry's configuration; extra: descriptors that it gets from `FIRST_EXTRA_FD` on;
        descriptors: connections it may hold; demand: raises where the layers are not enough; seconds: how
        long it may take.
        Raises OSError, WorkerError with what the launcher said, and what ``demand`` raises.
        """
        self._spawn(
            {
                "entry": entry,
                "gateway": gateway,
                "extra": len(extra),
                "rlimits": {
                    "CORE": 0, "FSIZE": 0, "NOFILE": descriptors + len(extra) + DESCRIPTORS_BESIDE,
                    "MEMLOCK": 0, "MSGQUEUE": 0, "SIGPENDING": 64, "RTPRIO": 0, "NICE": 0, "AS": MEMORY,
                },
                "user": (NOBODY, NOBODY) if os.geteuid() == 0 else None,
                "supervisor": os.getpid(),
                "path": runtime.search_path(),
            },
            extra,
        )  # fmt: skip
        deadline = time.monotonic() + seconds
        while not self.held or self.child_fd < 0:  # they come from two processes, in either order
            self._hear(deadline)
        demand(self.held, self.missing)
        self.handover.send(b"serve")

    def _spawn(self, config: dict[str, Any], extra: Sequence[int]) -> None:
        config_read, config_write = os.pipe()
        null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        wanted = (
            null, self._stderr_theirs, self._stderr_theirs, config_read, self._handover_theirs.fileno(),
            self._channel_theirs.fileno(), *extra,
        )  # fmt: skip
        # Twice, by way of numbers that are free for sure: a target may be the source of another.
        high = [os.dup(fd) for fd in wanted]
        floor = max((*high, 64)) + 1
        actions = [(os.POSIX_SPAWN_DUP2, fd, floor + number) for number, fd in enumerate(high)]
        actions += [(os.POSIX_SPAWN_DUP2, floor + number, number) for number in range(len(high))]
        try:
            self.pid = os.posix_spawn(
                sys.executable,
                [sys.executable, "-I", "-S", "-B", "-X", "utf8", LAUNCHER],
                {},
                file_actions=actions,
                setsid=True,
                setsigmask=(),
                setsigdef=tuple(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}),
            )
        except BaseException:
            os.close(config_write)
            raise
        finally:
            for fd in (*high, null, config_read, self._stderr_theirs):
                os.close(fd)
            self._handover_theirs.close()
            self._channel_theirs.close()
        with os.fdopen(config_write, "wb") as pipe, contextlib.suppress(BrokenPipeError):
            pipe.write(marshal.dumps(config))

    def _hear(self, deadline: float) -> None:
        """One message of the launcher. Raises WorkerError when it is none, ends or takes too long."""
        poll = select.poll()
        poll.register(self.handover, select.POLLIN)
        poll.register(self.stderr, select.POLLIN)
        ready = poll.poll(max(0, deadline - time.monotonic()) * 1000)
        if not ready:
            raise WorkerError("the gateway did not start in time")
        if any(fd == self.stderr for fd, _events in ready) and not self.read_errors():
            raise WorkerError("the gateway did not start", detail=self.said())
        if any(fd == self.handover.fileno() for fd, _events in ready):
            self._take_message()

    def _take_message(self) -> None:
        try:
            data, fds, flags, _address = socket.recv_fds(
                self.handover, MESSAGE_MAX, 4, socket.MSG_CMSG_CLOEXEC
            )
        except ConnectionResetError:
            data, fds, flags = b"", [], 0
        if not data:
            deadline = time.monotonic() + 1.0
            while self.read_errors() and time.monotonic() < deadline:
                time.sleep(0.01)
            raise WorkerError("the gateway did not start", detail=self.said())
        kind, *lines = data.decode("utf-8", "replace").split("\n")
        if RIGHTS.get(kind) != len(fds) or flags & (socket.MSG_CTRUNC | socket.MSG_TRUNC):
            for fd in fds:
                os.close(fd)
            raise WorkerError("the gateway's launcher sent a message that is not of the protocol")
        words = dict(line.partition("\t")[::2] for line in lines)
        if kind == "child" and self.child_fd < 0:
            self.child_fd = fds[0]
        elif kind == "cell":
            for key, value in words.items():
                group, _dot, name = key.partition(".")
                (self.held if group == "held" else self.missing)[name] = value
        else:
            for fd in fds:
                os.close(fd)

    def hand_in(self, connection: socket.socket, number: int, listener: int, uid: int) -> None:
        """Give it an accepted connection. Raises OSError."""
        rights = array.array("i", [connection.fileno()])
        self.handover.sendmsg(
            [f"{number} {listener} {uid}".encode()],
            [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)],
            socket.MSG_DONTWAIT,
        )

    def read_errors(self) -> bool:
        """Take what it wrote to its standard error. False when that has been closed."""
        while True:
            try:
                data = os.read(self.stderr, 4096)
            except BlockingIOError:
                return True
            if not data:
                return False
            self.errors += data
            del self.errors[:-STDERR_KEPT]

    def said(self) -> str:
        """The end of its standard error: our own program's words, but of a process that meets strangers."""
        return self.errors.decode("utf-8", "backslashreplace").strip()

    def kill(self) -> None:
        """No process of it exists when this returns."""
        if self.child_fd >= 0:
            with contextlib.suppress(ProcessLookupError):
                pidfd.pidfd_send_signal(self.child_fd, signal.SIGKILL)
        if self.pid > 0:
            # The launcher ends when its child has; before there is one, it is all that there is. One that was
            # stopped does not.
            launcher = pidfd.pidfd_open(self.pid)
            if self.child_fd < 0 or not (pidfd.wait(self.child_fd, 2.0) and pidfd.wait(launcher, 1.0)):
                os.kill(self.pid, signal.SIGKILL)
            os.close(launcher)
            _pid, self.status = os.waitpid(self.pid, 0)
            self.pid = -1

    status = 0

    def close(self) -> None:
        self.kill()
        self.read_errors()
        self.handover.close()
        self.channel.close()
        for name in ("stderr", "child_fd"):
            fd = getattr(self, name)
            if fd >= 0:
                os.close(fd)
                setattr(self, name, -1)
