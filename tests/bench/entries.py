"""The log: what an event costs before it is acknowledged, against a plain file and against SQLite; bytes;
receipts.

``append`` is measured as the broker writes a grant. Settling, which turns what journals hold into the signed
tree, is done while nothing else happens and at a session's end; it is told apart, in microseconds an entry.
"""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

from anchorhold.audit.entry import encode_grant
from anchorhold.audit.log import Log
from anchorhold.audit.query import entries
from anchorhold.audit.receipt import make
from anchorhold.verify.receipt import verify_receipt
from tests.bench.measure import TOP, Row, compared, folder, in_turn, median, shown

ENTRIES = 40_000
WRITERS, SYNCED = 8, 150
SESSION = "0123456789abcdef"


def public(number: int) -> dict[str, object]:
    return {"class": "data", "size": 4096 + number, "mode": "snapshot", "phase": "sealed", "request": 1}


def paths(number: int) -> dict[str, object]:
    path = f"/home/somebody/documents/2025/letter-{number}.txt"
    return {"path": path, "resolved": path}


def digest(number: int) -> str:
    return f"{number * 2654435761 % 2**32:08x}" * 8


def write(log: Log, number: int, sha256: str) -> None:
    """As broker/record.py does for each file that is handed over."""
    path = f"/home/somebody/documents/2025/letter-{number}.txt"
    public, names = encode_grant("data", 4096 + number, "snapshot", "sealed", 1, path, path)
    log.write("grant", SESSION, public, names, b'{"sha256":"%b"}' % sha256.encode("ascii"))


def append(settled: list[float]) -> float:
    """Microseconds an event."""
    digests = [digest(number) for number in range(ENTRIES)]
    with folder() as place:
        log = Log.open(place)
        started = time.perf_counter()
        for number in range(ENTRIES):
            write(log, number, digests[number])
        done = time.perf_counter()
        log.checkpoint()
        settled.append((time.perf_counter() - done) / ENTRIES * 1e6)
        log.close()
    return (done - started) / ENTRIES * 1e6


def plain() -> float:
    """The same entries, made and written without any care."""
    digests = [digest(number) for number in range(ENTRIES)]
    with folder() as place:
        fd = os.open(place / "lines", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        started = time.perf_counter()
        for number in range(ENTRIES):
            entry = {
                "v": 2, "seq": number, "time": "2026-01-31T18:30:00.000000Z", "mono": 35919068538,
                "session": SESSION, "n": number, "kind": "grant", **public(number), **paths(number),
                "sha256": digests[number],
            }  # fmt: skip
            os.write(fd, (json.dumps(entry) + "\n").encode())
        done = time.perf_counter()
        os.close(fd)
    return (done - started) / ENTRIES * 1e6


SYNCED_OURS = """
import sys; from pathlib import Path
from anchorhold.audit.log import Log
from tests.bench.entries import SYNCED, digest, write
log = Log.open(Path(sys.argv[1]), durability="fsync")
print("ready", flush=True); sys.stdin.readline()
for number in range(SYNCED):
    write(log, number, digest(number))
log.close()
"""

SYNCED_SQLITE = """
import json, sqlite3, sys
from tests.bench.entries import SYNCED, SESSION, digest, paths, public
base = sqlite3.connect(sys.argv[1] + "/base.sqlite", timeout=60, isolation_level=None)
base.execute("PRAGMA synchronous=FULL")
print("ready", flush=True); sys.stdin.readline()
for number in range(SYNCED):
    entry = {"session": SESSION, "kind": "grant", **public(number), **paths(number), "sha256": digest(number)}
    base.execute("INSERT INTO entries (entry) VALUES (?)", (json.dumps(entry),))
base.close()
"""


def at_once(code: str) -> float:
    """Microseconds an event, of `WRITERS` processes that write at the same time, each event on the disk."""
    with folder() as place:
        base = sqlite3.connect(place / "base.sqlite")
        base.execute("PRAGMA journal_mode=WAL")
        base.execute("CREATE TABLE entries (seq INTEGER PRIMARY KEY, entry TEXT)")
        base.close()
        Log.open(place).close()
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TOP / "daemon"), str(TOP)])}
        jobs = [
            subprocess.Popen(
                [sys.executable, "-c", code, str(place)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=environment,
            )
            for _ in range(WRITERS)
        ]
        for job in jobs:
            assert job.stdout is not None and job.stdout.readline() == b"ready\n"
        started = time.perf_counter()
        for job in jobs:
            job.communicate(b"\n", timeout=120)
        taken = time.perf_counter() - started
        assert all(job.returncode == 0 for job in jobs)
    return taken / WRITERS / SYNCED * 1e6


def stored() -> tuple[float, float, float, float]:
    """Bytes on disk over the JSON lines; a receipt of 1,000 grants: seconds to make, to verify; bytes over
    its lines."""
    with folder() as place:
        log = Log.open(place)
        log.append("session.start", SESSION, {})
        log.append("session.sealed", SESSION, {})
        log.append("request.start", SESSION, {"request": 1})
        for number in range(1_000):
            write(log, number, os.urandom(32).hex())
        log.append("request.end", SESSION, {"request": 1})
        log.append("session.end", SESSION, {})
        for number in range(40_000):
            fields = {**public(number), **paths(number), "sha256": os.urandom(32).hex()}
            log.append("grant", f"{number % 40:016x}", fields)
        log.checkpoint()
        log.close()
        lines = [json.dumps(entry, separators=(",", ":")) for entry in entries(place)]
        disk = sum(path.stat().st_blocks * 512 for path in Path(place, "log").rglob("*"))
        mine = sum(map(len, lines[1:1005])) + 1004
        started = time.perf_counter()
        data = make(place, f"{SESSION}-1")
        made = time.perf_counter()
        verify_receipt(data, Path(place, "log/vkey").read_text())
        verified = time.perf_counter()
    return disk / (sum(map(len, lines)) + len(lines)), made - started, verified - made, len(data) / mine


def rows(rounds: int) -> list[Row]:
    settled: list[float] = []
    found = in_turn(rounds, {"ours": lambda: append(settled), "plain": plain})
    synced = in_turn(
        max(3, rounds // 2), {"ours": lambda: at_once(SYNCED_OURS), "sqlite": lambda: at_once(SYNCED_SQLITE)}
    )
    disk, made, verified, size = (
        median(values) for values in zip(*(stored() for _ in range(3)), strict=True)
    )
    return [
        compared(
            "an event in the log (write)", found["ours"], "json.dumps, os.write", found["plain"],
            unit="µs", most=1.0,
        ),
        Row("settling, each entry, in idle time", shown(settled, "µs"), "", "", "", "", None),
        compared(
            "an event on the disk (fsync), 8 writers", synced["ours"], "SQLite WAL, FULL", synced["sqlite"],
            unit="µs", most=1.0,
        ),
        Row("log on disk / its JSON lines", f"{disk:.2f}", "", "", "", "≤ 1.2", disk <= 1.2),
        Row("receipt of 1,000 grants: make", f"{made * 1e3:.0f} ms", "", "", "", "< 100 ms", made < 0.1),
        Row("… verify", f"{verified * 1e3:.0f} ms", "", "", "", "< 100 ms", verified < 0.1),
        Row("receipt / the entries' own lines", f"{size:.2f}", "", "", "", "≤ 1.3", size <= 1.3),
    ]  # fmt: skip
