"""The kill switch: from the start of the program to its end, when it saw the cell dead and set the latch.

With the supervisor at work, and with it stopped. Beside it: the time that an empty Python needs. And, by the
daemon's control socket in the middle of an answer: until the last process of the cell is gone.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from anchorhold.supervisor.requests import Request
from anchorhold.supervisor.service import control
from anchorhold.switch import latch
from tests.bench.measure import TOP, Row, demo_model, environment, folder, in_turn, median, shown, spread
from tests.integration.lifecycle import switching
from tests.integration.service import driving

MOST, RATIO = 50.0, 3.0
SOCKET = 5.0
KILLS = 100


def _killed(place: Path, stopped: bool) -> float:
    """Milliseconds of one kill."""
    scene = switching.Scene({"state": str(place / "state"), "model": str(demo_model())})
    child = scene.start()
    found = scene.records()
    if stopped:
        child.send_signal(signal.SIGSTOP)
    program = Path(sys.executable).with_name("anchorhold-kill")
    command = [str(program)] if program.exists() else [sys.executable, "-m", "anchorhold.switch.kill"]
    env = {**environment(), "RUNTIME_DIRECTORY": str(scene.runtime), "PYTHONPATH": str(TOP / "daemon")}
    started = time.perf_counter()
    done = subprocess.run(
        [*command, "--state-dir", str(scene.state), "taxes"], capture_output=True, env=env, check=False
    )
    taken = (time.perf_counter() - started) * 1e3
    if done.returncode or scene.alive(found):
        raise RuntimeError(f"not killed: {done.stdout!r} {done.stderr!r}")
    scene.finish()
    latch.rearm(str(scene.state), None)
    return taken


def _empty() -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-I", "-S", "-c", "pass"], check=True, env=environment())
    return (time.perf_counter() - started) * 1e3


PLAIN = """
import mmap, os, sys, time
path, anonymous, huge = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
model = mmap.mmap(os.open(path, os.O_RDONLY), 0, mmap.MAP_SHARED, mmap.PROT_READ)
for at in range(0, len(model), 4096):
    model[at]
kept = []
for size, advice in ((huge, mmap.MADV_HUGEPAGE), (anonymous - huge, mmap.MADV_NOHUGEPAGE)):
    area = mmap.mmap(-1, max(size, 4096))
    area.madvise(advice)
    for at in range(0, len(area), 4096):
        area[at] = 1
    kept.append(area)
print("ready", flush=True)
time.sleep(60)
"""
"""A process with as much memory as a worker has, and nothing else: what the kernel itself takes to end it."""


def _memory(pid: int) -> tuple[int, int]:
    """Bytes of a process that no file has, and how many of them are in huge pages."""
    told = dict(line.split(":") for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:])
    return int(told["Anonymous"].split()[0]) << 10, int(told["AnonHugePages"].split()[0]) << 10


def _plain(memory: tuple[int, int]) -> float:
    """Milliseconds from SIGKILL to the end of such a process."""
    command = [sys.executable, "-I", "-S", "-c", PLAIN, str(demo_model()), *map(str, memory)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        fd = os.pidfd_open(process.pid)
        started = time.perf_counter()
        signal.pidfd_send_signal(fd, signal.SIGKILL)
        select.select([fd], [], [], 10)
        taken = (time.perf_counter() - started) * 1e3
        os.close(fd)
    return taken


def _asked(rounds: int) -> tuple[list[float], list[float]]:
    """Milliseconds of kills by the control socket in an answer; after each one, of a plain process."""
    found, plain = [], []
    with folder() as place:
        (place / "papers").mkdir()
        (place / "papers" / "harbour.txt").write_text("The harbour froze in January.\n")
        given = {"state": str(place / "state"), "model": str(demo_model()), "papers": str(place / "papers")}
        scene = driving.Scene(given)
        scene.start(scene.policy())
        for _round in range(rounds):
            request = Request(driving.LONG, max_tokens=1500)
            sink = scene.ask(request)
            if not sink.first.wait(60) or sink.error:
                raise RuntimeError(f"no answer to kill: {sink.error}")
            session = scene.session()
            memory = _memory(session.worker_pid)
            fds = [os.pidfd_open(pid) for pid in (session.worker_pid, session.launcher_pid)]
            started = time.perf_counter()
            asking = threading.Thread(target=control.ask, args=(scene.runtime, "kill", "taxes"))
            asking.start()
            for fd in fds:
                one = select.poll()
                one.register(fd, select.POLLIN)
                one.poll(10_000)
            found.append((time.perf_counter() - started) * 1e3)
            asking.join()
            for fd in fds:
                os.close(fd)
            plain.append(_plain(memory))
            control.ask(scene.runtime, "rearm", "taxes")
            if not scene.is_in("serving"):
                raise RuntimeError("it did not come back")
        scene.finish()
    return found, plain


def _row(found: list[float], plain: list[float]) -> Row:
    last, least = (sorted(one)[max(0, int(len(one) * 0.99) - 1)] for one in (found, plain))
    return Row(
        f"kill by the control socket, {len(found)} times, in an answer: until the last process is gone",
        shown(found, "ms", 1), "SIGKILL, a plain process of that memory", shown(plain, "ms", 1),
        f"p99 {last:.1f} ms, theirs {least:.1f}", f"≤ {SOCKET} ms (p99)", last <= SOCKET,
    )  # fmt: skip


def rows(rounds: int) -> list[Row]:
    os.environ["PYTHONPATH"] = f"{TOP}:{TOP / 'daemon'}"
    table = [_row(*_asked(KILLS if rounds > 5 else 10))]
    with folder() as place:
        for stopped in (False, True):
            measures: dict[str, Callable[[], float]] = {
                "ours": lambda stopped=stopped: _killed(place, stopped),  # type: ignore[misc]  # its default
                "empty": _empty,
            }
            found = in_turn(rounds, measures)
            ratios = [one / other for one, other in zip(found["ours"], found["empty"], strict=True)]
            low, high = spread(ratios)
            enough = median(ratios) <= RATIO and max(found["ours"]) <= MOST
            table.append(
                Row(
                    f"kill, exec to dead and latched, supervisor {'stopped' if stopped else 'at work'}",
                    shown(found["ours"], "ms", 1), "python -I -S -c pass", shown(found["empty"], "ms", 1),
                    f"{median(ratios):.2f} ({low:.2f} to {high:.2f})", f"≤ {RATIO}, ≤ {MOST:.0f} ms", enough,
                )
            )  # fmt: skip
    return table
