"""The kill switch against cells of its own: JSON in says which scene, JSON out what was seen.

``hold STATE MODEL NAME`` is the supervisor that the scenes act on: a worker that sleeps while it answers.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from anchorhold.audit.log import Log
from anchorhold.audit.query import entries
from anchorhold.errors import AnchorholdError
from anchorhold.supervisor.session import Request, Session
from anchorhold.switch import latch, processes, records
from anchorhold.switch.records import Record
from anchorhold.verify.check import verify
from tests.integration import cells

SLEEP = "import time\ndef attempt():\n    time.sleep({})\n    return 'awake'\n"


def hold(state: Path, model: Path, name: str, seconds: float) -> int:
    """A session; prints a line when it answers. The exit code is that of what ended it."""
    try:
        log = Log.open(state)
        rules = replace(cells.policy(model), name=name)
        config: dict[str, object] = {"source": SLEEP.format(seconds)}
        session = Session(rules, log, state_dir=state, entry=cells.PROBE, config=config)
        try:
            session.start()
            print(session.recorder.session, flush=True)
            for _event in session.ask(Request("sleep")):
                pass
        finally:
            session.close()
            log.close()
    except AnchorholdError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return error.exit_code
    return 0


class Scene:
    """One scene: a state directory, a runtime directory, supervisors, and the kill program."""

    def __init__(self, given: dict[str, Any]) -> None:
        self.state, self.model = Path(given["state"]), Path(given["model"])
        self.runtime = self.state.parent / "runtime"
        self.environ = {**os.environ, "RUNTIME_DIRECTORY": str(self.runtime)}
        self.held: list[subprocess.Popen[str]] = []
        self.seen: dict[str, Any] = {}

    def start(self, name: str = "taxes", *, seconds: float = 60, wait: bool = True) -> subprocess.Popen[str]:
        child = subprocess.Popen(
            [sys.executable, "-m", __spec__.name, "hold", self.state, self.model, name, str(seconds)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.environ,
        )
        self.held.append(child)
        if wait:
            assert child.stdout is not None
            if not child.stdout.readline():
                raise RuntimeError(child.communicate()[1])
        return child

    def records(self) -> list[Record]:
        return records.in_folder(str(self.runtime))

    def kill(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "anchorhold.switch.kill", "--state-dir", self.state, *arguments],
            capture_output=True,
            text=True,
            env=self.environ,
            timeout=20,
            check=False,
        )

    def tell(self, name: str, done: subprocess.CompletedProcess[str]) -> None:
        self.seen[name] = {"code": done.returncode, "out": done.stdout, "err": done.stderr}

    def alive(self, found: list[Record]) -> list[str]:
        """Processes of these cells that still run a program."""
        left = []
        for record in found:
            for key in ("launcher", "worker"):
                stat = processes.stat_of(record.number(key))
                if stat is not None and stat[0] not in "ZX" and stat[2] == record.number(f"{key}_start"):
                    left.append(f"{key} {record.number(key)} {stat[0]}")
        return left

    def ended(self, child: subprocess.Popen[str]) -> tuple[int, str]:
        out, err = child.communicate(timeout=20)
        return child.returncode, out + err

    def finish(self) -> dict[str, Any]:
        for child in self.held:
            if child.poll() is None:
                child.send_signal(signal.SIGCONT)
                child.kill()
                child.wait()
        if (self.state / "log").exists():
            log = Log.open(self.state)
            log.checkpoint()
            log.close()
            self.seen["kills"] = [entry for entry in entries(self.state) if entry["kind"] == "kill"]
            self.seen["verifies"] = verify(str(self.state)).ok
        return self.seen


def running(scene: Scene) -> None:
    child = scene.start()
    found = scene.records()
    scene.tell("kill", scene.kill("taxes"))
    scene.seen["alive"] = scene.alive(found)
    scene.seen["ended"] = scene.ended(child)
    scene.seen["latched"] = latch.held(str(scene.state))
    scene.seen["again"] = scene.ended(scene.start(wait=False))
    scene.seen["other"] = scene.ended(scene.start("notes", seconds=0.1, wait=False))[0]
    latch.rearm(str(scene.state), "taxes")
    scene.seen["rearmed"] = scene.ended(scene.start(seconds=0.1, wait=False))[0]
    scene.seen["records"] = len(scene.records())


def stopped(scene: Scene) -> None:
    child = scene.start()
    found = scene.records()
    child.send_signal(signal.SIGSTOP)
    scene.tell("kill", scene.kill())
    scene.seen["alive"] = scene.alive(found)
    child.send_signal(signal.SIGCONT)
    scene.seen["ended"] = scene.ended(child)


def dead(scene: Scene) -> None:
    """Its supervisor was killed; nobody cleaned up."""
    for name in ("kill", "start"):
        child = scene.start()
        found = scene.records()
        child.kill()
        child.wait()
        ends = time.monotonic() + 2
        while scene.alive(found) and time.monotonic() < ends:
            time.sleep(0.01)
        if name == "kill":
            scene.tell("kill", scene.kill("--no-latch"))
        else:
            scene.seen["next"] = scene.ended(scene.start(seconds=0.1, wait=False))[0]
        scene.seen[f"records after {name}"] = len(scene.records())


def orphan(scene: Scene) -> None:
    """A cell that outlived its supervisor, as none does: nobody is left who could write the kill down."""
    code = "import time; time.sleep(60)"
    cell = subprocess.Popen([sys.executable, "-c", code, "/x/anchorhold/cell/launcher.py"])
    scene.start(seconds=0.1, wait=False).wait()
    start = processes.stat_of(cell.pid)
    assert start is not None
    both = {"launcher": cell.pid, "launcher_start": start[2], "worker": cell.pid, "worker_start": start[2]}
    words = {"name": "taxes", "state": str(scene.state), "supervisor": 1, "supervisor_start": 1, "cgroup": ""}
    record = records.begin(str(scene.runtime), "00000000000000aa", **words, **both)
    scene.tell("kill", scene.kill("--no-latch"))
    scene.seen["alive"] = scene.alive([record]) if cell.poll() is None else []
    scene.seen["records"] = len(scene.records())
    cell.wait(5)
    scene.seen["next"] = scene.ended(scene.start(seconds=0.1, wait=False))[0]


def one_of_two(scene: Scene) -> None:
    children = {name: scene.start(name) for name in ("taxes", "notes")}
    found = {record.name: record for record in scene.records()}
    scene.tell("kill", scene.kill("notes"))
    scene.seen["alive"] = {name: scene.alive([record]) for name, record in found.items()}
    scene.seen["ended"] = scene.ended(children["notes"])
    scene.seen["still"] = children["taxes"].poll() is None


def frozen(scene: Scene) -> None:
    child = scene.start(seconds=0.5)
    worker = scene.records()[0].number("worker")
    scene.tell("freeze", scene.kill("--freeze"))
    time.sleep(1)
    scene.seen["running"] = child.poll() is None
    scene.seen["worker"] = processes.stat_of(worker) is not None
    scene.tell("thaw", scene.kill("--thaw", "taxes"))
    scene.seen["ended"] = scene.ended(child)
    scene.seen["latched"] = latch.held(str(scene.state))


def frozen_then_killed(scene: Scene) -> None:
    child = scene.start()
    found = scene.records()
    scene.tell("freeze", scene.kill("--freeze"))
    scene.tell("kill", scene.kill())
    scene.seen["alive"] = scene.alive(found)
    scene.seen["ended"] = scene.ended(child)


def unknown_processes(scene: Scene) -> None:
    """The record does not know them yet, as when its supervisor was stopped while it built the cell."""
    child = scene.start()
    (record,) = found = scene.records()
    child.send_signal(signal.SIGSTOP)
    before = dict(record.words)
    record.set(launcher=0, launcher_start=0, worker=0, worker_start=0)
    scene.tell("kill", scene.kill())
    record.words = before
    scene.seen["alive"] = scene.alive(found)


def innocent(scene: Scene) -> None:
    """A record whose numbers belong to another process by now."""
    sleeper = subprocess.Popen(["sleep", "60"])
    scene.runtime.mkdir(mode=0o700, exist_ok=True)
    scene.state.mkdir(mode=0o700, exist_ok=True)
    words = {"name": "taxes", "state": str(scene.state), "supervisor": sleeper.pid, "supervisor_start": 1}
    both = {
        "launcher": sleeper.pid,
        "launcher_start": 1,
        "worker": sleeper.pid,
        "worker_start": 2,
        "cgroup": "",
    }
    records.begin(str(scene.runtime), "00000000000000aa", **words, **both)
    scene.tell("kill", scene.kill())
    scene.seen["innocent"] = sleeper.poll() is None
    scene.seen["records"] = len(scene.records())
    sleeper.kill()
    sleeper.wait()


def many_at_once(scene: Scene) -> None:
    child = scene.start()
    found = scene.records()
    command = [sys.executable, "-m", "anchorhold.switch.kill", "--state-dir", str(scene.state)]
    killers = [subprocess.Popen(command, env=scene.environ, stdout=subprocess.DEVNULL) for _ in range(8)]
    scene.seen["codes"] = [killer.wait(20) for killer in killers]
    scene.seen["alive"] = scene.alive(found)
    scene.seen["ended"] = scene.ended(child)


def at_any_moment(scene: Scene) -> None:
    """While it starts: once the kill has returned, nothing of it runs, nor does it come."""
    chance = random.Random(5)
    scene.seen.update(codes=[], ends=[], alive=[])
    for _ in range(20):
        child = scene.start(wait=False)
        time.sleep(chance.random() * 0.9)
        done = scene.kill()
        scene.seen["codes"].append(done.returncode)
        ends = time.monotonic() + 0.5
        while time.monotonic() < ends:
            scene.seen["alive"] += scene.alive(scene.records())
            time.sleep(0.01)
        scene.seen["ends"].append(scene.ended(child)[0])
        latch.rearm(str(scene.state), None)


if __name__ == "__main__":
    if sys.argv[1:2] == ["hold"]:
        sys.exit(hold(Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4], float(sys.argv[5])))
    wanted = json.load(sys.stdin)
    scene = Scene(wanted)
    try:
        globals()[wanted["what"]](scene)
    finally:
        seen = scene.finish()
    json.dump(seen, sys.stdout)
