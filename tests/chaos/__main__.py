"""``python -m tests.chaos``: faults at a real service with clients, and what must hold after each burst.

No worker without supervisor, no grant without entry, nothing acknowledged that is not in the log, a log that
verifies, and a service that answers again. The same seed makes the same faults; when they hit is up to the
machine. Root gets full disks too, in a mount namespace of this test's own.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from random import Random

from tests.bench.measure import demo_model
from tests.chaos import checks
from tests.chaos.faults import STATE_SIZE, Faults
from tests.chaos.traffic import Traffic
from tests.daemon import Daemon

PR_SET_CHILD_SUBREAPER = 36
INSIDE = "ANCHORHOLD_CHAOS_INSIDE"
PAUSES = (0.0, 0.01, 0.1, 0.3)
"""Seconds between two faults."""


class Run:
    """One run. ``wrong``: what did not hold, with the number of the fault before it."""

    def __init__(self, daemon: Daemon, seed: int, *, disk: bool) -> None:
        self.daemon, self.seed = daemon, seed
        self.faults = Faults(daemon, disk=disk)
        self.traffic = Traffic(daemon, seed)
        self.done: list[str] = []
        self.drawn = 0
        self.wrong: list[str] = []
        self.restarts = 0

    def all(self, faults: int, burst: int) -> None:
        self.daemon.start()
        if not self.daemon.wait_serving():
            raise SystemExit(f"it does not serve at all: {self.daemon.said()}")
        self.traffic.start()
        while len(self.done) < faults:
            self.burst(min(burst, faults - len(self.done)))
        if hung := self.traffic.stop():
            self.found([f"{hung} clients wait without end"])
        status = self.daemon.stop()
        self.found([f"exit status {status} when told to stop"] if status else [])
        self.found(checks.orphans(self.daemon))
        self.found(checks.log(self.daemon, self.traffic.taken()))
        self.found(checks.ended(self.daemon))

    def burst(self, number: int) -> None:
        """So many faults, then all is undone and everything is looked at."""
        until = len(self.done) + number
        while len(self.done) < until:
            self.drawn += 1
            # Of its own for each, so that what one draws does not move the others.
            chance = Random(f"{self.seed}/{self.drawn}")
            self.revive(chance.uniform(0.0, 1.5))
            if chance.random() < 0.3:
                self.faults.undo_one()
            if what := self.faults.one(chance):
                self.done.append(what)
            time.sleep(chance.choice(PAUSES))
        self.faults.undo_all()
        for name in ("unix", "tcp"):
            self.daemon.policy(name)
        self.revive(0.0)
        self.found(checks.answers(self.daemon, self.traffic, lambda: self.revive(0.5)))
        if self.wrong and not self.daemon.serves():
            self.daemon.kill()  # the rest of the run is worth something as well
        self.found(checks.orphans(self.daemon))
        self.found(checks.one_of_each(self.daemon))
        self.found(checks.log(self.daemon, self.traffic.taken()))

    def revive(self, seconds: float) -> None:
        """What a service manager does: a daemon that ended is started again. Nothing of it may be left."""
        if self.daemon.runs():
            return
        self.found(checks.orphans(self.daemon))
        if self.drawn % 2:
            self.faults.undo_all()  # a person looks why it ended: with a full disk it would never come back
        self.restarts += 1
        self.daemon.start()
        time.sleep(seconds)

    def found(self, wrong: list[str]) -> None:
        for what in wrong:
            before = "; ".join(self.done[-8:])
            words = f"seed {self.seed}, fault {len(self.done)} ({before}): {what}"
            self.wrong.append(words)
            print(f"DOES NOT HOLD: {words}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--faults", type=int, default=500)
    parser.add_argument("--burst", type=int, default=15)
    parser.add_argument("--keep", action="store_true", help="leave the folder with log and state")
    chosen = parser.parse_args()
    root = os.geteuid() == 0
    if root and INSIDE not in os.environ:
        command = ["unshare", "--mount", "--propagation", "private", sys.executable, "-m", "tests.chaos"]
        os.execvpe(command[0], [*command, *sys.argv[1:]], {**os.environ, INSIDE: "1"})
    # Whatever loses its parent becomes a child of this process: none can hide.
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    place = Path(tempfile.mkdtemp(prefix="anchorhold-chaos.", dir="/var/tmp"))
    state = place / "state"
    state.mkdir(mode=0o700)
    if root:
        options = f"size={STATE_SIZE},mode=700"
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", str(state)], check=True)
    model = Path(shutil.copy(demo_model(), place))
    daemon = Daemon(place, model, "[limits]\ncpu = 1\n")
    run = Run(daemon, chosen.seed, disk=root)
    began = time.monotonic()
    try:
        run.all(chosen.faults, chosen.burst)
    finally:
        run.faults.undo_all()
        daemon.kill()
        if root:
            if chosen.keep:
                shutil.copytree(state, place / "kept")
            subprocess.run(["umount", "-l", str(state)], check=False)
        if not chosen.keep:
            shutil.rmtree(place, ignore_errors=True)
    told = run.traffic.taken()
    print(
        f"seed {chosen.seed}: {len(run.done)} faults in {time.monotonic() - began:.0f} s, "
        f"{run.restarts} restarts of the daemon, {sum(said.whole for said in told)} answers acknowledged, "
        f"{run.traffic.failed} not; {len(run.wrong)} times something did not hold"
    )
    kinds = Counter(what.split(":")[-1].split(" but for")[0].strip() for what in run.done)
    for what, number in kinds.most_common():
        print(f"  {number:4} × {what}")
    print("  left out: clock jumps (the wall clock has no namespace)" + ("" if root else "; root's faults"))
    return 1 if run.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
