"""Every system call of the table against an expectation of its own, in both phases."""

from __future__ import annotations

import pytest

from anchorhold.cell import filters
from anchorhold.kernel import bpf, seccomp, syscalls

TGID = 7
ALLOW = seccomp.SECCOMP_RET_ALLOW
ASK = seccomp.SECCOMP_RET_USER_NOTIF
KILL = seccomp.SECCOMP_RET_KILL_PROCESS
ERRNO = seccomp.SECCOMP_RET_ERRNO
PROGRAMS = {
    "boot": filters.for_process(filters.boot_filter(), TGID),
    "sealed": filters.for_process(filters.sealed_filter(), TGID),
}

# Written down a second time on purpose: a name added to the filter must be added here by someone who thought.
HARMLESS = {
    "read",
    "write",
    "readv",
    "writev",
    "pread64",
    "close",
    "close_range",
    "lseek",
    "munmap",
    "brk",
    "mlock",
    "munlock",
    "membarrier",
    "futex",
    "futex_wait",
    "futex_wake",
    "futex_waitv",
    "set_robust_list",
    "rseq",
    "set_tid_address",
    "rt_sigaction",
    "rt_sigprocmask",
    "rt_sigreturn",
    "rt_sigpending",
    "sigaltstack",
    "restart_syscall",
    "exit",
    "exit_group",
    "getpid",
    "gettid",
    "getppid",
    "getuid",
    "geteuid",
    "getgid",
    "getegid",
    "gettimeofday",
    "time",
    "nanosleep",
    "sched_yield",
    "getcpu",
    "getrandom",
    "getrusage",
    "times",
    "poll",
    "ppoll",
    "select",
    "pselect6",
    "fstat",
    "dup",
    "dup2",
    "dup3",
}


# Looked at by their arguments; with all of them zero they reach nothing.
CONDITIONAL = {
    "mmap",
    "mprotect",
    "pkey_mprotect",
    "madvise",
    "fcntl",
    "prlimit64",
    "sched_getaffinity",
    "clock_gettime",
    "clock_getres",
    "clock_nanosleep",
}


def answer(phase: str, name: str, *args: int, arch: int = syscalls.AUDIT_ARCH) -> int:
    return bpf.simulate(PROGRAMS[phase], bpf.pack_data(syscalls.NR[name], arch, args))


def expected(phase: str, name: str) -> int:
    """With all arguments zero."""
    if name in HARMLESS | CONDITIONAL:
        return ALLOW
    if name == "clone3":
        return ERRNO | 38
    if name == "mremap":
        return ALLOW if phase == "boot" else ERRNO | 12
    if name == "seccomp" and phase == "boot":
        return ALLOW
    return ASK


@pytest.mark.parametrize("phase", PROGRAMS)
def test_every_call_of_the_table(phase: str) -> None:
    got = {name: answer(phase, name) for name in syscalls.NR}
    assert got == {name: expected(phase, name) for name in syscalls.NR}


@pytest.mark.parametrize("phase", PROGRAMS)
def test_foreign_architectures_end_the_process(phase: str) -> None:
    assert answer(phase, "read", arch=0x40000003) == KILL  # int 0x80
    if syscalls.ARCH == "x86_64":
        x32 = bpf.pack_data(syscalls.X32_SYSCALL_BIT | syscalls.NR["read"], syscalls.AUDIT_ARCH)
        assert bpf.simulate(PROGRAMS[phase], x32) == KILL


@pytest.mark.parametrize("call", ["mmap", "mprotect", "pkey_mprotect"])
def test_executable_memory_is_asked_for_once_sealed(call: str) -> None:
    assert answer("boot", call, 0, 4096, 5) == ALLOW
    for rights in range(16):
        assert answer("sealed", call, 0, 4096, rights) == (ASK if rights & 4 else ALLOW)


@pytest.mark.parametrize("phase", PROGRAMS)
def test_only_a_thread_may_be_made(phase: str) -> None:
    assert answer(phase, "clone", 0x3D0F00) == ALLOW
    for bit in range(64):
        assert answer(phase, "clone", 0x3D0F00 ^ 1 << bit) == ASK


@pytest.mark.parametrize("phase", PROGRAMS)
def test_arguments_decide(phase: str) -> None:
    assert answer(phase, "tgkill", TGID, TGID, 6) == ALLOW
    assert answer(phase, "tgkill", TGID + 1, 1, 6) == ASK
    assert answer(phase, "sched_getaffinity", TGID) == ALLOW
    assert answer(phase, "sched_getaffinity", TGID + 1) == ASK
    for call in ("clock_gettime", "clock_getres", "clock_nanosleep"):
        assert answer(phase, call, 3) == ALLOW  # CLOCK_THREAD_CPUTIME_ID: one's own
        assert answer(phase, call, -6) == ASK  # the processor time of some process
        assert answer(phase, call, 0xFFFFFFFA) == ASK
    assert answer(phase, "madvise", 0, 4096, 12) == ASK
    assert answer(phase, "ioctl", 0, 0x5401) == ERRNO | 25
    assert answer(phase, "ioctl", 0, 0x5412) == ASK  # TIOCSTI
    assert answer(phase, "ioctl", 0, 0x5451) == ALLOW
    assert answer(phase, "prctl", 15) == ALLOW
    assert answer(phase, "prctl", 65) == (ALLOW if phase == "boot" else ASK)
    assert answer(phase, "fcntl", 0, 4) == ASK  # F_SETFL
    assert answer(phase, "prlimit64", 1) == ASK
    assert answer(phase, "prlimit64", 0, 0, 1) == ASK
    assert answer(phase, "prlimit64", 0, 0, 1 << 32) == ASK
    assert answer(phase, "sendmsg", filters.SETUP_FD) == ALLOW
    assert answer(phase, "sendmsg", 5) == ASK


def test_only_programs_of_the_cell_are_made_for_a_process() -> None:
    with pytest.raises(ValueError, match="no program"):
        filters.for_process(filters.for_process(filters.boot_filter(), TGID), TGID)
