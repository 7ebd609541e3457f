"""The log's files, as far as the log reached when reading began.

Constraint: a log may grow while it is verified. Where it ends is found once, under the writers' lock if that
can be had, so that no half-written record is seen; nothing beyond it is looked at.
"""

from __future__ import annotations

import fcntl
import os
import time

from anchorhold.verify.merkle import WIDTH, listing

LOCK_WAIT = 2.0
"""Seconds to wait for a writer to finish its entry. A stopped writer must not stop the verifier."""

KNOWN = frozenset({"checkpoint", "key", "vkey", "lock", "writers", "tail", "tile", "torn"})


class Disk:
    """A snapshot: ``checkpoint``, ``tail``, which ``tiles`` are stored, how many full ``bundles``.

    ``strange`` are names that are none of the log's. Raises OSError.
    """

    def __init__(self, log: str) -> None:
        self.log = log
        lock = self._take_lock()
        try:
            self.checkpoint = self.read("checkpoint")
            self.tiles, strange = listing(log)
            self.tail = self.read("tail") or b""
        finally:
            if lock >= 0:
                os.close(lock)
        entries = self.tiles.get("entries", {})
        self.bundles = 1 + max((number for number, widths in entries.items() if WIDTH in widths), default=-1)
        others = [name for name in os.listdir(log) if name not in KNOWN and not name.startswith(".tmp-")]
        self.strange = sorted(strange + others)

    def read(self, name: str) -> bytes | None:
        """A whole file; None if there is none."""
        try:
            with open(os.path.join(self.log, name), "rb") as file:
                return file.read()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def _take_lock(self) -> int:
        try:
            fd = os.open(os.path.join(self.log, "lock"), os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return -1  # a copy, or not ours to lock: then it does not grow, or a torn end may be seen
        end = time.monotonic() + LOCK_WAIT
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
                return fd
            except OSError:
                if time.monotonic() > end:
                    return fd
                time.sleep(0.002)
