"""Namespaces: unshare, setns, identity maps.

Constraint: these change the calling process for good, so they are called in a forked child (CLONE_NEWPID
only takes effect for the next child). Sources: linux/sched.h, namespaces(7), user_namespaces(7).
"""

from __future__ import annotations

import errno
import os

from anchorhold.kernel import libc
from anchorhold.kernel.errors import from_oserror, kernel_error
from anchorhold.kernel.syscalls import NR

CSIGNAL = 0x000000FF
CLONE_NEWTIME = 0x00000080
CLONE_VM = 0x00000100
CLONE_FS = 0x00000200
CLONE_FILES = 0x00000400
CLONE_SIGHAND = 0x00000800
CLONE_PIDFD = 0x00001000
CLONE_PTRACE = 0x00002000
CLONE_VFORK = 0x00004000
CLONE_PARENT = 0x00008000
CLONE_THREAD = 0x00010000
CLONE_NEWNS = 0x00020000
CLONE_SYSVSEM = 0x00040000
CLONE_SETTLS = 0x00080000
CLONE_PARENT_SETTID = 0x00100000
CLONE_CHILD_CLEARTID = 0x00200000
CLONE_DETACHED = 0x00400000
CLONE_UNTRACED = 0x00800000
CLONE_CHILD_SETTID = 0x01000000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
CLONE_IO = 0x80000000

NAMES = {
    CLONE_NEWUSER: "user",
    CLONE_NEWNS: "mnt",
    CLONE_NEWPID: "pid",
    CLONE_NEWNET: "net",
    CLONE_NEWIPC: "ipc",
    CLONE_NEWUTS: "uts",
    CLONE_NEWCGROUP: "cgroup",
    CLONE_NEWTIME: "time",
}

_UNSHARE_HINTS = {
    errno.EPERM: (
        "Unprivileged user namespaces are off here: see kernel.apparmor_restrict_unprivileged_userns "
        "(Ubuntu), kernel.unprivileged_userns_clone (Debian), or the container's seccomp profile"
    ),
    errno.ENOSPC: "The limit on namespaces is reached: see /proc/sys/user/max_*_namespaces",
    errno.EUSERS: "User namespaces are nested too deep",
    errno.EINVAL: "The kernel lacks one of these namespaces, or the process has more than one thread",
}
# AppArmor may let unshare succeed and then refuse everything inside; these are where that shows.
_MAP_HINT = "A security module may forbid it: see kernel.apparmor_restrict_unprivileged_userns"


def flag_names(flags: int) -> str:
    """``user|net`` for messages."""
    return "|".join(name for flag, name in NAMES.items() if flags & flag)


def unshare(flags: int) -> None:
    """Moves this process into new namespaces (CLONE_NEW*)."""
    result = libc.raw_syscall(NR["unshare"], flags)
    if result < 0:
        raise kernel_error(-result, "unshare", flag_names(flags), _UNSHARE_HINTS.get(-result, ""))


def setns(fd: int, nstype: int = 0) -> None:
    """Joins the namespace (or, with a pidfd, the namespaces ``nstype``) that ``fd`` names."""
    libc.syscall(NR["setns"], fd, nstype, subject=f"descriptor {fd} {flag_names(nstype)}".rstrip())


def write_id_maps(pid: int | str, uid: int, gid: int, proc: str = "/proc") -> None:
    """Maps ``uid`` and ``gid`` to themselves in the new user namespace of ``pid`` (or "self").

    ``setgroups`` is denied first: without that the kernel lets nobody unprivileged write a gid map.
    """
    for file, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        path = f"{proc}/{pid}/{file}"
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(fd, text.encode("ascii"))
            finally:
                os.close(fd)
        except OSError as error:
            hint = _MAP_HINT if error.errno in (errno.EPERM, errno.EACCES) else ""
            raise from_oserror(error, "write", path, hint) from None


def sethostname(name: str) -> None:
    """Names the host in this UTS namespace."""
    raw = name.encode("utf-8", "surrogateescape")
    libc.syscall(NR["sethostname"], raw, len(raw), subject=repr(name))
