"""Holds a worker that asks again and again on one processor with the thread that answers it.

A question that wakes a sleeping processor costs several times what answering it does: first that of the
supervisor, then, when a descriptor is put into the worker, that of the worker and once more ours. While
questions follow each other closely only one of the two runs at any time, so one processor serves both;
when they stop, both may run where they like again, with every thread that began meanwhile.
Source: sched_setaffinity(2), seccomp_unotify(2).
"""

from __future__ import annotations

import contextlib
import os
import time

from anchorhold.kernel import libc, syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

CLOSE = 0.001
"""Seconds between two questions of one thread that follow each other closely."""
ROW = 16
"""So many in a row, and the two are held together."""
QUIET = 0.003
"""Seconds without a question after which they are let go."""


class Together:
    """For one worker. Only ever a matter of speed: what the kernel refuses is left as it is."""

    def __init__(self, worker: int, processors: Iterable[int]) -> None:
        """worker: its process id as it is seen here. processors: where it may run otherwise."""
        self.worker = worker
        self.theirs = frozenset(processors)
        self.ours = frozenset(os.sched_getaffinity(0))
        self.held = False
        self.possible = len(self.theirs & self.ours) > 1
        self._thread = -1
        self._last = 0.0
        self._row = 0

    def asked(self, thread: int) -> None:
        """A question of this thread has been answered. Called by the thread that answers."""
        now = time.monotonic()
        if thread == self._thread and now - self._last < CLOSE:
            self._row += 1
            if self._row >= ROW and not self.held and self.possible:
                self._hold(thread)
        else:
            self._thread, self._row = thread, 0
        self._last = now

    def wait(self) -> float | None:
        """Seconds until they are to be let go if nothing is asked; None if nothing is held."""
        return max(0.0, self._last + QUIET - time.monotonic()) if self.held else None

    def _hold(self, thread: int) -> None:
        here = libc.buffer(4)
        libc.raw_syscall(syscalls.NR["getcpu"], here, None, None)
        processor = int.from_bytes(here.raw, "little")
        if processor not in self.theirs:
            processor = min(self.theirs & self.ours)
        try:
            # What cannot be listed could not be let go again; a number that is gone may be another's by now.
            if str(thread) not in os.listdir(f"/proc/{self.worker}/task"):
                self._row = 0
                return
            os.sched_setaffinity(thread, {processor})
            self.held = True
            os.sched_setaffinity(0, {processor})
        except OSError:
            self.possible = False
            self.release()

    def release(self) -> None:
        """Every thread of the worker may run where it might before, and so may ours."""
        if not self.held:
            return
        self.held = False
        self._row = 0
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, self.ours)
        with contextlib.suppress(OSError):
            for _twice in range(2):  # a thread may be born of one that was still held while they were listed
                for thread in os.listdir(f"/proc/{self.worker}/task"):
                    with contextlib.suppress(OSError):  # it has ended meanwhile
                        os.sched_setaffinity(int(thread), self.theirs)
