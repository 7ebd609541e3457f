"""Memory of the supervisor while the model answers: its proportional set size (proc_pid_smaps(5))."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

from tests.bench.first_token import command
from tests.bench.measure import LETTER, Row, demo_model, environment, folder, median, shown

BAR = 40
SAMPLES = 8


def pss(pid: int) -> float:
    """MiB."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("no Pss in smaps_rollup")


def greatest(state: Path, model: Path) -> float:
    """MiB, of several looks from the first token on."""
    process = subprocess.Popen(
        command(state, model, "--file", str(LETTER), "Write a long story about this letter.", max_tokens=200),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment(),
    )
    assert process.stdout is not None
    seen: list[float] = []
    try:
        while len(seen) < SAMPLES and os.read(process.stdout.fileno(), 4096):
            seen.append(pss(process.pid))
            time.sleep(0.02)
    finally:
        process.communicate(timeout=60)
    return max(seen)


def rows(rounds: int) -> list[Row]:
    model = demo_model()
    with folder() as place:
        found = [greatest(place, model) for _round in range(rounds)]
    return [
        Row(
            "memory of the supervisor, PSS",
            shown(found, "MiB"),
            "",
            "",
            "",
            f"≤ {BAR} MiB",
            median(found) <= BAR,
        )
    ]
