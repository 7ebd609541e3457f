"""A folder of 10,000 small files, a question answered: the whole command, against the plain script."""

from __future__ import annotations

import random
import subprocess
import time
from pathlib import Path

from tests.bench.first_token import command
from tests.bench.measure import Row, compared, demo_model, environment, folder, in_turn
from tests.bench.workers import Plain, ask_message

FILES = 10_000
TOKENS = 16
ASKED = "How much did the copper weather vane cost?"
_WORDS = (
    "harbour",
    "ledger",
    "copper",
    "roof",
    "letter",
    "invoice",
    "garden",
    "winter",
    "paint",
    "boat",
    "timber",
    "carpenter",
    "receipt",
    "market",
    "candle",
    "kitchen",
    "window",
    "fence",
    "orchard",
    "lamp",
    "meadow",
    "journal",
    "ferry",
    "engine",
    "library",
    "ribbon",
    "stone",
    "bridge",
)


def fill(place: Path) -> None:
    """The same files each time; one of them has the answer."""
    chance = random.Random(1)
    for number in range(FILES):
        below = place / f"{number // 500:02}"
        below.mkdir(exist_ok=True)
        text = " ".join(chance.choices(_WORDS, k=60)) + ".\n"
        if number == 6_789:
            text = "The copper weather vane cost 312 pounds in March.\n"
        (below / f"note-{number:05}.txt").write_text(text)


def caged(state: Path, model: Path, data: Path) -> float:
    """Seconds."""
    started = time.perf_counter()
    done = subprocess.run(
        command(state, model, "--data", str(data), ASKED, max_tokens=TOKENS),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=environment(),
        check=False,
        timeout=120,
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    return time.perf_counter() - started


def plain(model: Path, data: Path) -> float:
    """Seconds."""
    script = Plain(model, [".txt"])
    try:
        script.send(ask_message(ASKED, roots=[data], max_tokens=TOKENS))
        script.until("done")
    finally:
        script.close()
    return time.perf_counter() - script.started


def rows(rounds: int) -> list[Row]:
    model = demo_model()
    with folder() as place:
        data = place / "data"
        data.mkdir()
        fill(data)
        state = place / "state"
        found = in_turn(
            rounds, {"cell": lambda: caged(state, model, data), "plain": lambda: plain(model, data)}
        )
    return [
        compared(
            f"folder of {FILES:,} files, question answered",
            found["cell"],
            "plain script, same ranking",
            found["plain"],
            unit="s",
            most=2.0,
            digits=2,
        )
    ]
