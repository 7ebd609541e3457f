"""``anchorhold ask`` from process start to first token, against a plain script of the same prompt."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from tests.bench.measure import (
    LETTER,
    QUESTION,
    SEED,
    Row,
    compared,
    demo_model,
    environment,
    folder,
    in_turn,
)
from tests.bench.workers import Plain, ask_message


def command(state: Path, model: Path, *rest: str, max_tokens: int) -> list[str]:
    return [
        *(sys.executable, "-m", "anchorhold", "--state-dir", str(state), "ask", "--model", str(model)),
        *("--seed", str(SEED), "--temperature", "0", "--max-tokens", str(max_tokens), *rest),
    ]


def caged(state: Path, model: Path) -> float:
    """Milliseconds."""
    started = time.perf_counter()
    process = subprocess.Popen(
        command(state, model, "--file", str(LETTER), QUESTION, max_tokens=4),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
    )
    assert process.stdout is not None
    first = os.read(process.stdout.fileno(), 1)
    taken = (time.perf_counter() - started) * 1e3
    _rest, said = process.communicate(timeout=60)
    if not first or process.returncode:
        raise RuntimeError(said.decode("utf-8", "replace"))
    return taken


def plain(model: Path) -> float:
    """Milliseconds."""
    script = Plain(model, [".txt"])
    try:
        script.send(ask_message(QUESTION, files=[LETTER], max_tokens=4))
        script.until("token")
        return (time.perf_counter() - script.started) * 1e3
    finally:
        script.close()


def rows(rounds: int) -> list[Row]:
    model = demo_model()
    with folder() as place:
        found = in_turn(rounds, {"cell": lambda: caged(place, model), "plain": lambda: plain(model)})
    return [
        compared(
            "ask: process start to first token",
            found["cell"],
            "plain script",
            found["plain"],
            unit="ms",
            most=1.3,
            digits=0,
        )
    ]
