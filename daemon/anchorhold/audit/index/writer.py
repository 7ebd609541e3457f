"""Puts entries into an index: one that is new, or behind those that it has.

Constraint: 100,000 entries a second, so the entry that there are most of, a grant, is taken apart by one
expression; all others go the way that a reader goes.
"""

from __future__ import annotations

import re
from binascii import unhexlify
from itertools import chain

from anchorhold.audit.index.filters import model_of
from anchorhold.audit.index.forms import form_of, is_number
from anchorhold.audit.index.origin import anchor, pruned, token
from anchorhold.audit.index.paths import PathWriter
from anchorhold.audit.index.schema import BLOCK, encoded, microseconds
from anchorhold.audit.query import PATH_FIELDS, flat

TYPE_CHECKING = False
if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator
    from typing import Any

    from anchorhold.audit.read import Bundle, Snapshot

    Entry = dict[str, Any]

_BATCH = 10_000
_FREE = 1 << 20
_SHARE = 64
"""Forms may take this many bytes, and so many more for each entry. What has no form is read from the log."""

_LONGEST_FORM = 4_000

_GRANT = re.compile(
    rb'\{"v":2,"seq":(0|[1-9][0-9]{0,17}),"time":"(.{19})\.([0-9]{6})Z","mono":(0|[1-9][0-9]{0,17}),'
    rb'"session":"([0-9a-f]{16})","n":(0|[1-9][0-9]{0,17}),"kind":"grant","class":"([a-z]{1,20})",'
    rb'"size":(0|[1-9][0-9]{0,17}),("mode":"[a-z]{1,20}","phase":"[a-z]{1,20}")'
    rb'(?:,"request":(0|[1-9][0-9]{0,17}))?,"names":"[^"]{44}","digests":"[^"]{44}"\}'
)
_OPENING = re.compile(
    rb'\x03(..).{16}\{"path":"([ !#-\[\]-\x7f]*)","resolved":"(?:\2|([ !#-\[\]-\x7f]*))"\}'
    rb'\x00\x5d.{16}\{"sha256":"([0-9a-f]{12})([0-9a-f]{52})"\}',
    re.DOTALL,
)
_AROUND = 1 + 2 + 2 + 93
"""Bytes of such openings beside the first one: mask, two lengths, the second one."""

_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)
_BLOCKS = (
    f"INSERT OR REPLACE INTO blocks SELECT seq / {BLOCK}, min(time), max(time) FROM entries "
    f"WHERE seq >= ? GROUP BY seq / {BLOCK}"
)
_TOGETHER = 75
"""Rows that one statement puts in: a third less time, and fewer than 999 values, which any SQLite takes."""

_ROW = f"({','.join('?' * 13)})"
_INSERT = f"INSERT INTO entries VALUES {_ROW}"
_INSERT_MANY = f"INSERT INTO entries VALUES {','.join([_ROW] * _TOGETHER)}"


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
        self._grants: dict[tuple[tuple[bytes, bytes, bool], int], tuple[int, int | None]] = {}
        self._seconds: dict[bytes, int] = {}
        self._used = sum(map(len, self._forms))
        (self._allowed,) = base.execute("SELECT count(*) FROM entries").fetchone()
        self._allowed = self._allowed * _SHARE + _FREE

    def add(self, bundle: Bundle) -> None:
        self._allowed += _SHARE * len(bundle.entries)
        epoch, openings = bundle.epoch, bundle.openings
        for seq in self._other_than_grants(bundle):
            at = seq - bundle.first
            opening = None if openings is None else openings[at]
            self._any(seq, flat(epoch, seq, bundle.entries[at], opening))
        if len(self._rows) >= _BATCH:
            self._flush()

    def _other_than_grants(self, bundle: Bundle) -> Iterator[int]:
        """Take in grants as the broker writes them, and give the numbers of all else.

        One loop with all it needs in its own variables: a call for each entry would be a tenth of the time.
        """
        skipped = max(0, self._first - bundle.first)
        numbers = range(bundle.first + skipped, bundle.first + len(bundle.entries))
        if bundle.openings is None:
            yield from numbers
            return
        is_grant, is_opening, put = _GRANT.fullmatch, _OPENING.fullmatch, self._rows.append
        seconds, ids, new, to_bytes = self._seconds, self._ids, self._paths.new, unhexlify
        epoch, last_name, session = bundle.epoch, b"", 0
        last_sort: tuple[bytes, bytes, bool] | None = None
        sort: int
        form: int | None
        for seq, data, opening in zip(
            numbers, bundle.entries[skipped:], bundle.openings[skipped:], strict=True
        ):
            shown, hidden = is_grant(data), is_opening(opening)
            if shown is None or hidden is None:
                yield seq
                continue
            number, moment, micro, mono, name, n, cls, size, how, request = shown.groups()
            length, path, resolved, begin, rest = hidden.groups()
            second = seconds.get(moment) or self._second(moment)
            around = len(opening) - _AROUND
            if (
                int(number) != seq or second is None
                or length[0] != around >> 8 or length[1] != around & 255
            ):  # fmt: skip
                yield seq
                continue
            if name != last_name:
                session, last_name = self._sessions.get(name) or self._session(name), name
            if (cls, how, request is None) != last_sort:
                last_sort = cls, how, request is None
                sort, form = self._sort_of_grant(last_sort, epoch, seq, data, opening)
            put((
                seq, second + int(micro), int(mono), session, int(n), sort, ids.get(path) or new(path),
                None if resolved is None else self._paths.id(resolved), int(size),
                None if request is None else int(request), int(begin, 16), to_bytes(rest), form,
            ))  # fmt: skip

    def _sort_of_grant(
        self, told: tuple[bytes, bytes, bool], epoch: int, seq: int, data: bytes, opening: bytes
    ) -> tuple[int, int | None]:
        """The sort and the form of grants that say ``told`` of class, manner and request."""
        known = self._grants.get((told, epoch))
        if known is None:
            form = self._form(flat(epoch, seq, data, opening))
            known = self._grants[told, epoch] = self._sort("grant", told[0].decode("ascii")), form
        return known

    def _second(self, moment: bytes) -> int | None:
        """The second of a time, in microseconds; None where it is no time."""
        found = microseconds(moment.decode("ascii", "replace") + ".000000Z")
        if found is not None:
            if len(self._seconds) > _BATCH:
                self._seconds.clear()
            self._seconds[moment] = found
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
        rows, execute = self._rows, self._base.execute
        whole = len(rows) - len(rows) % _TOGETHER
        for at in range(0, whole, _TOGETHER):
            execute(_INSERT_MANY, list(chain.from_iterable(rows[at : at + _TOGETHER])))
        self._base.executemany(_INSERT, rows[whole:])
        rows.clear()
        self._base.executemany("INSERT INTO odd VALUES (?)", self._odd)
        self._odd.clear()

    def flush(self) -> None:
        """Write what is left of the rows and paths."""
        self._flush()
        self._paths.flush()

    @property
    def end(self) -> int:
        """Above the ids of all paths; after `flush`."""
        return self._paths.end

    def finish(self, snapshot: Snapshot, sealed: int) -> None:
        """Write what is left, and what the index now stands for. ``sealed``: as for `schema.seal`."""
        self.flush()
        self._base.execute(_BLOCKS, (self._first - self._first % BLOCK,))
        size = snapshot.total
        self._base.executemany(
            "INSERT OR REPLACE INTO meta VALUES (?, ?)",
            [
                ("token", token(snapshot.log)),
                ("size", size),
                ("anchor", anchor(snapshot, size)),
                ("pruned", pruned(snapshot)),
                ("sealed", sealed),
            ],
        )


def _number(value: object) -> int | None:
    return value if isinstance(value, int) and is_number(value) else None
