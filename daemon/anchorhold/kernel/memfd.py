"""Memory files and seals: a snapshot that nobody, not even its maker, can change any more.

Sources: linux/memfd.h, linux/fcntl.h, memfd_create(2).
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os

from anchorhold.kernel.errors import from_oserror, kernel_error
from anchorhold.kernel.libc import get_errno, path_bytes, prepare
from anchorhold.kernel.syscalls import NR

MFD_CLOEXEC = 0x0001
MFD_ALLOW_SEALING = 0x0002
MFD_HUGETLB = 0x0004
MFD_NOEXEC_SEAL = 0x0008  # Linux 6.3; implies MFD_ALLOW_SEALING
MFD_EXEC = 0x0010  # Linux 6.3

F_ADD_SEALS = 1033
F_GET_SEALS = 1034
F_SEAL_SEAL = 0x0001
F_SEAL_SHRINK = 0x0002
F_SEAL_GROW = 0x0004
F_SEAL_WRITE = 0x0008
F_SEAL_FUTURE_WRITE = 0x0010  # Linux 5.1
F_SEAL_EXEC = 0x0020  # Linux 6.3

_number = NR["memfd_create"]
_call = prepare(ctypes.c_char_p, ctypes.c_uint)


def create(name: bytes, flags: int) -> int:
    """The bare call: the descriptor or −errno."""
    fd = _call(_number, name, flags)
    return fd if fd >= 0 else -get_errno()


def memfd_create(name: str | bytes, flags: int = MFD_CLOEXEC) -> int:
    """A new memory file.

    A kernel before 6.3 does not know MFD_NOEXEC_SEAL and MFD_EXEC. There the former becomes
    MFD_ALLOW_SEALING and a mode without x, which is not sealed; the latter was the rule and is left out.
    """
    raw = path_bytes(name, "memfd_create")
    fd = create(raw, flags)
    if fd == -errno.EINVAL and flags & (MFD_NOEXEC_SEAL | MFD_EXEC):
        older = flags & ~(MFD_NOEXEC_SEAL | MFD_EXEC) | (MFD_ALLOW_SEALING if flags & MFD_NOEXEC_SEAL else 0)
        fd = create(raw, older)
        if fd >= 0 and flags & MFD_NOEXEC_SEAL:
            os.fchmod(fd, 0o666)
    if fd < 0:
        raise kernel_error(-fd, "memfd_create", os.fsdecode(raw))
    return fd


def add_seals(fd: int, seals: int) -> None:
    """Adds F_SEAL_* for ever. EBUSY: a writable mapping exists; EPERM: the seals are sealed."""
    try:
        fcntl.fcntl(fd, F_ADD_SEALS, seals)
    except OSError as error:
        raise from_oserror(
            error,
            "F_ADD_SEALS",
            f"descriptor {fd}, seals {seals:#x}",
            "Create it with MFD_ALLOW_SEALING, unmap it",
        ) from None


def get_seals(fd: int) -> int:
    """The F_SEAL_* of a memory file. Raises KernelError (EINVAL) for any other file."""
    try:
        return fcntl.fcntl(fd, F_GET_SEALS)
    except OSError as error:
        raise from_oserror(error, "F_GET_SEALS", f"descriptor {fd}", "Only a memory file has seals") from None
