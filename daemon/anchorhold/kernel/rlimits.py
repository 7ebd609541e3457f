"""Resource limits, by name. Sources: asm-generic/resource.h, prlimit(2).

``prlimit64`` rather than ``resource.setrlimit``: that one turns failures into a ValueError without errno.
"""

from __future__ import annotations

import errno
import struct

from anchorhold.kernel import libc
from anchorhold.kernel.errors import kernel_error
from anchorhold.kernel.syscalls import NR

RLIM_INFINITY = -1

RLIMITS = {
    "CPU": 0,  # seconds
    "FSIZE": 1,  # bytes
    "DATA": 2,  # bytes
    "STACK": 3,  # bytes
    "CORE": 4,  # bytes
    "RSS": 5,  # bytes, without effect
    "NPROC": 6,  # threads of the user
    "NOFILE": 7,  # one more than the highest descriptor
    "MEMLOCK": 8,  # bytes
    "AS": 9,  # bytes
    "LOCKS": 10,  # without effect
    "SIGPENDING": 11,
    "MSGQUEUE": 12,  # bytes
    "NICE": 13,
    "RTPRIO": 14,
    "RTTIME": 15,  # microseconds
}

_LIMIT = struct.Struct("=QQ")
_MAX = 2**64 - 1
libc.buffer_type(_LIMIT.size)
_HINTS = {
    errno.EPERM: "Only CAP_SYS_RESOURCE may raise a hard limit",
    errno.EINVAL: "The soft limit must not exceed the hard one",
}


def _resource(name: str, call: str) -> int:
    number = RLIMITS.get(name)
    if number is None:
        raise kernel_error(errno.EINVAL, call, name, f"The limits are {', '.join(RLIMITS)}")
    return number


def set_limit(name: str, soft: int, hard: int | None = None, pid: int = 0) -> None:
    """Sets a limit (of ``pid``; 0: this process). RLIM_INFINITY: none. ``hard`` is ``soft`` unless given."""
    number = _resource(name, "prlimit64")
    ceiling = soft if hard is None else hard
    new = _LIMIT.pack(soft & _MAX, ceiling & _MAX)
    subject = f"RLIMIT_{name} {soft}:{ceiling}"
    result = libc.raw_syscall(NR["prlimit64"], pid, number, new, None)
    if result < 0:
        raise kernel_error(-result, "prlimit64", subject, _HINTS.get(-result, ""))


def get_limit(name: str, pid: int = 0) -> tuple[int, int]:
    """(soft, hard); RLIM_INFINITY where there is none."""
    out = libc.buffer(_LIMIT.size)
    libc.syscall(NR["prlimit64"], pid, _resource(name, "prlimit64"), None, out, subject=f"RLIMIT_{name}")
    soft, hard = (RLIM_INFINITY if value == _MAX else value for value in _LIMIT.unpack(out.raw))
    return soft, hard
