"""Entries on disk per second: the log alone, one writer, ``durability = "write"``, the fields of a grant."""

from __future__ import annotations

import time

from anchorhold.audit.log import Log
from tests.bench.measure import Row, folder, median, shown

ENTRIES = 40_000
BAR = 50_000


def rows(rounds: int) -> list[Row]:
    rates = []
    for _round in range(rounds):
        with folder() as place:
            log = Log.open(place)
            started = time.perf_counter()
            for number in range(ENTRIES):
                log.append(
                    "grant",
                    "0123456789abcdef",
                    {
                        "path": f"/home/user/notes/{number}.txt",
                        "resolved": f"/home/user/notes/{number}.txt",
                        "class": "data",
                        "sha256": "0" * 64,
                        "size": 4096,
                        "mode": "snapshot",
                        "phase": "sealed",
                    },
                )
            rates.append(ENTRIES / (time.perf_counter() - started))
            log.close()
    return [
        Row("entries on disk per second", shown(rates, "/s", 0), "", "", "", f"≥ {BAR}", median(rates) >= BAR)
    ]
