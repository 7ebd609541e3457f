"""What a cgroup cannot hold falls to the next best mechanism, and is said. The real ones: `make test-vm`."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from anchorhold.kernel import cgroup
from anchorhold.kernel.cgroup import Cgroup
from anchorhold.policy.schema import Limits as LimitsPolicy
from anchorhold.supervisor.limits import Limits

MIB = 1 << 20
FILES = ("memory.max", "memory.oom.group", "memory.swap.max", "cpu.max", "pids.max")


@pytest.fixture
def parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory in which a new one gets the files of a cgroup, all controllers in it."""

    def create(self: Cgroup, name: str) -> Cgroup:
        path = Path(self.path, name)
        path.mkdir()
        (path / "cgroup.controllers").write_text("cpu memory pids\n")
        for file in FILES:
            (path / file).write_text("max\n")
        return Cgroup(str(path))

    monkeypatch.setattr(Cgroup, "create", create)
    monkeypatch.setattr(cgroup, "divide_own", lambda leaf: False)
    monkeypatch.setattr(cgroup, "find", lambda: Cgroup(str(tmp_path)))
    return tmp_path


def test_all_that_a_cgroup_can_hold_it_holds(parent: Path) -> None:
    limits = Limits(LimitsPolicy(memory=300 * MIB, swap=0, cpu=0.5, tasks=40), "s")
    assert limits.mechanisms == {
        "memory": f"cgroup memory.max = {300 * MIB}",
        "swap": "cgroup memory.swap.max = 0",
        "cpu": "cgroup cpu.max = 0.5 processors",
        "tasks": "cgroup pids.max = 40",
    }
    assert limits.cgroup_words == "a cgroup of its own: cpu, memory, pids"
    assert "DATA" not in limits.rlimits()


def test_a_limit_that_the_kernel_refuses_is_held_otherwise(
    parent: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where swap is not accounted, or systemd took a controller back in between."""
    write = Cgroup._write

    def refuse(self: Cgroup, file: str, text: str, hint: str = "") -> None:
        if file not in ("memory.max", "memory.oom.group"):
            raise OSError(errno.ENOENT, f"no {file}")
        write(self, file, text, hint)

    monkeypatch.setattr(Cgroup, "_write", refuse)
    limits = Limits(LimitsPolicy(memory=300 * MIB, swap=0, cpu=0.5, tasks=40), "s")
    assert limits.mechanisms["memory"] == f"cgroup memory.max = {300 * MIB}"
    assert not limits.mechanisms["swap"].startswith("cgroup")
    assert "affinity" in limits.mechanisms["cpu"]
    assert "RLIMIT_NPROC" in limits.mechanisms["tasks"]
    assert all(f"no {file}" in limits.cgroup_words for file in ("memory.swap.max", "cpu.max", "pids.max"))


def test_a_cgroup_that_cannot_be_divided_says_why(parent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(leaf: str) -> bool:
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))

    monkeypatch.setattr(cgroup, "divide_own", busy)
    assert "busy" in Limits(LimitsPolicy(), "s").cgroup_words


@pytest.mark.parametrize(
    ("memory", "happened", "killed"),
    [
        (300 * MIB, "oom 1\noom_kill 1\n", True),
        (
            300 * MIB,
            "oom 0\noom_kill 1\n",
            False,
        ),  # for a limit above this cgroup, or the whole machine's want
        (300 * MIB, "oom 1\noom_kill 0\n", False),
        (None, "oom 1\noom_kill 1\n", False),
    ],
)
def test_only_its_own_limit_is_blamed(parent: Path, memory: int | None, happened: str, killed: bool) -> None:
    limits = Limits(LimitsPolicy(memory=memory), "s")
    (parent / "anchorhold-s" / "memory.events").write_text(happened)
    assert limits.killed_for_memory() is killed


def test_what_a_killed_supervisor_left_is_removed_when_it_is_old(parent: Path) -> None:
    for name in ("anchorhold-old", "anchorhold-new", "other"):
        (parent / name).mkdir()
    for name in ("anchorhold-old", "other"):
        os.utime(parent / name, (0, 0))
    Limits(LimitsPolicy(), "s")
    assert sorted(path.name for path in parent.iterdir()) == ["anchorhold-new", "anchorhold-s", "other"]
