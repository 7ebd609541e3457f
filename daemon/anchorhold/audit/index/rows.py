"""Asks the index: which entries may match, and what they are.

Constraint: the way to them is chosen here, not by SQLite, which knows nothing of how many rows a value has:
each condition's rows are counted, up to a bound, and the one with the fewest leads.
"""

from __future__ import annotations

import heapq
import json
import re
from itertools import islice

from anchorhold.audit.index.filters import REFUSED, is_left_out
from anchorhold.audit.index.forms import entry_of
from anchorhold.audit.index.origin import is_current
from anchorhold.audit.index.paths import PathReader, matching, plain_parts
from anchorhold.audit.index.schema import BLOCK, Unusable, decoded, encoded, microseconds
from anchorhold.audit.query import flat

TYPE_CHECKING = False
if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

    from anchorhold.audit.index.filters import Filter
    from anchorhold.audit.read import Bundle, Snapshot

    Entry = dict[str, Any]

MANY = 50_000
"""Rows, and paths, up to which a condition may lead. Beyond, the entries are gone through in order."""

SOME = 5_000
"""Paths up to which they lead where a few entries will do. More are looked for only if these lie far apart:
else so many entries fit that going through them in order soon gives enough."""

NEAR = 10
"""So near are they if they lie in this part of all paths."""

SMALL = 1_000
"""Rows that are sooner looked at one by one than all paths searched."""

_COLUMNS = (
    "e.seq, e.time, e.mono, e.n, e.size, e.request, e.digest, e.rest, e.session, e.path, e.resolved, e.form"
)
_HEX = re.compile(r"[0-9a-f]{1,64}", re.ASCII)
_REQUEST = re.compile(r"(.*)-(0|[1-9][0-9]{0,17})", re.ASCII | re.DOTALL)


class Rows:
    """An open index of the log as ``snapshot`` shows it. Raises Unusable if it was made of another log, or of
    another past of it. `close` must follow. ``place``: device and inode of its file."""

    def __init__(
        self, base: sqlite3.Connection, snapshot: Snapshot, place: tuple[int, int] | None = None
    ) -> None:
        self._base, self._snapshot, self.place = base, snapshot, place
        base.execute("BEGIN")  # one state of the file for all that is asked
        meta = dict(base.execute("SELECT key, value FROM meta"))
        if not is_current(meta, snapshot):
            raise Unusable("it is of another log")
        self.size: int = meta["size"]
        self.sealed: object = meta.get("sealed")
        self._paths = PathReader(base)
        self._sessions: dict[int, str] = {}
        self._forms: dict[int, list[Any]] = {}
        self._bundle: Bundle | None = None

    def close(self) -> None:
        self._base.close()

    def sessions_with(self, ran: Callable[[tuple[str, str]], bool]) -> frozenset[str]:
        """The sessions that ran a model of which ``ran`` says so, by its digest and path."""
        models = [
            (number,)
            for number, *told in self._base.execute("SELECT id, digest, path FROM models")
            if ran((decoded(told[0]), decoded(told[1])))
        ]
        self._keep("chosen_models", models)
        found = self._base.execute(
            "SELECT name FROM sessions WHERE id IN "
            "(SELECT session FROM starts WHERE model IN (SELECT id FROM chosen_models))"
        )
        return frozenset(decoded(name) for (name,) in found)

    def found(
        self, wanted: Filter, *, backwards: bool = False, enough: int | None = None
    ) -> Iterator[tuple[int, Entry]]:
        """The entries that match and their numbers, in order. ``enough``: how many will be taken."""
        odd = self._base.execute(f"SELECT seq FROM odd ORDER BY seq {'DESC' if backwards else ''}")
        strange = ((number, self._from_log(number)) for (number,) in odd)
        usual = ((row[0], self._entry(row)) for row in self._rows(wanted, backwards, enough))
        for number, entry in heapq.merge(strange, usual, key=lambda one: one[0], reverse=backwards):
            if entry is not None and wanted(entry):
                yield number, entry

    def _rows(self, wanted: Filter, backwards: bool, enough: int | None) -> Iterator[tuple[Any, ...]]:
        plan = _Plan(self._base, wanted, self._keep, few=enough is not None)
        if plan.none:
            return iter(())
        order = "ORDER BY e.seq DESC" if backwards else "ORDER BY e.seq"
        where = " AND ".join(["e.seq BETWEEN ? AND ?", *plan.tests])
        values = [plan.first, plan.last, *plan.values]
        if plan.leading is None:
            return self._base.execute(f"SELECT {_COLUMNS} FROM entries e WHERE {where} {order}", values)
        return self._base.execute(
            f"WITH led(seq) AS ({plan.leading}) SELECT {_COLUMNS} FROM led CROSS JOIN entries e "
            f"ON e.seq = led.seq WHERE {where} {order}",
            [*plan.leading_values, *values],
        )

    def _keep(self, name: str, rows: Iterable[tuple[int]]) -> None:
        """A set of ids as a table in memory."""
        self._base.execute(f"CREATE TEMP TABLE IF NOT EXISTS {name} (id INTEGER PRIMARY KEY)")
        self._base.execute(f"DELETE FROM {name}")
        self._base.executemany(f"INSERT INTO {name} VALUES (?)", rows)

    def _entry(self, row: tuple[Any, ...]) -> Entry | None:
        form = row[11]
        if form is None:
            return self._from_log(row[0])
        items = self._forms.get(form)
        if items is None:
            (text,) = self._base.execute("SELECT items FROM forms WHERE id = ?", (form,)).fetchone()
            items = self._forms[form] = json.loads(text)
        path = "" if row[9] is None else self._paths.path(row[9])
        resolved = path if row[10] is None else self._paths.path(row[10])
        return entry_of(items, row, self._session(row[8]), path, resolved)

    def _session(self, number: int) -> str:
        name = self._sessions.get(number)
        if name is None:
            (data,) = self._base.execute("SELECT name FROM sessions WHERE id = ?", (number,)).fetchone()
            name = self._sessions[number] = decoded(data)
        return name

    def _from_log(self, number: int) -> Entry | None:
        bundle = self._bundle
        if bundle is None or not bundle.first <= number < bundle.first + len(bundle.entries):
            bundle = self._bundle = self._snapshot.one(number)
        if bundle is None:
            return None
        at = number - bundle.first
        return flat(
            bundle.epoch, number, bundle.entries[at], bundle.openings[at] if bundle.openings else None
        )


class _Plan:
    """How the rows that may match are found. ``none``: there are none. ``leading``: a query for the numbers
    to begin with. ``tests``, ``values``: what each row must fulfil. ``first``, ``last``: between which
    numbers.

    What no row can be told by is left to `Filter`: a path where there are few rows anyway, the end of a
    digest.
    """

    def __init__(
        self,
        base: sqlite3.Connection,
        wanted: Filter,
        keep: Callable[[str, Iterable[tuple[int]]], None],
        *,
        few: bool,
    ) -> None:
        """few: not all entries will be taken."""
        self._base, self._keep, self._few = base, keep, few
        self.none = False
        self.tests: list[str] = []
        self.values: list[int] = []
        self.leading: str | None = None
        self.leading_values: list[int] = []
        self.first, self.last = 0, (1 << 62)
        self._fewest = MANY
        self._sorts(wanted)
        if wanted.refused and not self.none:
            self._refusals()
        self._in_sessions(wanted)
        self._of_request(wanted.request)
        self._of_digest(wanted.digest)
        self._between(wanted.since, wanted.until)
        if wanted.path is not None and wanted.matches is not None and self._fewest > SMALL:
            self._of_path(wanted.path, wanted.matches)

    def _lead(self, query: str, values: list[int]) -> None:
        """Offer a query; the one with the fewest rows leads."""
        (rows,) = self._base.execute(
            f"SELECT count(*) FROM (SELECT 1 FROM ({query}) LIMIT {self._fewest})", values
        ).fetchone()
        if rows < self._fewest:
            self._fewest, self.leading, self.leading_values = rows, query, values

    def _sorts(self, wanted: Filter) -> None:
        if not wanted.kinds and wanted.cls is None and not wanted.refused:
            return
        possible = wanted.kinds
        if wanted.refused:
            refusals = REFUSED | {"list"}
            possible = possible & refusals if possible else refusals
        kinds = {encoded(kind) for kind in possible}
        if wanted.refused and not kinds:
            self.none = True
            return
        cls = None if wanted.cls is None else encoded(wanted.cls)
        chosen = [
            (number,)
            for number, *sort in self._base.execute("SELECT id, kind, class FROM sorts")
            if (not kinds or sort[0] in kinds) and (cls is None or sort[1] == cls)
        ]
        self._choose("sort", chosen)

    def _refusals(self) -> None:
        """Of listings only those that left names out, which their form says: there may be very many."""
        forms = [
            (number,)
            for number, text in self._base.execute("SELECT id, items FROM forms")
            if any(
                type(item) is list and item[0] == "hidden" and is_left_out(item[1])
                for item in json.loads(text)
            )
        ]
        sorts = [
            (number,)
            for number, kind in self._base.execute("SELECT id, kind FROM sorts")
            if decoded(kind) in REFUSED
        ]
        self._keep("refusing_forms", forms)
        self._keep("refusing_sorts", sorts)
        self.tests.append(
            "(+e.sort IN (SELECT id FROM refusing_sorts) OR +e.form IS NULL "
            "OR +e.form IN (SELECT id FROM refusing_forms))"
        )

    def _in_sessions(self, wanted: Filter) -> None:
        if wanted.session is None and wanted.sessions is None:
            return
        begin = encoded(wanted.session or "")
        names = None if wanted.sessions is None else {encoded(name) for name in wanted.sessions}
        chosen = [
            (number,)
            for number, name in self._base.execute("SELECT id, name FROM sessions")
            if name.startswith(begin) and (names is None or name in names)
        ]
        self._choose("session", chosen)

    def _choose(self, column: str, chosen: list[tuple[int]]) -> None:
        if not chosen:
            self.none = True
            return
        self._keep(f"chosen_{column}", chosen)
        inside = f"{column} IN (SELECT id FROM chosen_{column})"
        self.tests.append(f"+e.{inside}")
        self._lead(f"SELECT seq FROM entries INDEXED BY by_{column} WHERE {inside}", [])

    def _of_request(self, request: str | None) -> None:
        if request is None:
            return
        match = _REQUEST.fullmatch(request)
        known = (
            match
            and self._base.execute("SELECT id FROM sessions WHERE name = ?", (encoded(match[1]),)).fetchone()
        )
        if match is None or known is None:
            self.none = True
            return
        values = [known[0], int(match[2])]
        self.tests.append("+e.session = ? AND +e.request = ?")
        self.values += values
        self._lead("SELECT seq FROM entries INDEXED BY by_session WHERE session = ? AND request = ?", values)

    def _of_digest(self, digest: str | None) -> None:
        if not digest:
            return
        if not _HEX.fullmatch(digest):
            self.none = True
            return
        values = [int(digest[:12].ljust(12, end), 16) for end in "0f"]
        self.tests.append("+e.digest BETWEEN ? AND ?")
        self.values += values
        self._lead("SELECT seq FROM entries INDEXED BY by_digest WHERE digest BETWEEN ? AND ?", values)

    def _between(self, since: str | None, until: str | None) -> None:
        """Times need not rise with the numbers (a clock can be set back), so each block is asked."""
        least = microseconds(since) if since is not None else None
        most = microseconds(until) if until is not None else None
        terms, values = [], []
        for moment, test, block in ((least, "+e.time >= ?", "most >= ?"), (most, "+e.time < ?", "least < ?")):
            if moment is not None:
                self.tests.append(test)
                self.values.append(moment)
                terms.append(block)
                values.append(moment)
        if not terms:
            return
        first, last = self._base.execute(
            f"SELECT min(number), max(number) FROM blocks WHERE {' AND '.join(terms)}", values
        ).fetchone()
        if first is None:
            self.none = True
            return
        self.first, self.last = first * BLOCK, last * BLOCK + BLOCK - 1
        if self.last - self.first < self._fewest:
            self._fewest, self.leading, self.leading_values = self.last - self.first, None, []

    def _of_path(self, pattern: str, matches: Callable[[str], bool]) -> None:
        if not plain_parts(pattern)[0]:
            return
        found = matching(self._base, pattern, matches)
        chosen = list(islice(found, SOME))
        if len(chosen) == SOME:
            if self._few and chosen[-1] < self._last_path() // NEAR:
                return
            chosen += islice(found, MANY - SOME)
        if not chosen:
            self.none = True
        elif len(chosen) < MANY:
            most = 4 * SOME if self.tests else SOME  # with other conditions enough comes later
            self._keep("chosen_path", ((number,) for number in chosen))
            inside = "IN (SELECT id FROM chosen_path)"
            self.tests.append(f"(+e.path {inside} OR +e.resolved {inside})")
            if not self._few or len(chosen) < most:
                self._lead(
                    f"SELECT seq FROM entries INDEXED BY by_path WHERE path {inside} UNION "
                    f"SELECT seq FROM entries INDEXED BY by_resolved WHERE resolved {inside}",
                    [],
                )

    def _last_path(self) -> int:
        (last,) = self._base.execute("SELECT max(first) FROM paths").fetchone()
        return last or 0
