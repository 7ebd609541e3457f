"""What the entries of a session have to be, in which order, and what their clocks say. Independent of hashes.

A session's entries come in *segments*: what one bundle has of it, told in few words (`Segment`), so that
bundles can be looked at by several processes and judged in order by one.
"""

from __future__ import annotations

import calendar
import re
from typing import Any

CONTENT = frozenset({"model", "data"})
"""Classes that may be granted only in a sealed cell."""

LOG_KINDS = frozenset({"log.recovered", "epoch.start", "epoch.end", "redaction", "prune"})
"""Entries of the log's own, of no session."""

LOOSE = frozenset({"policy.load", "kill"})
"""Kinds that can be of a session or of none: a kill is of none where nobody was left to record it."""

INSIDE = frozenset({"grant", "list", "session.sealed", "session.end", "request.start", "request.end"})
"""Kinds that belong between a session's start and its end; what ends a failed start can come before."""

KINDS = INSIDE | LOG_KINDS | {"session.start", "denial", "breach", "policy.load", "limit", "kill"}

STEP = 1_000_000
"""Microseconds by which wall clock and time since boot may drift apart between two entries. A clock that is
slewed (NTP) goes faster or slower in both, so they do not; a leap second is one step of this size."""

LONGEST_BOOT = 64
"""Characters of a boot's name; the kernel's has 36."""

Clock = tuple[bytes, int]
"""A session, and wall clock less time since boot of an entry of it, in microseconds."""


_SECOND = re.compile(rb"([0-9]{4})-([0-9]{2})-([0-9]{2})T([0-9]{2}):([0-9]{2}):([0-9]{2})")
_DAYS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


def wall_seconds(second: bytes) -> int:
    """POSIX seconds of ``2026-01-31T18:30:00``; -1 for what is no such time, or before 1970."""
    match = _SECOND.fullmatch(second)
    if match is None:
        return -1
    year, month, day, hour, minute, of_minute = map(int, match.groups())
    if not (year >= 1970 and 1 <= month <= 12 and hour < 24 and minute < 60 and of_minute < 60):
        return -1
    if not 1 <= day <= _DAYS[month - 1] + (month == 2 and calendar.isleap(year)):
        return -1
    return calendar.timegm((year, month, day, hour, minute, of_minute, 0, 0, 0))


def boot_of(fields: dict[str, Any]) -> str | None:
    """The boot of the machine that a ``session.start`` names, if it does."""
    boot = fields.get("boot")
    return boot if isinstance(boot, str) and 0 < len(boot) <= LONGEST_BOOT else None


class Segment:
    """What one bundle has of a session. ``events`` are (seq, kind, detail, times): detail is the class of a
    grant or list, the request of a request, the boot of a session's start; equal neighbours are one event
    that came so many times. ``gaps`` are (seq, n, the number that should have come). ``before``: the last
    entry of a session that the bundle has before the first of this one."""

    __slots__ = (
        "aside",
        "before",
        "events",
        "first",
        "first_n",
        "first_offset",
        "gaps",
        "last_n",
        "last_offset",
        "session",
        "steps",
    )

    def __init__(self, session: str, seq: int, n: int, offset: int, before: Clock | None = None) -> None:
        self.before = before
        self.session, self.first, self.first_n, self.first_offset = session, seq, n, offset
        self.last_n, self.last_offset = n - 1, offset
        self.aside = (
            -2
        )  # after a gap: what came before it. If the numbers go on from there, one number was wrong
        # seq, kind, detail, times: a list each, since the last one's times go up, and plain, for marshal
        self.events: list[list[Any]] = []
        self.steps: list[tuple[int, int]] = []
        self.gaps: list[tuple[int, int, int]] = []

    def add(self, seq: int, n: int, offset: int, kind: str, detail: object) -> None:
        """The next entry. ``offset``: wall clock less time since boot, microseconds."""
        expected = self.last_n + 1
        if n == self.aside + 1:
            self.aside = -2
        elif n != expected:
            self.gaps.append((seq, n, expected))
            self.aside = expected
        else:
            self.aside = -2
        self.last_n = n
        moved = offset - self.last_offset
        if moved > STEP or moved < -STEP:
            self.steps.append((seq, moved))
        self.last_offset = offset
        events = self.events
        if events and events[-1][1] == kind and events[-1][2] == detail and kind in ("grant", "list"):
            events[-1][3] += 1
        else:
            events.append([seq, kind, detail, 1])

    def more(self, times: int, n: int, offset: int) -> None:
        """So many more like the last event, without a gap; ``n`` and ``offset`` of the last of them."""
        self.events[-1][3] += times
        self.last_n, self.last_offset, self.aside = n, offset, -2

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
    __slots__ = ("boot", "done", "next", "offset", "partial", "running", "sealed", "started")

    def __init__(self, boot: str | None) -> None:
        self.boot = boot
        self.next = self.offset = 0
        self.started = self.sealed = False
        self.partial = False  # entries of it are known to be missing: what they began can end
        self.running: set[object] = set()
        self.done: set[object] = set()

    def excuse(self) -> None:
        """Whatever has to come before may have been among the missing entries."""
        self.partial = self.started = self.sealed = True


class Rules:
    """Fed segment by segment, in order; `check` says what is wrong with entries of one.

    ``pruned``: earlier epochs are not there any more, so a session may be met in its middle.
    """

    def __init__(self, *, pruned: bool = False) -> None:
        self.pruned = pruned
        self.steps: list[tuple[int, int]] = []
        self.unreadable = (
            0  # entries that could not be read, and were not found to be missing in a session yet
        )
        self._last: tuple[str | None, int] | None = None  # boot and offset of the last entry of a session
        self._left: dict[str, str | None] = {}  # boots of sessions that ended in the bundle that is looked at
        self._open: dict[str, _Session] = {}
        self._ended: set[bytes] = set()

    @property
    def sessions(self) -> int:
        """Sessions that started."""
        return self.open_sessions + len(self._ended)

    @property
    def open_sessions(self) -> int:
        """Sessions without an end: still running, or ended by a crash."""
        return sum(session.started for session in self._open.values())

    def next_number(self, session: str) -> int | None:
        """The ``n`` that the session's next entry has; 0 for a new one, None for one that may be met in its
        middle."""
        known = self._open.get(session)
        return known.next if known is not None else None if self.pruned else 0

    def check(self, segment: Segment) -> list[tuple[int, str, int]]:
        """What is wrong: seq, words, how many entries of the segment it is about."""
        found: list[tuple[int, str, int]] = []
        name = segment.session
        gaps = list(segment.gaps)
        session = self._open.get(name)
        if session is None:
            _, kind, detail, _ = segment.events[0]
            boot = detail if kind == "session.start" and isinstance(detail, str) else None
            session = self._open[name] = _Session(boot)
            if segment.first_n and self.pruned:
                session.excuse()
            elif segment.first_n and bytes.fromhex(name) not in self._ended:
                gaps.insert(0, (segment.first, segment.first_n, 0))
            self._compare(segment, boot)
        else:
            if segment.first_n != session.next:
                gaps.insert(0, (segment.first, segment.first_n, session.next))
            moved = segment.first_offset - session.offset
            if moved > STEP or moved < -STEP:
                self.steps.append((segment.first, moved))
        for at, n, expected in gaps:
            if 0 < n - expected <= self.unreadable:
                self.unreadable -= n - expected
            else:
                found.append((at, _gap(n, expected), 1))
            session.excuse()  # what follows from the gap is not another fault
        self.steps += segment.steps
        for seq, kind, detail, times in segment.events:
            assert isinstance(seq, int) and isinstance(kind, str) and isinstance(times, int)
            words = self._event(name, session, kind, detail)
            if words:
                found.append((seq, words, times))
        session.next, session.offset = segment.last_n + 1, segment.last_offset
        return found

    def _compare(self, segment: Segment, boot: str | None) -> None:
        """The clocks of a session's first entry with those of the entry before it, of whichever session.

        Forward they go with each restart of the machine; back only if the clock was set.
        """
        last = self._last if segment.before is None else self._clock(segment.before)
        if last is not None:
            moved = segment.first_offset - last[1]
            if moved < -STEP or (moved > STEP and boot is not None and boot == last[0]):
                self.steps.append((segment.first, moved))

    def _clock(self, clock: Clock) -> tuple[str | None, int]:
        name = clock[0].decode()
        session = self._open.get(name)
        return session.boot if session is not None else self._left.get(name), clock[1]

    def went_on(self, last: Clock | None) -> None:
        """All of a bundle was looked at; its ``last`` entry of a session."""
        if last is not None:
            self._last = self._clock(last)
        self._left.clear()

    def _event(self, name: str, session: _Session, kind: str, detail: object) -> str | None:
        if bytes.fromhex(name) in self._ended:
            self._open.pop(name, None)
            return f"{kind} after its session's end"
        if kind == "session.start":
            if session.started and not session.partial:
                return "a session starts that has started before"
            session.started = True
        elif kind in INSIDE and not session.started:
            session.excuse()  # said once
            return f"{kind} before its session's start"
        elif kind == "session.sealed":
            session.sealed = True
        elif kind == "session.end":
            self._open.pop(name, None)
            self._left[name] = session.boot
            self._ended.add(bytes.fromhex(name))
        elif kind in ("request.start", "request.end"):
            return self._request(session, kind, detail)
        elif kind == "grant" and not isinstance(detail, str):
            return "a grant has no class"
        elif (
            kind in ("grant", "list") and isinstance(detail, str) and detail in CONTENT and not session.sealed
        ):
            return f"a {kind} of class {detail} before session.sealed"
        return None

    def _request(self, session: _Session, kind: str, number: object) -> str | None:
        if type(number) is not int:
            return f"{kind} names no request"
        if kind == "request.start":
            if number in session.running or number in session.done:
                return "a request starts that has started before"
            session.running.add(number)
            return None
        if number not in session.running:
            if session.partial and number not in session.done:
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
