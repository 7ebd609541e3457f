"""The index's file: its tables, how it is opened, how texts and times are kept in it.

Constraint: no second file. SQLite's journal would hold names, and a crash would leave it behind, so the
journal is in memory; what a crash in the middle of a change leaves is known by the mark `DIRTY` and thrown
away. SQLite has no sums over its pages, and to add up 170 MB would take longer than an answer may, so what
else wrote to the file is known by the file's time of change, which is *sealed*: set to what the file says.

Sources: https://www.sqlite.org/fileformat.html (an integer takes 0 to 8 bytes, so small ones are cheap),
https://www.sqlite.org/pragma.html (journal_mode, secure_delete, mmap_size).
"""

from __future__ import annotations

import os
import re
import sqlite3
import time
from datetime import UTC, datetime, timedelta

NAME = "index.sqlite"
NEW = "index.sqlite.new"
"""A whole new one is made under this name. ``audit redact`` destroys whatever begins with `NAME`."""

VERSION = 2
CLEAN, DIRTY = VERSION * 10, VERSION * 10 + 1
"""``PRAGMA user_version``: whole, or being changed."""

PAGE = 16_384
CHUNK = PAGE - 100
"""Bytes of paths in a row, so that it fills a page and needs no other."""

BLOCK = 1_024
"""Entries for which the earliest and the latest time are kept."""

TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE sessions (id INTEGER PRIMARY KEY, name BLOB NOT NULL);
CREATE TABLE sorts (id INTEGER PRIMARY KEY, kind BLOB NOT NULL, class BLOB);
CREATE TABLE models (id INTEGER PRIMARY KEY, digest BLOB NOT NULL, path BLOB NOT NULL);
CREATE TABLE starts (session INTEGER, model INTEGER, PRIMARY KEY (session, model)) WITHOUT ROWID;
CREATE TABLE forms (id INTEGER PRIMARY KEY, items TEXT NOT NULL);
CREATE TABLE paths (first INTEGER PRIMARY KEY, names BLOB NOT NULL);
CREATE TABLE odd (seq INTEGER PRIMARY KEY);
CREATE TABLE blocks (number INTEGER PRIMARY KEY, least INTEGER NOT NULL, most INTEGER NOT NULL);
CREATE TABLE entries (
  seq INTEGER PRIMARY KEY, time INTEGER NOT NULL, mono INTEGER, session INTEGER NOT NULL, n INTEGER,
  sort INTEGER NOT NULL, path INTEGER, resolved INTEGER, size INTEGER, request INTEGER, digest INTEGER,
  rest BLOB, form INTEGER
);
"""
"""A path's id is its place: ``paths.first`` and how many bytes come before it in ``names``, where each stands
between two zero bytes. A path can have more than one. ``digest`` is the first 48 bits, ``rest`` the
other 208. ``form`` has the fields that have no column, and their order; NULL: the entry is to be read from
the log.
``odd``: entries that no row can stand for, since a field that can be asked for is not what it should be."""

INDEXES = """
CREATE INDEX by_path ON entries (path) WHERE path IS NOT NULL;
CREATE INDEX by_resolved ON entries (resolved) WHERE resolved IS NOT NULL;
CREATE INDEX by_digest ON entries (digest) WHERE digest IS NOT NULL;
CREATE INDEX by_session ON entries (session, request);
CREATE INDEX by_sort ON entries (sort);
"""

_PRAGMAS = (
    "PRAGMA journal_mode = MEMORY", "PRAGMA secure_delete = ON", "PRAGMA temp_store = MEMORY",
    "PRAGMA trusted_schema = OFF", "PRAGMA mmap_size = 1073741824",
)  # fmt: skip

_START = datetime(2026, 1, 1, tzinfo=UTC)
"""Times are counted in microseconds from here: six bytes until 2030."""

_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:[0-5]\d)\.(\d{6})Z", re.ASCII)
_MICROSECOND = timedelta(microseconds=1)


class Unusable(Exception):
    """The index is not there, of another form, or not whole."""


_NO_DAMAGE = frozenset({
    sqlite3.SQLITE_PERM, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN,
})  # fmt: skip


def is_damage(error: Exception) -> bool:
    """Whether an error says that the index is not whole; else it is only out of reach."""
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF not in _NO_DAMAGE


def path_of(state_dir: str | os.PathLike[str]) -> str:
    return os.path.join(os.path.abspath(state_dir), NAME)


def open_to_read(path: str) -> sqlite3.Connection:
    """Open a whole index, never changing it. Raises Unusable, sqlite3.Error."""
    if not os.path.lexists(path):
        raise Unusable("there is none")
    base = _connect(path, "ro")
    try:
        (version,) = base.execute("PRAGMA user_version").fetchone()
        if version != CLEAN:
            raise Unusable("it was being changed" if version == DIRTY else "it is of another form")
    except BaseException:
        base.close()
        raise
    return base


def open_to_write(path: str) -> sqlite3.Connection:
    """Open an index that is there. Raises sqlite3.Error."""
    return _connect(path, "rw")


def create(path: str) -> sqlite3.Connection:
    """Make an empty one that only its owner can read. Raises OSError, sqlite3.Error."""
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
    base = _connect(path, "rw")
    base.execute(f"PRAGMA page_size = {PAGE}")
    base.execute("PRAGMA journal_mode = OFF")  # nobody reads it before it is whole
    base.execute("PRAGMA synchronous = OFF")
    base.execute("PRAGMA locking_mode = EXCLUSIVE")
    base.executescript(TABLES)
    return base


def _connect(path: str, mode: str) -> sqlite3.Connection:
    from urllib.parse import quote

    if any(os.path.exists(one) and not os.path.isfile(one) for one in (path, f"{path}-journal")):
        error = sqlite3.OperationalError("it is not a regular file")  # a pipe would be waited for without end
        error.sqlite_errorcode = sqlite3.SQLITE_CANTOPEN
        raise error
    address = f"file:{quote(os.fsencode(path))}?mode={mode}"
    base = sqlite3.connect(address, uri=True, isolation_level=None, timeout=0.5)
    try:
        for pragma in _PRAGMAS:
            base.execute(pragma)
    except BaseException:
        base.close()
        raise
    return base


def seal_time() -> int:
    """A time of change, in seconds, that no later write can give a file."""
    return int(time.time()) - 2


def seal(path: str, seconds: int) -> None:
    """Give the file the time of change that it says it has. OSError."""
    os.utime(path, (seconds, seconds))


def is_sealed(path: str, seconds: object) -> bool:
    """Whether nothing wrote to the file since `seal`. OSError."""
    return isinstance(seconds, int) and os.stat(path).st_mtime_ns == seconds * 1_000_000_000


def encoded(text: str) -> bytes:
    """Text as the index keeps it: any text that JSON can hold, lone surrogates too."""
    return text.encode("utf-8", "surrogatepass")


def decoded(data: bytes) -> str:
    return data.decode("utf-8", "surrogatepass")


_seconds: dict[str, int] = {}


def microseconds(text: str) -> int | None:
    """A time as a number; None where it is not in the log's form, or never was."""
    match = _TIME.fullmatch(text)
    if match is None:
        return None
    second = _seconds.get(match[1])
    if second is None:
        try:
            second = (datetime.fromisoformat(match[1] + "+00:00") - _START) // _MICROSECOND
        except ValueError:
            return None
        if len(_seconds) > 10_000:
            _seconds.clear()
        _seconds[match[1]] = second
    return second + int(match[2])


def time_of(number: int) -> str:
    """The time that `microseconds` was given."""
    moment = _START + timedelta(microseconds=number)
    return f"{moment.isoformat()[:19]}.{moment.microsecond:06d}Z"
