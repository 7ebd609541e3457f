"""The processes of a cell, found in /proc and held by pidfd, so that no other process is ever signalled.

A cell is a launcher, child of its supervisor, and the worker, the launcher's child and the first process of
its PID namespace: when that one is dead, so is all that was in the namespace (pid_namespaces(7)).
Sources: proc_pid_stat(5), pidfd_open(2), pidfd_send_signal(2), cgroup-v2.rst (cgroup.kill, cgroup.events).
"""

from __future__ import annotations

import os
import select
from _signal import SIGKILL, pidfd_send_signal  # type: ignore[import-not-found]  # signal imports enum

LAUNCHER = b"/anchorhold/cell/launcher.py"
"""The end of a word in the command line of a launcher, and of a worker, which is a fork of it."""


class Process:
    """A process by descriptor. ``close`` must follow."""

    __slots__ = ("fd", "pid")

    def __init__(self, pid: int) -> None:
        """Raises ProcessLookupError if there is none."""
        self.pid = pid
        self.fd = os.pidfd_open(pid)

    def kill(self) -> None:
        """Raises PermissionError."""
        self.signal(SIGKILL)

    def signal(self, number: int) -> None:
        """Raises PermissionError."""
        try:
            pidfd_send_signal(self.fd, number)
        except ProcessLookupError:
            return

    def ended(self, seconds: float) -> bool:
        """Whether it has ended, or does within so many seconds."""
        poll = select.poll()
        poll.register(self.fd, select.POLLIN)
        return bool(poll.poll(max(0.0, seconds) * 1000))

    def close(self) -> None:
        os.close(self.fd)


def stat_of(pid: int) -> tuple[str, int, int] | None:
    """State, parent and start (clock ticks since boot) of a process; None if there is none."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return fields[0].decode("ascii"), int(fields[1]), int(fields[19])


def is_of_a_cell(pid: int) -> bool:
    """Whether its command line is a launcher's."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return any(word.endswith(LAUNCHER) for word in file.read(4096).split(b"\0"))
    except OSError:
        return False


def parents() -> dict[int, int]:
    """Every process that can be seen, and its parent."""
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            stat = stat_of(int(name))
            if stat is not None and stat[0] not in "ZX":
                found[int(name)] = stat[1]
    return found


def launchers_of(supervisor: int, of: dict[int, int]) -> list[int]:
    """The launchers that a supervisor started. of: every process and its parent."""
    return [pid for pid, parent in of.items() if parent == supervisor and is_of_a_cell(pid)]


def populated(cgroup: str) -> bool | None:
    """Whether a cgroup, or one below it, has a process; None where it cannot be told. "": there is none."""
    if not cgroup:
        return False
    try:
        with open(f"{cgroup}/cgroup.events", "rb") as file:
            return b"populated 1" in file.read()
    except FileNotFoundError:
        return False  # only an empty one can be removed
    except OSError:
        return None


def frozen(cgroup: str) -> bool:
    """Whether every process of a cgroup stands still."""
    try:
        with open(f"{cgroup}/cgroup.events", "rb") as file:
            return b"frozen 1" in file.read()
    except OSError:
        return False


def write(path: str, text: bytes) -> None:
    """Write to a file of the kernel's. Raises OSError."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text)
    finally:
        os.close(fd)
