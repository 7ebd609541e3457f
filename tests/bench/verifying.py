"""Entries that the verifier checks in a second, with all processors, and how its memory grows with the
log."""

from __future__ import annotations

import os
import subprocess
import sys
import time

from anchorhold.audit.log import Log
from tests.bench.entries import SESSION, digest, write
from tests.bench.measure import TOP, Row, folder, median, shown

SMALL, LARGE = 100_000, 1_000_000
BAR = 300_000

VERIFY = """
import resource, sys, time
from anchorhold.verify.check import verify
started = time.perf_counter()
result = verify(sys.argv[1])
taken = time.perf_counter() - started
assert result.ok, result.text()
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss +
resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss print(result.size / taken, peak / 1024)
"""


def rows(rounds: int) -> list[Row]:
    rates: list[float] = []
    peaks: dict[int, float] = {}
    for size in (SMALL, LARGE):
        with folder() as place:
            log = Log.open(place)
            log.append("session.start", SESSION, {})
            log.append("session.sealed", SESSION, {})
            for number in range(size - 3):
                write(log, number, digest(number))
            log.checkpoint()
            log.close()
            for _ in range(rounds if size == LARGE else 1):
                out = subprocess.run(
                    [sys.executable, "-c", VERIFY, str(place)], capture_output=True, text=True, check=True,
                    env={**os.environ, "PYTHONPATH": str(TOP / "daemon")},
                )  # fmt: skip
                rate, peak = map(float, out.stdout.split())
                peaks[size] = peak
                if size == LARGE:
                    rates.append(rate)
                time.sleep(0.1)
    growth = peaks[LARGE] / peaks[SMALL]
    enough = median(rates) >= BAR
    return [
        Row("entries verified a second", shown(rates, "/s", 0), "", "", "", f"≥ {BAR}", enough),
        Row(
            "verifier's memory, 1 M entries / 100,000",
            f"{peaks[LARGE]:.0f} MiB",
            "",
            f"{peaks[SMALL]:.0f} MiB",
            f"{growth:.2f}",
            "≤ 1.5",
            growth <= 1.5,
        ),
    ]
