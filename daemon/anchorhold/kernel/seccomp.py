"""seccomp(2): loading a filter, and the supervisor's side of user notification.

Constraint: ``receive``, ``respond``, ``add_fd`` and ``id_valid`` run once per brokered call, so they are
``fcntl.ioctl`` with structures packed beforehand: no ctypes, nothing shared between threads.
Sources: linux/seccomp.h, seccomp(2), seccomp_unotify(2).
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct

from anchorhold.kernel import libc
from anchorhold.kernel.errors import KernelError, from_oserror, kernel_error
from anchorhold.kernel.syscalls import NR, name

SECCOMP_SET_MODE_STRICT = 0
SECCOMP_SET_MODE_FILTER = 1
SECCOMP_GET_ACTION_AVAIL = 2
SECCOMP_GET_NOTIF_SIZES = 3

SECCOMP_FILTER_FLAG_TSYNC = 1 << 0
SECCOMP_FILTER_FLAG_LOG = 1 << 1
SECCOMP_FILTER_FLAG_SPEC_ALLOW = 1 << 2
SECCOMP_FILTER_FLAG_NEW_LISTENER = 1 << 3
SECCOMP_FILTER_FLAG_TSYNC_ESRCH = 1 << 4  # Linux 5.7
SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV = 1 << 5  # Linux 5.19

SECCOMP_RET_KILL_PROCESS = 0x80000000
SECCOMP_RET_KILL_THREAD = 0x00000000
SECCOMP_RET_KILL = SECCOMP_RET_KILL_THREAD
SECCOMP_RET_TRAP = 0x00030000
SECCOMP_RET_ERRNO = 0x00050000
SECCOMP_RET_USER_NOTIF = 0x7FC00000
SECCOMP_RET_TRACE = 0x7FF00000
SECCOMP_RET_LOG = 0x7FFC0000
SECCOMP_RET_ALLOW = 0x7FFF0000
SECCOMP_RET_ACTION_FULL = 0xFFFF0000
SECCOMP_RET_ACTION = 0x7FFF0000
SECCOMP_RET_DATA = 0x0000FFFF

SECCOMP_USER_NOTIF_FLAG_CONTINUE = 1 << 0  # never for a call with a pointer: its memory can still change
SECCOMP_ADDFD_FLAG_SETFD = 1 << 0
SECCOMP_ADDFD_FLAG_SEND = 1 << 1  # Linux 5.14
SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP = 1 << 0  # Linux 6.6

# _IOWR('!', 0, struct seccomp_notif) and so on, with the sizes of the structures below.
SECCOMP_IOCTL_NOTIF_RECV = 0xC0502100
SECCOMP_IOCTL_NOTIF_SEND = 0xC0182101
SECCOMP_IOCTL_NOTIF_ID_VALID = 0x40082102
SECCOMP_IOCTL_NOTIF_ADDFD = 0x40182103
SECCOMP_IOCTL_NOTIF_SET_FLAGS = 0x40082104

_NOTIF = struct.Struct("=QIIiIQ6Q")  # id, pid, flags, data {nr, arch, instruction_pointer, args[6]}
_RESP = struct.Struct("=QqiI")  # id, val, error, flags
_ADDFD = struct.Struct("=QIIII")  # id, flags, srcfd, newfd, newfd_flags
_ID = struct.Struct("=Q")
NOTIF_SIZE = _NOTIF.size
RESP_SIZE = _RESP.size
DATA_SIZE = 64

_ZERO = bytes(NOTIF_SIZE)
_GONE = {
    errno.ENOENT: "The calling thread died or was interrupted; nobody waits for this any more",
    errno.EINPROGRESS: "It was answered already",
    errno.EMFILE: "The caller has as many descriptors as its limit allows; answer it with EMFILE",
}
_SECCOMP = NR["seccomp"]

_FILTER_HINTS = {
    errno.EBUSY: (
        "A process above this one has a seccomp listener already, and a tree may have only one. Under WSL2 "
        "that is mirrored networking: set networkingMode=nat in .wslconfig. In a container, its runtime's "
        "seccomp profile uses notification: choose another profile"
    ),
    errno.EACCES: "Set no_new_privs first, or have CAP_SYS_ADMIN in the user namespace",
    errno.EINVAL: "The kernel refuses the filter or knows not all the flags; listeners need Linux 5.5",
    errno.ENOMEM: "The filters of this process together exceed 32,768 instructions",
}


class _SockFprog(ctypes.Structure):
    _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.c_char_p))


class Notification:
    """One system call waiting for its answer. ``args`` are six unsigned 64-bit values, untrusted."""

    __slots__ = ("id", "pid", "nr", "args", "arch")

    def __init__(self, id: int, pid: int, nr: int, args: tuple[int, ...], arch: int = 0) -> None:
        self.id = id
        self.pid = pid
        self.nr = nr
        self.args = args
        self.arch = arch

    def __repr__(self) -> str:
        return f"Notification(id={self.id:#x}, pid={self.pid}, {name(self.nr)}{self.args})"


def set_filter(program: bytes, flags: int = 0) -> int:
    """Puts ``program`` on this thread (with TSYNC on all): for ever. Needs ``no_new_privs`` or CAP_SYS_ADMIN.

    Returns the listener's descriptor (close-on-exec) with SECCOMP_FILTER_FLAG_NEW_LISTENER, else 0.
    """
    fprog = _SockFprog(len(program) // 8, program)
    result = libc.raw_syscall(_SECCOMP, SECCOMP_SET_MODE_FILTER, flags, ctypes.byref(fprog))
    if result < 0:
        raise kernel_error(-result, "seccomp", "SECCOMP_SET_MODE_FILTER", _FILTER_HINTS.get(-result, ""))
    if result > 0 and not flags & SECCOMP_FILTER_FLAG_NEW_LISTENER:
        # TSYNC answers with the thread that could not follow: the filter is on no thread.
        raise kernel_error(
            errno.ESRCH, "seccomp", f"TSYNC, thread {result}", "That thread has a filter of its own"
        )
    return result


def notification_sizes() -> tuple[int, int, int]:
    """The kernel's sizes of seccomp_notif, seccomp_notif_resp and seccomp_data, in bytes."""
    out = ctypes.create_string_buffer(6)
    libc.syscall(_SECCOMP, SECCOMP_GET_NOTIF_SIZES, 0, out, subject="SECCOMP_GET_NOTIF_SIZES")
    notif, resp, data = struct.unpack("=HHH", out.raw)
    return notif, resp, data


def check_sizes() -> None:
    """Raises KernelError if the kernel's notification structures are not those of this module."""
    sizes = notification_sizes()
    if sizes != (NOTIF_SIZE, RESP_SIZE, DATA_SIZE):
        raise kernel_error(
            errno.EPROTO,
            "seccomp",
            f"SECCOMP_GET_NOTIF_SIZES {sizes}",
            f"This version knows {(NOTIF_SIZE, RESP_SIZE, DATA_SIZE)}; install a newer one",
        )


def action_available(action: int) -> bool:
    """Whether the running kernel knows a SECCOMP_RET_* action."""
    value = ctypes.c_uint32(action)
    result = libc.raw_syscall(_SECCOMP, SECCOMP_GET_ACTION_AVAIL, 0, ctypes.byref(value))
    if result < 0 and result not in (-errno.EOPNOTSUPP, -errno.EINVAL):
        raise kernel_error(-result, "seccomp", "SECCOMP_GET_ACTION_AVAIL")
    return result == 0


def _failure(error: OSError, call: str, subject: str) -> KernelError:
    return from_oserror(error, call, subject, _GONE.get(error.errno or 0, ""))


def new_buffer() -> bytearray:
    """A buffer for ``receive``: one per receiving thread, used again and again."""
    return bytearray(NOTIF_SIZE)


def receive(fd: int, buffer: bytearray) -> Notification:
    """Waits for the next call. ``buffer`` is from ``new_buffer()``.

    Raises KernelError: FileNotFoundError (ENOENT) when the caller died or was interrupted before it was
    received, or when no process with the filter is left. A signal handler runs, then the wait goes on.
    """
    while True:
        buffer[:] = _ZERO  # the kernel refuses a buffer that is not zero
        try:
            fcntl.ioctl(fd, SECCOMP_IOCTL_NOTIF_RECV, buffer, True)
        except InterruptedError:
            continue
        except OSError as error:
            raise _failure(error, "SECCOMP_IOCTL_NOTIF_RECV", f"listener {fd}") from None
        id, pid, _, nr, arch, _, a, b, c, d, e, f = _NOTIF.unpack_from(buffer)
        return Notification(id, pid, nr, (a, b, c, d, e, f), arch)


def id_valid(fd: int, id: int) -> bool:
    """Whether the call is still waiting: ask after reading its memory and before trusting what was read."""
    try:
        fcntl.ioctl(fd, SECCOMP_IOCTL_NOTIF_ID_VALID, _ID.pack(id))
    except OSError as error:
        if error.errno == errno.ENOENT:
            return False
        raise _failure(error, "SECCOMP_IOCTL_NOTIF_ID_VALID", f"listener {fd}") from None
    return True


def respond(fd: int, id: int, value: int = 0, error: int = 0, flags: int = 0) -> None:
    """Answers a call: with ``value``, or with the errno ``error`` given as a positive number.

    Raises FileNotFoundError when the call is gone, BlockingIOError (EINPROGRESS) when it was answered.
    """
    try:
        fcntl.ioctl(fd, SECCOMP_IOCTL_NOTIF_SEND, _RESP.pack(id, value, -error, flags))
    except OSError as failure:
        raise _failure(failure, "SECCOMP_IOCTL_NOTIF_SEND", f"listener {fd}, call {id:#x}") from None


def add_fd(
    fd: int,
    id: int,
    srcfd: int,
    *,
    flags: int = SECCOMP_ADDFD_FLAG_SEND,
    newfd_flags: int = os.O_CLOEXEC,
    newfd: int = 0,
) -> int:
    """Puts a copy of ``srcfd`` into the caller and, with SEND, makes it the call's result, in one step.

    Returns the number it got there. The kernel takes no O_PATH descriptor (EBADF). Raises
    FileNotFoundError when the call is gone, KernelError EMFILE when the caller's own limit on descriptors is
    reached (answer it with that), BlockingIOError when it was answered.
    """
    request = bytearray(_ADDFD.pack(id, flags, srcfd, newfd, newfd_flags))  # mutable, else the result is lost
    try:
        added: int = fcntl.ioctl(fd, SECCOMP_IOCTL_NOTIF_ADDFD, request, True)
    except OSError as error:
        raise _failure(error, "SECCOMP_IOCTL_NOTIF_ADDFD", f"descriptor {srcfd}, call {id:#x}") from None
    return added


def set_sync_wakeup(fd: int) -> None:
    """Wakes caller and supervisor on one CPU (Linux 6.6): for a pair that always waits for each other."""
    try:
        fcntl.ioctl(fd, SECCOMP_IOCTL_NOTIF_SET_FLAGS, SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP)
    except OSError as error:
        raise from_oserror(
            error, "SECCOMP_IOCTL_NOTIF_SET_FLAGS", f"listener {fd}", "It needs Linux 6.6; go on without it"
        ) from None
