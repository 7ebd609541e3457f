"""``python -m tests.bench [--quick] [MEASURE…]``: one table of all measures, or of those named."""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import sys
import time
import traceback

from tests.bench.measure import HEAD, Missing, Row

MEASURES = {  # module → rounds, and rounds for a quick look
    "tokens": (9, 3),
    "sealing": (60, 20),
    "opening": (7, 3),
    "first_token": (9, 3),
    "memory": (3, 1),
    "many_files": (4, 1),
    "entries": (7, 3),
    "verifying": (5, 2),
    "queries": (9, 3),
    "killing": (15, 5),
    "server": (7, 2),
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("measures", nargs="*", metavar="MEASURE", help=", ".join(MEASURES))
    chosen = parser.parse_args()
    for name in chosen.measures:
        if name not in MEASURES:
            parser.error(f"no such measure: {name}; there are {', '.join(MEASURES)}")
    started = time.monotonic()
    table: list[Row] = []
    failed = False
    for name in chosen.measures or MEASURES:
        print(f"measuring: {name}", file=sys.stderr)
        rounds = MEASURES[name][chosen.quick]
        try:
            table += importlib.import_module(f"tests.bench.{name}").rows(rounds)
        except Missing as missing:
            table.append(Row(name, f"not measured: {missing} is missing", "", "", "", "", None))
        except Exception as error:  # noqa: BLE001  what was measured before it must still be told
            traceback.print_exc()
            table.append(Row(name, f"not measured: {type(error).__name__}", "", "", "", "", None))
            failed = True
    show(table)
    print(
        f"\nLinux {platform.release()}, {platform.machine()}, {len(os.sched_getaffinity(0))} CPUs, "
        f"Python {platform.python_version()}, uid {os.getuid()}; median (quartiles); "
        f"{time.monotonic() - started:.0f} s in all, load {os.getloadavg()[0]:.1f}"
    )
    return 1 if failed else 0


def show(table: list[Row]) -> None:
    """As a Markdown table whose columns stand below each other."""
    lines = [HEAD, *(row.cells for row in table)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEAD))]
    for number, line in enumerate(lines):
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |")
        if number == 0:
            print("|" + "|".join("-" * (width + 2) for width in widths) + "|")


if __name__ == "__main__":
    sys.exit(main())
