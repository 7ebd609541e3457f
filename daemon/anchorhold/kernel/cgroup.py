"""Control groups, version 2: limits on memory, CPU and tasks, and a kill that misses no process.

Constraint: it reports what is there. A machine with version 1, or with version 2 but no controllers,
still has ``cgroup.kill`` and ``cgroup.freeze``; a limit that nothing can hold raises instead of pretending.
Sources: Documentation/admin-guide/cgroup-v2.rst, cgroups(7).
"""

from __future__ import annotations

import errno
import os
import time

from anchorhold.kernel.errors import from_oserror, kernel_error

CPU_PERIOD = 100_000  # microseconds, the kernel's default
CPU_QUOTA_MIN = 1_000  # microseconds, the least the kernel takes
SIGKILL = 9  # asm-generic/signal.h; importing signal would import enum
DIVIDE_TRIALS = 10
LIMITING = frozenset(("cpu", "memory", "pids"))  # the controllers that hold a limit of ours

_NO_CONTROLLER = (
    "The controller is not enabled for this cgroup. Under systemd start it with Delegate=yes, or with "
    "systemd-run --user --scope -p Delegate=yes; with cgroup version 1 boot with "
    "systemd.unified_cgroup_hierarchy=1"
)
_NOT_DELEGATED = (
    "This cgroup is not delegated to this user: start it with systemd-run --user --scope -p Delegate=yes"
)
_HINTS = {
    errno.EBUSY: "A cgroup that holds processes cannot give controllers to children, nor be removed",
    errno.EACCES: _NOT_DELEGATED,
    errno.EPERM: _NOT_DELEGATED,
    errno.EROFS: "The cgroup tree is read-only here, as in most containers",
}


class Survey:
    """What the machine has. ``mode`` is "unified", "hybrid" (both versions), "v1" or "none".

    ``mount`` is where version 2 is mounted and ``own`` this process's directory in it ("" where there is
    none); ``v1`` are the controllers that version 1 holds, which version 2 therefore lacks.
    """

    __slots__ = ("mode", "mount", "own", "v1")

    def __init__(self, mode: str, mount: str, own: str, v1: tuple[str, ...]) -> None:
        self.mode = mode
        self.mount = mount
        self.own = own
        self.v1 = v1


def _slurp(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except OSError as error:
        raise from_oserror(error, "read", path, _HINTS.get(error.errno or 0, "")) from None


def _unescape(text: str) -> str:
    """A path from mountinfo, where space, tab, newline and backslash are octal escapes."""
    for code, char in ((r"\040", " "), (r"\011", "\t"), (r"\012", "\n"), (r"\134", "\\")):
        text = text.replace(code, char)
    return text


def survey(proc: str = "/proc/self") -> Survey:
    """Reads the machine's set-up from ``proc``. Without a /proc there is nothing: mode "none"."""
    try:
        membership, mountinfo = _slurp(f"{proc}/cgroup"), _slurp(f"{proc}/mountinfo")
    except OSError:
        return Survey("none", "", "", ())
    path, v1 = "", []
    for line in membership.splitlines():
        hierarchy, controllers, where = line.split(":", 2)
        if hierarchy == "0" and not controllers:
            path = where
        else:
            v1 += [word for word in controllers.split(",") if word and not word.startswith("name=")]
    mount = own = ""
    for line in mountinfo.splitlines():
        fields, _, rest = line.partition(" - ")
        if rest.split(" ", 1)[0] != "cgroup2":
            continue
        root, mount = (_unescape(field) for field in fields.split(" ")[3:5])
        below = path[len(root) :] if root != "/" and (path + "/").startswith(root + "/") else path
        if "/.." not in path and (root == "/" or below != path or path == root):
            own = (mount + "/" + below.strip("/")).rstrip("/")
        break
    has_v1 = any(" - cgroup " in line for line in mountinfo.splitlines())
    mode = ("hybrid" if has_v1 else "unified") if mount else ("v1" if has_v1 else "none")
    return Survey(mode, mount, own, tuple(v1))


def _delegated(path: str) -> bool:
    """Whether systemd marked this cgroup as handed over, with all below it."""
    for attribute in ("user.delegate", "trusted.delegate"):
        try:
            return os.getxattr(path, attribute) == b"1"
        except OSError:
            continue
    return False


def divide_own(leaf: str, found: Survey | None = None) -> bool:
    """Makes this process's own cgroup give what it has to its children, if systemd handed it over for that.

    systemd enables nothing below what it delegates, and the kernel lets no cgroup both hold processes and
    give: so all that are in it, this one included, move into its child ``leaf``. Returns whether they did;
    False: not delegated, or nothing to gain. Raises OSError.
    """
    found = found or survey()
    if not found.own or not _delegated(found.own):
        return False
    own = Cgroup(found.own)
    wanted = sorted(LIMITING.intersection(own.controllers).difference(own.given))
    if not wanted:
        return False
    for trial in range(DIVIDE_TRIALS):
        own.vacate(leaf)
        try:
            own.enable(*wanted)
            break
        except OSError as error:  # EBUSY: one of those that moved had just forked
            if error.errno != errno.EBUSY or trial == DIVIDE_TRIALS - 1:
                raise
    return True


def find(found: Survey | None = None) -> Cgroup | None:
    """The nearest cgroup at or above this process's own in which it may create limited children.

    May create: the directory, ``cgroup.procs`` and ``cgroup.subtree_control`` are writable, and no boundary
    of delegation lies between (root can write everywhere, but what systemd did not delegate is systemd's).
    One that gives its children more of memory, cpu and pids is preferred to a nearer one. None: nowhere.
    """
    found = found or survey()
    if not found.own:
        return None
    candidates = []
    path = found.own
    while True:
        files = (path, f"{path}/cgroup.procs", f"{path}/cgroup.subtree_control")
        if all(os.access(file, os.W_OK) for file in files):
            candidates.append(Cgroup(path))
        if path in (found.mount, "/") or _delegated(path):
            break
        path = os.path.dirname(path)
    if not candidates:
        return None
    return max(candidates, key=lambda group: (len(LIMITING.intersection(group.given)), len(group.path)))


class Cgroup:
    """One directory of the version 2 tree."""

    __slots__ = ("path",)

    def __init__(self, path: str) -> None:
        self.path = path

    def __repr__(self) -> str:
        return f"Cgroup({self.path!r})"

    def _write(self, file: str, text: str, hint: str = "") -> None:
        path = f"{self.path}/{file}"
        try:
            fd = os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
            try:
                os.write(fd, text.encode("ascii"))
            finally:
                os.close(fd)
        except OSError as error:
            advice = hint if error.errno == errno.ENOENT and hint else _HINTS.get(error.errno or 0, "")
            raise from_oserror(error, "write", f"{path}, {text}", advice) from None

    def _words(self, file: str) -> tuple[str, ...]:
        return tuple(_slurp(f"{self.path}/{file}").split())

    @property
    def controllers(self) -> tuple[str, ...]:
        """The controllers whose limits can be set on this cgroup."""
        return self._words("cgroup.controllers")

    @property
    def given(self) -> tuple[str, ...]:
        """The controllers that children of this cgroup get."""
        return self._words("cgroup.subtree_control")

    @property
    def processes(self) -> tuple[int, ...]:
        """The processes directly in it; 0 stands for one outside this PID namespace."""
        return tuple(map(int, self._words("cgroup.procs")))

    def enable(self, *controllers: str) -> None:
        """Gives ``controllers`` to the children. EBUSY while it holds processes: ``vacate`` first."""
        wanted = [name for name in controllers if name not in self.given]
        if wanted:
            self._write("cgroup.subtree_control", " ".join(f"+{name}" for name in wanted), _NO_CONTROLLER)

    def create(self, name: str) -> Cgroup:
        """A new child. Raises FileExistsError when the name is taken."""
        path = f"{self.path}/{name}"
        try:
            os.mkdir(path, 0o755)
        except OSError as error:
            raise from_oserror(error, "mkdir", path, _HINTS.get(error.errno or 0, "")) from None
        return Cgroup(path)

    def vacate(self, leaf: str) -> Cgroup:
        """Moves all processes of this cgroup into the child ``leaf``, so that controllers can be enabled."""
        try:
            child = self.create(leaf)
        except FileExistsError:
            child = Cgroup(f"{self.path}/{leaf}")
        for pid in self.processes:
            try:
                child.add(pid)
            except ProcessLookupError:
                continue  # it ended meanwhile
        return child

    def set_memory(self, max: int | None, swap: int | None = None) -> None:
        """Limits in bytes (None: leaves it alone). Over it the kernel kills the whole cgroup at once."""
        if max is not None:
            self._write("memory.max", str(max), _NO_CONTROLLER)
            self._write("memory.oom.group", "1", "It needs Linux 4.19")
        if swap is not None:
            self._write(
                "memory.swap.max", str(swap), "The kernel does not account swap, or lacks the controller"
            )

    def set_cpu(self, fraction: float) -> None:
        """CPUs' worth of time: 0.5 is half of one, 2.0 is two."""
        quota = round(fraction * CPU_PERIOD)
        if quota < CPU_QUOTA_MIN:
            raise kernel_error(
                errno.EINVAL, "cpu.max", str(fraction), f"The least is {CPU_QUOTA_MIN / CPU_PERIOD} of a CPU"
            )
        self._write("cpu.max", f"{quota} {CPU_PERIOD}", _NO_CONTROLLER)

    def set_pids(self, n: int) -> None:
        """At most ``n`` tasks: processes and threads together."""
        self._write("pids.max", str(n), _NO_CONTROLLER)

    def add(self, pid: int) -> None:
        """Moves the process ``pid`` with all its threads here (0: this process)."""
        self._write("cgroup.procs", str(pid))

    def kill(self) -> None:
        """SIGKILL to every process here and below. Before Linux 5.14: one by one, while they are frozen."""
        try:
            self._write("cgroup.kill", "1")
        except FileNotFoundError:
            self._kill_each()

    def _kill_each(self) -> None:
        self.freeze()
        try:
            for directory, _, _ in os.walk(self.path):
                for pid in Cgroup(directory).processes:
                    if pid > 0:
                        try:
                            os.kill(pid, SIGKILL)
                        except ProcessLookupError:
                            continue
        finally:
            self.thaw()

    def freeze(self) -> None:
        """Stops every process here and below; ``events()["frozen"]`` says when all have."""
        self._write("cgroup.freeze", "1")

    def thaw(self) -> None:
        """Lets them run again."""
        self._write("cgroup.freeze", "0")

    def events(self) -> dict[str, int]:
        """Counters: ``populated``, ``frozen``, and where held ``memory.*`` and ``pids.max``."""
        events: dict[str, int] = {}
        for file, prefix in (("cgroup.events", ""), ("memory.events", "memory."), ("pids.events", "pids.")):
            try:
                words = self._words(file)
            except FileNotFoundError:
                continue
            for key, value in zip(words[::2], words[1::2], strict=True):
                events[prefix + key] = int(value)
        return events

    def remove(self, timeout: float = 1.0) -> None:
        """Removes the cgroup; waits up to ``timeout`` seconds for killed processes to be gone from it."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                os.rmdir(self.path)
                return
            except OSError as error:
                if error.errno == errno.ENOENT:
                    return
                if error.errno != errno.EBUSY or time.monotonic() > deadline:
                    raise from_oserror(error, "rmdir", self.path, _HINTS.get(error.errno or 0, "")) from None
            time.sleep(0.002)
