"""Starts the launcher and receives what it hands over while it becomes the worker.

The launcher gets an empty environment, a session of its own (no terminal) and seven descriptors.
What it sends is short text with descriptors beside it; every message is checked for its kind and
for the number of descriptors that it may bring.
"""

from __future__ import annotations

import contextlib
import marshal
import os
import signal
import socket
import sys

from anchorhold.broker import runtime
from anchorhold.errors import WorkerError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

LAUNCHER = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "cell", "launcher.py")
NOBODY = 65534
MESSAGE_MAX = 1 << 16
ENVIRONMENT = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
"""Nothing but this: large buffers lie in huge pages, so that the kernel takes a killed worker apart in a
tenth of the time (136 MB: 2 ms for 24 ms). glibc from 2.35 on; another libc does not look at it."""

RIGHTS = {"child": 1, "cell": 2, "ready": 0, "sealed": 2, "failed": 0}
"""Kind of message → how many descriptors come with it."""


class Message:
    """One message of the launcher: kind, words, descriptors (ours to close)."""

    __slots__ = ("fds", "kind", "words")

    def __init__(self, kind: str, words: dict[str, str], fds: list[int]) -> None:
        self.kind, self.words, self.fds = kind, words, fds

    def prefixed(self, prefix: str) -> dict[str, str]:
        """The words whose key begins with ``prefix``, without it."""
        return {key[len(prefix) :]: value for key, value in self.words.items() if key.startswith(prefix)}


class Launched:
    """The descriptors of a launcher that was started; ``pid`` is our own child."""

    def __init__(self) -> None:
        self.pid = -1
        self.setup, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.stderr, self._stderr_theirs = os.pipe()
        self._from_us, self.to_worker = os.pipe()
        self.from_worker, self._to_us = os.pipe()
        for fd in (self.stderr, self.to_worker, self.from_worker):
            os.set_blocking(fd, False)

    def start(self, config: Mapping[str, object], *, before: object = None) -> None:
        """Spawn it and give it its configuration. Raises OSError.

        before: called with the process id before the configuration is sent (to put it into a cgroup).
        """
        config_read, config_write = os.pipe()
        null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        wanted = (
            null,
            self._stderr_theirs,
            self._stderr_theirs,
            config_read,
            self._theirs.fileno(),
            self._from_us,
            self._to_us,
        )
        # Twice, by way of numbers that are free for sure: a target may be the source of another.
        high = [os.dup(fd) for fd in wanted]
        floor = max((*high, 64)) + 1
        actions: list[tuple[int, int, int]] = []
        for number, fd in enumerate(high):
            actions.append((os.POSIX_SPAWN_DUP2, fd, floor + number))
        for number in range(len(high)):
            actions.append((os.POSIX_SPAWN_DUP2, floor + number, number))
        try:
            self.pid = os.posix_spawn(
                sys.executable,
                [sys.executable, "-I", "-S", "-B", "-X", "utf8", LAUNCHER],
                ENVIRONMENT,
                file_actions=actions,
                setsid=True,
                setsigmask=(),
                setsigdef=tuple(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}),
            )
            if callable(before):
                before(self.pid)
        except BaseException:
            os.close(config_write)
            raise
        finally:
            # Their ends first: a launcher that dies now must make the write below fail, not wait.
            for fd in (*high, null, config_read, self._stderr_theirs, self._from_us, self._to_us):
                os.close(fd)
            self._theirs.close()
        words = marshal.dumps({**config, "supervisor": os.getpid(), "path": runtime.search_path()})
        with os.fdopen(config_write, "wb") as pipe:
            pipe.write(words)

    def receive(self) -> Message | None:
        """The next message of the launcher; None when it has closed the socket.

        Raises WorkerError if it is not of the protocol; descriptors that came along are closed.
        """
        try:
            data, fds, flags, _address = socket.recv_fds(self.setup, MESSAGE_MAX, 8, socket.MSG_CMSG_CLOEXEC)
        except ConnectionResetError:
            return None  # it died before it read what we had sent
        try:
            if not data and not fds:
                return None
            message = _parse(data, fds, flags)
        except WorkerError:
            for fd in fds:
                os.close(fd)
            raise
        return message

    def close(self) -> None:
        """Close everything of ours; the process is not touched."""
        self.setup.close()
        for name in ("stderr", "to_worker", "from_worker"):
            fd = getattr(self, name)
            if fd >= 0:
                with contextlib.suppress(OSError):
                    os.close(fd)
                setattr(self, name, -1)


def _parse(data: bytes, fds: list[int], flags: int) -> Message:
    kind, *lines = data.decode("utf-8", "replace").split("\n")
    words: dict[str, str] = {}
    for line in lines:
        key, separator, value = line.partition("\t")
        if not separator or key in words:
            raise WorkerError("the launcher sent a message that is not of the protocol")
        words[key] = value
    if RIGHTS.get(kind) != len(fds) or flags & (socket.MSG_CTRUNC | socket.MSG_TRUNC):
        raise WorkerError("the launcher sent a message that is not of the protocol")
    return Message(kind, words, fds)
