"""New programs, new processes, other processes, and the way out of limits that were set."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys

from tests.integration.attacks.common import (
    child_of,
    cstring,
    libc,
    memory,
    pointers,
    syscall,
    trial,
)

SIGCHLD = 17
NAMESPACES = {
    "CLONE_NEWTIME": 0x80,
    "CLONE_NEWNS": 0x20000,
    "CLONE_NEWCGROUP": 0x2000000,
    "CLONE_NEWUTS": 0x4000000,
    "CLONE_NEWIPC": 0x8000000,
    "CLONE_NEWUSER": 0x10000000,
    "CLONE_NEWPID": 0x20000000,
    "CLONE_NEWNET": 0x40000000,
}
# With SIGHAND or THREAD alone the kernel itself refuses; with VM, FS, FILES, IO a process comes of it.
SHARING = {"CLONE_FS": 0x200, "CLONE_FILES": 0x400, "CLONE_IO": 0x80000000, "CLONE_PARENT": 0x8000}
OTHER = os.getppid() or 2


def run_in_child(call: str, *args: object) -> bool:
    """Whether a process made here could become /bin/true."""
    child = os.fork()
    if child == 0:
        syscall(call, *args)
        os._exit(99)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def executed(call: str, *args: object) -> bool:
    """Outside in a child, since it does not return. In the cell there is none: then it is tried as it is."""
    try:
        return run_in_child(call, *args)
    except OSError:
        syscall(call, *args)
        return False


ARGUMENTS = pointers(b"/bin/true")
EMPTY = pointers()


@trial("execve", call="execve", path="/bin/true")
def _() -> object:
    return executed("execve", cstring(b"/bin/true"), ARGUMENTS, EMPTY)


@trial("execveat by path", call="execveat", path="/bin/true")
def _() -> object:
    return executed("execveat", -100, cstring(b"/bin/true"), ARGUMENTS, EMPTY, 0)


@trial("execveat of an open file", call="execveat")
def _() -> object:
    try:
        fd = os.open("/bin/true", os.O_RDONLY)
    except OSError:
        fd = 0
    return executed("execveat", fd, cstring(b""), ARGUMENTS, EMPTY, 0x1000)


@trial("a program in memory", call="memfd_create")
def _() -> object:
    fd = syscall("memfd_create", cstring(b"x"), 0)
    if fd < 0:
        return False
    with open("/bin/true", "rb") as source:
        os.write(fd, source.read())
    return executed("execveat", fd, cstring(b""), ARGUMENTS, EMPTY, 0x1000)


@trial("subprocess", call="clone")
def _() -> object:
    return subprocess.run(["/bin/true"], check=False, env={}).returncode == 0


@trial("posix_spawn", call="clone")
def _() -> object:
    return os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0)[1] == 0


@trial("os.fork", call="clone")
def _() -> object:
    child = os.fork()
    if child == 0:
        os._exit(0)
    return os.waitpid(child, 0)[0] == child


@trial("the system call fork", call="fork", only_with="fork")
def _() -> object:
    return child_of("fork")


@trial("vfork", call="vfork", only_with="vfork", not_shown="its child would return into a frame in use")
def _() -> object:
    return "probe" in __name__ and syscall("vfork") >= 0


@trial("clone, a plain process", call="clone")
def _() -> object:
    return child_of("clone", SIGCHLD, 0, 0, 0, 0)


for _name, _flag in {**NAMESPACES, **SHARING}.items():
    # CLONE_NEWTIME and CLONE_PARENT as clone flags: the former exists for clone3 and unshare only.
    _why = "not by clone(2)" if _name == "CLONE_NEWTIME" else ""
    if _name == "CLONE_PARENT":
        _why = "the child is not ours to wait for"

    @trial(f"clone with {_name}", call="clone", not_shown=_why)
    def _(flag: int = _flag, why: str = _why) -> object:
        return False if why and "probe" not in __name__ else child_of("clone", flag | SIGCHLD, 0, 0, 0, 0)


@trial("clone with thread flags and one bit above 32", call="clone", not_shown="it would share this stack")
def _() -> object:
    if "probe" not in __name__:
        return False
    return syscall("clone", 0x3D0F00 | 1 << 33, 0, 0, 0, 0) >= 0


@trial("clone3", call="")
def _() -> object:
    arguments = (ctypes.c_uint64 * 11)()
    arguments[4] = SIGCHLD
    return child_of("clone3", arguments, ctypes.sizeof(arguments))


for _name, _flag in {**NAMESPACES, "CLONE_FS": 0x200, "CLONE_FILES": 0x400, "CLONE_SYSVSEM": 0x40000}.items():

    @trial(f"unshare {_name}", call="unshare")
    def _(flag: int = _flag) -> object:
        child = None
        try:
            child = os.fork()
        except OSError:
            return syscall("unshare", flag) == 0
        if child == 0:
            os._exit(0 if syscall("unshare", flag) == 0 else 1)
        return os.waitpid(child, 0)[1] == 0


@trial("setns", call="setns")
def _() -> object:
    try:
        fd = os.open("/proc/self/ns/uts", os.O_RDONLY)
    except OSError:
        fd = 0
    return syscall("setns", fd, 0) == 0


@trial("ptrace TRACEME", call="ptrace")
def _() -> object:
    try:
        child = os.fork()
    except OSError:
        return syscall("ptrace", 0, 0, 0, 0) == 0
    if child == 0:
        os._exit(0 if syscall("ptrace", 0, 0, 0, 0) == 0 else 1)
    return os.waitpid(child, 0)[1] == 0


for _name, _request in {"ATTACH": 16, "SEIZE": 0x4206}.items():

    @trial(f"ptrace {_name}", call="ptrace")
    def _(request: int = _request) -> object:
        try:
            child = os.fork()
        except OSError:
            return syscall("ptrace", request, OTHER, 0, 0) == 0
        if child == 0:
            libc.pause()
            os._exit(0)
        got = syscall("ptrace", request, child, 0, 0) == 0
        os.kill(child, 9)
        os.waitpid(child, 0)
        return got


def _vector() -> tuple[ctypes.Array[ctypes.c_uint64], int]:
    page = memory()
    vector = (ctypes.c_uint64 * 2)(page, 8)
    return vector, page


@trial("process_vm_readv", call="process_vm_readv")
def _() -> object:
    vector, _page = _vector()
    return syscall("process_vm_readv", os.getpid(), vector, 1, vector, 1, 0) == 8


@trial("process_vm_writev", call="process_vm_writev")
def _() -> object:
    vector, _page = _vector()
    return syscall("process_vm_writev", os.getpid(), vector, 1, vector, 1, 0) == 8


@trial("pidfd_open", call="pidfd_open")
def _() -> object:
    return syscall("pidfd_open", os.getpid(), 0) >= 0


@trial("pidfd_getfd", call="pidfd_getfd")
def _() -> object:
    return syscall("pidfd_getfd", max(0, syscall("pidfd_open", os.getpid(), 0)), 0, 0) >= 0


@trial("pidfd_send_signal", call="pidfd_send_signal")
def _() -> object:
    return syscall("pidfd_send_signal", max(0, syscall("pidfd_open", os.getpid(), 0)), 0, 0, 0) == 0


@trial("process_madvise", call="process_madvise")
def _() -> object:
    vector, _page = _vector()
    return syscall("process_madvise", max(0, syscall("pidfd_open", os.getpid(), 0)), vector, 1, 20, 0) >= 0


@trial("process_mrelease", call="process_mrelease", not_shown="only a dying process may be released")
def _() -> object:
    return syscall("process_mrelease", 0, 0) == 0


@trial("kcmp", call="kcmp")
def _() -> object:
    return syscall("kcmp", os.getpid(), os.getpid(), 0, 0, 0) >= 0


for _name, _target in {"itself": 0, "its parent": OTHER, "process 1": 1, "everybody": -1}.items():
    # kill(2): -1 leaves out process 1 and oneself, and outside nobody else is in this namespace.
    @trial(f"kill {_name}", call="kill", not_shown="" if _target != -1 else "nobody is left to be killed")
    def _(target: int = _target) -> object:
        return syscall("kill", target or os.getpid(), 0) == 0


@trial("kill its process group", call="kill")
def _() -> object:
    return syscall("kill", 0, 0) == 0


@trial("tkill", call="tkill")
def _() -> object:
    return syscall("tkill", os.getpid(), 0) == 0


@trial("tgkill of another process", call="tgkill")
def _() -> object:
    return syscall("tgkill", 1 if os.getpid() != 1 else 2, 1 if os.getpid() != 1 else 2, 0) == 0


@trial("rt_sigqueueinfo", call="rt_sigqueueinfo")
def _() -> object:
    information = ctypes.create_string_buffer(128)
    ctypes.c_int.from_buffer(information, 8).value = -1  # SI_QUEUE
    return syscall("rt_sigqueueinfo", os.getpid(), 28, information) == 0  # SIGWINCH, which does nothing


@trial("rt_tgsigqueueinfo", call="rt_tgsigqueueinfo")
def _() -> object:
    information = ctypes.create_string_buffer(128)
    ctypes.c_int.from_buffer(information, 8).value = -1
    return syscall("rt_tgsigqueueinfo", os.getpid(), os.getpid(), 28, information) == 0


for _name in ("getpgid", "getsid"):

    @trial(f"{_name} of another process", call=_name)
    def _(name: str = _name) -> object:
        return syscall(name, OTHER) >= 0


@trial("getpriority of another process", call="getpriority")
def _() -> object:
    return syscall("getpriority", 0, OTHER) >= 0


@trial("the processor time of another process")
def _() -> object:
    # A clock id as clock_getcpuclockid(3) makes it: ~pid, then CPUCLOCK_SCHED.
    return syscall("clock_gettime", (~OTHER << 3) | 2, ctypes.create_string_buffer(16)) == 0


@trial("the processors of another process")
def _() -> object:
    return syscall("sched_getaffinity", OTHER, 128, ctypes.create_string_buffer(128)) > 0


@trial("the robust list of another thread", call="get_robust_list")
def _() -> object:
    head, size = ctypes.create_string_buffer(8), ctypes.create_string_buffer(8)
    return syscall("get_robust_list", os.getpid(), head, size) == 0


@trial("limits of another process", call="prlimit64")
def _() -> object:
    return syscall("prlimit64", OTHER, 7, 0, ctypes.create_string_buffer(16)) == 0


@trial("a limit of its own, set", call="prlimit64")
def _() -> object:
    old = (ctypes.c_uint64 * 2)()
    return syscall("prlimit64", 0, 4, 0, old) == 0 and syscall("prlimit64", 0, 4, old, 0) == 0


@trial("setpgid", call="setpgid")
def _() -> object:
    return syscall("setpgid", 0, 0) == 0


@trial("setsid", call="setsid")
def _() -> object:
    try:
        child = os.fork()
    except OSError:
        return syscall("setsid") > 0
    if child == 0:
        os._exit(0 if syscall("setsid") > 0 else 1)
    return os.waitpid(child, 0)[1] == 0


@trial("setpriority", call="setpriority")
def _() -> object:
    return syscall("setpriority", 0, 0, 0) == 0


@trial("its processors, set")
def _() -> object:
    mask = ctypes.create_string_buffer(128)
    mask[0] = b"\x01"
    return syscall("sched_setaffinity", 0, 128, mask) == 0


@trial("its scheduling, set", call="sched_setscheduler")
def _() -> object:
    return syscall("sched_setscheduler", 0, 3, (ctypes.c_int * 1)(0)) == 0  # SCHED_BATCH


PRCTLS = {
    "PR_SET_PDEATHSIG off": (1, 0),
    "PR_SET_DUMPABLE on": (4, 1),
    "PR_SET_KEEPCAPS": (8, 1),
    "PR_SET_TIMING": (14, 0),
    "PR_SET_SECUREBITS": (28, 0),
    "PR_SET_TIMERSLACK": (29, 50000),
    "PR_SET_CHILD_SUBREAPER": (36, 1),
    "PR_SET_NO_NEW_PRIVS": (38, 1),
    "PR_SET_THP_DISABLE": (41, 0),
    "PR_CAP_AMBIENT": (47, 4),
    "PR_SET_PTRACER": (0x59616D61, -1),
    "PR_SET_MEMORY_MERGE": (67, 0),
}
_ELSEWHERE = {"PR_SET_PTRACER": "needs Yama", "PR_SET_MEMORY_MERGE": "needs KSM"}
for _name, _values in PRCTLS.items():

    @trial(f"prctl {_name}", call="prctl", not_shown=_ELSEWHERE.get(_name, ""))
    def _(values: tuple[int, int] = _values) -> object:
        return syscall("prctl", *values, 0, 0, 0) >= 0


@trial("seccomp strict by prctl", call="prctl", not_shown="it would end the process that shows it")
def _() -> object:
    return "probe" in __name__ and syscall("prctl", 22, 1, 0, 0, 0) == 0


@trial("one more filter", call="seccomp")
def _() -> object:
    # struct sock_fprog of one instruction: return SECCOMP_RET_ALLOW.
    instruction = ctypes.create_string_buffer(
        (6).to_bytes(8, "little")[:4] + (0x7FFF0000).to_bytes(4, "little")
    )
    fprog = (ctypes.c_uint64 * 2)(1, ctypes.addressof(instruction))
    return syscall("seccomp", 1, 0, fprog) == 0


@trial("capset", call="capset")
def _() -> object:
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    data = (ctypes.c_uint32 * 6)()
    syscall("capget", header, data)  # the same again: nothing is lost where it works
    return syscall("capset", header, data) == 0


for _name in ("setuid", "setgid", "setfsuid", "setfsgid"):

    @trial(f"{_name} 0", call=_name)
    def _(name: str = _name) -> object:
        return syscall(name, 0) >= 0


@trial("setresuid 0", call="setresuid")
def _() -> object:
    return syscall("setresuid", 0, 0, 0) == 0


@trial("setgroups", call="setgroups", not_shown="not within a user namespace of one's own")
def _() -> object:
    return syscall("setgroups", 0, 0) == 0


@trial("the environment of whoever started it")
def _() -> object:
    ours = {"OPENBLAS_NUM_THREADS", "GOMP_SPINCOUNT", "HOME", "LC_CTYPE"}
    return bool(set(os.environ) - ours)


@trial("the environment of its parent", call="openat")
def _() -> object:
    with open(f"/proc/{OTHER}/environ", "rb") as file:
        return file.read()


@trial("the arguments of its parent", call="openat")
def _() -> object:
    with open(f"/proc/{OTHER}/cmdline", "rb") as file:
        return file.read()


@trial("its own arguments")
def _() -> object:
    return sys.argv != ["worker"]


@trial("its host's name")
def _() -> object:
    return os.uname().nodename != "anchorhold"
