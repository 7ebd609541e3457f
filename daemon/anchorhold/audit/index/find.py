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
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import Any

    Entry = dict[str, Any]

FEW = 2_048
"""New entries that are read from the log rather than put into the index."""

_DAMAGE = (sqlite3.Error, ValueError, LookupError, TypeError, OverflowError, RecursionError)
"""What a damaged index can give."""


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
            for seq, entry in rows.found(wanted, enough=limit):
                following = seq + 1
                yield entry
            following = rows.size
        except _DAMAGE as error:
            _discard(state_dir, error, note)
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
            newest.extendleft(entry for _, entry in older)
            return newest
        except _DAMAGE as error:
            _discard(state_dir, error, note)
            wanted.sessions = None
        finally:
            rows.close()
    return deque(scan(state_dir, wanted), last)


def _name_sessions(state_dir: Path, wanted: Filter, rows: Rows) -> None:
    """Which sessions ran the model: those the index knows, and new ones."""
    if wanted.model is None:
        return
    ran = wanted.model_test()
    newer = entries(state_dir, kinds=("session.start",), first=rows.size)
    wanted.sessions = rows.sessions_with(ran) | {
        str(entry.get("session", "")) for entry in newer if ran(model_of(entry))
    }


def _usable(state_dir: Path, note: Callable[[str], None]) -> Rows | None:
    """An index that may be used; it is brought up to date first where much is missing. AuditError."""
    log = log_folder(state_dir)
    try:
        snapshot = Snapshot(log)
    except OSError:
        return None  # reading the log will say it better
    try:
        rows = _open(state_dir, snapshot)
    except (Unusable, OSError):
        rows = None
    except _DAMAGE as error:
        if is_damage(error):
            _discard(state_dir, error, note)
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
    base = open_to_read(path)
    try:
        rows = Rows(base, snapshot)
        if is_sealed(path, rows.sealed):
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


def _discard(state_dir: Path, error: Exception, note: Callable[[str], None]) -> None:
    note(f"the index is damaged and thrown away ({error}); reading the log")
    try:
        os.unlink(os.path.join(state_dir, NAME))
    except OSError:
        return
