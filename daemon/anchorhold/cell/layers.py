"""The layers of the cell, in the order in which they go on. Each one applies and describes itself.

``apply()`` either puts the layer on, or raises ``OSError``: the launcher then reports the layer as
missing with the reason, and the supervisor decides by policy whether a cell without it may start.
Nothing here decides that. ``describe()`` says in one line what the layer does, after ``apply()``
with what it did; ``doctor``, ``status`` and the log show these very words.

Runs between spawn and seal: single thread, few imports, no way back.
Sources: namespaces(7), user_namespaces(7), pivot_root(2), capabilities(7), landlock(7), seccomp(2).
"""

from __future__ import annotations

import os

from anchorhold.kernel import capabilities, landlock, mounts, namespaces, prctl, rlimits, seccomp

NAMESPACES = {
    "userns": namespaces.CLONE_NEWUSER,
    "mountns": namespaces.CLONE_NEWNS,
    "pidns": namespaces.CLONE_NEWPID,
    "netns": namespaces.CLONE_NEWNET,
    "ipcns": namespaces.CLONE_NEWIPC,
    "utsns": namespaces.CLONE_NEWUTS,
    "cgroupns": namespaces.CLONE_NEWCGROUP,
}

NAMESPACE_WORDS = {
    "userns": "a user namespace of its own: no right over anything outside it",
    "mountns": "a mount namespace of its own",
    "pidns": "a process namespace of its own: it sees and can signal nobody else, and dies whole",
    "netns": "a network namespace of its own: no interface but a loopback that is down",
    "ipcns": "System V and POSIX message queues of its own",
    "utsns": "a host name of its own",
    "cgroupns": "a cgroup namespace of its own",
}

ALL = (
    "rlimits", "cgroup", "user", *NAMESPACES, "root", "capabilities", "no_new_privs", "landlock", "dumpable",
    "seccomp", "mdwe",
)  # fmt: skip
"""Every layer that there is, in building order; what ``[require] layers`` may name."""


class Rlimits:
    """Limits that the kernel holds per process; no core file, no file growth."""

    name = "rlimits"

    def __init__(self, limits: dict[str, int]) -> None:
        self.limits = limits

    def apply(self) -> None:
        for name, value in self.limits.items():
            _soft, hard = rlimits.get_limit(name)
            if hard != rlimits.RLIM_INFINITY:
                value = min(value, hard)
            rlimits.set_limit(name, value, value)

    def describe(self) -> str:
        return "limits per process: " + ", ".join(f"{name}={value}" for name, value in self.limits.items())


class User:
    """When started by root: become a user who owns nothing, before anything else."""

    name = "user"

    def __init__(self, uid: int, gid: int) -> None:
        self.uid = uid
        self.gid = gid

    def apply(self) -> None:
        os.setgroups([])
        os.setresgid(self.gid, self.gid, self.gid)
        os.setresuid(self.uid, self.uid, self.uid)
        # The change made /proc/self root's; the id maps are written through it.
        prctl.set_dumpable(1)

    def describe(self) -> str:
        return f"runs as uid {self.uid}, gid {self.gid}, without groups"


class Namespaces:
    """All seven namespaces, at once if the kernel lets this user have them."""

    def __init__(self, wanted: tuple[str, ...] = tuple(NAMESPACES)) -> None:
        self.wanted = wanted
        self.held: tuple[str, ...] = ()

    def apply(self) -> None:
        uid, gid = os.getuid(), os.getgid()
        flags = 0
        for name in self.wanted:
            flags |= NAMESPACES[name]
        namespaces.unshare(flags)
        if flags & namespaces.CLONE_NEWUSER:
            namespaces.write_id_maps("self", uid, gid)
        self.held = self.wanted

    def describe(self) -> dict[str, str]:
        return {name: NAMESPACE_WORDS[name] for name in self.held}


class Root:
    """An empty read-only file system in place of everything; needs the mount namespace."""

    name = "root"

    def apply(self) -> None:
        mounts.mount(None, "/", None, mounts.MS_REC | mounts.MS_PRIVATE, None)
        # Any directory does as a mount point for a moment; this one exists wherever Linux runs.
        flags = mounts.MS_NOSUID | mounts.MS_NODEV | mounts.MS_NOEXEC | mounts.MS_RDONLY
        mounts.mount("anchorhold", "/proc", "tmpfs", flags, "size=4k,nr_inodes=1,mode=0555")
        os.chdir("/proc")
        mounts.pivot_root(".", ".")
        mounts.umount2(".", mounts.MNT_DETACH)
        os.chdir("/")

    def describe(self) -> str:
        return "an empty read-only root: there is no file in the cell"


class Capabilities:
    """No capability in any set, and no way to get one."""

    name = "capabilities"

    def __init__(self) -> None:
        self.locked = False
        self.left = 0

    def apply(self) -> None:
        try:
            capabilities.lock_securebits()
            self.locked = True
        except PermissionError:
            pass  # needs CAP_SETPCAP, which a user without a user namespace has not
        self.left = capabilities.drop_all()

    def describe(self) -> str:
        words = "no capabilities"
        words += (
            ", bounding set empty" if not self.left else ", bounding set as it was (no_new_privs holds it)"
        )
        return words + (", securebits locked" if self.locked else "")


class NoNewPrivileges:
    name = "no_new_privs"

    def apply(self) -> None:
        prctl.set_no_new_privs()

    def describe(self) -> str:
        return "no_new_privs: nothing it could run would gain a right"


class Landlock:
    """A domain that handles every right the kernel knows and grants none."""

    name = "landlock"

    def __init__(self) -> None:
        self.abi = 0

    def apply(self) -> None:
        self.abi = landlock.abi()
        if not self.abi:
            raise OSError(
                95, "Landlock is not in this kernel, or not switched on (lsm= on the kernel command line)"
            )
        ruleset = landlock.create_ruleset(*landlock.handled(self.abi))
        try:
            landlock.restrict_self(ruleset)
        finally:
            os.close(ruleset)

    def describe(self) -> str:
        scope = ", no TCP port" if self.abi >= 4 else ""
        scope += ", no signal or abstract socket outside" if self.abi >= 6 else ""
        return f"Landlock ABI {self.abi}: no file{scope}"


class Dumpable:
    """Other processes of the same user may not look inside (ptrace, /proc/<pid>/mem)."""

    name = "dumpable"

    def apply(self) -> None:
        prctl.set_dumpable(0)

    def describe(self) -> str:
        return "closed to ptrace and to /proc of other processes of this user; no core dump"


class Seccomp:
    """A filter that asks the supervisor about every call that it does not know to be harmless."""

    name = "seccomp"

    def __init__(self, program: bytes, *, all_threads: bool = False) -> None:
        self.program = program
        self.all_threads = all_threads
        self.listener = -1

    def apply(self) -> None:
        # Spectre mitigations per thread cost a tenth of the speed and protect the process from itself only.
        flags = seccomp.SECCOMP_FILTER_FLAG_NEW_LISTENER | seccomp.SECCOMP_FILTER_FLAG_SPEC_ALLOW
        if self.all_threads:
            flags |= seccomp.SECCOMP_FILTER_FLAG_TSYNC | seccomp.SECCOMP_FILTER_FLAG_TSYNC_ESRCH
        try:
            # Once the supervisor has a question, only a deadly signal takes it back (Linux 5.19).
            self.listener = seccomp.set_filter(
                self.program, flags | seccomp.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
            )
        except OSError as error:
            if error.errno != 22:
                raise
            self.listener = seccomp.set_filter(self.program, flags)

    def describe(self) -> str:
        return "every system call that is not known to be harmless is answered by the supervisor"


class Mdwe:
    """Memory-deny-write-execute: no mapping gains the right to execute (Linux 6.3)."""

    name = "mdwe"

    def apply(self) -> None:
        prctl.set_mdwe(prctl.PR_MDWE_REFUSE_EXEC_GAIN)

    def describe(self) -> str:
        return "no memory becomes executable after the seal"
