"""Reads the index: which rows can answer a question, and the entries that they stand for.

Constraint: everything within one read transaction, so that a writer's change is seen whole or not at all. The
condition that the fewest entries meet is looked up first (`Index._narrowest`); SQLite does not know which one
that is without statistics that would have to be kept.
"""

from __future__ import annotations

import heapq
import json

from anchorhold.audit.index.build import is_current
from anchorhold.audit.index.forms import entry_of
from anchorhold.audit.index.paths import PathReader, matching
from anchorhold.audit.index.schema import BLOCK, CLEAN, Unusable, decoded, encoded, microseconds
from anchorhold.audit.query import pick

TYPE_CHECKING = False
if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path
    from types import TracebackType
    from typing import Any

    from anchorhold.audit.index.filters import Filter
    from anchorhold.audit.read import Snapshot

    Entry = dict[str, Any]
    Condition = tuple[str, tuple[object, ...]]

ENOUGH = 20_000
"""Entries from which on a condition is no good to look up by."""

MANY_PATHS = 100_000
"""Paths from which on a pattern is not looked up by, but asked of each entry."""

AT_ONCE = 256

_ROW = "SELECT seq, time, mono, n, size, request, digest, rest, session, path, resolved, form FROM entries"
_HEX = frozenset("0123456789abcdef")


class Index:
    """An index that is whole and of this log. A context manager: it closes itself."""

    def __init__(self, state_dir: Path, base: sqlite3.Connection, snapshot: Snapshot) -> None:
        """Takes over ``base``. Raises Unusable where it is of another log or state, sqlite3.Error."""
        self._base, self._state = base, state_dir
        try:
            base.execute("BEGIN")
            (version,) = base.execute("PRAGMA user_version").fetchone()
            meta = dict(base.execute("SELECT key, value FROM meta"))
            if version != CLEAN or not is_current(meta, snapshot):
                raise Unusable("it is of another log, or of another time")
        except BaseException:
            base.close()
            raise
        self.size = int(meta["size"])
        """The index stands for the entries below this number."""
        self._paths = PathReader(base)
        self._known_paths: dict[int, str] = {}
        self._sessions: dict[int, str] = {}
        self._forms: dict[int, list[Any]] = {}

    def __enter__(self) -> Index:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._base.close()

    def sessions_of(self, ran: Callable[[tuple[str, str]], bool]) -> list[str]:
        """The sessions that ran a model."""
        models = self._base.execute("SELECT id, digest, path FROM models").fetchall()
        chosen = [(one,) for one, digest, path in models if ran((decoded(digest), decoded(path)))]
        self._temporary("model", chosen)
        rows = self._base.execute(
            "SELECT name FROM sessions WHERE id IN (SELECT session FROM starts WHERE model IN temp.model)"
        )
        return [decoded(name) for (name,) in rows]

    def entries(self, wanted: Filter, *, newest: bool = False) -> Iterator[Entry]:
        """The entries that match, oldest or ``newest`` first."""
        conditions = self._conditions(wanted)
        if conditions is None:
            rows: Iterator[tuple[Any, ...]] = iter(())
        else:
            where = " AND ".join(f"({text})" for text, _ in conditions) or "1"
            order = "DESC" if newest else "ASC"
            values = [value for _, given in conditions for value in given]
            rows = self._base.execute(f"{_ROW} WHERE {where} ORDER BY seq {order}", values)
        odd = self._base.execute(f"SELECT seq FROM odd ORDER BY seq {'DESC' if newest else 'ASC'}")
        merged = heapq.merge(rows, (one + (None,) * 11 for one in odd), key=_seq, reverse=newest)
        for entry in self._entries(merged, newest):
            if wanted(entry):
                yield entry

    def _entries(self, rows: Iterable[tuple[Any, ...]], newest: bool) -> Iterator[Entry]:
        """Rows as entries; those that are to be read from the log, several at once."""
        waiting: list[tuple[Any, ...]] = []
        lacking = 0
        for row in rows:
            waiting.append(row)
            lacking += row[11] is None
            if not lacking or lacking >= AT_ONCE or len(waiting) >= 64 * AT_ONCE:
                yield from self._whole(waiting, lacking)
                waiting, lacking = [], 0
        yield from self._whole(waiting, lacking)

    def _whole(self, rows: list[tuple[Any, ...]], lacking: int) -> Iterator[Entry]:
        read: dict[int, Entry] = {}
        if lacking:
            seqs = sorted(row[0] for row in rows if row[11] is None)
            read = dict(zip(seqs, pick(self._state, seqs), strict=True))
        for row in rows:
            yield read[row[0]] if row[11] is None else self._entry(row)

    def _entry(self, row: tuple[Any, ...]) -> Entry:
        items = self._forms.get(row[11])
        if items is None:
            (text,) = self._base.execute("SELECT items FROM forms WHERE id = ?", (row[11],)).fetchone()
            items = self._forms[row[11]] = json.loads(text)
        session = self._sessions.get(row[8])
        if session is None:
            (name,) = self._base.execute("SELECT name FROM sessions WHERE id = ?", (row[8],)).fetchone()
            session = self._sessions[row[8]] = decoded(name)
        path = "" if row[9] is None else self._path(row[9])
        return entry_of(items, row, session, path, path if row[10] is None else self._path(row[10]))

    def _path(self, number: int) -> str:
        path = self._known_paths.get(number)
        if path is None:
            if len(self._known_paths) > 100_000:
                self._known_paths.clear()
            path = self._known_paths[number] = self._paths.path(number)
        return path

    # -- which rows

    def _conditions(self, wanted: Filter) -> list[Condition] | None:
        """What rows have to meet, the narrowest as the one that they are looked up by; None: none can."""
        plain: list[Condition] = []
        lookups: list[tuple[str, Condition]] = []  # how rows are counted and looked up by it
        for add in (self._by_digest, self._by_sort, self._by_session, self._by_path):
            found = add(wanted)
            if found is None:
                return None
            lookups += found
        if wanted.since is not None or wanted.until is not None:
            times = self._by_time(wanted)
            if times is None:
                return None
            plain += times
        if len(lookups) > 1:
            lookups.sort(key=self._count)
        if lookups and self._count(lookups[0]) < ENOUGH:
            text, (_, values) = lookups[0]
            plain.append((f"seq IN ({text})", values))
            lookups = lookups[1:]
        return plain + [condition for _, condition in lookups]

    def _count(self, lookup: tuple[str, Condition]) -> int:
        text, (_, values) = lookup
        (count,) = self._base.execute(
            f"SELECT count(*) FROM (SELECT 1 FROM ({text}) LIMIT {ENOUGH})", values
        ).fetchone()
        return int(count)

    def _by_digest(self, wanted: Filter) -> list[tuple[str, Condition]] | None:
        if not wanted.digest:
            return []
        if not _HEX.issuperset(wanted.digest) or len(wanted.digest) > 64:
            return None
        head = wanted.digest[:12]
        values = int(head.ljust(12, "0"), 16), int(head.ljust(12, "f"), 16)
        return [_lookup("by_digest", "digest BETWEEN ? AND ?", values)]

    def _by_sort(self, wanted: Filter) -> list[tuple[str, Condition]] | None:
        if not wanted.kinds and wanted.cls is None:
            return []
        kinds = {encoded(kind) for kind in wanted.kinds}
        cls = None if wanted.cls is None else encoded(wanted.cls)
        sorts = self._base.execute("SELECT id, kind, class FROM sorts").fetchall()
        chosen = [
            (one,) for one, kind, its in sorts if (not kinds or kind in kinds) and (cls is None or its == cls)
        ]
        if len(chosen) == len(sorts):
            return []
        self._temporary("sort", chosen)
        return [_lookup("by_sort", "sort IN temp.sort", ())] if chosen else None

    def _by_session(self, wanted: Filter) -> list[tuple[str, Condition]] | None:
        names: list[tuple[str, tuple[object, ...]]] = []
        request: int | None = None
        if wanted.session:
            prefix = encoded(wanted.session)
            names.append(("substr(name, 1, ?) = ?", (len(prefix), prefix)))
        if wanted.request is not None:
            session, _, number = wanted.request.rpartition("-")
            if not (
                number.isascii() and number.isdigit() and len(number) < 19 and str(int(number)) == number
            ):
                return None
            request = int(number)
            names.append(("name = ?", (encoded(session),)))
        if wanted.sessions is not None:
            self._temporary("ran", [(encoded(name),) for name in wanted.sessions])
            names.append(("name IN temp.ran", ()))
        if not names:
            return []
        where = " AND ".join(text for text, _ in names)
        rows = self._base.execute(
            f"SELECT id FROM sessions WHERE {where}", [value for _, given in names for value in given]
        ).fetchall()
        if not rows:
            return None
        self._temporary("session", rows)
        text = "session IN temp.session"
        if request is None:
            return [_lookup("by_session", text, ())]
        return [_lookup("by_session", f"{text} AND request = ?", (request,))]

    def _by_path(self, wanted: Filter) -> list[tuple[str, Condition]] | None:
        if wanted.path is None or wanted.matches is None or wanted.matches(""):
            return []  # a pattern that matches no path at all, as * does, chooses nothing
        ids: list[tuple[int]] = []
        for one in matching(self._base, wanted.path, wanted.matches):
            ids.append((one,))
            if len(ids) > MANY_PATHS:
                return []
        if not ids:
            return None
        self._temporary("path", ids)
        text = (
            "SELECT seq FROM entries INDEXED BY by_path WHERE path IN temp.path "
            "UNION SELECT seq FROM entries INDEXED BY by_resolved WHERE resolved IN temp.path"
        )
        return [(text, ("+path IN temp.path OR +resolved IN temp.path", ()))]

    def _by_time(self, wanted: Filter) -> list[Condition] | None:
        """Entries in the blocks that have such times: the log's order is nearly that of time."""
        blocks, conditions = ["1"], []
        values: list[int] = []
        for text, block, own in (
            (wanted.since, "most >= ?", "+time >= ?"),
            (wanted.until, "least < ?", "+time < ?"),
        ):
            moment = None if text is None else microseconds(text)
            if moment is not None:
                blocks.append(block)
                values.append(moment)
                conditions.append((own, (moment,)))
        first, last = self._base.execute(
            f"SELECT min(number), max(number) FROM blocks WHERE {' AND '.join(blocks)}", values
        ).fetchone()
        if first is None:
            return None
        return [("seq BETWEEN ? AND ?", (first * BLOCK, last * BLOCK + BLOCK - 1)), *conditions]

    def _temporary(self, name: str, rows: list[Any]) -> None:
        """A table of chosen values, in memory."""
        self._base.execute(f"CREATE TEMP TABLE IF NOT EXISTS {name} (id PRIMARY KEY) WITHOUT ROWID")
        self._base.execute(f"DELETE FROM temp.{name}")
        self._base.executemany(f"INSERT OR IGNORE INTO temp.{name} VALUES (?)", rows)


def _lookup(index: str, text: str, values: tuple[object, ...]) -> tuple[str, Condition]:
    plain = text.replace("session IN", "+session IN").replace("digest B", "+digest B")
    return f"SELECT seq FROM entries INDEXED BY {index} WHERE {text}", (
        plain.replace("sort IN", "+sort IN"),
        values,
    )


def _seq(row: tuple[Any, ...]) -> int:
    return int(row[0])
