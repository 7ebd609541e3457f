"""Makes the index from the log, whole or what is new.

Constraint: 100,000 entries a second, so the entry that there are most of, a grant, is taken apart by one
expression; all others go the way that a reader goes. One process at a time (`Only`); a whole new index is
made beside the old one and renamed, and nothing that `audit redact` erased can come back by that (`rebuild`).
"""

from __future__ import annotations

import fcntl
import gc
import os
import re
import sqlite3
from binascii import unhexlify
from hashlib import sha256

from anchorhold.audit.files import fsync_path, read_file
from anchorhold.audit.index.filters import model_of
from anchorhold.audit.index.forms import form_of, is_number
from anchorhold.audit.index.paths import PathWriter
from anchorhold.audit.index.schema import (
    BLOCK,
    CLEAN,
    DIRTY,
    INDEXES,
    NAME,
    NEW,
    Unusable,
    create,
    encoded,
    is_damage,
    microseconds,
    open_to_write,
)  # fmt: skip
from anchorhold.audit.query import PATH_FIELDS, flat
from anchorhold.audit.read import Bundle, Epoch, Snapshot, log_folder, read_raw
from anchorhold.audit.tree import WIDTH, split_entries

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any

    Entry = dict[str, Any]

_BATCH = 10_000
_FREE = 1 << 20
_SHARE = 64
"""Forms may take this many bytes, and so many more for each entry. What has no form is read from the log."""

_LONGEST_FORM = 4_000

_GRANT = re.compile(
    rb'\{"v":2,"seq":(0|[1-9][0-9]{0,17}),"time":"(.{19}\.[0-9]{6}Z)","mono":(0|[1-9][0-9]{0,17}),'
    rb'"session":"([0-9a-f]{16})","n":(0|[1-9][0-9]{0,17}),"kind":"grant","class":"([a-z]{1,20})",'
    rb'"size":(0|[1-9][0-9]{0,17}),("mode":"[a-z]{1,20}","phase":"[a-z]{1,20}")'
    rb'(?:,"request":(0|[1-9][0-9]{0,17}))?,"names":"[^"]{44}","digests":"[^"]{44}"\}'
)
_OPENING = re.compile(
    rb'\x03(..).{16}\{"path":"([ !#-\[\]-\x7f]*)","resolved":"(?:\2|([ !#-\[\]-\x7f]*))"\}'
    rb'\x00\x5d.{16}\{"sha256":"([0-9a-f]{64})"\}',
    re.DOTALL,
)
_AROUND = 1 + 2 + 2 + 93
"""Bytes of such openings beside the first one: mask, two lengths, the second one."""

_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)
_BLOCKS = (
    f"INSERT OR REPLACE INTO blocks SELECT seq / {BLOCK}, min(time), max(time) FROM entries "
    f"WHERE seq >= ? GROUP BY seq / {BLOCK}"
)
_INSERT = f"INSERT INTO entries VALUES ({','.join('?' * 13)})"


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


def anchor(snapshot: Snapshot, size: int) -> str:
    """A digest of entry ``size - 1`` as it stands in the tree: another log, or another past, has another."""
    if size == 0:
        return ""
    state = snapshot.state
    if state.first < size <= state.total:  # as nearly always; the other epochs need not be looked at
        epoch = Epoch(snapshot.log, state.epoch, state.first, state.size)
        number, at = divmod(size - 1 - epoch.first, WIDTH)
        return sha256(split_entries(read_raw(epoch, number))[at]).hexdigest()
    bundle = snapshot.one(size - 1)
    return "" if bundle is None else sha256(bundle.entries[size - 1 - bundle.first]).hexdigest()


def token(log: str) -> str:
    """What tells this log from another one."""
    return (read_file(os.path.join(log, "vkey")) or b"").decode("ascii", "replace").strip()


def pruned(snapshot: Snapshot) -> int:
    return sum(epoch.pruned for epoch in snapshot.epochs)


class Writer:
    """Puts entries into an index. `finish` must follow."""

    def __init__(self, base: sqlite3.Connection, first: int = 0) -> None:
        """``first``: the number of the first new entry."""
        self._base = base
        self._first = first
        self._paths = PathWriter(base)
        self._ids = self._paths.ids
        self._rows: list[tuple[Any, ...]] = []
        self._odd: list[tuple[int]] = []
        self._sessions = {name: one for one, name in base.execute("SELECT id, name FROM sessions")}
        self._sorts = {(kind, cls): one for one, kind, cls in base.execute("SELECT * FROM sorts")}
        self._forms = {items: one for one, items in base.execute("SELECT id, items FROM forms")}
        self._models = {(digest, path): one for one, digest, path in base.execute("SELECT * FROM models")}
        self._grants: dict[tuple[bytes, bytes, bool, int], tuple[int, int | None]] = {}
        self._seconds: dict[bytes, int] = {}
        self._used = sum(map(len, self._forms))
        (self._allowed,) = base.execute("SELECT count(*) FROM entries").fetchone()
        self._allowed = self._allowed * _SHARE + _FREE

    def add(self, bundle: Bundle) -> None:
        first = self._first
        self._allowed += _SHARE * len(bundle.entries)
        if bundle.openings is None:
            for seq, data in enumerate(bundle.entries, bundle.first):
                if seq >= first:
                    self._any(seq, flat(bundle.epoch, seq, data, None))
        else:
            for seq, data, opening in zip(
                range(bundle.first, bundle.first + len(bundle.entries)),
                bundle.entries, bundle.openings, strict=True,
            ):  # fmt: skip
                if seq >= first and not self._grant(bundle.epoch, seq, data, opening):
                    self._any(seq, flat(bundle.epoch, seq, data, opening))
        if len(self._rows) >= _BATCH:
            self._flush()

    def _grant(self, epoch: int, seq: int, data: bytes, opening: bytes) -> bool:
        """Take in a grant as the broker writes it; False if it is anything else."""
        shown, hidden = _GRANT.fullmatch(data), _OPENING.fullmatch(opening)
        if shown is None or hidden is None:
            return False
        number, stamp, mono, name, n, cls, size, how, request = shown.groups()
        length, path, resolved, digest = hidden.groups()
        second = self._seconds.get(stamp[:19])
        if second is None:
            second = self._second(stamp)
        if int(number) != seq or second is None or length[0] << 8 | length[1] != len(opening) - _AROUND:
            return False
        known = self._grants.get((cls, how, request is None, epoch))
        if known is None:
            entry = flat(epoch, seq, data, opening)
            known = self._sort("grant", cls.decode("ascii")), self._form(entry)
            self._grants[cls, how, request is None, epoch] = known
        session = self._sessions.get(name) or self._session(name)
        at = self._ids.get(path) or self._paths.new(path)
        self._rows.append((
            seq, second + int(stamp[20:26]), int(mono), session, int(n), known[0], at,
            None if resolved is None else self._paths.id(resolved), int(size),
            None if request is None else int(request), int(digest[:12], 16), unhexlify(digest[12:]), known[1],
        ))  # fmt: skip
        return True

    def _second(self, stamp: bytes) -> int | None:
        """The second of a time, in microseconds; None where it is no time."""
        found = microseconds(stamp[:20].decode("ascii") + "000000Z")
        if found is not None:
            if len(self._seconds) > _BATCH:
                self._seconds.clear()
            self._seconds[stamp[:19]] = found
        return found

    def _any(self, seq: int, entry: Entry) -> None:
        """Take in any entry; one that no row can stand for is only noted."""
        if entry.get("kind") == "session.start":
            self._start(entry)
        row = self._row(seq, entry)
        if row is None:
            self._odd.append((seq,))
        else:
            self._rows.append(row)

    def _row(self, seq: int, entry: Entry) -> tuple[Any, ...] | None:
        session, kind, cls, time = (entry.get(name) for name in ("session", "kind", "class", "time"))
        request, digest = entry.get("request"), entry.get("sha256")
        paths = [entry.get(name) for name in PATH_FIELDS]
        given = [entry[name] for name in ("class", *PATH_FIELDS, "request", "sha256") if name in entry]
        if not all(isinstance(value, str) for value in (session, kind, time, *given)):
            return None
        assert isinstance(session, str) and isinstance(kind, str) and isinstance(time, str)
        moment, number = microseconds(time), None
        if request is not None:
            text = request[len(session) + 1 :]
            if not re.fullmatch(r"0|[1-9][0-9]{0,17}", text, re.ASCII) or request != f"{session}-{text}":
                return None
            number = int(text)
        if digest is not None and not _DIGEST.fullmatch(digest):
            return None
        if entry.get("seq") != seq or moment is None or any("\0" in path for path in paths if path):
            return None
        ids = [None if path is None else self._paths.id(encoded(path)) for path in paths]
        return (
            seq, moment, _number(entry.get("mono")), self._session(encoded(session)),
            _number(entry.get("n")), self._sort(kind, cls), ids[0], None if ids[0] == ids[1] else ids[1],
            _number(entry.get("size")), number, None if digest is None else int(digest[:12], 16),
            None if digest is None else bytes.fromhex(digest[12:]), self._form(entry),
        )  # fmt: skip

    def _session(self, name: bytes) -> int:
        known = self._sessions.get(name)
        if known is None:
            known = self._sessions[name] = len(self._sessions) + 1
            self._base.execute("INSERT INTO sessions VALUES (?, ?)", (known, name))
        return known

    def _sort(self, kind: str, cls: str | None) -> int:
        key = encoded(kind), None if cls is None else encoded(cls)
        known = self._sorts.get(key)
        if known is None:
            known = self._sorts[key] = len(self._sorts) + 1
            self._base.execute("INSERT INTO sorts VALUES (?, ?, ?)", (known, *key))
        return known

    def _form(self, entry: Entry) -> int | None:
        try:
            items = form_of(entry)
        except (RecursionError, ValueError):
            return None
        known = self._forms.get(items)
        if known is None:
            if len(items) > _LONGEST_FORM or self._used + len(items) > self._allowed:
                return None
            self._used += len(items)
            known = self._forms[items] = len(self._forms) + 1
            self._base.execute("INSERT INTO forms VALUES (?, ?)", (known, items))
        return known

    def _start(self, entry: Entry) -> None:
        digest, path = map(encoded, model_of(entry))
        known = self._models.get((digest, path))
        if known is None:
            known = self._models[digest, path] = len(self._models) + 1
            self._base.execute("INSERT INTO models VALUES (?, ?, ?)", (known, digest, path))
        session = self._session(encoded(str(entry.get("session", ""))))
        self._base.execute("INSERT OR IGNORE INTO starts VALUES (?, ?)", (session, known))

    def _flush(self) -> None:
        self._base.executemany(_INSERT, self._rows)
        self._rows.clear()
        self._base.executemany("INSERT INTO odd VALUES (?)", self._odd)
        self._odd.clear()

    def finish(self, snapshot: Snapshot) -> None:
        """Write what is left, and what the index now stands for."""
        self._flush()
        self._paths.flush()
        self._base.execute(_BLOCKS, (self._first - self._first % BLOCK,))
        size = snapshot.total
        self._base.executemany(
            "INSERT OR REPLACE INTO meta VALUES (?, ?)",
            [
                ("token", token(snapshot.log)),
                ("size", size),
                ("anchor", anchor(snapshot, size)),
                ("pruned", pruned(snapshot)),
            ],
        )


def _number(value: object) -> int | None:
    return value if isinstance(value, int) and is_number(value) else None


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
    if os.stat(state).st_uid != os.geteuid():
        raise Unusable("the log is another user's")  # who could not replace a file of ours
    new = _cleared(state)
    base = create(new)
    collecting = gc.isenabled()
    gc.disable()  # a million rows, and no cycles
    try:
        try:
            snapshot = Snapshot(log)
            base.execute("BEGIN")
            writer = Writer(base)
            for bundle in snapshot.bundles():
                writer.add(bundle)
            writer.finish(snapshot)
            base.execute("COMMIT")
            base.executescript(INDEXES)
            base.execute(f"PRAGMA user_version = {CLEAN}")
        finally:
            base.close()
        fsync_path(new)  # or a power loss could leave one that says it is whole
        os.rename(new, os.path.join(state, NAME))
    except BaseException:
        if os.path.lexists(new):
            os.unlink(new)
        raise
    finally:
        if collecting:
            gc.enable()
    return snapshot.total


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
        try:
            base = open_to_write(os.path.join(state, NAME))
        except sqlite3.Error:
            return _rebuild(state, log)
        try:
            size = _append(base, log)
        except sqlite3.Error as error:
            if not is_damage(error):  # a long reader, no space: it is as it was
                raise
            size = None
        finally:
            base.close()
        return _rebuild(state, log) if size is None else size


def _append(base: sqlite3.Connection, log: str) -> int | None:
    """Add what is new; None where it has to be made anew."""
    (version,) = base.execute("PRAGMA user_version").fetchone()
    if version != CLEAN:
        return None
    snapshot = Snapshot(log)
    meta = dict(base.execute("SELECT key, value FROM meta"))
    size = meta.get("size")
    if not is_current(meta, snapshot) or not isinstance(size, int) or snapshot.total > 2 * size + WIDTH:
        return None
    base.execute("PRAGMA synchronous = FULL")
    base.execute(f"PRAGMA user_version = {DIRTY}")
    try:
        base.execute("BEGIN IMMEDIATE")
        writer = Writer(base, size)
        for bundle in snapshot.bundles(size):
            if any(forgets(data) for data in bundle.entries[max(0, size - bundle.first) :]):
                return None  # it stays dirty
            writer.add(bundle)
        writer.finish(snapshot)
        base.execute("COMMIT")
    except BaseException:
        if base.in_transaction:
            base.execute("ROLLBACK")
            base.execute(f"PRAGMA user_version = {CLEAN}")
        raise
    base.execute(f"PRAGMA user_version = {CLEAN}")
    return snapshot.total


def is_current(meta: dict[str, Any], snapshot: Snapshot) -> bool:
    """Whether an index was made of this log, at an earlier time or now."""
    size = meta.get("size")
    return (
        isinstance(size, int)
        and 0 <= size <= snapshot.total
        and meta.get("token") == token(snapshot.log)
        and meta.get("pruned") == pruned(snapshot)
        and meta.get("anchor") == anchor(snapshot, size)
    )


def forgets(data: bytes) -> bool:
    """Whether an entry says that others were erased, which an older index still holds."""
    return b'"kind":"redaction"' in data or b'"kind":"prune"' in data
