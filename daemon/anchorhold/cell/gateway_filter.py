"""The one seccomp program of the gateway: what serving open connections takes, and nothing else.

Nobody is asked: a call is allowed, refused with EPERM, or, where no honest code of the gateway would make it,
the end of the process. Sockets come from outside ready-made; none can be made, bound or connected. What the
gateway imports lazily in spite of all meets EPERM and goes on.

Runs before the seal: no imports but the kernel wrappers.
Source: seccomp(2), Documentation/userspace-api/seccomp_filter.rst.
"""

from __future__ import annotations

from anchorhold.kernel import bpf, seccomp, syscalls

FREE = (
    "read", "write", "readv", "writev", "close", "fstat", "lseek",
    "recvfrom", "recvmsg", "accept4", "shutdown", "getsockname", "getpeername",
    "epoll_wait", "epoll_pwait", "epoll_pwait2", "epoll_ctl", "poll", "ppoll", "select", "pselect6",
    "munmap", "mremap", "brk", "futex", "futex_wait", "futex_wake", "rseq", "set_robust_list",
    "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack", "restart_syscall",
    "exit", "exit_group", "getpid", "gettid", "getppid", "getuid", "geteuid", "getgid", "getegid",
    "gettimeofday", "time", "nanosleep", "sched_yield", "getcpu", "getrandom", "getrusage",
)  # fmt: skip
"""Allowed with any argument: the process's own memory, time, and descriptors that it was given."""

DEADLY = (
    "execve", "execveat", "fork", "vfork", "clone", "clone3",
    "socket", "socketpair", "connect", "bind", "listen",
    "ptrace", "process_vm_readv", "process_vm_writev", "process_madvise", "kcmp",
    "pidfd_open", "pidfd_getfd", "pidfd_send_signal", "kill", "tkill", "rt_sigqueueinfo",
    "open_by_handle_at", "name_to_handle_at", "mount", "umount2", "pivot_root", "chroot", "setns", "unshare",
    "open_tree", "move_mount", "fsopen", "fsconfig", "fsmount", "fspick", "mount_setattr",
    "bpf", "userfaultfd", "io_uring_setup", "io_uring_enter", "io_uring_register", "perf_event_open",
    "add_key", "request_key", "keyctl", "init_module", "finit_module", "delete_module",
    "kexec_load", "kexec_file_load", "reboot", "swapon", "swapoff", "acct", "quotactl", "settimeofday",
    "setuid", "setgid", "setreuid", "setregid", "setresuid", "setresgid", "setgroups", "setfsuid", "setfsgid",
    "capset", "personality", "iopl", "ioperm", "modify_ldt", "memfd_create", "memfd_secret", "seccomp",
    "fanotify_init", "landlock_create_ruleset", "shmget", "shmat", "msgget", "semget", "mq_open",
)  # fmt: skip
"""The end of the process: only code that is not ours any more makes them."""

PROT_EXEC = 0x4
MAP_ANONYMOUS = 0x20
MADV_MERGEABLE = 12
FIONBIO = 0x5421
FIONCLEX = 0x5450
FIOCLEX = 0x5451
F_GETFD, F_SETFD, F_GETFL = 1, 2, 3
PR_SET_VMA = 0x53564D41
SOL_SOCKET = 1
IPPROTO_TCP = 6
TCP_NODELAY = 1
MSG_NOSIGNAL = 0x4000
EPERM = 1


def program(tgid: int) -> bytes:
    """The program for a process with this id, as it sees itself: the only one that it may signal."""
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
    # Most frequent first: the program is walked at every call that the kernel has not cached.
    for name in FREE:
        if name in nr:
            p.jeq(nr[name], "allow")
    for name, label in (
        ("sendto", "sendto"), ("sendmsg", "sendmsg"), ("mmap", "mmap"), ("mprotect", "mprotect"),
        ("madvise", "madvise"), ("ioctl", "ioctl"), ("fcntl", "fcntl"), ("setsockopt", "setsockopt"),
        ("getsockopt", "getsockopt"), ("clock_gettime", "clock"), ("clock_getres", "clock"),
        ("clock_nanosleep", "clock"), ("prctl", "prctl"), ("tgkill", "tgkill"),
    ):  # fmt: skip
        p.jeq(nr[name], label)
    for name in DEADLY:
        if name in nr:
            p.jeq(nr[name], "kill")
    p.jump("refuse")

    p.label("sendto")  # to the other end and nowhere else, and no MSG_FASTOPEN, which connects
    p.jeq_arg(4, 0, "sendto.flags")
    p.jump("kill")
    p.label("sendto.flags")
    p.load_arg(3)
    p.jeq(0, "allow")
    p.jeq(MSG_NOSIGNAL, "allow")
    p.jump("kill")

    p.label("sendmsg")
    p.load_arg(2)
    p.jeq(0, "allow")
    p.jeq(MSG_NOSIGNAL, "allow")
    p.jump("kill")

    p.label("mmap")
    p.load_arg(3)
    p.jset(MAP_ANONYMOUS, "mprotect")
    p.jump("refuse")
    p.label("mprotect")
    p.load_arg(2)
    p.jset(PROT_EXEC, "refuse")
    p.jump("allow")

    p.label("madvise")
    p.load_arg(2)
    p.jeq(MADV_MERGEABLE, "refuse")
    p.jump("allow")

    p.label("ioctl")
    p.load_arg(1)
    for request in (FIONBIO, FIOCLEX, FIONCLEX):
        p.jeq(request, "allow")
    p.jump("refuse")

    p.label("fcntl")
    p.load_arg(1)
    for command in (F_GETFD, F_SETFD, F_GETFL):
        p.jeq(command, "allow")
    p.jump("refuse")

    p.label("setsockopt")  # SOL_SOCKET has options that load programs into the kernel
    p.load_arg(1)
    p.jeq(IPPROTO_TCP, "setsockopt.tcp")
    p.jump("refuse")
    p.label("setsockopt.tcp")
    p.load_arg(2)
    p.jeq(TCP_NODELAY, "allow")
    p.jump("refuse")

    p.label("getsockopt")
    p.load_arg(1)
    p.jeq(SOL_SOCKET, "allow")
    p.jump("refuse")

    p.label("clock")  # a negative one is the processor time of a process or thread, of whichever
    p.load_arg(0)
    p.jset(0x80000000, "refuse")
    p.jump("allow")

    p.label("prctl")  # malloc names its mappings
    p.load_arg(0)
    p.jeq(PR_SET_VMA, "allow")
    p.jump("refuse")

    p.label("tgkill")  # abort(3)
    p.load_arg(0)
    p.jeq(tgid, "allow")
    p.jump("kill")

    p.label("refuse")
    p.ret(seccomp.SECCOMP_RET_ERRNO | EPERM)
    p.label("allow")
    p.ret(seccomp.SECCOMP_RET_ALLOW)
    p.label("kill")
    p.ret(seccomp.SECCOMP_RET_KILL_PROCESS)
    return p.assemble()
