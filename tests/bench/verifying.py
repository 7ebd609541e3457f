"""Entries verified per second, on all processors, and the memory that it takes, the process and its helpers
together at their highest.

A forged log: sessions of 5,000 grants, names and digests in place, one epoch of a million entries after the
other. ``python -m tests.bench.verifying 10000000`` does the same with as many entries.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from tests.bench.measure import Row, folder, median, shown
from tests.unit.verify.forge import Forge

SMALL, ENTRIES = 100_000, 1_000_000
GROWTH = 1.5
BAR = 300_000
EPOCH = 1_000_000
GRANTS = 5_000

CODE = """
import sys, time
from anchorhold.verify.check import verify
started = time.perf_counter()
result = verify(sys.argv[1], vkey=sys.argv[2])
print(time.perf_counter() - started, result.size, result.ok and result.proven)
"""


def forged(state: Path, entries: int) -> Forge:
    """A log of at least that many entries."""
    forge = Forge(state)
    number = 0
    while forge.seq < entries:
        if forge.epoch.size > EPOCH:
            forge.rotate()
        name = f"{number:016x}"
        forge.event("session.start", name)
        forge.event("session.sealed", name)
        forge.event("request.start", name, {"request": 1})
        forge.many(name, min(GRANTS, max(1, entries - forge.seq)))
        forge.event("request.end", name, {"request": 1})
        forge.event("session.end", name)
        number += 1
    forge.save()
    return forge


def verified(forge: Forge) -> tuple[float, float]:
    """Entries a second; MiB of all processes of it together (proportional set size), at the highest."""
    process = subprocess.Popen(
        [sys.executable, "-c", CODE, str(forge.log), forge.vkey], stdout=subprocess.PIPE, text=True
    )
    highest = 0.0
    while process.poll() is None:
        highest = max(highest, sum(map(_pss, [process.pid, *_children(process.pid)])))
        time.sleep(0.1)
    assert process.stdout is not None
    seconds, size, good = process.stdout.read().split()
    process.stdout.close()
    if process.returncode or good != "True" or int(size) != forge.seq:
        raise RuntimeError("the forged log does not verify")
    return int(size) / float(seconds), highest


def _children(pid: int) -> list[int]:
    try:
        return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _pss(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:  # it has ended
        return 0.0
    return sum(int(line.split()[1]) / 1024 for line in lines if line.startswith("Pss:"))


def rows(rounds: int, entries: int = ENTRIES) -> list[Row]:
    found = {}
    for size, times in ((SMALL, 1), (entries, rounds)):
        with folder() as place:
            forge = forged(place, size)
            found[size] = [verified(forge) for _round in range(times)]
    rates, memory = [rate for rate, _ in found[entries]], [most for _, most in found[entries]]
    less = found[SMALL][0][1]
    growth = median(memory) / less
    what = f"{entries:,} entries, {len(os.sched_getaffinity(0))} CPUs"
    enough = median(rates) >= BAR
    flat = growth <= GROWTH
    return [
        Row(f"verified a second, of {what}", shown(rates, "/s", 0), "", "", "", f"≥ {BAR}", enough),
        Row(
            f"verifier's memory, {what}",
            shown(memory, "MiB"),
            f"{SMALL:,} entries",
            f"{less:.1f} MiB",
            f"{growth:.2f}",
            f"≤ {GROWTH}",
            flat,
        ),
    ]


def main() -> None:
    from tests.bench.__main__ import show

    show(rows(3, int(sys.argv[1])))


if __name__ == "__main__":
    main()
