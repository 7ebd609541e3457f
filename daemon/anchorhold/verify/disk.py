"""The log's small files and journals, as they were at one moment.

Constraint: a log may grow while it is verified. What changes is read at once, under the writers' lock if that
can be had, so that no half-done step is seen; the tree below the committed size does not change.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import time
from typing import Any

from anchorhold.verify.entries import EntryError, canonical, encode
from anchorhold.verify.files import JOURNAL, MOST, names_in, read, read_from

LOCK_WAIT = 2.0
"""Seconds to wait for a writer to finish. A stopped writer must not stop the verifier."""

KNOWN = frozenset({"vkey", "lock", "state", "journal", "torn"})
_JOURNAL = re.compile(r"[0-9a-f]{16}", re.ASCII)
_NUMBER = re.compile(r"0|[1-9][0-9]{0,8}", re.ASCII)


class StateError(Exception):
    """``state`` is not what anchorhold writes. The text says why."""


class Disk:
    """``state`` (raw), the ``checkpoint`` of each epoch, which ``epochs`` there are, ``journals`` with their
    content, names in ``torn``, and ``strange`` names that are none of the log's. Raises OSError."""

    def __init__(self, log: str) -> None:
        self.log = log
        self.journals: dict[str, tuple[int, bytes]] = {}
        self.unread: list[str] = []
        lock = self._take_lock()
        try:
            self.state = self.read("state")
            names = names_in(log)
            self.epochs = sorted(int(name) for name in names if _NUMBER.fullmatch(name))
            self.checkpoints = {number: self.read(f"{number}/checkpoint") for number in self.epochs}
            self._read_journals()
            self.torn = self._list("torn")
        finally:
            if lock >= 0:
                os.close(lock)
        self.strange = sorted(
            [name for name in names if name not in KNOWN and not _NUMBER.fullmatch(name)]
            + [f"journal/{name}" for name in self.journals if not _JOURNAL.fullmatch(name)]
        )
        self.journals = {name: data for name, data in self.journals.items() if _JOURNAL.fullmatch(name)}

    def read(self, name: str) -> bytes | None:
        """A whole file; None if there is none."""
        return read(os.path.join(self.log, name), MOST)

    def outdated(self) -> bool:
        """Whether the log has gone on since: what is found missing can be what a writer, a redaction or a
        prune takes away."""
        return self.read("state") != self.state

    def _read_journals(self) -> None:
        """Each from where the tree has it on, and all together no more than `JOURNAL` bytes: ``journals`` has
        size and bytes, ``unread`` those of which that is not all."""
        try:
            known = State(self.state or b"").journals
        except StateError:
            known = {}
        left = JOURNAL
        for name in self._list("journal"):
            size, data = read_from(os.path.join(self.log, "journal", name), known.get(name, 0), left)
            left -= len(data)
            self.journals[name] = size, data
            if known.get(name, 0) + len(data) < size:
                self.unread.append(name)

    def _list(self, name: str) -> list[str]:
        return names_in(os.path.join(self.log, name))

    def _take_lock(self) -> int:
        try:
            # as in `files`: a named pipe would be waited for without end
            fd = os.open(os.path.join(self.log, "lock"), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:
            return -1  # a copy, or not ours to lock: then it does not grow, or a half-done step may be seen
        end = time.monotonic() + LOCK_WAIT
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
                return fd
            except OSError:
                if time.monotonic() > end:
                    return fd
                time.sleep(0.002)


class State:
    """``state``, read strictly. Raises StateError."""

    def __init__(self, data: bytes) -> None:
        try:
            content: Any = canonical(data.removesuffix(b"\n"))
        except EntryError as error:
            raise StateError(str(error)) from None
        names = ["v", "epoch", "first", "size", "signed", "ended", "journals", "sum"]
        if (
            not data.endswith(b"\n")
            or not isinstance(content, dict)
            or list(content) != names
            or content["v"] != 2
        ):
            raise StateError("its members are not those of a state")
        told = content.pop("sum")
        if told != hashlib.sha256(encode(content).encode()).hexdigest():
            raise StateError("its sum is not right")
        self.epoch: int = content["epoch"]
        self.first: int = content["first"]
        self.size: int = content["size"]
        self.signed: int = content["signed"]
        self.ended: bool = content["ended"]
        self.journals: dict[str, int] = content["journals"]
        if not isinstance(self.journals, dict) or not all(map(_JOURNAL.fullmatch, self.journals)):
            raise StateError("its journals are malformed")
        for number in (self.epoch, self.first, self.size, self.signed, *self.journals.values()):
            if type(number) is not int or not 0 <= number < 1 << 62:
                raise StateError("a number in it is malformed")
        if type(self.ended) is not bool:
            raise StateError("its member ended is malformed")
