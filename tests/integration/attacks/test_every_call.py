"""Every system call there is a number for, from inside: only what filter or table name gets anywhere."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from anchorhold.broker.paths import PATH_ARGUMENTS
from anchorhold.broker.table import BOOT, TABLE
from anchorhold.cell import filters
from anchorhold.kernel.syscalls import ARCH, NR, load
from anchorhold.verify.check import verify
from tests.integration.attacks.conftest import Caged, text_of

# Let through, or looked at by their arguments in the filter: see tests/unit/cell/test_filters.py.
_BY_ARGUMENT = (
    "mmap mprotect munmap madvise clone ioctl fcntl prctl tgkill prlimit64 pkey_mprotect mremap clone3 "
    "sched_getaffinity clock_gettime clock_getres clock_nanosleep"
)
# The kernel asks no filter about these two and refuses whoever makes them but its own trampoline, by ENXIO or
# SIGILL (Linux 6.13, kernel/seccomp.c, arch/x86/kernel/uprobes.c).
UNFILTERED = ("uprobe", "uretprobe")
LEFT_OUT = {*filters.FREE, *_BY_ARGUMENT.split(), *UNFILTERED}
ANSWERED = {name for name, (_method, phase) in TABLE.items() if phase != BOOT}

SWEEP = """
import json
def attempt():
    numbers, arguments = json.loads(QUESTION)
    got = {}
    for number in numbers:
        result = libc.syscall(ctypes.c_long(number), *[ctypes.c_long(one) for one in arguments])
        got[number] = -ctypes.get_errno() if result == -1 else result
    return json.dumps(got)
"""


@pytest.mark.parametrize("argument", [0, -1, 3, 0x7FFFFFFFFFFF])
def test_no_other_call_is_let_through(argument: int, place: Path, caged: Caged) -> None:
    known = {NR[name]: name for name in NR if name not in LEFT_OUT | ANSWERED}
    # Numbers that no kernel has yet, and the negative and the huge ones.
    unknown = [*range(max(NR.values()) + 1, max(NR.values()) + 400), 1000, 5000, 100_000, 0x3FFFFFFF]
    question = json.dumps([[*known, *unknown], [argument] * 6])
    out = caged(text_of("files", place) + SWEEP, question=question)
    assert "error" not in out, out
    answers = {int(number): answer for number, answer in json.loads(out["answer"]).items()}
    assert {known.get(number, number): answer for number, answer in answers.items() if answer != -1} == {}
    recorded = {str(entry["call"]) for entry in out["log"] if entry["kind"] == "denial"}
    assert set(known.values()) - recorded == set()
    assert len(recorded) >= len(known) + len(unknown)
    assert verify(str(place / "state")).ok


@pytest.mark.parametrize("call", [name for name in UNFILTERED if name in NR])
def test_calls_that_pass_every_filter_end_the_worker(call: str, place: Path, caged: Caged) -> None:
    out = caged(text_of("files", place) + f"\ndef attempt():\n    return syscall({call!r}, 0, 0, 0)\n")
    # A kernel that does not know the call asks the filter about it.
    assert "SIGILL" in out.get("error", "") or out.get("answer") in ("-1", "-6"), out  # EPERM, ENXIO


def test_no_path_call_reaches_anything_outside(place: Path, caged: Caged) -> None:
    """Each system call that takes a path, with paths outside: refused, and on record with its path."""
    present = {name: where for name, where in PATH_ARGUMENTS.items() if name in NR}
    outside = ["/etc/passwd", "/etc/no-such-file", f"{place}/secret.txt", f"{place}/papers/out.txt"]
    source = f"""
PATHS = {present!r}
import json
def attempt():
    answers = {{}}
    for path in {outside!r}:
        text = cstring(path.encode())
        for name, where in PATHS.items():
            args = [0] * 6
            for index in where:
                args[index] = ctypes.addressof(text)
            if name == "openat2":
                how = (ctypes.c_uint64 * 3)()
                args[2], args[3] = ctypes.addressof(how), 24
            answers[f"{{name}} {{path}}"] = syscall(name, *args)
    return json.dumps(answers)
"""
    out = caged(text_of("files", place) + source)
    answers = json.loads(out["answer"])
    # x86-64's stat of a link out and its like: refused; where nothing was looked at, "not here".
    assert {what: answer for what, answer in answers.items() if answer >= 0} == {}
    silent = {name for name in present if TABLE.get(name, ("", ""))[0] == "not_here"}
    for path in outside:
        named = {str(e["call"]) for e in out["log"] if e["kind"] == "denial" and path in str(e.get("path"))}
        assert set(present) - named <= silent, path


def test_the_list_of_calls_that_take_paths_is_whole() -> None:
    """Against the kernel's own prototypes: a parameter that is a name of a file, in every call of the table.

    Written down from include/linux/syscalls.h: those whose pointer to char is no path, so that a call that is
    new in the table is looked at by somebody.
    """
    no_path = set(NO_PATH.split())
    assert not no_path & PATH_ARGUMENTS.keys()
    for architecture in ("x86_64", "aarch64"):
        assert load(architecture).keys() - no_path - PATH_ARGUMENTS.keys() == set()


NO_PATH = """
_sysctl accept accept4 add_key adjtimex afs_syscall alarm arch_prctl bind bpf brk cachestat capget capset
clock_adjtime clock_getres clock_gettime clock_nanosleep clock_settime clone clone3 close close_range
connect copy_file_range create_module delete_module dup dup2 dup3 epoll_create epoll_create1 epoll_ctl
epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2 exit exit_group
fadvise64 fallocate fanotify_init fchdir fchmod fchown fcntl fdatasync fgetxattr finit_module flistxattr
flock fork fremovexattr fsetxattr fsmount fsopen fstat fstatfs fsync ftruncate futex
futex_requeue futex_wait futex_waitv futex_wake get_kernel_syms get_mempolicy get_robust_list
get_thread_area getcpu getcwd getdents getdents64 getegid geteuid getgid getgroups getitimer getpeername
getpgid getpgrp getpid getpmsg getppid getpriority getrandom getresgid getresuid getrlimit getrusage
getsid getsockname getsockopt gettid gettimeofday getuid init_module inotify_init inotify_init1
inotify_rm_watch io_cancel io_destroy io_getevents io_pgetevents io_setup io_submit io_uring_enter
io_uring_register io_uring_setup ioctl ioperm iopl ioprio_get ioprio_set kcmp kexec_file_load kexec_load
keyctl kill landlock_add_rule landlock_create_ruleset landlock_restrict_self listen listmount listns
lookup_dcookie lseek lsm_get_self_attr lsm_list_modules lsm_set_self_attr madvise map_shadow_stack mbind
membarrier memfd_create memfd_secret migrate_pages mincore mlock mlock2 mlockall mmap modify_ldt
move_pages mprotect mq_getsetattr mq_notify mq_timedreceive mq_timedsend mremap mseal msgctl msgget
msgrcv msgsnd msync munlock munlockall munmap nanosleep nfsservctl open_by_handle_at pause
perf_event_open personality pidfd_getfd pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc pkey_free
pkey_mprotect poll ppoll prctl pread64 preadv preadv2 prlimit64 process_madvise process_mrelease
process_vm_readv process_vm_writev pselect6 ptrace putpmsg pwrite64 pwritev pwritev2 query_module
quotactl_fd read readahead readv reboot recvfrom recvmmsg recvmsg remap_file_pages request_key
restart_syscall rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend
rt_sigtimedwait rt_tgsigqueueinfo sched_get_priority_max sched_get_priority_min sched_getaffinity
sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval sched_setaffinity sched_setattr
sched_setparam sched_setscheduler sched_yield seccomp security select semctl semget semop semtimedop
sendfile sendmmsg sendmsg sendto set_mempolicy set_mempolicy_home_node set_robust_list set_thread_area
set_tid_address setdomainname setfsgid setfsuid setgid setgroups sethostname setitimer setns setpgid
setpriority setregid setresgid setresuid setreuid setrlimit setsid setsockopt settimeofday setuid shmat
shmctl shmdt shmget shutdown sigaltstack signalfd signalfd4 socket socketpair splice statmount sync
sync_file_range syncfs sysfs sysinfo syslog tee tgkill time timer_create timer_delete timer_getoverrun
timer_gettime timer_settime timerfd_create timerfd_gettime timerfd_settime times tkill tuxcall umask
uname unshare uprobe uretprobe userfaultfd ustat vfork vhangup vmsplice vserver wait4 waitid write writev
"""

X32 = """
import ctypes, json, mmap
def boot():
    global run
    code = mmap.mmap(-1, 4096, prot=3)
    code.write(bytes.fromhex(CODE))
    address = ctypes.addressof(ctypes.c_char.from_buffer(code))
    ctypes.CDLL(None).mprotect(ctypes.c_void_p(address), 4096, 5)
    run = ctypes.CFUNCTYPE(ctypes.c_long)(address)
    globals()["kept"] = code
def attempt():
    return repr(run())
"""
# getpid by its number with the x32 bit: mov eax, 0x40000027; syscall; ret.
# And by the 32-bit door: mov eax, 20; int 0x80; ret.
FOREIGN = {"x32": "b8270000400f05c3", "int 0x80": "b814000000cd80c3"}


@pytest.mark.parametrize("door", FOREIGN if ARCH == "x86_64" else [])  # elsewhere there are no such doors
def test_a_call_by_a_foreign_door_is_a_breach(door: str, place: Path, caged: Caged) -> None:
    out = caged(f"CODE = {FOREIGN[door]!r}\n" + X32)
    assert (out["kind"], out["exit"]) == ("BreachError", 3), out
    assert "foreign architecture" in out["error"]
    kinds = [entry["kind"] for entry in out["log"]]
    assert kinds[-3:] == ["breach", "request.end", "session.end"] and "session.sealed" in kinds
    assert verify(str(place / "state")).ok


def test_without_the_filter_the_door_of_int_0x80_is_open(place: Path) -> None:
    namespace: dict[str, object] = {"CODE": FOREIGN["int 0x80"]}
    exec(X32, namespace)
    boot, attempt = namespace["boot"], namespace["attempt"]
    assert callable(boot) and callable(attempt)
    boot()
    assert attempt() == repr(os.getpid())
