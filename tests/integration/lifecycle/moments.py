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
from anchorhold.supervisor import session
from anchorhold.verify.check import verify
from tests.integration import cells
from tests.integration.lifecycle.processes import children, descendants, fields, lives, members, wait_until

LIFE = 0.100  # seconds that anything of the cell may live after the supervisor
OPENS = """
def attempt():
    while True:
        with open(QUESTION, "rb") as file:
            file.read()
"""


def run_probe(state: Path, rules: Policy, paper: str) -> None:
    """A cell that opens a granted file again and again, for ever."""
    cells.run(state, rules, OPENS, question=paper)


def run_engine(state: Path, rules: Policy, paper: str) -> None:
    """The real engine: it loads the model, reads a document and answers at length."""
    log = Log.open(state)
    asked = session.Session(rules, log, state_dir=state, suffixes=[".txt"])
    try:
        asked.start()
        for _event in asked.ask(session.Request("Tell a long story of this.", files=[paper], max_tokens=400)):
            pass
    finally:
        asked.close()
        log.close()


def fork(work: Callable[[], object]) -> int:
    """A supervisor: a process that does the work and ends. All is imported, so time zero is its start."""
    pid = os.fork()
    if pid == 0:
        os.setpgid(0, 0)
        null = os.open("/dev/null", os.O_RDWR)
        for fd in (1, 2):
            os.dup2(null, fd)
        try:
            work()
        finally:
            os._exit(1)
    return pid


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
    whole = _time_to_answer(lambda: work(state, rules, paper), state)
    for number in range(wanted["moments"]):
        before = _size(state)
        pid = fork(lambda: work(state, rules, paper))
        time.sleep(whole * 1.3 * (number + chance.random()) / wanted["moments"])
        os.kill(pid, signal.SIGSTOP)  # so that the list of its processes stays true
        cell = descendants(pid)
        sessions = set(children(pid))
        for part in wanted["stop"]:
            for each in [pid for pid in cell if (pid in sessions) == (part == "launcher")]:
                os.kill(each, signal.SIGSTOP)
                seen["stopped"] += 1
        os.kill(pid, signal.SIGKILL)
        time.sleep(LIFE)
        left = {*(each for each in cell if lives(each)), *members(sessions)}
        os.waitpid(pid, 0)
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
        new = [entry for entry in entries(state) if entry["seq"] >= before]
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


def _time_to_answer(work: Callable[[], object], state: Path) -> float:
    """Seconds until the first document is granted, on this machine now; the second of two runs counts."""
    took = 0.0
    for _time in range(2):
        before = _size(state)
        started = time.monotonic()
        pid = fork(work)
        wait_until(lambda: _granted(state, before))  # noqa: B023  (called before the next turn)
        took = time.monotonic() - started
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return took


def _granted(state: Path, since: int) -> bool:
    try:
        return any(entry["seq"] >= since and entry.get("class") == "data" for entry in entries(state))
    except AnchorholdError:  # there is no log yet
        return False


def kill_parts(wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Kill the launcher alone or the worker alone, at many moments; the supervisor, this process, goes on."""
    state, paper = Path(wanted["state"]), wanted["papers"] + "/paper.txt"
    rules = cells.policy(Path(wanted["model"]), read=(Path(wanted["papers"]),))
    ends: list[dict[str, Any]] = []
    whole = _time_to_answer(lambda: run_probe(state, rules, paper), state)
    for number in range(wanted["moments"]):
        before = _size(state)
        ended = threading.Event()
        delay = whole * 1.5 * number / wanted["moments"]
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
        log = [entry for entry in entries(state) if entry["seq"] >= before]
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
