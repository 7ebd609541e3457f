"""``python -m tests.load``: many clients at a real service for minutes, over its socket and over TCP.

Holds when there was no error but 429 with ``Retry-After``, memory is flat once warm, clients that ask alike
are served alike within a factor of two, and the log verifies and has one end for each request.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

from anchorhold.verify.check import verify
from tests.bench.measure import demo_model
from tests.daemon import Daemon, pss, unended
from tests.load.clients import Client

WARM_UP = 0.25
"""Part of the time that does not count for memory: first requests of each size, caches, thread stacks."""
GROWTH, SLACK = 1.05, 2.0
"""Flat: after the warm-up, the last quarter's median is at most the first's times this, and so many MiB."""
FAIR = 2.0
SAMPLE_SECONDS = 2.0

Memory = dict[str, list[tuple[float, float]]]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.load", description=__doc__)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", action="store_true", help="leave the folder with log and state")
    chosen = parser.parse_args()
    place = Path(tempfile.mkdtemp(prefix="anchorhold-load.", dir="/var/tmp"))
    # One processor for each of two workers: what is measured is not how two of them fight for one.
    daemon = Daemon(place, demo_model(), "[limits]\ncpu = 1\n")
    try:
        return run(daemon, chosen.seconds, chosen.clients, chosen.seed)
    finally:
        daemon.kill()
        if chosen.keep:
            print(f"kept: {place}")
        else:
            shutil.rmtree(place, ignore_errors=True)


def run(daemon: Daemon, seconds: float, number: int, seed: int) -> int:
    """The whole load. Returns the exit status."""
    daemon.start()
    if not daemon.wait_serving():
        print(f"it does not serve: {daemon.said()}", file=sys.stderr)
        return 1
    doors = daemon.doors
    stop = threading.Event()
    clients = [Client(doors[each % len(doors)], each, seed, stop) for each in range(number)]
    began = time.monotonic()
    before = {kind: sorted(pids) for kind, pids in daemon.processes().items()}
    for client in clients:
        client.start()
    memory = watch(daemon, began, seconds)
    stop.set()
    for client in clients:
        client.join(180.0)
    hung = sum(client.is_alive() for client in clients)
    took = time.monotonic() - began
    after = {kind: sorted(pids) for kind, pids in daemon.processes().items()}
    status = daemon.stop()
    asked, wrong = unended(daemon.state)
    names = {name for client in clients for name in client.seen.names}
    checked = verify(str(daemon.state))
    rows = [
        ("no error but 429", *errors(clients, hung)),
        ("the same processes all the time", "" if (same := before == after) else f"{before}, {after}", same),
        *flat(memory, seconds),
        *fair(clients),
        ("stopped in order", f"exit status {status}", status == 0),
        ("the log verifies", "" if checked.ok else str(checked), checked.ok),
        ("each request has one end", f"{asked} asked, {len(wrong)} not ended once", not wrong),
        ("what was answered is in the log", *acknowledged(daemon, names)),
    ]  # fmt: skip
    seen = [client.seen for client in clients]
    print(
        f"{number} clients, {took:.0f} s: {sum(one.served for one in seen)} served, "
        f"{sum(one.left for one in seen)} left in the middle, {sum(one.full for one in seen)} times 429"
    )
    for what, words, holds in rows:
        print(f"  {what:34} {'yes' if holds else 'NO ':4} {words}")
    return 0 if all(holds for _what, _words, holds in rows) else 1


def watch(daemon: Daemon, began: float, seconds: float) -> Memory:
    """PSS in MiB of each kind of process over time, all of a kind together."""
    found: Memory = {}
    while (now := time.monotonic() - began) < seconds:
        for kind, pids in daemon.processes().items():
            found.setdefault(kind, []).append((now, sum(map(pss, pids))))
        time.sleep(SAMPLE_SECONDS)
    return found


def flat(memory: Memory, seconds: float) -> list[tuple[str, str, bool]]:
    """A row for each kind of process."""
    rows = []
    begin = seconds * WARM_UP
    for kind, samples in memory.items():
        values = [value for at, value in samples if at >= begin]
        quarter = max(1, len(values) // 4)
        first, last = statistics.median(values[:quarter]), statistics.median(values[-quarter:])
        words = f"{first:.1f} → {last:.1f} MiB, at most {max(values):.1f}"
        rows.append((f"memory flat: {kind}", words, last <= first * GROWTH + SLACK))
    return rows


def fair(clients: list[Client]) -> list[tuple[str, str, bool]]:
    """Clients of one door ask alike: rows for what they got and for how long they waited.

    Times that a client left count as served: it gave its turn away by itself.
    """
    rows = []
    for door in sorted({client.door.word for client in clients}):
        seen = [client.seen for client in clients if client.door.word == door]
        turns = [one.served + one.left for one in seen]
        waits = [statistics.mean(one.waits) for one in seen if one.waits]
        for what, values in (("turns", [*map(float, turns)]), ("mean wait in s", waits)):
            least, most = min(values, default=0.0), max(values, default=0.0)
            ratio = most / least if least else float("inf")
            rows.append((f"fair, {door}: {what}", f"{least:.1f} to {most:.1f}: {ratio:.2f}", ratio <= FAIR))
    return rows


def errors(clients: list[Client], hung: int) -> tuple[str, bool]:
    found: Counter[str] = Counter()
    for client in clients:
        found += client.seen.errors
    if hung:
        found["never answered"] += hung
    return "; ".join(f"{number} × {what}" for what, number in found.most_common(5)), not found


def acknowledged(daemon: Daemon, names: set[str]) -> tuple[str, bool]:
    from anchorhold.audit.query import entries

    known = {str(one["request"]) for one in entries(daemon.state) if one["kind"] == "request.end"}
    return f"{len(names)} answers, {len(names - known)} not there", names <= known


if __name__ == "__main__":
    sys.exit(main())
