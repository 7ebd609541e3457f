"""The two seccomp programs of the cell: one for boot, a narrower one for the sealed phase.

Default action of both: ask the supervisor (``SECCOMP_RET_USER_NOTIF``). What is allowed without
asking reaches nothing outside the process: memory, time, threads of its own, descriptors it was
given. Decisions here look at registers only; whatever needs a look at memory goes to the broker.

The narrower program goes on at sealing with a listener of its own, after the first one was closed:
from then on the kernel asks on the second listener for everything that either program does not
allow, so the phase is a property of the descriptor that a question arrives on.

Runs between spawn and seal: no imports but the kernel wrappers.
Source: seccomp(2), Documentation/userspace-api/seccomp_filter.rst.
"""

from __future__ import annotations

import sys

from anchorhold.kernel import bpf, seccomp, syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

SETUP_FD = 4
"""The socket on which the two listeners travel to the supervisor; closed at the seal."""

THREAD_FLAGS = 0x3D0F00
"""What glibc passes to clone(2) for a thread: VM, FS, FILES, SIGHAND, THREAD, SYSVSEM, SETTLS,
PARENT_SETTID, CHILD_CLEARTID (nptl/sysdeps: createthread). Nothing else makes a new task here."""

# Allowed with any argument, in both phases. The kernel caches these (5.11), so that they cost nothing.
FREE = (
    "read", "write", "readv", "writev", "pread64", "close", "close_range", "lseek",
    "munmap", "brk", "mlock", "munlock", "membarrier",
    "futex", "futex_wait", "futex_wake", "futex_waitv", "set_robust_list", "rseq", "set_tid_address",
    "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "rt_sigpending", "sigaltstack", "restart_syscall",
    "exit", "exit_group", "getpid", "gettid", "getppid", "getuid", "geteuid", "getgid", "getegid",
    "gettimeofday", "time", "nanosleep", "sched_yield", "getcpu", "getrandom", "getrusage", "times",
    "poll", "ppoll", "select", "pselect6", "fstat", "dup", "dup2", "dup3",
)  # fmt: skip

PROT_EXEC = 0x4
MADV_MERGEABLE = 12  # same-page merging tells whether other processes hold the same bytes
TCGETS = 0x5401
TCGETS2 = 0x802C542A
FIONCLEX = 0x5450
FIOCLEX = 0x5451
F_DUPFD = 0
F_GETFD = 1
F_SETFD = 2
F_GETFL = 3
F_DUPFD_CLOEXEC = 1030
F_GET_SEALS = 1034
PR_SET_NAME = 15
PR_GET_NAME = 16
PR_SET_MDWE = 65
PR_SET_VMA = 0x53564D41
SIGABRT = 6

ANY_TGID = 0x7FFFAC1D
"""Stands for the process's own id until ``for_process``; above every process id (proc(5), pid_max)."""
_ANY_TGID = ANY_TGID.to_bytes(4, sys.byteorder)
_TGIDS = 2

ENOMEM = 12
ENOSYS = 38
ENOTTY = 25


def boot_filter() -> bytes:
    """The program for boot: executable mappings allowed, one more filter may be put on."""
    return _program(sealed=False)


def sealed_filter(lethal: Collection[int] = ()) -> bytes:
    """The program for the sealed phase: no executable mapping, no further filter, no way back.

    ``lethal``: numbers of calls that end the process where the supervisor would be asked, because a filter
    above the cell would answer first (`anchorhold.cell.above`). One that has an answer is not among them.
    """
    return _program(sealed=True, lethal=lethal)


def for_process(program: bytes, tgid: int) -> bytes:
    """The program for a process with this id, as it sees itself: the only one that it may signal.

    Assembling takes longer than all layers but one, so it is done once, in the supervisor, ahead.
    """
    if program.count(_ANY_TGID) != _TGIDS:
        raise ValueError("that is no program of the cell")
    return program.replace(_ANY_TGID, tgid.to_bytes(4, sys.byteorder))


def _program(*, sealed: bool, lethal: Collection[int] = ()) -> bytes:
    nr = syscalls.NR
    p = bpf.Program()
    p.load_arch()
    p.jeq(syscalls.AUDIT_ARCH, "native")
    p.ret(seccomp.SECCOMP_RET_KILL_PROCESS)
    p.label("native")
    p.load_nr()
    if syscalls.ARCH == "x86_64":
        # x32 calls carry this bit under the same architecture token; -1 (a skipped call) is no call at all.
        p.jge(syscalls.X32_SYSCALL_BIT, "kill")

    p.jeq(nr["clone3"], "enosys")
    # The supervisor writes results into the worker's memory and must know for good which part of it is code:
    # after the seal no executable mapping comes, and none moves. malloc copies where mremap fails.
    p.jeq(nr["mremap"], "enomem" if sealed else "allow")
    for name, label in (
        ("mmap", "mmap"), ("mprotect", "mmap"), ("madvise", "madvise"), ("clone", "clone"),
        ("ioctl", "ioctl"), ("fcntl", "fcntl"), ("prctl", "prctl"),
        ("tgkill", "tgkill"), ("prlimit64", "prlimit"), ("sched_getaffinity", "own"),
        ("clock_gettime", "clock"), ("clock_getres", "clock"), ("clock_nanosleep", "clock"),
    ):  # fmt: skip
        p.jeq(nr[name], label)
    if "pkey_mprotect" in nr:
        p.jeq(nr["pkey_mprotect"], "mmap")
    # Handing over the listener is the one message that is ever sent, on the one socket there is.
    p.jeq(nr["sendmsg"], "sendmsg")
    if not sealed:
        p.jeq(nr["seccomp"], "allow")
    for name in FREE:
        if name in nr:
            p.jeq(nr[name], "allow")
    p.jump("ask")

    p.label("mmap")
    if sealed:
        p.load_arg(2)
        p.jset(PROT_EXEC, "ask")
    p.jump("allow")

    p.label("madvise")
    p.load_arg(2)
    p.jeq(MADV_MERGEABLE, "ask")
    p.jump("allow")

    p.label("clone")
    p.load_arg(0, high=True)
    p.jeq(0, "clone.low")
    p.jump("ask")
    p.label("clone.low")
    p.load_arg(0)
    p.jeq(THREAD_FLAGS, "allow")
    p.jump("ask")

    p.label("ioctl")
    p.load_arg(1)
    p.jeq(TCGETS, "enotty")  # asked at every open(): there is no terminal in a cell
    p.jeq(TCGETS2, "enotty")
    p.jeq(FIOCLEX, "allow")
    p.jeq(FIONCLEX, "allow")
    p.jump("ask")

    p.label("fcntl")
    p.load_arg(1)
    for command in (F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_DUPFD_CLOEXEC, F_GET_SEALS):
        p.jeq(command, "allow")
    p.jump("ask")

    p.label("prctl")
    p.load_arg(0)
    for option in (PR_SET_NAME, PR_GET_NAME, PR_SET_VMA) + (() if sealed else (PR_SET_MDWE,)):
        p.jeq(option, "allow")
    p.jump("ask")

    p.label("tgkill")
    p.load_arg(0)
    p.jeq(ANY_TGID, "allow")  # abort(3), and only threads of this very process
    p.jump("ask")

    p.label("own")  # of another process it would tell that there is one
    p.load_arg(0)
    p.jeq(0, "allow")
    p.jeq(ANY_TGID, "allow")
    p.jump("ask")

    p.label("clock")  # a negative one is the processor time of a process or thread, of whichever
    p.load_arg(0)
    p.jset(0x80000000, "ask")
    p.jump("allow")

    p.label("prlimit")  # reading one's own limits, not setting any, not another's
    p.load_arg(0)
    p.jeq(0, "prlimit.new")
    p.jump("ask")
    p.label("prlimit.new")
    p.load_arg(2)
    p.jeq(0, "prlimit.high")
    p.jump("ask")
    p.label("prlimit.high")
    p.load_arg(2, high=True)
    p.jeq(0, "allow")
    p.jump("ask")

    p.label("sendmsg")
    p.load_arg(0)
    p.jeq(SETUP_FD, "allow")
    p.jump("ask")

    p.label("ask")
    if lethal:
        p.load_nr()
        for number in sorted(lethal):
            p.jeq(number, "kill")
    p.ret(seccomp.SECCOMP_RET_USER_NOTIF)
    p.label("allow")
    p.ret(seccomp.SECCOMP_RET_ALLOW)
    p.label("enosys")
    p.ret(seccomp.SECCOMP_RET_ERRNO | ENOSYS)
    p.label("enotty")
    p.ret(seccomp.SECCOMP_RET_ERRNO | ENOTTY)
    if sealed:
        p.label("enomem")
        p.ret(seccomp.SECCOMP_RET_ERRNO | ENOMEM)
    p.label("kill")
    p.ret(seccomp.SECCOMP_RET_KILL_PROCESS)
    return p.assemble()
