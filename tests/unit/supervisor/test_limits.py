"""The plan for one worker, where a cgroup holds it and where none does. A directory stands for the cgroup."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from anchorhold.kernel import cgroup
from anchorhold.kernel.cgroup import Cgroup
from anchorhold.policy.schema import Limits as LimitsPolicy
from anchorhold.supervisor import limits
from anchorhold.supervisor.limits import Exceeded, Limits

ALL = LimitsPolicy(memory=1 << 20, swap=0, cpu=0.5, tasks=30, wall_clock=60)
FILES = (
    "memory.max",
    "memory.oom.group",
    "memory.swap.max",
    "cpu.max",
    "pids.max",
    "cgroup.procs",
    "cgroup.kill",
)


class Standing(Cgroup):
    """A parent whose children have the files that the kernel would put there."""

    controllers_of_children = "cpu memory pids"
    lacking: tuple[str, ...] = ()

    def create(self, name: str) -> Cgroup:
        child = super().create(name)
        Path(child.path, "cgroup.controllers").write_text(self.controllers_of_children)
        for file in FILES:
            if file not in self.lacking:
                Path(child.path, file).write_text("")
        return child


@pytest.fixture
def parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Standing:
    standing = Standing(str(tmp_path))
    monkeypatch.setattr(cgroup, "divide_own", lambda name: None)
    monkeypatch.setattr(cgroup, "find", lambda: standing)
    return standing


@pytest.fixture
def sleeper() -> Iterator[int]:
    child = subprocess.Popen([sys.executable, "-c", "import time; print(flush=True); time.sleep(60)"],
                             stdout=subprocess.PIPE)  # fmt: skip
    assert child.stdout is not None and child.stdout.readline()
    yield child.pid
    child.kill()
    child.wait()
    child.stdout.close()


def written(plan: Limits, file: str) -> str:
    assert plan.cgroup is not None
    return Path(plan.cgroup.path, file).read_text()


def nothing_held() -> int:
    return 0


def test_a_cgroup_holds_all_that_it_can(parent: Standing, sleeper: int) -> None:
    plan = Limits(ALL, "ab")
    assert plan.cgroup is not None and plan.cgroup.path == f"{parent.path}/anchorhold-ab"
    assert plan.cgroup_words == "a cgroup of its own: cpu, memory, pids"
    assert plan.mechanisms == {
        "memory": "cgroup memory.max = 1048576",
        "swap": "cgroup memory.swap.max = 0",
        "cpu": "cgroup cpu.max = 0.5 processors",
        "tasks": "cgroup pids.max = 30",
        "wall_clock": "60 s, by the supervisor's clock",
    }
    assert [written(plan, file) for file in FILES[:5]] == ["1048576", "1", "0", "50000 100000", "30"]
    assert "DATA" not in plan.rlimits()
    plan.begin(sleeper)
    assert written(plan, "cgroup.procs") == str(sleeper)
    assert len(os.sched_getaffinity(sleeper)) == 1
    plan.watch(sleeper)
    assert 0 < plan.check(nothing_held) <= limits.WATCH_SECONDS  # nothing of it is watched from here


@pytest.mark.parametrize(
    ("events", "killed"), [("oom 1\noom_kill 1\n", True), ("oom 0\noom_kill 1\n", False)]
)
def test_a_kill_for_its_own_limit_is_told_from_one_of_the_machine(
    parent: Standing, events: str, killed: bool
) -> None:
    plan = Limits(ALL, "ab")
    assert not plan.killed_for_memory()
    assert plan.cgroup is not None
    Path(plan.cgroup.path, "memory.events").write_text(events)
    assert plan.killed_for_memory() == killed
    if killed:
        with pytest.raises(Exceeded, match="limits.memory = 1048576") as caught:
            plan.check(nothing_held)
        assert caught.value.limit == "memory"


def test_what_the_cgroup_does_not_take_is_held_otherwise_and_said(parent: Standing) -> None:
    parent.lacking = ("memory.swap.max", "pids.max")
    plan = Limits(ALL, "ab")
    assert plan.mechanisms["memory"].startswith("cgroup memory.max")
    assert "swap" in plan.mechanisms["swap"] and "cgroup memory" not in plan.mechanisms["swap"][:12]
    assert "RLIMIT_NPROC" in plan.mechanisms["tasks"]
    assert "memory.swap.max" in plan.cgroup_words and "pids.max" in plan.cgroup_words


@pytest.mark.parametrize("held", [True, False])
def test_a_unit_that_refuses_affinity_needs_the_cgroup(
    parent: Standing, sleeper: int, monkeypatch: pytest.MonkeyPatch, held: bool
) -> None:
    """As `SystemCallFilter=~@resources:EPERM` of the service does."""

    def refused(_pid: int, _processors: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    parent.controllers_of_children = "cpu memory pids" if held else "memory pids"
    plan = Limits(ALL, "ab")
    monkeypatch.setattr(os, "sched_setaffinity", refused)
    if held:
        plan.begin(sleeper)
    else:
        with pytest.raises(PermissionError):
            plan.begin(sleeper)


def test_a_cgroup_without_controllers_leaves_all_to_rlimits_and_the_watch(parent: Standing) -> None:
    parent.controllers_of_children = ""
    plan = Limits(ALL, "ab")
    assert plan.cgroup_words == "a cgroup of its own: no controllers"
    assert "RLIMIT_DATA" in plan.mechanisms["memory"]
    assert plan.rlimits()["DATA"] == (1 << 20) + limits.DATA_SLACK
    assert "is not held" in plan.mechanisms["cpu"]
    assert not plan.killed_for_memory()
    plan.close()
    assert plan.cgroup is None
    plan.close()


def test_no_cgroup_and_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(name: str) -> None:
        raise PermissionError("not ours")

    monkeypatch.setattr(cgroup, "divide_own", refuse)
    monkeypatch.setattr(cgroup, "find", lambda: None)
    plan = Limits(ALL, "ab")
    assert plan.cgroup is None and "systemd: Delegate=yes" in plan.cgroup_missing
    (tmp_path / "anchorhold-ab").mkdir()
    monkeypatch.setattr(cgroup, "find", lambda: Cgroup(str(tmp_path)))
    assert "anchorhold-ab" in Limits(ALL, "ab").cgroup_missing  # the name is taken


def test_leftovers_of_killed_supervisors_go(parent: Standing) -> None:
    old, young, foreign = (Path(parent.path, name) for name in ("anchorhold-1", "anchorhold-2", "other"))
    for folder in (old, young, foreign):
        folder.mkdir()
    for folder in (old, foreign):
        os.utime(folder, (time.time() - 100,) * 2)
    held = Path(parent.path, "anchorhold-3")
    (held / "in use").mkdir(parents=True)
    os.utime(held, (time.time() - 100,) * 2)
    Limits(ALL, "ab")
    assert not old.exists()
    assert young.exists() and foreign.exists() and held.exists()


def watching(sleeper: int, **values: object) -> Limits:
    plan = Limits(LimitsPolicy(**values), "ab")  # type: ignore[arg-type]  # passed through
    plan.watch(sleeper)
    return plan


@pytest.fixture
def no_cgroup(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroup, "find", lambda: None)


@pytest.mark.usefixtures("no_cgroup")
def test_memory_and_threads_are_looked_at(sleeper: int) -> None:
    watching(sleeper, memory=1 << 30, tasks=5).check(nothing_held)
    with pytest.raises(Exceeded, match="over limits.memory = 4096"):
        watching(sleeper, memory=4096).check(nothing_held)
    with pytest.raises(Exceeded, match="over limits.memory = 1073741824"):  # its copies count
        watching(sleeper, memory=1 << 30).check(lambda: 1 << 30)
    with pytest.raises(Exceeded, match="1 threads, over limits.tasks = 0"):
        watching(sleeper, tasks=0).check(nothing_held)


@pytest.mark.usefixtures("no_cgroup")
def test_the_time_is_looked_at(sleeper: int) -> None:
    plan = Limits(LimitsPolicy(wall_clock=0.05), "ab")
    plan.begin(sleeper)
    assert 0 < plan.check(nothing_held) <= 0.05
    time.sleep(0.06)
    with pytest.raises(Exceeded, match="longer than limits.wall_clock = 0.05 s") as caught:
        plan.check(nothing_held)
    assert caught.value.limit == "wall_clock"


@pytest.mark.usefixtures("no_cgroup")
def test_who_has_ended_is_not_hidden_but_who_is_hidden_is_not_let_go(
    sleeper: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    watching(ended.pid, memory=1).check(nothing_held)

    def hidden(pid: int) -> int:
        raise FileNotFoundError(2, "hidepid", f"/proc/{pid}/status")

    monkeypatch.setattr(limits, "memory_of", hidden)  # such a mount needs rights over all of /proc
    with pytest.raises(Exceeded, match="cannot be seen") as caught:
        watching(sleeper, memory=1).check(nothing_held)
    assert caught.value.limit == "watch"

    def forbidden(pid: int) -> int:
        raise PermissionError(13, "no", f"/proc/{pid}/status")

    monkeypatch.setattr(limits, "memory_of", forbidden)
    with pytest.raises(Exceeded, match="cannot be seen"):
        watching(sleeper, memory=1).check(nothing_held)


def test_somebody_elses_process_is_there() -> None:
    assert not limits._is_gone(1)  # without rights: EPERM


@pytest.mark.parametrize(
    ("swaps", "said"),
    [("Filename\n", "no swap device"), ("Filename\n/dev/vdb\n", "not held"), (None, "not held")],
)
def test_swap_is_not_claimed_to_be_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, swaps: str | None, said: str
) -> None:
    if swaps is not None:
        (tmp_path / "swaps").write_text(swaps)
    monkeypatch.setattr(limits, "SWAPS", str(tmp_path / "swaps"))
    assert said in limits._swap_words()
