"""Makes the index from the log, whole or what is new.

Constraint: one process at a time (`Only`); a whole new index is made beside the old one and renamed, and
nothing that `audit redact` erased can come back by that (`rebuild`).
"""

from __future__ import annotations

import fcntl
import gc
import os
import sqlite3
from itertools import takewhile

from anchorhold.audit.files import fsync_path
from anchorhold.audit.index.halves import SecondHalf, middle
from anchorhold.audit.index.origin import forgets, is_current
from anchorhold.audit.index.schema import (
    CLEAN,
    DIRTY,
    INDEXES,
    NAME,
    NEW,
    Unusable,
    create,
    is_damage,
    is_sealed,
    open_to_write,
    seal,
    seal_time,
)  # fmt: skip
from anchorhold.audit.index.writer import Writer
from anchorhold.audit.read import Snapshot, log_folder
from anchorhold.audit.tree import WIDTH

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType


AGAIN = 3
"""Times that a new one is made where each is taken away meanwhile."""


class _TakenAway(Exception):
    """A redaction or pruning removed the file that was being made: what was read is not to come back."""


class Only:
    """Held by the one process that changes the index: a lock on the state directory itself."""

    def __init__(self, state_dir: str) -> None:
        self._path, self._fd = state_dir, -1

    def __enter__(self) -> bool:
        """Whether it was to be had."""
        try:
            self._fd = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._fd >= 0:
            os.close(self._fd)


def rebuild(state_dir: str | os.PathLike[str]) -> int:
    """Make the index anew; returns how many entries the log has. Raises AuditError, OSError, sqlite3.Error,
    Unusable if another process is at it.

    The file is there before the log is read: a redaction that erases what was read just before removes the
    file too, and renaming it fails then.
    """
    state = os.path.abspath(state_dir)
    log = log_folder(state)
    with Only(state) as only:
        if not only:
            raise Unusable("another process makes it")
        return _rebuild(state, log)


def _rebuild(state: str, log: str) -> int:
    for _ in range(AGAIN):
        try:
            return _made(state, log)
        except _TakenAway:
            continue
    raise Unusable("the log is redacted or pruned just now")


def _made(state: str, log: str) -> int:
    if os.stat(state).st_uid != os.geteuid():
        raise Unusable("the log is another user's")  # who could not replace a file of ours
    new = _cleared(state)
    base = create(new)
    collecting = gc.isenabled()
    gc.disable()  # a million rows, and no cycles
    try:
        try:
            snapshot = Snapshot(log)
            sealed = seal_time()
            _fill(base, state, snapshot, sealed)
            base.executescript(INDEXES)
            base.execute(f"PRAGMA user_version = {CLEAN}")
        finally:
            base.close()
        seal(new, sealed)
        fsync_path(new)  # or a power loss could leave one that says it is whole
        os.rename(new, os.path.join(state, NAME))
    except BaseException as error:
        if os.path.lexists(new):
            os.unlink(new)
        elif isinstance(error, (FileNotFoundError, sqlite3.Error)):
            raise _TakenAway from error
        raise
    finally:
        if collecting:
            gc.enable()
    return snapshot.total


def _fill(base: sqlite3.Connection, state: str, snapshot: Snapshot, sealed: int) -> None:
    """Put all entries in, the second half by another process where that pays."""
    split = middle(snapshot)
    with SecondHalf(state, snapshot, split) as second:
        writer = Writer(base)
        base.execute("BEGIN")
        for bundle in takewhile(lambda bundle: bundle.first < split, snapshot.bundles()):
            writer.add(bundle)
        writer.flush()
        base.execute("COMMIT")
        joined = second.join(base, writer.end)
    base.execute("BEGIN")
    for bundle in snapshot.bundles(snapshot.total if joined else split):
        writer.add(bundle)
    writer.finish(snapshot, sealed)
    base.execute("COMMIT")


def _cleared(state: str) -> str:
    """Where a new one is made, without what a crash left there."""
    new = os.path.join(state, NEW)
    if os.path.lexists(new):
        os.unlink(new)
    return new


def update(state_dir: str | os.PathLike[str]) -> int:
    """Bring the index up to date: what is new, or the whole of it where that is less work or has to be.

    Raises as `rebuild`.
    """
    state = os.path.abspath(state_dir)
    log = log_folder(state)
    with Only(state) as only:
        if not only:
            raise Unusable("another process makes it")
        _cleared(state)
        path = os.path.join(state, NAME)
        try:
            base = open_to_write(path)
        except sqlite3.Error:
            return _rebuild(state, log)
        try:
            size = _append(base, path, log)
        except sqlite3.Error as error:
            if not is_damage(error) and os.path.lexists(path):  # a long reader, no space: it is as it was
                raise
            size = None
        except FileNotFoundError:
            if os.path.lexists(path):
                raise
            size = None  # a redaction or pruning took it away
        finally:
            base.close()
        return _rebuild(state, log) if size is None else size


def _append(base: sqlite3.Connection, path: str, log: str) -> int | None:
    """Add what is new; None where it has to be made anew."""
    (version,) = base.execute("PRAGMA user_version").fetchone()
    if version != CLEAN:
        return None
    snapshot = Snapshot(log)
    meta = dict(base.execute("SELECT key, value FROM meta"))
    size, sealed = meta.get("size"), meta.get("sealed")
    if not isinstance(sealed, int) or not is_sealed(path, sealed):
        return None
    if not is_current(meta, snapshot) or not isinstance(size, int) or snapshot.total > 2 * size + WIDTH:
        return None
    base.execute("PRAGMA synchronous = FULL")
    base.execute(f"PRAGMA user_version = {DIRTY}")
    then = seal_time()
    try:
        base.execute("BEGIN IMMEDIATE")
        writer = Writer(base, size)
        for bundle in snapshot.bundles(size):
            if any(forgets(data) for data in bundle.entries[max(0, size - bundle.first) :]):
                return None  # it stays dirty
            writer.add(bundle)
        writer.finish(snapshot, then)
        base.execute("COMMIT")
    except BaseException:
        if base.in_transaction:
            base.execute("ROLLBACK")
            base.execute(f"PRAGMA user_version = {CLEAN}")
            seal(path, sealed)
        raise
    base.execute(f"PRAGMA user_version = {CLEAN}")
    seal(path, then)
    return snapshot.total
