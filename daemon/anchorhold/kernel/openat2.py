"""openat2(2): opening a path that must stay beneath a directory.

Constraint: runs once per granted file, so the call is prepared and the structure packed, not built; it is
safe from several threads. Sources: linux/openat2.h, openat2(2).
"""

from __future__ import annotations

import ctypes
import errno
import struct

from anchorhold.kernel.errors import kernel_error
from anchorhold.kernel.libc import get_errno, prepare
from anchorhold.kernel.syscalls import NR

RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10
RESOLVE_CACHED = 0x20  # Linux 5.12

AT_FDCWD = -100

_HINTS = {
    errno.EXDEV: "The path leaves its root, or crosses into another file system",
    errno.ELOOP: "The path goes through a symbolic link that may not be followed",
    errno.EAGAIN: "A directory was renamed meanwhile; open it again",
    errno.ENOSYS: "It needs Linux 5.6, and no filter above this process that hides it",
}

_number = NR["openat2"]
_how = struct.Struct("=QQQ").pack  # struct open_how: flags, mode, resolve
_call = prepare(ctypes.c_int, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t)


def raw_openat2(dirfd: int, path: bytes, flags: int, mode: int = 0, resolve: int = 0) -> int:
    """The descriptor or −errno; for a caller to whom a missing file is nothing exceptional."""
    if b"\0" in path:
        return -errno.EINVAL  # the kernel would see a shorter path than the caller decided on
    fd = _call(_number, dirfd, path, _how(flags, mode, resolve), 24)
    return fd if fd >= 0 else -get_errno()


def openat2(dirfd: int, path: bytes | str, flags: int, mode: int = 0, resolve: int = 0) -> int:
    """Opens ``path`` below ``dirfd``. Pass O_CLOEXEC yourself; ``mode`` only with O_CREAT or O_TMPFILE."""
    raw = path.encode("utf-8", "surrogateescape") if isinstance(path, str) else path
    fd = raw_openat2(dirfd, raw, flags, mode, resolve)
    if fd < 0:
        raise kernel_error(-fd, "openat2", raw.decode("utf-8", "surrogateescape"), _HINTS.get(-fd, ""))
    return fd
