"""Limits of one worker, each by the best mechanism that this machine gives, named as it is.

cgroup v2 where this process may create a group with the controller; else rlimits, processor
affinity, and a look every tenth of a second that kills. What cannot be held is said, not assumed.
Sources: Documentation/admin-guide/cgroup-v2.rst, getrlimit(2), sched_setaffinity(2).
"""

from __future__ import annotations

import contextlib
import math
import os
import time

from anchorhold.kernel import cgroup as cgroups

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from anchorhold.kernel.cgroup import Cgroup
    from anchorhold.policy.schema import Limits as LimitsPolicy

WATCH_SECONDS = 0.1
DATA_SLACK = 512 << 20
"""Bytes over the memory limit at which the kernel itself refuses: stacks are reserved, not used."""
DESCRIPTORS = 256
LEFTOVER_SECONDS = 60.0
SWAPS = "/proc/swaps"
SUPERVISORS = "supervisors"
"""Where this process goes in a cgroup that systemd handed over, with its neighbours; workers' lie beside."""


class Exceeded(Exception):
    """The worker is over a limit and must die."""

    def __init__(self, limit: str, text: str) -> None:
        super().__init__(text)
        self.limit = limit


class Limits:
    """The plan for one worker, and the watch over it."""

    def __init__(self, policy: LimitsPolicy, session: str) -> None:
        self.policy = policy
        self.mechanisms: dict[str, str] = {}
        self.cgroup: Cgroup | None = None
        self.processors = sorted(os.sched_getaffinity(0))
        self.deadline: float | None = None
        self.cgroup_words = ""
        self.cgroup_missing = ""
        self._memory_watched = self._tasks_watched = self._memory_in_cgroup = False
        self._cpu_in_cgroup = False
        self._next = 0.0
        self._pid = -1
        self._process: object = None
        self._seen = False
        self._make_cgroup(session)
        self._plan()

    def _make_cgroup(self, session: str) -> None:
        undivided = ""
        try:
            cgroups.divide_own(SUPERVISORS)
        except OSError as error:
            undivided = f"; {error}"
        try:
            parent = cgroups.find()
            if parent is None:
                self.cgroup_missing = (
                    "no cgroup v2 in which this user may create a group (systemd: Delegate=yes)"
                )
                return
            _remove_leftovers(parent.path)
            self.cgroup = parent.create(f"anchorhold-{session}")
            has = ", ".join(self.cgroup.controllers) or "no controllers"
            self.cgroup_words = f"a cgroup of its own: {has}{undivided}"
        except OSError as error:
            self.cgroup_missing = str(error)

    def _held(self, controller: str, write: Callable[[Cgroup], None]) -> bool:
        """Whether the cgroup took this limit; False: the next best mechanism has to hold it."""
        group = self.cgroup
        if group is None:
            return False
        try:
            if controller not in group.controllers:
                return False
            write(group)
        except OSError as error:  # a controller taken away, a kernel that does not account swap
            self.cgroup_words += f"; {error}"
            return False
        return True

    def _plan(self) -> None:
        policy = self.policy
        if policy.memory is not None:
            if self._held("memory", lambda group: group.set_memory(policy.memory)):
                self._memory_in_cgroup = True
                self.mechanisms["memory"] = f"cgroup memory.max = {policy.memory}"
            else:
                self._memory_watched = True
                self.mechanisms["memory"] = (
                    f"{policy.memory} bytes of its own (the mapped model not counted), looked at every "
                    f"{WATCH_SECONDS} s; RLIMIT_DATA = {policy.memory + DATA_SLACK}"
                )
        if policy.swap is not None:
            if self._held("memory", lambda group: group.set_memory(None, policy.swap)):
                self.mechanisms["swap"] = f"cgroup memory.swap.max = {policy.swap}"
            else:
                self.mechanisms["swap"] = _swap_words()
        if policy.cpu is not None:
            whole = max(1, math.ceil(policy.cpu))
            self.processors = self.processors[:whole]
            cpu = policy.cpu
            if self._held("cpu", lambda group: group.set_cpu(cpu)):
                self._cpu_in_cgroup = True
                self.mechanisms["cpu"] = f"cgroup cpu.max = {policy.cpu:g} processors"
            else:
                words = f"affinity to {len(self.processors)} of the processors"
                if policy.cpu < len(self.processors):
                    words += f"; the fraction {policy.cpu:g} needs a cgroup v2 cpu controller and is not held"
                self.mechanisms["cpu"] = words
        if self._held("pids", lambda group: group.set_pids(policy.tasks)):
            self.mechanisms["tasks"] = f"cgroup pids.max = {policy.tasks}"
        else:
            self._tasks_watched = True
            self.mechanisms["tasks"] = (
                f"{policy.tasks} threads: RLIMIT_NPROC where it has a user namespace of its own, "
                f"looked at every {WATCH_SECONDS} s"
            )
        if policy.wall_clock is not None:
            self.mechanisms["wall_clock"] = f"{policy.wall_clock:g} s, by the supervisor's clock"

    def rlimits(self) -> dict[str, int]:
        """For the launcher, before anything else happens in it."""
        wanted = {
            "CORE": 0, "FSIZE": 0, "NOFILE": DESCRIPTORS, "MEMLOCK": 64 << 10,
            "MSGQUEUE": 0, "SIGPENDING": 64, "RTPRIO": 0, "NICE": 0,
        }  # fmt: skip
        if self._memory_watched and self.policy.memory is not None:
            wanted["DATA"] = self.policy.memory + DATA_SLACK
        return wanted

    def begin(self, pid: int) -> None:
        """Called with the launcher's process id before it does anything."""
        if self.cgroup is not None:
            self.cgroup.add(pid)
        if self.policy.cpu is not None:
            try:
                os.sched_setaffinity(pid, self.processors)
            except PermissionError:
                # The unit of a service refuses that call; it is needless where the cgroup holds the limit.
                if not self._cpu_in_cgroup:
                    raise
        if self.policy.wall_clock is not None:
            self.deadline = time.monotonic() + self.policy.wall_clock

    def watch(self, pid: int) -> None:
        """From now on ``check`` looks at this process."""
        self._pid = pid

    def check(self, held: Callable[[], int]) -> float:
        """Look, if it is time. held: tells the bytes of copies that the worker holds.

        Returns seconds until the next look. Raises Exceeded.
        """
        now = time.monotonic()
        if self.deadline is not None and now >= self.deadline:
            raise Exceeded(
                "wall_clock", f"it ran longer than limits.wall_clock = {self.policy.wall_clock:g} s"
            )
        if now >= self._next:
            self._next = now + WATCH_SECONDS
            self._look(held)
        wait = min(WATCH_SECONDS, max(0.0, self._next - now))  # a sum and its difference round
        return wait if self.deadline is None else min(wait, self.deadline - now)

    def _look(self, held: Callable[[], int]) -> None:
        if self.killed_for_memory():
            raise Exceeded("memory", f"it went over limits.memory = {self.policy.memory} bytes")
        if self._pid < 0 or not (self._memory_watched or self._tasks_watched):
            return
        import psutil  # after the worker was started: its import overlaps with the worker's own

        try:
            if self._process is None:
                self._process = psutil.Process(self._pid)
            process = self._process
            assert isinstance(process, psutil.Process)
            if self._memory_watched and self.policy.memory is not None:
                own = memory_of(self._pid) + held()
                if own > self.policy.memory:
                    raise Exceeded(
                        "memory", f"it uses {own} bytes, over limits.memory = {self.policy.memory}"
                    )
            if self._tasks_watched:
                threads = process.num_threads()
                if threads > self.policy.tasks:
                    raise Exceeded(
                        "tasks", f"it has {threads} threads, over limits.tasks = {self.policy.tasks}"
                    )
        except (psutil.NoSuchProcess, ProcessLookupError, FileNotFoundError):
            if self._seen or _is_gone(self._pid):
                return  # it has ended, which is seen elsewhere
            raise Exceeded(
                "watch", "its memory and threads cannot be seen (/proc mounted with hidepid?)"
            ) from None
        except (psutil.AccessDenied, PermissionError):
            raise Exceeded(
                "watch", "its memory and threads cannot be seen (/proc mounted with hidepid?)"
            ) from None
        self._seen = True

    def killed_for_memory(self) -> bool:
        """Whether it was killed for this cgroup's own limit, not for one above it or the whole machine."""
        if self.cgroup is None or not self._memory_in_cgroup:
            return False
        with contextlib.suppress(OSError):
            events = self.cgroup.events()
            return bool(events.get("memory.oom") and events.get("memory.oom_kill"))
        return False

    def close(self) -> None:
        """Remove the cgroup; its processes must be dead."""
        if self.cgroup is not None:
            with contextlib.suppress(OSError):
                self.cgroup.kill()
                self.cgroup.remove()
            self.cgroup = None


def memory_of(pid: int) -> int:
    """Bytes that are the process's own, in memory or swapped out: a mapped file, the model, does not count.

    Raises OSError. Source: proc_pid_status(5).
    """
    total = 0
    with open(f"/proc/{pid}/status", "rb") as status:
        for line in status:
            if line.startswith((b"RssAnon:", b"RssShmem:", b"VmSwap:")):
                total += int(line.split()[1]) << 10
    return total


def _is_gone(pid: int) -> bool:
    """Asked of the kernel, not of a /proc that may hide it. A signal may not be allowed, and is not sent."""
    try:
        os.kill(pid, 0)
    except OSError as error:
        return isinstance(error, ProcessLookupError)
    return False


def _remove_leftovers(parent: str) -> None:
    """Groups of supervisors that were killed: empty and old. rmdir(2) refuses one that holds a process."""
    with contextlib.suppress(OSError), os.scandir(parent) as found:
        for entry in found:
            if (
                entry.name.startswith("anchorhold-")
                and time.time() - entry.stat().st_mtime > LEFTOVER_SECONDS
            ):
                with contextlib.suppress(OSError):
                    os.rmdir(entry.path)


def _swap_words() -> str:
    try:
        with open(SWAPS) as swaps:
            devices = len(swaps.readlines()) - 1
    except OSError:
        devices = -1
    if devices == 0:
        return "this machine has no swap device"
    return "not held: there is swap here, and no cgroup v2 memory controller to keep the worker out of it"
