"""What the entries of a session have to be, in which order, and what their clocks say. Independent of hashes.

A session's entries come in *segments*: what one bundle has of it, told in few words (`Segment`), so that
bundles can be looked at by several processes and judged in order by one.
"""

from __future__ import annotations

import calendar
import time

CONTENT = frozenset({"model", "data"})
"""Classes that may be granted only in a sealed cell."""

STEP = 1_000_000
"""Microseconds by which wall clock and time since boot may drift apart between two entries of a session."""


def wall_seconds(second: bytes) -> int:
    """POSIX seconds of ``2026-01-31T18:30:00``; a ValueError becomes -1: the text was checked for its form
    only."""
    try:
        return calendar.timegm(time.strptime(second.decode(), "%Y-%m-%dT%H:%M:%S"))
    except ValueError:
        return -1


class Segment:
    """What one bundle has of a session. ``events`` are (seq, kind, detail, times): detail is the class of a
    grant or list, the request of a request; equal neighbours are one event that came so many times."""

    __slots__ = (
        "events",
        "first",
        "first_n",
        "first_offset",
        "last_n",
        "last_offset",
        "problems",
        "session",
        "steps",
    )

    def __init__(self, session: str, seq: int, n: int, offset: int) -> None:
        self.session, self.first, self.first_n, self.first_offset = session, seq, n, offset
        self.last_n, self.last_offset = n - 1, offset
        self.events: list[list[object]] = []
        self.steps: list[tuple[int, int]] = []
        self.problems: list[tuple[int, str]] = []

    def add(self, seq: int, n: int, offset: int, kind: str, detail: object) -> None:
        """The next entry. ``offset``: wall clock less time since boot, microseconds."""
        if n != self.last_n + 1:
            self.problems.append((seq, _gap(n, self.last_n + 1)))
        self.last_n = n
        moved = offset - self.last_offset
        if moved > STEP or moved < -STEP:
            self.steps.append((seq, moved))
        self.last_offset = offset
        events = self.events
        if events and events[-1][1] == kind and events[-1][2] == detail and kind in ("grant", "list"):
            events[-1][3] += 1  # type: ignore[operator]
        else:
            events.append([seq, kind, detail, 1])

    def more(self, times: int, n: int, offset: int) -> None:
        """So many more like the last event, without a gap; ``n`` and ``offset`` of the last of them."""
        self.events[-1][3] += times  # type: ignore[operator]
        self.last_n, self.last_offset = n, offset

    def pack(self) -> tuple[object, ...]:
        """Plain values, for marshal."""
        return tuple(getattr(self, name) for name in self.__slots__)

    @classmethod
    def unpack(cls, values: tuple[object, ...]) -> Segment:
        """The reverse of `pack`."""
        segment = cls.__new__(cls)
        for name, value in zip(cls.__slots__, values, strict=True):
            setattr(segment, name, value)
        return segment


def _gap(n: int, expected: int) -> str:
    if n > expected:
        return f"it is number {n} of its session, but number {expected} should come: entries are missing"
    return f"it is number {n} of its session, but that has been: number {expected} should come"


class _Session:
    __slots__ = ("done", "next", "offset", "running", "sealed")

    def __init__(self, n: int, offset: int, *, sealed: bool = False) -> None:
        self.next, self.offset, self.sealed = n, offset, sealed
        self.running: set[object] = set()
        self.done: set[object] = set()


class Rules:
    """Fed segment by segment, in order; `check` says what is wrong with entries of one.

    ``pruned``: earlier epochs are not there any more, so a session may be met in its middle.
    """

    def __init__(self, *, pruned: bool = False) -> None:
        self.pruned = pruned
        self.steps: list[tuple[int, int]] = []
        self._open: dict[str, _Session] = {}
        self._ended: set[bytes] = set()
        self._partial: set[str] = set()

    @property
    def sessions(self) -> int:
        """Sessions that were met."""
        return len(self._open) + len(self._ended)

    @property
    def open_sessions(self) -> int:
        """Sessions without an end: still running, or ended by a crash."""
        return len(self._open)

    def next_number(self, session: str) -> int | None:
        """The ``n`` that the session's next entry has; 0 for a new one, None for one that may be met in its
        middle."""
        known = self._open.get(session)
        return known.next if known is not None else None if self.pruned else 0

    def check(self, segment: Segment) -> list[tuple[int, str, int]]:
        """What is wrong: seq, words, how many entries of the segment it is about."""
        found = [(seq, words, 1) for seq, words in segment.problems]
        name = segment.session
        session = self._open.get(name)
        if session is not None:
            if segment.first_n != session.next:
                found.append((segment.first, _gap(segment.first_n, session.next), 1))
            moved = segment.first_offset - session.offset
            if moved > STEP or moved < -STEP:
                self.steps.append((segment.first, moved))
        self.steps += segment.steps
        for seq, kind, detail, times in segment.events:
            assert isinstance(seq, int) and isinstance(kind, str) and isinstance(times, int)
            words = self._event(name, kind, detail, segment)
            if words:
                found.append((seq, words, times))
        if name in self._open:
            self._open[name].next, self._open[name].offset = segment.last_n + 1, segment.last_offset
        return found

    def _event(self, name: str, kind: str, detail: object, segment: Segment) -> str | None:
        session = self._open.get(name)
        if kind == "session.start":
            if session is not None or bytes.fromhex(name) in self._ended:
                return "a session starts that has started before"
            self._open[name] = _Session(segment.last_n + 1, segment.last_offset)
            return (
                None
                if segment.first_n == 0 or segment.events[0][1] != kind
                else "a session starts in its middle"
            )
        if session is None:
            if bytes.fromhex(name) in self._ended:
                return f"{kind} after its session's end"
            if not self.pruned or segment.first_n == 0:
                self._open[name] = _Session(segment.last_n + 1, segment.last_offset)  # said once
                self._open[name].sealed = True
                return f"{kind} before its session's start"
            session = self._open[name] = _Session(segment.last_n + 1, segment.last_offset, sealed=True)
            self._partial.add(name)
        if kind == "session.sealed":
            session.sealed = True
        elif kind == "session.end":
            del self._open[name]
            self._ended.add(bytes.fromhex(name))
        elif kind in ("request.start", "request.end"):
            return self._request(session, kind, detail, name)
        elif kind == "grant" and not isinstance(detail, str):
            return "a grant has no class"
        elif kind in ("grant", "list") and detail in CONTENT and not session.sealed:
            return f"a {kind} of class {detail} before session.sealed"
        return None

    def _request(self, session: _Session, kind: str, number: object, name: str) -> str | None:
        if type(number) is not int:
            return f"{kind} names no request"
        if kind == "request.start":
            if number in session.running or number in session.done:
                return "a request starts that has started before"
            session.running.add(number)
            return None
        if number not in session.running:
            if name in self._partial and number not in session.done:
                session.done.add(number)
                return None
            return "request.end without its request.start"
        session.running.remove(number)
        session.done.add(number)
        return None


def step_words(seq: int, moved: int) -> str:
    """A note about a clock that was set."""
    way = "forward" if moved > 0 else "back"
    return f"the clock was set {way} by {abs(moved) / 1_000_000:.1f} s before entry {seq}"
