"""pidfd: a process by descriptor, so that a number used again by another process is never signalled.

Sources: linux/pidfd.h, pidfd_open(2), pidfd_send_signal(2).
"""

from __future__ import annotations

import ctypes
import errno
import os
import select

from anchorhold.kernel import libc
from anchorhold.kernel.errors import from_oserror, kernel_error
from anchorhold.kernel.syscalls import NR

P_PIDFD = 3
PIDFD_NONBLOCK = os.O_NONBLOCK  # Linux 5.10

_number = NR["pidfd_send_signal"]
_send = libc.prepare(ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_uint)


def pidfd_open(pid: int, flags: int = 0) -> int:
    """A descriptor (close-on-exec) of the process ``pid``."""
    return libc.syscall(NR["pidfd_open"], pid, flags, subject=f"pid {pid}")


def pidfd_send_signal(fd: int, sig: int) -> None:
    """Sends ``sig`` (0: only asks). Raises ProcessLookupError when the process has ended."""
    if _send(_number, fd, sig, None, 0) < 0:
        raise kernel_error(libc.get_errno(), "pidfd_send_signal", f"descriptor {fd}, signal {sig}")


def wait(fd: int, timeout: float | None = None) -> bool:
    """Whether the process ended within ``timeout`` seconds (None: no limit). Does not reap it."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(None if timeout is None else max(timeout, 0) * 1000))


def exit_status(fd: int) -> int | None:
    """Reaps a child that ended: its exit code, or −signal. None while it runs.

    Raises ChildProcessError when it is no child of this process or was reaped already.
    """
    try:
        info = os.waitid(P_PIDFD, fd, os.WEXITED | os.WNOHANG)
    except OSError as error:
        hint = "Only the parent can wait for a process, and once" if error.errno == errno.ECHILD else ""
        raise from_oserror(error, "waitid", f"descriptor {fd}", hint) from None
    if info is None:
        return None
    status: int = info.si_status
    return status if info.si_code == os.CLD_EXITED else -status
