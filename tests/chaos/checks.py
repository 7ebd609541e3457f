"""What must hold after faults. Each check returns what does not hold, in words."""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter
from collections.abc import Callable

from anchorhold.audit.query import entries
from anchorhold.errors import AnchorholdError
from anchorhold.supervisor.service import control
from anchorhold.verify.check import verify
from tests.chaos.traffic import Traffic
from tests.daemon import Daemon, Said, ask, body, unended
from tests.integration.lifecycle.processes import children, descendants, lives

ORPHAN_SECONDS = 2.0
"""The bar is a tenth of a second on a quiet machine (`make bench`); here all is busy with something else."""
BACK_SECONDS = 60.0
STARTS = 3
"""Of the daemon after a burst: once for what the burst did, once for what it had decided before it ended."""


def orphans(daemon: Daemon) -> list[str]:
    """Processes of cells that no running daemon has: this process is their subreaper, so its children."""
    deadline = time.monotonic() + ORPHAN_SECONDS
    while True:
        own = children(os.getpid())
        found = []
        for pid in own:
            if pid == daemon.pid:
                continue
            found += [one for one in (pid, *descendants(pid)) if lives(one)]
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        if not found:
            return []
        if time.monotonic() > deadline:
            return [f"without a supervisor: {', '.join(map(_named, found))}"]
        time.sleep(0.01)


def _named(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            line = file.read().replace(b"\0", b" ").decode(errors="replace")
        with open(f"/proc/{pid}/stat") as file:
            state = file.read().rpartition(")")[2].split()[0]
    except OSError:
        return f"{pid} (gone by now)"
    return f"{pid} {state} {line[-60:]}"


def one_of_each(daemon: Daemon) -> list[str]:
    """A worker for each policy and one gateway, no more."""
    found = {kind: len(pids) for kind, pids in daemon.processes().items()}
    most = {"worker": 2, "launcher": 2, "gateway": 1, "gateway launcher": 1}
    return [f"{number} × {kind}" for kind, number in found.items() if number > most.get(kind, 1)]


def answers(daemon: Daemon, traffic: Traffic, revive: Callable[[], None]) -> list[str]:
    """The service comes back, once a person has said that it may, and answers at each door.

    revive: starts it where it has ended, as it may with all policies given up, also only now.
    """
    wrong = []
    for _time in range(STARTS):
        with contextlib.suppress(OSError, AnchorholdError):
            control.ask(daemon.runtime, "rearm")  # after so many crashes it may have given up, and rightly
        if daemon.wait_serving(BACK_SECONDS):
            break
        if daemon.runs():
            break
        revive()
    if not daemon.serves():
        return [
            f"it does not serve again: running {daemon.runs()}, {daemon.status()}, said {daemon.said()!r}"
        ]
    for door in daemon.doors:
        said = Said()
        for _try in range(3):  # a worker that a fault hit may still fall over at the first request
            said = ask(door, body(door, "Say hello.", 4, stream=False), timeout=30.0)
            traffic.keep(said)
            if said.whole:
                break
            daemon.wait_serving(BACK_SECONDS)
        else:
            wrong.append(f"{door.word} does not answer: {said.status} {said.error}; {daemon.status()}")
    return wrong


def log(daemon: Daemon, told: list[Said]) -> list[str]:
    """It verifies, and has everything that a client was told."""
    checked = verify(str(daemon.state))
    wrong = [] if checked.ok else [f"the log does not verify: {checked}"]
    starts: set[str] = set()
    ends: set[str] = set()
    grants: set[tuple[str, str, str]] = set()
    for one in entries(daemon.state):
        if one["kind"] == "request.start":
            starts.add(str(one["request"]))
        elif one["kind"] == "request.end":
            ends.add(str(one["request"]))
        elif one["kind"] == "grant" and one.get("class") == "data":
            grants.add((str(one["request"]), str(one["path"]), str(one["sha256"])))
    for said in told:
        if said.request and said.request not in starts:
            wrong.append(f"{said.request} was answered and its start is not in the log")
        if said.whole and said.request not in ends:
            wrong.append(f"{said.request} was acknowledged and its end is not in the log")
        for path, digest in said.shown:
            if (said.request, path, digest) not in grants:
                wrong.append(f"{path} was shown for {said.request} and its grant is not in the log")
    return wrong


def ended(daemon: Daemon) -> list[str]:
    """At the very end: requests without an end are of sessions whose supervisor died, without an end too."""
    asked, names = unended(daemon.state)
    over = Counter(str(one["session"]) for one in entries(daemon.state) if one["kind"] == "session.end")
    wrong = [
        f"{name} has not one end, but its session has" for name in sorted(names) if over[name.split("-")[0]]
    ]
    return wrong if asked else ["nothing was ever asked"]
