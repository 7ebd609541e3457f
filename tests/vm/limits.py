"""The limits of a worker where a cgroup holds them. Run in the machine of this folder, by its systemd.

Not named ``test_…``, so that only ``make test-vm`` runs it: elsewhere its failures would say nothing.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from anchorhold.audit.log import Log
from anchorhold.audit.query import entries
from anchorhold.errors import LimitError
from anchorhold.policy.schema import Limits
from anchorhold.supervisor.events import Token
from anchorhold.supervisor.session import Request, Session
from tests.integration import cells

MIB = 1 << 20
TREE = Path("/sys/fs/cgroup")
SWAP = 256 * MIB  # what the machine has of it
LIFE = 1.0  # seconds that anything of a cell may live after its supervisor: an emulated machine is slow
OTHER = "def attempt():\n    return 'well'\n"
WAIT = "import time\ndef attempt():\n    time.sleep(60)\n"
HOLD = "def attempt():\n    held = b'x' * (400 << 20)\n    return 'held'\n"
BURN = """
    import time
    def attempt():
        start, used = time.monotonic(), time.process_time()
        while time.monotonic() - start < 3:
            pass
        return (time.process_time() - used) / (time.monotonic() - start)
"""
THREADS = """
    import threading, time
    def attempt():
        for made in range(60):
            try:
                threading.Thread(target=time.sleep, args=(3,), daemon=True).start()
            except RuntimeError:
                return f"no more than {made}"
        return "all of them"
"""
ENDLESS = """
import sys
from pathlib import Path
from tests.integration import cells
model, state = map(Path, sys.argv[1:])
print("begin", flush=True)
while True:
    cells.run(state, cells.policy(model), "def attempt():\\n    return 'x' * 1000\\n")
"""


def group_of(pid: int) -> Path:
    return TREE / Path(f"/proc/{pid}/cgroup").read_text().strip().removeprefix("0::/")


def groups() -> set[Path]:
    """All groups of workers on this machine."""
    return {path for path in TREE.rglob("anchorhold-*") if path.is_dir()}


@pytest.fixture(autouse=True)
def _nothing_stays() -> Iterator[None]:
    before = groups()
    yield
    assert groups() - before == set()


@contextmanager
def running(state: Path, model: Path, limits: Limits, source: str = WAIT) -> Iterator[tuple[Session, int]]:
    """A sealed worker that waits, and its process id."""
    log = Log.open(state)
    session = Session(
        cells.policy(model, limits=limits),
        log,
        state_dir=state,
        entry=cells.PROBE,
        config={"source": textwrap.dedent(source)},
    )
    try:
        session.start()
        assert session._loop is not None
        yield session, session._loop.child_pid
    finally:
        session.close()
        log.close()


def started(state: Path) -> dict[str, dict[str, str]]:
    return next(entry for entry in entries(state) if entry["kind"] == "session.start")


def test_every_limit_is_written_where_the_worker_is(state_dir: Path, demo_model: Path) -> None:
    limits = Limits(memory=300 * MIB, swap=8 * MIB, cpu=0.5, tasks=40)
    with running(state_dir, demo_model, limits) as (session, pid):
        group = group_of(pid)
        assert group.name == f"anchorhold-{session.recorder.session}"
        assert group != group_of(os.getpid())
        written = {
            name: (group / name).read_text().strip()
            for name in ("memory.max", "memory.swap.max", "cpu.max", "pids.max", "memory.oom.group")
        }
    assert written == {
        "memory.max": str(300 * MIB),
        "memory.swap.max": str(8 * MIB),
        "cpu.max": "50000 100000",
        "pids.max": "40",
        "memory.oom.group": "1",
    }
    assert not group.exists()
    entry = started(state_dir)
    assert {name: entry["limits"][name].split(" = ")[0] for name in ("memory", "swap", "cpu", "tasks")} == {
        "memory": "cgroup memory.max",
        "swap": "cgroup memory.swap.max",
        "cpu": "cgroup cpu.max",
        "tasks": "cgroup pids.max",
    }
    assert all(name in entry["layers"]["cgroup"] for name in ("cpu", "memory", "pids"))
    assert "cgroup" not in entry["missing"]


def test_several_workers_at_once_have_a_group_each(tmp_path: Path, demo_model: Path) -> None:
    with running(tmp_path / "a", demo_model, Limits(tasks=40)) as (_, one):
        with running(tmp_path / "b", demo_model, Limits(tasks=50)) as (_, two):
            assert [(group_of(pid) / "pids.max").read_text() for pid in (one, two)] == ["40\n", "50\n"]
        assert (group_of(one) / "cgroup.procs").read_text()


def test_the_limits_stay_while_systemd_starts_and_stops_other_things(
    state_dir: Path, demo_model: Path
) -> None:
    manager = [] if os.geteuid() == 0 else ["--user"]
    surroundings = {**os.environ, "XDG_RUNTIME_DIR": f"/run/user/{os.geteuid()}"}
    names = ("memory.max", "cpu.max", "pids.max")
    with running(state_dir, demo_model, Limits(memory=300 * MIB, cpu=0.5, tasks=40)) as (_, pid):
        group = group_of(pid)
        before = [(group / name).read_text() for name in names]
        for command in (
            [
                "systemd-run",
                *manager,
                "--quiet",
                "--wait",
                "-p",
                "CPUWeight=50",
                "-p",
                "MemoryMax=1G",
                "true",
            ],
            ["systemctl", *manager, "daemon-reload"],
            ["systemd-run", *manager, "--quiet", "--wait", "true"],
        ):
            subprocess.run(command, env=surroundings, check=True, timeout=60)
        time.sleep(1)
        assert [(group / name).read_text() for name in names if (group / name).exists()] == before


def over(state: Path, model: Path, limits: Limits, source: str) -> LimitError:
    with pytest.raises(LimitError) as caught:
        cells.run(state, cells.policy(model, limits=limits), source)
    assert caught.value.exit_code == 1
    return caught.value


def test_over_its_memory_it_is_killed_and_told(state_dir: Path, demo_model: Path) -> None:
    """Although there is swap that would take it."""
    assert "limits.memory" in str(over(state_dir, demo_model, Limits(memory=200 * MIB), HOLD))
    log = list(entries(state_dir))
    assert [entry["limit"] for entry in log if entry["kind"] == "limit"] == ["memory"]
    assert log[-1]["kind"] == "session.end"


def test_swap_that_is_allowed_is_used(state_dir: Path, demo_model: Path) -> None:
    """What the test above would give if nothing held swap."""
    rules = cells.policy(demo_model, limits=Limits(memory=300 * MIB, swap=SWAP))
    assert cells.run(state_dir, rules, HOLD).answer == "held"


def test_there_are_no_more_threads_than_allowed(state_dir: Path, demo_model: Path) -> None:
    """The launcher and the worker's first thread are counted, too."""
    for tasks, answer in ((20, "no more"), (100, "all of them")):
        rules = cells.policy(demo_model, limits=Limits(tasks=tasks))
        assert cells.run(state_dir, rules, THREADS).answer.startswith(answer)


def test_it_is_the_cgroup_that_refuses_threads(state_dir: Path, demo_model: Path) -> None:
    """RLIMIT_NPROC holds the same number; so the cgroup's is lowered while the worker waits."""
    with running(state_dir, demo_model, Limits(tasks=100), THREADS) as (session, pid):
        group = group_of(pid)
        (group / "pids.max").write_text("12")
        answer = "".join(event.text for event in session.ask(Request("go")) if isinstance(event, Token))
        assert answer.startswith("no more")
        assert int((group / "pids.events").read_text().split()[1]) > 0
        assert int((group / "pids.peak").read_text()) <= 12


def test_half_a_processor_is_half(state_dir: Path, demo_model: Path) -> None:
    share = {}
    for cpu in (0.5, 1.0):
        answer = cells.run(state_dir, cells.policy(demo_model, limits=Limits(cpu=cpu)), BURN).answer
        share[cpu] = float(answer)
    assert 0.3 < share[0.5] <= 0.6
    assert share[1.0] > 0.75


def test_a_command_ends_with_1_and_says_why(tmp_path: Path, demo_model: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("The roof cost 4,200.\n")
    policy = tmp_path / "small.toml"
    policy.write_text(
        f'version = 1\nname = "small"\n[model]\npath = "{demo_model}"\n'
        f'[data]\nread = ["{tmp_path / "notes"}"]\n[limits]\nmemory = "64MiB"\n'
    )
    done = subprocess.run(
        [sys.executable, "-m", "anchorhold", "ask", "--policy", policy, "What did the roof cost?"],
        env={**os.environ, "ANCHORHOLD_STATE_DIR": str(tmp_path / "state")},
        capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert (done.returncode, "limits.memory" in done.stderr) == (1, True), done.stderr


def descendants(pid: int) -> set[int]:
    found: set[int] = set()
    waiting = [pid]
    while waiting:
        for task in Path(f"/proc/{waiting.pop()}/task").glob("*"):
            children = [int(child) for child in (task / "children").read_text().split()]
            waiting += [child for child in children if child not in found]
            found.update(children)
    return found


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_what_a_killed_supervisor_leaves_is_dead_and_removed(state_dir: Path, demo_model: Path) -> None:
    before = groups()
    seen = 0
    for number in range(12):
        child = subprocess.Popen(
            [sys.executable, "-c", ENDLESS, str(demo_model), str(state_dir)], stdout=subprocess.PIPE
        )
        assert child.stdout is not None and child.stdout.readline() == b"begin\n"
        time.sleep(number * 0.5)
        os.kill(child.pid, signal.SIGSTOP)
        cell = descendants(child.pid)
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        child.stdout.close()
        seen += bool(cell)
        time.sleep(LIFE)
        assert not [pid for pid in cell if lives(pid)], f"after moment {number}"
    left = groups() - before
    assert seen > 6 and left
    for group in left:
        assert (group / "cgroup.procs").read_text() == ""
        os.utime(group, (0, 0))  # they are taken for leftovers after a minute
    cells.run(state_dir, cells.policy(demo_model), OTHER)
