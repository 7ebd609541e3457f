"""``python -m tests.integration.lifecycle.moments``: kill parts of a running program at many moments.

A process of its own, so that any user may run it. On standard input a JSON object: what, state, model,
papers, moments. On standard output what was seen, for the test to judge.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from anchorhold.audit.log import Log
from anchorhold.audit.query import entries
from anchorhold.broker import runtime
from anchorhold.errors import AnchorholdError
from anchorhold.policy.schema import Policy
from anchorhold.supervisor import events, session
from anchorhold.verify.check import verify
from tests.integration import cells
from tests.integration.lifecycle.processes import children, descendants, fields, lives, members, wait_until

LIFE = 0.100  # seconds that anything of the cell may live after the supervisor
OPENS = """
import time
from anchorhold.channel import frames, messages
def attempt():
    while True:
        with open(QUESTION, "rb") as file:
            file.read()
        frames.write_frame(6, messages.encode({"type": "token", "id": 1, "text": "x"}))
        time.sleep(0.001)
"""
ANCHORS = ("launcher", "worker", "sealed", "answering")
Tell = Callable[[str], object]


def quietly(_anchor: str) -> None:
    pass


def run_probe(state: Path, rules: Policy, paper: str, tell: Tell = quietly) -> None:
    """A cell that opens a granted file again and again, for ever."""
    log = Log.open(state)
    asked = session.Session(rules, log, state_dir=state, entry=cells.PROBE, config={"source": OPENS})
    _serve(asked, log, session.Request(paper), tell)


def run_engine(state: Path, rules: Policy, paper: str, tell: Tell = quietly) -> None:
    """The real engine: it loads the model, reads a document and answers at length."""
    log = Log.open(state)
    asked = session.Session(rules, log, state_dir=state, suffixes=[".txt"])
    _serve(asked, log, session.Request("Tell a long story of this.", files=[paper], max_tokens=400), tell)


def _serve(asked: session.Session, log: Log, request: session.Request, tell: Tell) -> None:
    told = False
    try:
        asked.start()
        tell("sealed")
        for event in asked.ask(request):
            if isinstance(event, events.Token) and not told:
                told = True
                tell("answering")
    finally:
        asked.close()
        log.close()


class Supervisor:
    """A process that does the work and ends. All is imported already, so it is soon at its first line."""

    def __init__(self, work: Callable[[Tell], object]) -> None:
        self.told, tells = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            null = os.open("/dev/null", os.O_RDWR)
            for fd in (1, 2):
                os.dup2(null, fd)
            try:
                work(lambda anchor: os.write(tells, f"{anchor}\n".encode()))
            finally:
                os._exit(1)
        os.close(tells)
        os.set_blocking(self.told, False)
        self.heard = b""

    def has_come_to(self, anchor: str) -> bool:
        if anchor == "launcher":
            return bool(children(self.pid))
        if anchor == "worker":
            return len(descendants(self.pid)) > 1
        with contextlib.suppress(BlockingIOError):
            self.heard += os.read(self.told, 4096)
        return anchor.encode() in self.heard

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> None:
        """Until it is dead; it stays to be reaped, so that its number is nobody else's."""
        os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)

    def reap(self) -> None:
        os.waitpid(self.pid, 0)
        os.close(self.told)


def stage_of(log: list[dict[str, Any]]) -> str:
    """How far the session had come by its entries."""
    kinds = {entry["kind"] for entry in log}
    if any(entry.get("class") == "data" for entry in log):
        return "answering"
    for kind, stage in (("request.start", "asked"), ("session.sealed", "sealed"), ("session.start", "boot")):
        if kind in kinds:
            return stage
    return "before"


def kill_supervisors(wanted: Mapping[str, Any]) -> dict[str, Any]:
    """``moments`` times: start, wait, stop what ``stop`` names, kill -9, look after ``LIFE`` what lives."""
    state, paper = Path(wanted["state"]), wanted["papers"] + "/paper.txt"
    rules = cells.policy(Path(wanted["model"]), read=(Path(wanted["papers"]),))
    work = run_engine if wanted["engine"] else run_probe
    counters = dict.fromkeys(("cells", "stopped", "late", "recovered"), 0)
    seen: dict[str, Any] = {"stages": {}, "outlived": [], "wrong": [], **counters}
    chance = random.Random(wanted["seed"])
    for number in range(wanted["moments"]):
        before = _size(state)
        supervisor = Supervisor(lambda tell: work(state, rules, paper, tell))
        wait_until(lambda: supervisor.has_come_to(ANCHORS[number % len(ANCHORS)]))  # noqa: B023  (called now)
        # Early moments are close to each other, so that none of the short steps is missed.
        time.sleep(chance.random() ** 2 * (0.2 if wanted["engine"] else 0.08))
        os.kill(supervisor.pid, signal.SIGSTOP)  # so that the list of its processes stays true
        cell = descendants(supervisor.pid)
        sessions = set(children(supervisor.pid))
        for part in wanted["stop"]:
            for each in [pid for pid in cell if (pid in sessions) == (part == "launcher")]:
                os.kill(each, signal.SIGSTOP)
                seen["stopped"] += 1
        supervisor.kill()
        supervisor.wait()  # its own death is the kernel's work, and may wait for a processor
        time.sleep(LIFE)
        left = {*(each for each in cell if lives(each)), *members(sessions)}
        supervisor.reap()
        seen["cells"] += bool(cell)
        try:
            log = Log.open(state)
            log.checkpoint()
            log.close()
            result = verify(str(state))
            if not result.ok or result.signed != result.size or result.torn_bytes:
                seen["wrong"].append([number, result.text()])
        except AnchorholdError as error:
            seen["wrong"].append([number, error.diagnostics()])
        new = list(entries(state, first=before))
        seen["recovered"] += sum(entry["kind"] == "log.recovered" for entry in new)
        stage = stage_of(new)
        seen["stages"][stage] = seen["stages"].get(stage, 0) + 1
        if left:
            seen["late"] += stage != "before"
            left = _wait_for_end(left, sessions, stage == "before")
        if left:
            seen["outlived"].append(
                [number, stage, {each: fields(Path(f"/proc/{each}"))[:7] for each in left}]
            )
        for each in left:
            os.kill(each, signal.SIGKILL)
    return seen


def _wait_for_end(late: set[int], sessions: set[int], early: bool) -> set[int]:
    """What never ends of what was not dead after ``LIFE``: 2 s are enough on the busiest machine.

    A launcher that has not come to its first line, be it that it was stopped there, is always late. There is
    no cell then, and nothing was granted, not even a file of the runtime. That line asks the kernel to die
    with the supervisor, and looks whether it is there.
    """
    for each in late if early else ():
        with contextlib.suppress(ProcessLookupError):
            os.kill(each, signal.SIGCONT)
    for _time in range(40):
        time.sleep(0.05)
        if not (left := {*filter(lives, late), *members(sessions)}):
            break
    return left


def _size(state: Path) -> int:
    return verify(str(state)).size if state.exists() else 0


def kill_parts(wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Kill the launcher alone or the worker alone, at many moments; the supervisor, this process, goes on."""
    state, paper = Path(wanted["state"]), wanted["papers"] + "/paper.txt"
    rules = cells.policy(Path(wanted["model"]), read=(Path(wanted["papers"]),))
    ends: list[dict[str, Any]] = []
    for number in range(wanted["moments"]):
        before = _size(state)
        ended = threading.Event()
        delay = 0.15 * number / wanted["moments"]
        killer = threading.Thread(target=_kill_part, args=(wanted["part"], delay, ended), daemon=True)
        started = time.monotonic()
        killer.start()
        end: dict[str, Any] = {"error": None}
        try:
            run_probe(state, rules, paper)
        except AnchorholdError as error:
            end = {
                "error": str(error),
                "hint": error.hint,
                "exit": error.exit_code,
                "kind": type(error).__name__,
            }
        end["seconds"] = time.monotonic() - started
        ended.set()
        killer.join()
        log = list(entries(state, first=before))
        end["kinds"] = [entry["kind"] for entry in log]
        end["left"] = descendants(os.getpid())
        result = verify(str(state))
        end["ok"] = result.ok and result.signed == result.size or result.text()
        ends.append(end)
    return {"ends": ends}


def _kill_part(part: str, delay: float, ended: threading.Event) -> None:
    """``delay`` seconds after the launcher is there, or the worker; and again until the session has ended.

    Again, because the launcher has another child for a moment, which tries out user namespaces.
    """

    def look() -> list[int]:
        launchers = children(os.getpid())
        return launchers if part == "launcher" else [pid for one in launchers for pid in children(one)]

    while not look() and not ended.wait(0.0005):
        pass
    ended.wait(delay)
    while not ended.is_set():
        for pid in look():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        ended.wait(0.005)


def main() -> None:
    wanted = json.load(sys.stdin)
    runtime.search_path()  # before any fork, as all imports
    json.dump({"supervisors": kill_supervisors, "parts": kill_parts}[wanted["what"]](wanted), sys.stdout)


if __name__ == "__main__":
    main()
