"""The kill switch: from the start of the program to its end, when it saw the cell dead and set the latch.

With the supervisor at work, and with it stopped. Beside it: the time that an empty Python needs.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from anchorhold.switch import latch
from tests.bench.measure import TOP, Row, demo_model, environment, folder, in_turn, median, shown, spread
from tests.integration.lifecycle import switching

MOST, RATIO = 50.0, 3.0


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


def rows(rounds: int) -> list[Row]:
    os.environ["PYTHONPATH"] = f"{TOP}:{TOP / 'daemon'}"
    table = []
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
