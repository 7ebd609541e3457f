"""The log's exclusive lock: for whoever settles, signs, prunes or redacts. Writers need none.

Source: flock(2), proc_locks(5).
"""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import suppress

from anchorhold.audit.files import give
from anchorhold.errors import AuditError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

LOCK_SECONDS = 10.0


class Held(AuditError):
    """Another process holds the log's lock, and does not let go."""


class Locked:
    """The log's exclusive lock, on a descriptor of its own, so that threads exclude each other too.

    Raises Held after ``seconds`` (`LOCK_SECONDS`): a process that was stopped while it held the lock must not
    stop all others. While it is held the file has the number of the process: for whoever waits in vain.
    """

    __slots__ = ("fd", "path", "seconds")

    def __init__(self, log: str, seconds: float | None = None) -> None:
        self.path = os.path.join(log, "lock")
        self.seconds = LOCK_SECONDS if seconds is None else seconds

    def __enter__(self) -> None:
        self.fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            give(self.fd, os.path.dirname(self.path))
            deadline = time.monotonic() + self.seconds
            while not self._try():
                if time.monotonic() > deadline:
                    holder = _holder(self.fd)
                    raise Held(
                        f"the audit log is held by another process ({_words(holder)}): {self.path}",
                        hint=_advice(holder),
                    )
                time.sleep(0.002)
            self._name(b"%d\n" % os.getpid())
        except BaseException:
            os.close(self.fd)
            raise

    def _try(self) -> bool:
        try:
            fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._name(b"")
        os.close(self.fd)

    def _name(self, text: bytes) -> None:
        """A lock that cannot say who holds it, on a full disk, is one all the same."""
        with suppress(OSError):
            os.ftruncate(self.fd, 0)  # what a crash left
            if text:
                os.pwrite(self.fd, text, 0)


def _holder(fd: int) -> int | None:
    """The process that holds the lock: as it says itself, if that one is there, else by proc_locks(5)."""
    said = os.pread(fd, 20, 0).strip()
    if said.isdigit() and os.path.exists(f"/proc/{int(said)}"):
        return int(said)
    inode = f":{os.fstat(fd).st_ino}"
    try:
        with open("/proc/locks", encoding="ascii") as file:
            rows = [line.split() for line in file if "->" not in line]
        return next((int(row[4]) for row in rows if row[5].endswith(inode) and int(row[4]) > 0), None)
    except (OSError, IndexError, ValueError):
        return None


def _state(pid: int) -> tuple[str, str]:
    """A process's name, and the letter of its state, by proc_pid_stat(5)."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            name, _, rest = file.read().partition("(")[2].rpartition(")")
    except OSError:
        return "", ""
    return ascii(name)[1:-1], rest.split()[0]


def _words(holder: int | None) -> str:
    if holder is None:
        return "unknown which"
    name, state = _state(holder)
    return f"{holder}{', ' + name if name else ''}{', which is stopped' if state in ('T', 't') else ''}"


def _advice(holder: int | None) -> str:
    if holder is None:
        return "Find who holds it with: lslocks. If it was stopped, let it go on or end it."
    if _state(holder)[1] in ("T", "t"):
        return f"Let it go on with: kill -CONT {holder}. Or end it, which loses nothing: kill -KILL {holder}"
    return f"Process {holder} works on the log: wait for it. If it hangs, end it: kill -KILL {holder}"
