"""Looks at the processes of a cell from outside."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

PF_EXITING = 0x4


def children(pid: int) -> list[int]:
    """Processes that this one started and that are still there."""
    found: list[int] = []
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
    except OSError:  # it ended just now
        return []
    for task in tasks:
        try:
            found += map(int, (task / "children").read_text().split())
        except OSError:
            continue
    return found


def descendants(pid: int) -> list[int]:
    """Every process below this one now."""
    found: list[int] = []
    waiting = [pid]
    while waiting:
        below = children(waiting.pop())
        found += below
        waiting += below
    return found


def fields(process: Path) -> list[str]:
    """What its stat says after the name: state, parent, group, session, …; empty if it is gone."""
    try:
        return (process / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def lives(pid: int) -> bool:
    """Whether any thread of it can still run a line of its program.

    A zombie waits for its parent to read how it ended; before that the kernel itself takes the process
    apart (PF_EXITING, linux/sched.h), which takes its time where namespaces go down with it. One that has
    SIGKILL waiting never comes back to its program either: on a busy machine it only waits for a processor.
    """
    for thread in Path(f"/proc/{pid}/task").glob("*"):
        found = fields(thread)
        if found and found[0] not in "ZX" and not int(found[6]) & PF_EXITING and not is_killed(thread):
            return True
    return False


def is_killed(thread: Path) -> bool:
    """Whether SIGKILL is pending (proc_pid_status(5), SigPnd and ShdPnd)."""
    try:
        words = (thread / "status").read_text().split()
    except OSError:
        return True
    pending = int(words[words.index("SigPnd:") + 1], 16) | int(words[words.index("ShdPnd:") + 1], 16)
    return bool(pending >> (signal.SIGKILL - 1) & 1)


def members(sessions: set[int]) -> list[int]:
    """Living processes of these sessions (setsid): each launcher has one, and all of its cell stays in it.

    So a process that was made after one looked at the children is found as well.
    """
    everyone = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    found = {pid: fields(Path(f"/proc/{pid}")) for pid in everyone}
    return [pid for pid, words in found.items() if words and int(words[3]) in sessions and lives(pid)]


def wait_until(reached: Callable[[], object], seconds: float = 20.0, pause: float = 0.002) -> None:
    """Fails the test if it is not reached in time."""
    deadline = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < deadline, "it was never reached"
        time.sleep(pause)
