"""Finds the entries that match: by the index as far as it goes, in the log from there on, or all in the log.

Constraint: the same entries in the same order either way. So the index only proposes (`Rows`), `Filter`
decides; what came after the index was made, and what is in journals, is always read from the log; and
whatever is wrong with the index, reading goes on in the log behind the last entry that was given.
"""

from __future__ import annotations

import os
import sqlite3
from collections import deque
from itertools import islice

from anchorhold.audit.index.filters import Filter, model_of, scan
from anchorhold.audit.index.origin import forgets
from anchorhold.audit.index.rows import Rows
from anchorhold.audit.index.schema import NAME, Unusable, is_damage, is_sealed, open_to_read, path_of
from anchorhold.audit.query import entries
from anchorhold.audit.read import Snapshot, log_folder
from anchorhold.errors import AuditError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path
    from typing import Any

    Entry = dict[str, Any]

FEW = 2_048
"""New entries that are read from the log rather than put into the index."""

_DAMAGE = (sqlite3.Error, ValueError, LookupError, TypeError, OverflowError, RecursionError)
"""What a damaged index can give."""


Place = tuple[int, int]
"""A file's device and inode: another file has others as long as this one is open."""

_TOGETHER = 256
"""Entries, at most, that are held back until it is known that the index was in its place meanwhile."""


class _TakenAway(LookupError):
    """The index has lost its name: what is read of it from then on can be overwritten."""


def _silent(text: str) -> None:
    return


def find(
    state_dir: Path,
    wanted: Filter,
    *,
    limit: int | None = None,
    last: int | None = None,
    note: Callable[[str], None] = _silent,
) -> Iterator[Entry]:
    """The entries that match, oldest first; of them the first ``limit`` or the ``last``.

    ``note`` is told in one line where the index was damaged. Raises AuditError as `entries` does.
    """
    if last is not None:
        yield from _last(state_dir, wanted, last, note)
    else:
        yield from islice(_all(state_dir, wanted, limit, note), limit)


def _all(state_dir: Path, wanted: Filter, limit: int | None, note: Callable[[str], None]) -> Iterator[Entry]:
    following = 0
    rows = _usable(state_dir, note)
    if rows is not None:
        try:
            _name_sessions(state_dir, wanted, rows)
            for seq, entry in _sure(state_dir, rows, rows.found(wanted, enough=limit)):
                following = seq + 1
                yield entry
            following = rows.size
        except _DAMAGE as error:
            _discard(state_dir, error, note, rows.place)
            wanted.sessions = None
        finally:
            rows.close()
    yield from scan(state_dir, wanted, following)


def _last(state_dir: Path, wanted: Filter, last: int, note: Callable[[str], None]) -> deque[Entry]:
    rows = _usable(state_dir, note)
    if rows is not None:
        try:
            _name_sessions(state_dir, wanted, rows)
            newest = deque(scan(state_dir, wanted, rows.size), last)
            older = islice(rows.found(wanted, backwards=True, enough=last), last - len(newest))
            newest.extendleft(entry for _, entry in list(_sure(state_dir, rows, older)))
            return newest
        except _DAMAGE as error:
            _discard(state_dir, error, note, rows.place)
            wanted.sessions = None
        finally:
            rows.close()
    return deque(scan(state_dir, wanted), last)


def _sure(state_dir: Path, rows: Rows, found: Iterable[tuple[int, Entry]]) -> Iterator[tuple[int, Entry]]:
    """What the index gave, some at a time, once it is known that nobody took the file away before. Raises
    `_TakenAway`.

    A redaction takes away the file's name and then overwrites what it holds, which SQLite notices only where
    a page makes no sense: rows could be wrong, or missing.
    """
    found, many = iter(found), 1
    while some := list(islice(found, many)):
        _check_in_place(state_dir, rows)
        yield from some
        many = min(2 * many, _TOGETHER)
    _check_in_place(state_dir, rows)


def _check_in_place(state_dir: Path, rows: Rows) -> None:
    if _place(path_of(state_dir)) != rows.place:
        raise _TakenAway("a redaction or pruning removed it")


def _place(path: str) -> Place | None:
    """Which file has this name; None where there is none, or it cannot be seen."""
    try:
        status = os.stat(path, follow_symlinks=False)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _name_sessions(state_dir: Path, wanted: Filter, rows: Rows) -> None:
    """Which sessions ran the model: those the index knows, and new ones."""
    if wanted.model is None:
        return
    ran = wanted.model_test()
    newer = entries(state_dir, kinds=("session.start",), first=rows.size)
    known = rows.sessions_with(ran)
    _check_in_place(state_dir, rows)
    wanted.sessions = known | {str(entry.get("session", "")) for entry in newer if ran(model_of(entry))}


def _usable(state_dir: Path, note: Callable[[str], None]) -> Rows | None:
    """An index that may be used; it is brought up to date first where much is missing. AuditError."""
    log = log_folder(state_dir)
    try:
        snapshot = Snapshot(log)
    except OSError:
        return None  # reading the log will say it better
    place = _place(path_of(state_dir))
    try:
        rows = _open(state_dir, snapshot)
    except (Unusable, OSError):
        rows = None
    except _DAMAGE as error:
        if is_damage(error):
            _discard(state_dir, error, note, place)
        rows = None
    if rows is not None:
        if snapshot.total - rows.size <= FEW and not _forgotten(snapshot, rows.size):
            return rows
        stale = _forgotten(snapshot, rows.size)
    elif snapshot.total <= FEW:
        return None
    try:
        if rows is not None:
            rows.close()
        _update(state_dir)
        return _open(state_dir, Snapshot(log))
    except AuditError:
        return None
    except (Unusable, OSError, *_DAMAGE):
        if rows is None or stale:
            return None
    try:
        return _open(state_dir, snapshot)
    except (Unusable, OSError, *_DAMAGE):
        return None


def _update(state_dir: Path) -> None:
    from anchorhold.audit.index.build import update  # most answers need no change

    update(state_dir)


def _open(state_dir: Path, snapshot: Snapshot) -> Rows:
    """An index that nothing else wrote to. Raises Unusable, OSError, sqlite3.Error."""
    rows = _opened(state_dir, snapshot)
    if rows is None:
        from anchorhold.audit.index.build import Only

        with Only(
            os.path.abspath(state_dir)
        ) as only:  # a change ends with the seal, and a new one is renamed
            rows = _opened(state_dir, snapshot) if only else None
            if rows is None:
                raise sqlite3.DatabaseError("something wrote to it") if only else Unusable("it changes")
    return rows


def _opened(state_dir: Path, snapshot: Snapshot) -> Rows | None:
    """None if it does not bear the time of its last change."""
    path = path_of(state_dir)
    place = _place(path)
    base = open_to_read(path)
    try:
        rows = Rows(base, snapshot, place)
        sealed = is_sealed(path, rows.sealed)
        if _place(path) != place:  # what was opened, and what was looked at, can be two files
            raise Unusable("another one came in its place")
        if sealed:
            return rows
    except BaseException:
        base.close()
        raise
    base.close()
    return None


def _forgotten(snapshot: Snapshot, first: int) -> bool:
    return any(
        forgets(data)
        for bundle in snapshot.bundles(first)
        for data in bundle.entries[max(0, first - bundle.first) :]
    )


def _discard(state_dir: Path, error: Exception, note: Callable[[str], None], place: Place | None) -> None:
    """Throw a damaged index away. ``place``: which file it is. One that was taken away meanwhile was
    overwritten and is not damaged, and one that came since is another."""
    if place is None or _place(path_of(state_dir)) != place:
        return
    note(f"the index is damaged and thrown away ({error}); reading the log")
    try:
        os.unlink(os.path.join(state_dir, NAME))
    except OSError:
        return
