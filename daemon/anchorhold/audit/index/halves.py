"""The second half of a long log, put into an index by another process while the first one is.

Constraint: what the other process does not finish is done by the first: so an error shows where it would
without it. Its file lies beside the index, under a name that ``audit redact`` destroys as well
(`schema.NAME`), and is gone when the index is made.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sqlite3
import sys

from anchorhold.audit.index.schema import NAME, create, open_to_write
from anchorhold.audit.index.writer import Writer
from anchorhold.audit.tree import WIDTH

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from anchorhold.audit.read import Snapshot

PART = NAME + ".part"
ENOUGH = 100_000
"""Entries from which on a second process pays."""

_SMALL = {"sessions": "name", "sorts": "kind, class", "forms": "items", "models": "digest, path"}
"""Tables whose rows both halves can have, and what makes a row."""


def _id(table: str, column: str) -> str:
    """The id in the index of what has the id ``column`` in the part."""
    return f"(SELECT main_id FROM of_{table} WHERE part_id = {column})"


_ENTRIES = (
    f"INSERT INTO entries SELECT seq, time, mono, {_id('sessions', 'session')}, n, {_id('sorts', 'sort')}, "
    f"path + :shift, resolved + :shift, size, request, digest, rest, {_id('forms', 'form')} "
    "FROM part.entries ORDER BY seq"
)
_STARTS = (
    f"INSERT OR IGNORE INTO starts SELECT {_id('sessions', 'session')}, {_id('models', 'model')} "
    "FROM part.starts"
)


def middle(snapshot: Snapshot) -> int:
    """The number of the first entry of the second half: of one that begins a bundle. The log's size where the
    log is short, or there is only one processor."""
    half = snapshot.total // 2
    if snapshot.total >= ENOUGH and len(os.sched_getaffinity(0)) > 1 and _is_alone():
        for epoch in snapshot.epochs:
            if epoch.first <= half < epoch.first + epoch.size:
                return epoch.first + (half - epoch.first) // WIDTH * WIDTH
    return snapshot.total


def _is_alone() -> bool:
    """Whether this process has one thread: only such a one may fork and go on (fork(2))."""
    threading = sys.modules.get("threading")
    return threading is None or threading.active_count() == 1


class SecondHalf:
    """A process that puts all entries from ``first`` on into a file of its own. Within a ``with``: it and the
    file are gone afterwards."""

    def __init__(self, state: str, snapshot: Snapshot, first: int) -> None:
        """Starts it, where there is anything for it to do. Raises OSError, sqlite3.Error."""
        self._path = os.path.join(state, PART)
        self._pid = -1
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)  # what a crash left
        if first >= snapshot.total:
            return
        create(self._path).close()
        self._pid = os.fork()
        if self._pid == 0:
            _fill(self._path, snapshot, first)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pid > 0:
            os.kill(self._pid, signal.SIGKILL)  # our own child, and not waited for yet
            self._wait()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)

    def _wait(self) -> bool:
        _pid, status = os.waitpid(self._pid, 0)
        self._pid = -1
        return status == 0

    def join(self, base: sqlite3.Connection, shift: int) -> bool:
        """Put what it made behind what ``base`` has; False where there is nothing, and nothing was changed.

        ``shift``: what is added to the id of a path (`paths.PathWriter.end`). ``base`` has no transaction
        open. Raises sqlite3.Error.
        """
        if self._pid < 0 or not self._wait():
            return False
        base.execute("ATTACH ? AS part", (self._path,))
        base.execute("BEGIN")
        for table, columns in _SMALL.items():
            _map(base, table, columns)
        base.execute(_ENTRIES, {"shift": shift})
        base.execute("INSERT INTO paths SELECT first + ?, names FROM part.paths ORDER BY first", (shift,))
        base.execute("INSERT INTO odd SELECT seq FROM part.odd")
        base.execute(_STARTS)
        base.execute("COMMIT")
        base.execute("DETACH part")
        return True


def _map(base: sqlite3.Connection, table: str, columns: str) -> None:
    """Put in the rows of a small table that are not there yet; ``of_…`` has both ids of each."""
    query = f"SELECT id, {columns} FROM {{}}.{table} ORDER BY id"
    known = {tuple(told): number for number, *told in base.execute(query.format("main"))}
    pairs = []
    for number, *rest in base.execute(query.format("part")).fetchall():
        told = tuple(rest)
        if told not in known:
            known[told] = len(known) + 1
            marks = ", ".join("?" * (1 + len(told)))
            base.execute(f"INSERT INTO main.{table} VALUES ({marks})", (known[told], *told))
        pairs.append((number, known[told]))
    base.execute(f"CREATE TEMP TABLE of_{table} (part_id INTEGER PRIMARY KEY, main_id INTEGER NOT NULL)")
    base.executemany(f"INSERT INTO of_{table} VALUES (?, ?)", pairs)


def _fill(path: str, snapshot: Snapshot, first: int) -> None:
    """What the other process does; it does not come back."""
    status = 1
    try:
        gc.disable()
        base = open_to_write(path)
        for pragma in ("journal_mode = OFF", "synchronous = OFF", "locking_mode = EXCLUSIVE"):
            base.execute(f"PRAGMA {pragma}")
        base.execute("BEGIN")
        writer = Writer(base, first)
        for bundle in snapshot.bundles(first):
            writer.add(bundle)
        writer.flush()
        base.execute("COMMIT")
        base.close()
        status = 0
    finally:
        os._exit(status)
