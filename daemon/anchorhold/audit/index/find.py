"""Answers a question to the log, by the index where that can be had, else by reading the log.

Constraint: the same answers either way, in the same order. The index stands for the first entries of the
log; what is newer, and what is in journals still, is read from the log. An index that turns out to be damaged
in the middle of an answer is left, and the answer goes on from the log.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections import deque
from itertools import islice

from anchorhold.audit.index.filters import Filter, model_of, scan
from anchorhold.audit.index.schema import Unusable, open_to_read, path_of
from anchorhold.audit.query import entries
from anchorhold.audit.read import Snapshot, log_folder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import Any

    from anchorhold.audit.index.rows import Index

    Entry = dict[str, Any]

WORTH = 2_000
"""A log with fewer entries is read itself."""

BEHIND = 1_000
"""The index is brought up to date when it lacks more entries than this; until then they are read."""

_NOT_NOW = frozenset({
    sqlite3.SQLITE_PERM, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_READONLY, sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN,
})  # fmt: skip

DAMAGE = (sqlite3.Error, ValueError, KeyError, IndexError, TypeError, OverflowError)
"""What reading an index that is not what was written can raise."""


def find(
    state_dir: Path,
    wanted: Filter,
    *,
    last: int | None = None,
    limit: int | None = None,
    say: Callable[[str], object] = str,
) -> Iterator[Entry]:
    """The entries that match, oldest first: all, the first ``limit``, or the ``last`` so many of them.

    ``say`` is told, in a line, of an index that was damaged. Raises AuditError.
    """
    index = ready(state_dir, say)
    if last is not None:
        found: Iterator[Entry] = iter(_last(state_dir, wanted, index, last, say))
    elif index is None:
        found = scan(state_dir, wanted)
    else:
        found = _through(state_dir, wanted, index, say)
    return islice(found, limit)


def _through(state_dir: Path, wanted: Filter, index: Index, say: Callable[[str], object]) -> Iterator[Entry]:
    following = 0
    try:
        with index:
            _name_sessions(state_dir, wanted, index)
            for entry in index.entries(wanted):
                yield entry
                following = int(entry["seq"]) + 1
        following = index.size
    except DAMAGE as error:
        _leave(state_dir, error, say)
        wanted.sessions = None
    yield from scan(state_dir, wanted, following)


def _last(
    state_dir: Path, wanted: Filter, index: Index | None, count: int, say: Callable[[str], object]
) -> list[Entry]:
    if index is not None:
        try:
            with index:
                _name_sessions(state_dir, wanted, index)
                newer = deque(scan(state_dir, wanted, index.size), count)
                older = list(islice(index.entries(wanted, newest=True), count - len(newer)))
            return older[::-1] + list(newer)
        except DAMAGE as error:
            _leave(state_dir, error, say)
            wanted.sessions = None
    return list(deque(scan(state_dir, wanted), count))


def _name_sessions(state_dir: Path, wanted: Filter, index: Index) -> None:
    """Which sessions ran the model that is asked for: what the index knows, and what is newer."""
    if wanted.model is not None:
        ran = wanted.model_test()
        newer = (
            str(entry.get("session", ""))
            for entry in entries(state_dir, kinds=("session.start",), first=index.size)
            if ran(model_of(entry))
        )
        wanted.sessions = frozenset(index.sessions_of(ran)).union(newer)


def ready(state_dir: Path, say: Callable[[str], object] = str) -> Index | None:
    """The index of the log as it is, made or brought up to date if it can be; None where there is none."""
    from anchorhold.audit.index.rows import Index

    snapshot = Snapshot(log_folder(state_dir))
    if snapshot.total < WORTH:
        return None
    path = path_of(state_dir)
    index = None
    try:
        index = Index(state_dir, open_to_read(path), snapshot)
        if snapshot.total - index.size <= BEHIND:
            return index
        index.close()
    except Unusable:
        pass
    except DAMAGE as error:
        if not _leave(state_dir, error, say):
            return None
    if not _renew(state_dir, anew=index is None):
        say("the index cannot be written: the log itself is read")
    try:
        return Index(state_dir, open_to_read(path), snapshot)
    except (*DAMAGE, Unusable):
        return None


def _renew(state_dir: Path, *, anew: bool) -> bool:
    """Make the index or bring it up to date; False where that cannot be done (by this user, now)."""
    from anchorhold.audit.index import build

    try:
        if anew:
            build.rebuild(state_dir)
        else:
            build.update(state_dir)
    except Unusable:  # another process is at it
        return True
    except (OSError, sqlite3.Error, OverflowError):
        return False
    return True


def _leave(state_dir: Path, error: Exception, say: Callable[[str], object]) -> bool:
    """Throw the index away if it is not what was written; False if it only cannot be used now."""
    if isinstance(error, sqlite3.Error) and getattr(error, "sqlite_errorcode", 0) & 0xFF in _NOT_NOW:
        return False
    say("the index of the log is damaged: it is made anew from the log")
    with contextlib.suppress(OSError):
        os.unlink(path_of(state_dir))
    return True
