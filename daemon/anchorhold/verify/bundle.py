"""Looks at one bundle by itself: its entries, its openings, their hashes. Told in few words, for whoever puts
the bundles together (`anchorhold.verify.check`), since bundles are looked at by several processes.
"""

from __future__ import annotations

from binascii import b2a_base64
from collections.abc import Sequence
from hashlib import sha256
from operator import add, sub
from struct import pack
from typing import Any

from anchorhold.verify.entries import (
    GRANT,
    GRANT_OPENINGS,
    GROUPS,
    Entry,
    EntryError,
    frames,
    is_commitment,
    opened,
    openings_at,
)
from anchorhold.verify.merkle import WIDTH
from anchorhold.verify.rules import KINDS, LOG_KINDS, LOOSE, STEP, Clock, Segment, boot_of, wall_seconds


class Seen:
    """What was found in a bundle. ``trailing``: bytes follow its last entry.

    ``hashes``: leaf hashes of its entries. ``problems``: (seq, words) of entries. ``segments``: of sessions,
    in order. ``own``: (seq, fields) of the log's own entries. ``erased``: (seq, mask of groups) of openings
    that are not there. ``loose``: bytes follow the last opening. ``last``: session and clocks of
    the last entry that is of a session.
    """

    __slots__ = ("erased", "hashes", "last", "loose", "own", "problems", "segments", "trailing")

    def __init__(self) -> None:
        self.hashes: list[bytes] = []
        self.problems: list[tuple[int, str]] = []
        self.segments: list[Segment] = []
        self.own: list[tuple[int, dict[str, Any]]] = []
        self.erased: list[tuple[int, int]] = []
        self.last: Clock | None = None
        self.loose = self.trailing = False


def look(bundle: bytes, openings: bytes | None, first: int, width: int, clocks: dict[bytes, int]) -> Seen:
    """Look at the first ``width`` entries of a bundle whose first one is number ``first``.

    ``openings``: theirs, None where this copy of the log has none. ``clocks`` remembers the seconds of time
    texts. Fewer hashes than ``width`` mean that the rest cannot be read.
    """
    if len(clocks) > 100_000:
        clocks.clear()
    seen = _look(bundle, openings, first, width, clocks, quick=True)
    if seen is None:
        seen = _look(bundle, openings, first, width, clocks, quick=False)
        assert seen is not None  # only the quick way gives up
    return seen


def _look(
    bundle: bytes, openings: bytes | None, first: int, width: int, clocks: dict[bytes, int], *, quick: bool
) -> Seen | None:
    """``quick``: grants are looked at without being taken apart, if all is well with them. None if not: only
    the careful way has words for it."""
    seen = Seen()
    entries, stop = frames(bundle)
    seen.trailing = width == WIDTH and len(entries) >= width and (len(entries) > width or stop != len(bundle))
    entries = entries[:width]
    seen.hashes = [sha256(b"\0" + entry).digest() for entry in entries]
    segments: dict[bytes, Segment] = {}
    matches = list(map(GRANT.fullmatch, entries)) if quick else [None] * len(entries)
    if len(entries) == WIDTH and openings is not None and None not in matches:
        groups = [one.groups() for one in matches if one]
        return seen if _all_grants(seen, groups, openings, first, clocks) else None
    match_openings = GRANT_OPENINGS.match
    problems = seen.problems
    at = 0
    broken = openings is None
    data = openings or b""
    commitments: tuple[tuple[int, bytes], ...] | None
    current, last_n, last_offset, last_class = b"", -2, 0, b""  # of the session that the last grant was of
    same = 0  # grants of that session and class since its segment was told
    last: Clock | None = None  # of the last entry of a session, where that was no grant
    last_second, wall = b"", -1
    digests: list[bytes] = []  # of grants' openings, which are compared all at once with
    committed: list[bytes] = []  # what these entries commit to
    for seq, (entry, match) in enumerate(zip(entries, matches, strict=True), first):
        if match is not None:
            number, second, micro, mono, session, n, detail, one, two = match.groups()
            if second != last_second:
                last_second, wall = second, _wall(second, clocks)
            found = match_openings(data, at)
            if found is not None:
                length, opening, other = found.groups()
                digests += sha256(opening).digest(), sha256(other).digest()
                committed += one, two
                good = length == len(opening).to_bytes(2, "big")
                at = found.end()
            else:
                good = openings is None and is_commitment(one) and is_commitment(two)
            if good and int(number) == seq and wall >= 0:
                offset = wall + int(micro) - int(mono)
                moved = offset - last_offset
                last_n += 1
                if session == current and detail == last_class and int(n) == last_n and -STEP < moved < STEP:
                    same += 1
                else:
                    _tell(segments, current, same, last_n - 1, last_offset)
                    before = (current, last_offset) if current else last
                    _segment(segments, session, seq, int(n), offset, before).add(
                        seq, int(n), offset, "grant", detail.decode()
                    )
                    current, last_n, last_class, same = session, int(n), detail, 0
                last_offset = offset
                continue
            if found is not None:
                return None
        _tell(segments, current, same, last_n, last_offset)
        last = (current, last_offset) if current else last
        current, same = b"", 0
        try:
            commitments, last = _slowly(entry, seq, seen, segments, clocks, last)
        except EntryError as error:
            problems.append((seq, str(error)))
            commitments = None
        if broken:
            continue
        try:
            several, at = openings_at(data, at)
        except EntryError as error:
            problems.append((seq, str(error)))
            broken = True
            continue
        if commitments is not None:
            _compare(commitments, several, seq, seen)
    _tell(segments, current, same, last_n, last_offset)
    if not _agree(digests, committed):
        return None
    seen.loose = not broken and at != len(data) and len(entries) == width
    seen.segments = list(segments.values())
    seen.last = (current, last_offset) if current else last
    return seen


def _all_grants(
    seen: Seen, groups: list[tuple[bytes, ...]], openings: bytes, first: int, clocks: dict[bytes, int]
) -> bool:
    """The segments of a full bundle of grants alone, as most are in a large log: column by column, which
    takes less than entry by entry. False if not all is well."""
    numbers, seconds, micros, monos, sessions, places, classes, names, digests = zip(*groups, strict=True)
    rows = GRANT_OPENINGS.findall(openings)
    walls = [_wall(second, clocks) for second in dict.fromkeys(seconds)]
    if list(map(int, numbers)) != list(range(first, first + WIDTH)) or len(rows) != WIDTH or min(walls) < 0:
        return False
    lengths, paths, others = zip(*rows, strict=True)
    sizes = list(map(len, paths))
    if b"".join(lengths) != pack(f">{WIDTH}H", *sizes) or len(openings) != sum(sizes) + WIDTH * REST:
        return False
    if not _agree([sha256(one).digest() for one in paths], names):
        return False
    if not _agree([sha256(one).digest() for one in others], digests):
        return False
    each = walls * WIDTH if len(walls) == 1 else map(clocks.__getitem__, seconds)
    offsets = list(map(sub, map(add, each, map(int, micros)), map(int, monos)))
    ns = list(map(int, places))
    segments: dict[bytes, Segment] = {}
    one_run = (
        sessions.count(sessions[0]) == classes.count(classes[0]) == WIDTH
        and ns == list(range(ns[0], ns[0] + WIDTH))
        and max(map(abs, map(sub, offsets[1:], offsets))) < STEP
    )
    start = 0
    while start < WIDTH:
        # the run of the same session and class without a gap in numbers or a step of the clock
        session, detail, n = sessions[start], classes[start], ns[start] - start
        end = WIDTH if one_run else start + 1
        while (
            end < WIDTH
            and sessions[end] == session
            and ns[end] == n + end
            and classes[end] == detail
            and -STEP < offsets[end] - offsets[end - 1] < STEP
        ):
            end += 1
        before = (sessions[start - 1], offsets[start - 1]) if start else None
        segment = _segment(segments, session, first + start, ns[start], offsets[start], before)
        segment.add(first + start, ns[start], offsets[start], "grant", detail.decode())
        _tell(segments, session, end - start - 1, ns[end - 1], offsets[end - 1])
        start = end
    seen.segments = list(segments.values())
    seen.last = sessions[-1], offsets[-1]
    return True


REST = 1 + 2 + 2 + 16 + len('{"sha256":""}') + 64
"""Bytes of a grant's openings but its names."""


def _agree(digests: Sequence[bytes], committed: Sequence[bytes]) -> bool:
    """Whether these are the base64 texts, of 44 characters each, of these digests."""
    text = bytearray(b2a_base64(b"\0".join([*digests, b""]), newline=False))
    # 33 bytes, the last a zero, are 44 characters; 32 are the first 43 of these and a "="
    text[43::44] = b"=" * len(digests)
    return text == b"".join(committed)


def _wall(second: bytes, clocks: dict[bytes, int]) -> int:
    """POSIX microseconds of a text without fraction, below zero if it is no time."""
    wall = clocks.get(second)
    if wall is None:
        wall = clocks[second] = wall_seconds(second) * 1_000_000
    return wall


def _segment(
    segments: dict[bytes, Segment], session: bytes, seq: int, n: int, offset: int, before: Clock | None
) -> Segment:
    segment = segments.get(session)
    if segment is None:
        segment = segments[session] = Segment(session.decode(), seq, n, offset, before)
    return segment


def _tell(segments: dict[bytes, Segment], session: bytes, same: int, n: int, offset: int) -> None:
    """Add the grants that were only counted to their session's segment."""
    if same:
        segments[session].more(same, n, offset)


def _slowly(
    data: bytes,
    seq: int,
    seen: Seen,
    segments: dict[bytes, Segment],
    clocks: dict[bytes, int],
    last: Clock | None,
) -> tuple[tuple[tuple[int, bytes], ...], Clock | None]:
    """Any entry, in every detail. Returns its commitments, and its clock if it is of a session, else the
    ``last`` one; raises EntryError."""
    entry = Entry(data)
    if entry.seq != seq:
        raise EntryError(f"it says that it is entry {entry.seq}")
    wall = _wall(entry.second, clocks)
    if wall < 0:
        raise EntryError("its time is no time")
    if entry.kind not in KINDS:
        raise EntryError("it is of an unknown kind")
    if entry.session:
        offset = wall + entry.micro - entry.mono
        name = entry.session.encode()
        segment = _segment(segments, name, seq, entry.n, offset, last)
        last = name, offset
        detail = entry.fields.get("request" if entry.kind.startswith("request.") else "class")
        if entry.kind == "session.start":
            detail = boot_of(entry.fields)
        elif detail is not None and type(detail) not in (str, int):
            raise EntryError("its class or request is of the wrong type")
        segment.add(seq, entry.n, offset, entry.kind, detail)
        if entry.kind in LOG_KINDS:
            raise EntryError(f"a {entry.kind} belongs to no session")
    elif entry.kind in LOG_KINDS:
        seen.own.append((seq, entry.fields))
    elif entry.kind not in LOOSE:
        raise EntryError(f"{entry.kind} without a session")
    return tuple((GROUPS.index(name), text.encode()) for name, text in entry.commitments.items()), last


def _differs(group: int) -> str:
    return f"its {GROUPS[group]} are not what was written: the commitment differs"


def _compare(
    commitments: tuple[tuple[int, bytes], ...], found: list[tuple[int, bytes]], seq: int, seen: Seen
) -> None:
    """An entry's openings against what it commits to."""
    if [group for group, _ in commitments] != [group for group, _ in found]:
        seen.problems.append((seq, "its openings are not those of its commitments"))
        return
    mask = 0
    for (group, commitment), (_, opening) in zip(commitments, found, strict=True):
        if not opening:
            mask |= 1 << group
        elif b2a_base64(sha256(opening).digest(), newline=False) != commitment:
            seen.problems.append((seq, _differs(group)))
        else:
            try:
                opened(opening)
            except EntryError as error:
                seen.problems.append((seq, str(error)))
    if mask:
        seen.erased.append((seq, mask))


def record_problem(shown: bytes, openings: bytes) -> tuple[str, int, str] | str:
    """A journal's record: (session, n, kind), or what is wrong with it."""
    try:
        found, end = openings_at(openings, 0)
        if end != len(openings):
            raise EntryError("bytes follow its openings")
        entry = Entry(b'{"v":2,"seq":0,%b}' % shown)
        if entry.commitments:
            raise EntryError("it holds commitments already")
        if wall_seconds(entry.second) < 0:
            raise EntryError("its time is no time")
        if entry.kind not in KINDS:
            raise EntryError("it is of an unknown kind")
        for _, opening in found:
            opened(opening)
    except EntryError as error:
        return str(error)
    return entry.session, entry.n, entry.kind
