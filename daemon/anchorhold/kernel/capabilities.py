"""Capabilities and securebits: giving up what root is made of.

Sources: linux/capability.h, linux/securebits.h, capabilities(7).
"""

from __future__ import annotations

import ctypes
import errno
import struct

from anchorhold.kernel import libc
from anchorhold.kernel.errors import KernelError, kernel_error
from anchorhold.kernel.prctl import (
    PR_CAP_AMBIENT,
    PR_CAP_AMBIENT_CLEAR_ALL,
    PR_CAPBSET_DROP,
    PR_CAPBSET_READ,
    PR_GET_SECUREBITS,
    PR_SET_SECUREBITS,
    prctl,
)
from anchorhold.kernel.syscalls import NR

_LINUX_CAPABILITY_VERSION_3 = 0x20080522

# In the order of linux/capability.h: the index is the number.
_IN_ORDER = (
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE "
    "NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT "
    "SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE "
    "AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ "
    "PERFMON BPF CHECKPOINT_RESTORE"
)
NAMES = tuple(_IN_ORDER.split())
CAP_SETPCAP = NAMES.index("SETPCAP")
CAP_SYS_PTRACE = NAMES.index("SYS_PTRACE")
CAP_SYS_ADMIN = NAMES.index("SYS_ADMIN")
CAP_SYS_RESOURCE = NAMES.index("SYS_RESOURCE")

SECBIT_NOROOT = 1 << 0
SECBIT_NOROOT_LOCKED = 1 << 1
SECBIT_NO_SETUID_FIXUP = 1 << 2
SECBIT_NO_SETUID_FIXUP_LOCKED = 1 << 3
SECBIT_KEEP_CAPS = 1 << 4
SECBIT_KEEP_CAPS_LOCKED = 1 << 5
SECBIT_NO_CAP_AMBIENT_RAISE = 1 << 6
SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED = 1 << 7

# Uid 0 means nothing, nothing keeps or raises capabilities, and none of this can be undone.
SECUREBITS_LOCKED = (
    SECBIT_NOROOT
    | SECBIT_NOROOT_LOCKED
    | SECBIT_NO_SETUID_FIXUP
    | SECBIT_NO_SETUID_FIXUP_LOCKED
    | SECBIT_KEEP_CAPS_LOCKED
    | SECBIT_NO_CAP_AMBIENT_RAISE
    | SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED
)

_prctl = libc.prepare(ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong)
_HEADER = struct.pack("=Ii", _LINUX_CAPABILITY_VERSION_3, 0)
_SETS = struct.Struct("=6I")  # two of {effective, permitted, inheritable}: the low and the high 32
libc.buffer_type(_SETS.size)


def names(mask: int) -> list[str]:
    """``CAP_…`` of every bit; a bit this version has no name for as ``CAP_<number>``."""
    return [
        f"CAP_{NAMES[bit] if bit < len(NAMES) else bit}"
        for bit in range(mask.bit_length())
        if mask >> bit & 1
    ]


def current() -> tuple[int, int, int]:
    """(effective, permitted, inheritable) of this thread, as bit masks."""
    out = libc.buffer(_SETS.size)
    libc.syscall(NR["capget"], _HEADER, out)
    e0, p0, i0, e1, p1, i1 = _SETS.unpack(out.raw)
    return e0 | e1 << 32, p0 | p1 << 32, i0 | i1 << 32


def set_current(effective: int, permitted: int, inheritable: int) -> None:
    """Sets the three sets of this thread; permitted can only shrink."""
    low, high = 0xFFFFFFFF, 32
    words = [mask & low for mask in (effective, permitted, inheritable)]
    words += [mask >> high for mask in (effective, permitted, inheritable)]
    libc.syscall(
        NR["capset"],
        _HEADER,
        _SETS.pack(*words),
        subject=f"effective={effective:#x} permitted={permitted:#x} inheritable={inheritable:#x}",
        hint="A set can lose capabilities, never gain what is not permitted",
    )


def bounding() -> int:
    """The bounding set of this thread."""
    mask = bit = 0
    while True:
        try:
            mask |= prctl(PR_CAPBSET_READ, bit) << bit
        except KernelError as error:
            if error.errno == errno.EINVAL:  # one past the last that the kernel knows
                return mask
            raise
        bit += 1


def securebits() -> int:
    """The SECBIT_* of this thread."""
    return prctl(PR_GET_SECUREBITS)


def lock_securebits() -> None:
    """Sets SECUREBITS_LOCKED. Needs CAP_SETPCAP, so it comes before ``drop_all``."""
    prctl(PR_SET_SECUREBITS, SECUREBITS_LOCKED)


def drop_all() -> int:
    """Empties the ambient, bounding, permitted, effective and inheritable sets of this thread.

    Returns what is left of the bounding set: 0, or all of it for a process without CAP_SETPCAP, which may
    not touch it (under ``no_new_privs`` nothing can be gained from it). Checks that the rest is empty.
    """
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    emptied = bool(current()[0] >> CAP_SETPCAP & 1)
    if emptied:
        bit = 0
        while _prctl(NR["prctl"], PR_CAPBSET_DROP, bit, 0, 0, 0) == 0:
            bit += 1
        if libc.get_errno() != errno.EINVAL or not bit:  # one past the last that the kernel knows
            raise kernel_error(libc.get_errno(), "prctl", f"PR_CAPBSET_DROP {bit}")
    set_current(0, 0, 0)
    left = current()
    if any(left):
        raise kernel_error(
            errno.EPERM, "capset", " ".join(map(hex, left)), "The kernel kept capabilities; do not go on"
        )
    return 0 if emptied else bounding()
