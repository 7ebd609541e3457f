"""System-call numbers of this machine, and of the others we know.

The numbers come from ``syscalls.tbl`` through generated modules (loading takes well under a
millisecond). A name that this machine lacks (``open`` on aarch64) is absent from ``NR``.
"""

from __future__ import annotations

import errno
import os
import sys

from anchorhold.kernel.errors import kernel_error

# linux/audit.h: EM_* | __AUDIT_ARCH_64BIT | __AUDIT_ARCH_LE
AUDIT_ARCH_X86_64 = 0xC000003E
AUDIT_ARCH_I386 = 0x40000003
AUDIT_ARCH_AARCH64 = 0xC00000B7
AUDIT_ARCH_ARM = 0x40000028

# asm/unistd.h: set in the number of an x32 call, which enters with AUDIT_ARCH_X86_64 all the same.
X32_SYSCALL_BIT = 0x40000000
__X32_SYSCALL_BIT = X32_SYSCALL_BIT

_AUDIT_ARCHES = {"x86_64": AUDIT_ARCH_X86_64, "aarch64": AUDIT_ARCH_AARCH64}


def load(arch: str) -> dict[str, int]:
    """Name → number for ``arch`` ("x86_64" or "aarch64"). Raises KernelError for any other."""
    if arch == "x86_64":
        from anchorhold.kernel._x86_64 import NR as table
    elif arch == "aarch64":
        from anchorhold.kernel._aarch64 import NR as table
    else:
        raise kernel_error(
            errno.ENOSYS, "load", arch, "Only x86_64 and aarch64 are supported; run it on such a machine"
        )
    return table


def machine(uname: str, maxsize: int) -> str:
    """The name of the ABI that this process calls the kernel with.

    A 32-bit Python on a 64-bit kernel has other numbers than ``uname`` suggests: it gets a name of its own,
    which ``load`` refuses.
    """
    return uname if maxsize > 2**32 else f"{uname} (32-bit process)"


def audit_arch(arch: str) -> int:
    """The AUDIT_ARCH_* value with which calls of ``arch`` reach a filter."""
    return _AUDIT_ARCHES[arch]


ARCH: str = machine(os.uname().machine, sys.maxsize)
NR: dict[str, int] = load(ARCH)
NAME: dict[int, str] = {number: name for name, number in NR.items()}
AUDIT_ARCH: int = audit_arch(ARCH)


def name(number: int) -> str:
    """The call's name for messages: ``openat``, or ``#999`` for a number the table lacks."""
    return NAME.get(number) or f"#{number}"
