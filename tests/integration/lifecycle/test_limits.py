"""A worker over a limit is killed, the log says by what, and the user hears which limit it was."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from anchorhold.audit.log import Log
from anchorhold.errors import LimitError
from anchorhold.kernel import cgroup
from anchorhold.policy.schema import Limits
from anchorhold.supervisor.events import Token
from anchorhold.supervisor.session import Request, Session
from tests.integration import cells
from tests.integration.lifecycle.conftest import Driven
from tests.support import session_entries

THREADS = """
    import threading, time
    def attempt():
        for _ in range(60):
            threading.Thread(target=time.sleep, args=(20,), daemon=True).start()
        time.sleep(10)
"""
SLEEP = """
    import time
    def attempt():
        time.sleep(20)
"""
MEMORY = """
    import time
    def attempt():
        held = b"x" * (400 << 20)
        time.sleep(20)
"""


@pytest.mark.parametrize(
    ("limit", "limits", "source"),
    [
        ("wall_clock", Limits(wall_clock=1.5), SLEEP),
        ("memory", Limits(memory=200 << 20), MEMORY),
    ],
)
def test_over_a_limit(state_dir: Path, demo_model: Path, limit: str, limits: Limits, source: str) -> None:
    with pytest.raises(LimitError) as caught:
        cells.run(state_dir, cells.policy(demo_model, limits=limits), source)
    assert caught.value.exit_code == 1
    assert f"limits.{limit}" in str(caught.value)
    log = session_entries(state_dir)
    assert limit in log[0]["limits"]
    assert [entry["limit"] for entry in log if entry["kind"] == "limit"] == [limit]
    assert log[-1]["kind"] == "session.end"


def test_no_more_threads_than_allowed(state_dir: Path, demo_model: Path) -> None:
    rules = cells.policy(demo_model, limits=Limits(tasks=20))
    try:
        answer = cells.run(state_dir, rules, THREADS).answer
    except LimitError as error:
        answer = str(error)
    assert "can't start new thread" in answer or "limits.tasks = 20" in answer
    free = cells.policy(demo_model, limits=Limits(tasks=100))
    assert cells.run(state_dir, free, THREADS.replace("sleep(10)", "sleep(0)")).answer == ""


# Boot's questions hold the worker beside its supervisor for a moment; then it may run where the limit says.
PLACES = """
    import json, os, time
    def attempt():
        time.sleep(0.2)
        with open("/sys/devices/system/cpu/online") as online:
            return json.dumps([len(os.sched_getaffinity(0)), os.cpu_count(), online.read().strip()])
"""


@pytest.mark.parametrize(
    ("mode", "where"), [("no_userns", "killed"), ("root", "held"), ("unprivileged", "held")]
)
def test_tasks_are_held_by_the_kernel_or_watched(driven: Driven, where: str) -> None:
    """RLIMIT_NPROC counts within a user namespace; without one it would count all of the user's processes."""
    seen = driven("probing", source=THREADS, limits={"tasks": 20})
    assert "tasks" in seen["log"][0]["limits"] and seen["left"] == [] and seen["verified"] is True
    if where == "held" and seen["exit"] == 0:
        assert "can't start new thread" in seen["answer"]
        return
    assert seen["exit"] == 1 and seen["ends"][0][0] == "LimitError"
    assert "limits.tasks = 20" in seen["ends"][0][1] and "Raise limits.tasks" in seen["ends"][0][2]
    assert [entry["limit"] for entry in seen["log"] if entry["kind"] == "limit"] == ["tasks"]


@pytest.mark.parametrize(("cpu", "most"), [(0.5, 1), (1.0, 1), (2.0, 2), (None, 1 << 16)])
def test_as_many_processors_as_the_limit_says(
    state_dir: Path, demo_model: Path, cpu: float | None, most: int
) -> None:
    out = cells.run(state_dir, cells.policy(demo_model, limits=Limits(cpu=cpu)), PLACES)
    wanted = min(most, len(os.sched_getaffinity(0)))
    assert json.loads(out.answer) == [wanted, wanted, "0" if wanted == 1 else f"0-{wanted - 1}"]
    limits: dict[str, str] = out.log[0]["limits"]  # type: ignore[assignment]  # as docs/audit-log.md has it
    assert ("cpu" in limits) == (cpu is not None)
    if cpu == 0.5:
        assert "cpu.max = 0.5" in limits["cpu"] or "the fraction 0.5 needs" in limits["cpu"]


def engine_threads(state: Path, model: Path, cpu: float) -> int:
    """How many threads the real engine has while it answers."""
    log = Log.open(state)
    session = Session(cells.policy(model, limits=Limits(cpu=cpu)), log, state_dir=state)
    try:
        session.start()
        for event in session.ask(Request("Tell a story.", max_tokens=20)):
            if isinstance(event, Token):
                assert session._loop is not None
                return len(os.listdir(f"/proc/{session._loop.child_pid}/task"))
    finally:
        session.close()
        log.close()
    raise AssertionError("it said nothing")


def test_the_engine_computes_with_that_many_threads(state_dir: Path, demo_model: Path) -> None:
    half, one, two = (engine_threads(state_dir, demo_model, cpu) for cpu in (0.5, 1.0, 2.0))
    assert half == one
    assert two == one + min(2, len(os.sched_getaffinity(0))) - 1


def test_every_limit_is_on_record_with_what_holds_it(state_dir: Path, demo_model: Path) -> None:
    limits = Limits(memory=1 << 30, swap=0, cpu=1.0, tasks=50, wall_clock=60)
    out = cells.run(state_dir, cells.policy(demo_model, limits=limits), "def attempt(): return 'x'")
    said: dict[str, Any] = out.log[0]["limits"]  # type: ignore[assignment]  # as docs/audit-log.md has it
    assert set(said) == {"memory", "swap", "cpu", "tasks", "wall_clock"}
    group = cgroup.find()
    given = group.given if group is not None else ()
    for limit, controller, other in (
        ("memory", "memory", f"RLIMIT_DATA = {(1 << 30) + (512 << 20)}"),
        ("cpu", "cpu", "affinity to 1"),
        ("tasks", "pids", "RLIMIT_NPROC"),
    ):
        assert (f"cgroup {controller}." if controller in given else other) in said[limit], said
    assert "memory.swap.max = 0" in said["swap"] if "memory" in given else "swap" in said["swap"]
    assert said["wall_clock"] == "60 s, by the supervisor's clock"


def test_no_limit_is_no_word_about_it(state_dir: Path, demo_model: Path) -> None:
    rules = cells.policy(demo_model, limits=Limits(swap=None))
    out = cells.run(state_dir, rules, "def attempt(): return 'x'")
    assert list(out.log[0]["limits"]) == ["tasks"]  # type: ignore[call-overload]  # see above
