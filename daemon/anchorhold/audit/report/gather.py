"""Reads the entries once and keeps counts.

Constraint: memory is bounded however long the log is. So everything that is kept by name has a limit, and
what goes over it is still counted, by kind, and said to be left out. No number on the page is a guess: where
a count is not exact, `Gathered` says so.

An entry is a dict as `anchorhold.audit.query.entries` gives it. Any field can be missing (redacted) or be of
any type (a damaged log is reported on as well).
"""

from __future__ import annotations

from anchorhold.audit.report.text import moment, plain
from anchorhold.audit.report.tree import File, Tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    Entry = dict[str, Any]

PROGRAM = ("runtime", "system", "device")
"""Classes of what the program itself needs: its own files, and content that the supervisor makes up."""

SESSIONS = 5_000
SESSION_FILES = 1_000_000
"""Files held for all sessions that have not ended, together."""

REASONS = 300
ASKED = 5_000
EVENTS = 500
HOURS = 100_000
DIGESTS = 200
NAMED = 40
_BIG = 10**15
_LONG = 8_192


class Session:
    """One run of a model."""

    __slots__ = (
        "name", "first", "last", "start", "end", "outcome", "model", "policy", "policy_sha256", "times",
        "refused", "requests", "breaches", "kills", "model_name", "limits", "_files", "_count", "exact",
    )  # fmt: skip

    def __init__(self, name: str, time: str) -> None:
        self.name, self.first, self.last = name, time, time
        self.start = self.end = self.outcome = self.model = self.model_name = self.policy = (
            self.policy_sha256
        ) = ""
        self.times = self.refused = self.requests = self.breaches = self.kills = self.limits = 0
        self._files: set[File] = set()
        self._count = 0
        self.exact = True

    def show(self, file: File | None, room: int) -> int:
        """A file is handed over. Returns by how many files more are held, which ``room`` limits."""
        self.times += 1
        if file in self._files:
            return 0
        if file is None or room <= 0:
            self.exact = False
            return 0
        self._files.add(file)
        return 1

    def close(self) -> int:
        """After its end only the number of its files is kept. Returns how many were held."""
        held = len(self._files)
        self._count += held
        self._files = set()
        return held

    @property
    def files(self) -> int:
        """Different files; at least so many, where not `exact`."""
        return self._count + len(self._files)


class Reason:
    """Why something was refused, and what was asked for."""

    __slots__ = ("asked", "count", "left_out", "reason")

    def __init__(self, reason: str | None) -> None:
        self.reason = reason
        self.count = 0
        self.asked: dict[tuple[str, str | None], int] = {}  # (call, path): times
        self.left_out = 0


class Event:
    """Something that a reader wants to see one by one: a breach, a kill, a limit, a redaction."""

    __slots__ = ("count", "detail", "kind", "path", "reason", "session", "time", "what", "withheld")

    def __init__(self, kind: str, entry: Entry) -> None:
        self.kind = kind
        self.time = _text(entry, "time") or ""
        self.session = _text(entry, "session") or ""
        self.path = _text(entry, "path")
        self.reason = _text(entry, "reason") or ""
        self.withheld = _withheld(entry)
        self.detail = self.what = ""
        self.count = 0


class Digest:
    """A model or a policy, known by its digest, and who used it."""

    __slots__ = ("digest", "names", "sessions", "size", "users")

    def __init__(self, digest: str) -> None:
        self.digest = digest
        self.names: list[str | None] = []  # None: redacted
        self.size = 0
        self.sessions = 0
        self.users: list[str] = []

    def use(self, session: str, name: str | None, size: int = 0) -> None:
        """A session began with it."""
        self.sessions += 1
        self.size = size or self.size
        if len(self.users) < NAMED:
            self.users.append(session)
        if name not in self.names and len(self.names) < 5:
            self.names.append(name)


class Gathered:
    """What the entries add up to."""

    def __init__(self) -> None:
        self.entries = 0
        self.first = self.last = ""
        self.first_seq: int | None = None
        self.last_seq: int | None = None
        self.unsettled = 0
        self.unreadable = 0  # entries that are in the log, but could not be read
        self.problem = ""  # why not
        self.documents = Tree()
        self.program = Tree(files=20_000, folders=5_000)
        self.model_grants = 0
        self.listings = self.names_listed = 0
        self.requests = 0
        self.hours: dict[str, list[int]] = {}  # "2026-01-31T18": [shown, refused]
        self.untimed = 0
        self.sessions: dict[str, Session] = {}
        self.sessions_left_out = 0
        self.refused = self.refused_at_start = 0
        self.names_left_out = 0
        self.reasons: dict[tuple[bool, str | None], Reason] = {}  # (while starting, reason)
        self.breaches = self.kills = self.limits = 0
        self.incidents: list[Event] = []
        self.redactions: list[Event] = []
        self.redactions_left_out = self.redacted_entries = self.with_redaction = 0
        self.models: dict[str, Digest] = {}
        self.policies: dict[str, Digest] = {}
        self.digests_left_out = 0
        self.recovered = 0
        self._asked = self._held = 0

    # -- one method for each kind that matters

    def add(self, entry: Entry) -> None:
        """Count one entry."""
        self.entries += 1
        time = _text(entry, "time") or ""
        if time and (not self.first or time < self.first):
            self.first = time
        self.last = max(self.last, time)
        seq = entry.get("seq")
        if isinstance(seq, int):
            self.last_seq = seq
            if self.first_seq is None:
                self.first_seq = seq
        if entry.get("unsettled") is True:
            self.unsettled += 1
        if _withheld(entry):
            self.with_redaction += 1
        session = self._session(entry, time)
        handler = _HANDLERS.get(_text(entry, "kind") or "")
        if handler is not None:
            handler(self, entry, time, session)

    def _session(self, entry: Entry, time: str) -> Session | None:
        name = _text(entry, "session")
        if not name:
            return None
        session = self.sessions.get(name)
        if session is None:
            if len(self.sessions) >= SESSIONS:
                self.sessions_left_out += entry.get("kind") == "session.start"
                return None
            session = self.sessions[name] = Session(name, time)
        session.last = time
        return session

    def _at(self, time: str, column: int, times: int = 1) -> None:
        hour = time[:13]
        counts = self.hours.get(hour)
        if counts is None:
            if len(self.hours) >= HOURS or moment(time) is None:
                self.untimed += times
                return
            counts = self.hours[hour] = [0, 0]
        counts[column] += times

    def _grant(self, entry: Entry, time: str, session: Session | None) -> None:
        cls = entry.get("class")
        if cls == "model":
            self.model_grants += 1
            return
        path = _text(entry, "resolved") or _text(entry, "path")
        digest = _text(entry, "sha256")
        tree = self.program if cls in PROGRAM else self.documents
        file = tree.show(path, digest, _number(entry, "size"), time, piped=cls == "stdin")
        if cls not in PROGRAM:  # what is of no known class may be anybody's data, so it counts as such
            self._at(time, 0)
            if session is not None:
                self._held += session.show(file, SESSION_FILES - self._held)

    def _list(self, entry: Entry, time: str, session: Session | None) -> None:
        if entry.get("class") in (*PROGRAM, "model"):
            return
        self.listings += 1
        self.names_listed += _number(entry, "listed") or _number(entry, "names")
        self.names_left_out += _number(entry, "hidden")
        self.documents.tell(_text(entry, "resolved") or _text(entry, "path"))

    def _denial(self, entry: Entry, time: str, session: Session | None) -> None:
        times = _number(entry, "count") or 1
        starting = entry.get("phase") == "boot"
        self.refused += times
        if starting:
            self.refused_at_start += times
        else:
            self._at(time, 1, times)
        if session is not None and not starting:
            session.refused += times
        key = (starting, _text(entry, "reason"))
        reason = self.reasons.get(key)
        if reason is None:
            if len(self.reasons) >= REASONS:
                key = (starting, "other reasons")
            reason = self.reasons.setdefault(key, Reason(key[1]))
        reason.count += times
        path = _text(entry, "path")
        if path is None and "names" in _withheld(entry):
            path = ""
        asked = (_text(entry, "call") or "", path)
        if asked not in reason.asked:
            if self._asked >= ASKED:
                reason.left_out += times
                return
            self._asked += 1
        reason.asked[asked] = reason.asked.get(asked, 0) + times

    def _breach(self, entry: Entry, time: str, session: Session | None) -> None:
        self.breaches += 1
        event = self._incident("breach", entry)
        if event is not None:
            event.what = _text(entry, "call") or ""
        if session is not None:
            session.breaches += 1

    def _kill(self, entry: Entry, time: str, session: Session | None) -> None:
        self.kills += 1
        event = self._incident("kill", entry)
        if event is not None:
            micro = _number(entry, "microseconds")
            milli = entry.get("milliseconds")
            took = micro / 1000 if micro else milli if isinstance(milli, (int, float)) else -1
            if 0 <= took < 1e9:
                event.detail = f"dead after {took:.0f} ms"
        if session is not None:
            session.kills += 1

    def _limit(self, entry: Entry, time: str, session: Session | None) -> None:
        self.limits += 1
        event = self._incident("limit", entry)
        if event is not None:
            event.what = _text(entry, "limit") or ""
            event.reason = _text(entry, "detail") or _text(entry, "text") or ""
        if session is not None:
            session.limits += 1

    def _incident(self, kind: str, entry: Entry) -> Event | None:
        if len(self.incidents) >= EVENTS:
            return None
        self.incidents.append(Event(kind, entry))
        return self.incidents[-1]

    def _redaction(self, entry: Entry, time: str, session: Session | None) -> None:
        entries = _number(entry, "count")
        self.redacted_entries += entries
        if len(self.redactions) >= EVENTS:
            self.redactions_left_out += 1
            return
        event = Event("redaction", entry)
        event.count = entries
        event.detail = _text(entry, "by") or ""
        what = entry.get("what")
        groups = what[:10] if isinstance(what, list) else [what]
        event.what = ", ".join(plain(one)[:40] for one in groups)
        self.redactions.append(event)

    def _prune(self, entry: Entry, time: str, session: Session | None) -> None:
        if len(self.redactions) >= EVENTS:
            self.redactions_left_out += 1
            return
        event = Event("prune", entry)
        event.detail = _text(entry, "by") or ""
        epochs = entry.get("epochs")
        event.what = " to ".join(plain(one)[:20] for one in epochs[:2]) if isinstance(epochs, list) else "?"
        self.redactions.append(event)

    def _start(self, entry: Entry, time: str, session: Session | None) -> None:
        if session is None:
            return
        name = _text(entry, "policy")
        session.start = time
        session.policy = name or ""
        session.policy_sha256 = _text(entry, "policy_sha256") or ""
        if session.policy_sha256:
            self._use(self.policies, session.policy_sha256, session.name, name)
        model = entry.get("model")
        model = model if isinstance(model, dict) else {}
        session.model = _text(model, "sha256") or ""
        if session.model:
            path = _text(entry, "model_path") or _text(model, "path")
            label = path.rpartition("/")[2] if path else None
            session.model_name = label or ""
            self._use(
                self.models,
                session.model,
                session.name,
                label,
                _number(model, "size"),
            )

    def _use(
        self, known: dict[str, Digest], digest: str, session: str, name: str | None, size: int = 0
    ) -> None:
        if digest not in known:
            if len(known) >= DIGESTS:
                self.digests_left_out += 1
                return
            known[digest] = Digest(digest)
        known[digest].use(session, name, size)

    def _end(self, entry: Entry, time: str, session: Session | None) -> None:
        if session is not None:
            session.end = time
            session.outcome = _text(entry, "reason") or ""
            self._held -= session.close()

    def _request(self, entry: Entry, time: str, session: Session | None) -> None:
        self.requests += 1
        if session is not None:
            session.requests += 1

    def _recovered(self, entry: Entry, time: str, session: Session | None) -> None:
        self.recovered += 1

    @property
    def no_end(self) -> int:
        """Sessions that are running still, or crashed, or end after the period."""
        return sum(not session.end for session in self.sessions.values())

    @property
    def session_count(self) -> int:
        """All sessions."""
        return len(self.sessions) + self.sessions_left_out


_HANDLERS = {
    "grant": Gathered._grant,
    "list": Gathered._list,
    "denial": Gathered._denial,
    "breach": Gathered._breach,
    "kill": Gathered._kill,
    "limit": Gathered._limit,
    "redaction": Gathered._redaction,
    "prune": Gathered._prune,
    "session.start": Gathered._start,
    "session.end": Gathered._end,
    "request.start": Gathered._request,
    "log.recovered": Gathered._recovered,
}


def gather(entries: Iterable[Entry]) -> Gathered:
    """Count all entries."""
    found = Gathered()
    for entry in entries:
        found.add(entry)
    return found


def _text(entry: Entry, name: str) -> str | None:
    value = entry.get(name)
    return value[:_LONG] if isinstance(value, str) else None


def _number(entry: Entry, name: str) -> int:
    value = entry.get(name)
    return min(value, _BIG) if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def _withheld(entry: Entry) -> list[str]:
    value = entry.get("redacted")
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []
