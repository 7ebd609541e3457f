"""prctl(2): what a process gives up or sets about itself. Source: linux/prctl.h."""

from __future__ import annotations

import errno
import os

from anchorhold.kernel import libc
from anchorhold.kernel.errors import kernel_error
from anchorhold.kernel.syscalls import NR

PR_SET_PDEATHSIG = 1
PR_GET_PDEATHSIG = 2
PR_GET_DUMPABLE = 3
PR_SET_DUMPABLE = 4
PR_GET_KEEPCAPS = 7
PR_SET_KEEPCAPS = 8
PR_SET_NAME = 15
PR_GET_NAME = 16
PR_GET_SECCOMP = 21
PR_SET_SECCOMP = 22
PR_CAPBSET_READ = 23
PR_CAPBSET_DROP = 24
PR_GET_TSC = 25
PR_SET_TSC = 26
PR_GET_SECUREBITS = 27
PR_SET_SECUREBITS = 28
PR_SET_TIMERSLACK = 29
PR_GET_TIMERSLACK = 30
PR_SET_MM = 35
PR_SET_CHILD_SUBREAPER = 36
PR_GET_CHILD_SUBREAPER = 37
PR_SET_NO_NEW_PRIVS = 38
PR_GET_NO_NEW_PRIVS = 39
PR_SET_THP_DISABLE = 41
PR_GET_THP_DISABLE = 42
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_IS_SET = 1
PR_CAP_AMBIENT_RAISE = 2
PR_CAP_AMBIENT_LOWER = 3
PR_CAP_AMBIENT_CLEAR_ALL = 4
PR_GET_SPECULATION_CTRL = 52
PR_SET_SPECULATION_CTRL = 53
PR_SET_TAGGED_ADDR_CTRL = 55
PR_SET_IO_FLUSHER = 57
PR_SET_SYSCALL_USER_DISPATCH = 59
PR_SCHED_CORE = 62
PR_SET_MDWE = 65  # Linux 6.3
PR_GET_MDWE = 66
PR_MDWE_REFUSE_EXEC_GAIN = 1 << 0
PR_MDWE_NO_INHERIT = 1 << 1  # Linux 6.6
PR_SET_MEMORY_MERGE = 67
PR_GET_MEMORY_MERGE = 68
PR_SET_VMA = 0x53564D41
PR_SET_VMA_ANON_NAME = 0
PR_SET_PTRACER = 0x59616D61
PR_SET_PTRACER_ANY = -1

SUID_DUMP_DISABLE = 0
SUID_DUMP_USER = 1

_HINTS = {
    (PR_SET_MDWE, errno.EINVAL): "It needs Linux 6.3; go on without it",
    (PR_SET_MDWE, errno.EPERM): "It is set already and cannot be changed",
    (PR_SET_SECUREBITS, errno.EPERM): "It needs CAP_SETPCAP in the user namespace",
    (PR_CAPBSET_DROP, errno.EPERM): "It needs CAP_SETPCAP in the user namespace",
}
_OPTIONS = {
    value: key
    for key, value in list(globals().items())
    if key.startswith(("PR_SET_", "PR_GET_", "PR_CAP")) and "_AMBIENT_" not in key and value > 0
}


def prctl(option: int, a2: int = 0, a3: int = 0, a4: int = 0, a5: int = 0) -> int:
    """The call's result (many options answer by it). Raises KernelError naming the option."""
    result = libc.raw_syscall(NR["prctl"], option, a2, a3, a4, a5)
    if result < 0:
        raise kernel_error(
            -result, "prctl", _OPTIONS.get(option, f"option {option}"), _HINTS.get((option, -result), "")
        )
    return result


def set_pdeathsig(sig: int) -> None:
    """The kernel sends ``sig`` to this process when the thread that made it ends.

    Compare ``os.getppid()`` with the expected parent afterwards: the parent may have died before.
    """
    prctl(PR_SET_PDEATHSIG, sig)


def set_no_new_privs() -> None:
    """No exec gives this process or its children any privilege, for ever."""
    prctl(PR_SET_NO_NEW_PRIVS, 1)


def get_seccomp() -> int:
    """2 where a seccomp filter is on this thread, 0 where none is. Raises KernelError where one refuses to
    say."""
    return prctl(PR_GET_SECCOMP)


def set_dumpable(n: int) -> None:
    """0: no core dump, no ptrace, and /proc/<pid> belongs to root."""
    prctl(PR_SET_DUMPABLE, n)


def set_mdwe(flags: int = PR_MDWE_REFUSE_EXEC_GAIN) -> None:
    """No mapping becomes executable after the fact or is writable and executable, for ever. Linux 6.3."""
    prctl(PR_SET_MDWE, flags)


def set_name(name: str) -> None:
    """The thread's name as ``ps`` shows it; 15 bytes of it."""
    raw = libc.path_bytes(name, "prctl PR_SET_NAME")
    libc.syscall(NR["prctl"], PR_SET_NAME, raw, 0, 0, 0, subject=f"PR_SET_NAME {os.fsdecode(raw)}")
