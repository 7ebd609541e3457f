"""Looks at one bundle by itself: its entries, its openings, their hashes. Told in few words, for whoever puts
the bundles together (`anchorhold.verify.check`), since bundles are looked at by several processes.
"""

from __future__ import annotations

from binascii import b2a_base64
from hashlib import sha256
from typing import Any

from anchorhold.verify.entries import (
    GRANT,
    GROUPS,
    Entry,
    EntryError,
    frames,
    is_commitment,
    opened,
    openings_at,
)
from anchorhold.verify.merkle import WIDTH
from anchorhold.verify.rules import STEP, Segment, wall_seconds

LOG_KINDS = frozenset({"log.recovered", "epoch.start", "epoch.end", "redaction", "prune"})
"""Entries of the log's own, of no session."""


class Seen:
    """What was found in a bundle. ``trailing``: bytes follow its last entry.

    ``hashes``: leaf hashes of its entries. ``problems``: (seq, words) of entries. ``segments``: of sessions,
    in order. ``own``: (seq, fields) of the log's own entries. ``erased``: (seq, mask of groups) of openings
    that are not there.
    """

    __slots__ = ("erased", "hashes", "openings_problem", "own", "problems", "segments", "trailing")

    def __init__(self) -> None:
        self.hashes: list[bytes] = []
        self.problems: list[tuple[int, str]] = []
        self.segments: list[Segment] = []
        self.own: list[tuple[int, dict[str, Any]]] = []
        self.erased: list[tuple[int, int]] = []
        self.openings_problem = ""
        self.trailing = False


def look(bundle: bytes, openings: bytes | None, first: int, width: int, clocks: dict[bytes, int]) -> Seen:
    """Look at the first ``width`` entries of a bundle whose first one is number ``first``.

    ``openings``: theirs, None where this copy of the log has none. ``clocks`` remembers the seconds of time
    texts. Fewer hashes than ``width`` mean that the rest cannot be read.
    """
    seen = Seen()
    entries, stop = frames(bundle)
    seen.trailing = width == WIDTH and len(entries) >= width and (len(entries) > width or stop != len(bundle))
    entries = entries[:width]
    seen.hashes = [sha256(b"\0" + entry).digest() for entry in entries]
    segments: dict[bytes, Segment] = {}
    if len(clocks) > 100_000:
        clocks.clear()
    match_grant = GRANT.fullmatch
    problems = seen.problems
    at = 0
    broken = openings is None
    data = openings or b""
    commitments: tuple[tuple[int, bytes], ...] | None
    current, last_n, last_offset, last_class = b"", -2, 0, b""  # of the session that the last grant was of
    same = 0  # grants of that session and class since its segment was told
    for seq, entry in enumerate(entries, first):
        match = match_grant(entry)
        try:
            if match is not None:
                number, second, micro, mono, session, n, detail, names, digests = match.groups()
                if int(number) != seq:
                    raise EntryError(f"it says that it is entry {int(number)}")
                offset = _wall(second, clocks) + int(micro) - int(mono)
                moved = offset - last_offset
                last_n += 1
                if session == current and detail == last_class and int(n) == last_n and -STEP < moved < STEP:
                    same += 1
                else:
                    _tell(segments, current, same, last_n - 1, last_offset)
                    _segment(segments, session, seq, int(n), offset).add(
                        seq, int(n), offset, "grant", detail.decode()
                    )
                    current, last_n, last_class, same = session, int(n), detail, 0
                last_offset = offset
                # -- its openings: the usual case without calls
                if data[at : at + 1] == b"\3":
                    middle = at + 3 + (data[at + 1] << 8 | data[at + 2])
                    one = data[at + 3 : middle]
                    end = middle + 2 + int.from_bytes(data[middle : middle + 2], "big")
                    two = data[middle + 2 : end]
                    if (
                        b2a_base64(sha256(one).digest(), newline=False) == names
                        and b2a_base64(sha256(two).digest(), newline=False) == digests
                        and one[16:17] == two[16:17] == b"{"
                        and one[-1:] == two[-1:] == b"}"
                    ):
                        at = end
                        continue
                commitments = ((0, names), (1, digests))
                if not is_commitment(names.decode("latin-1")) or not is_commitment(digests.decode("latin-1")):
                    raise EntryError("a commitment in it is malformed")
            else:
                _tell(segments, current, same, last_n, last_offset)
                current, same = b"", 0
                commitments = _slowly(entry, seq, seen, segments, clocks)
        except EntryError as error:
            problems.append((seq, str(error)))
            commitments = None
        if broken:
            continue
        try:
            found, at = openings_at(data, at)
        except EntryError as error:
            problems.append((seq, str(error)))
            broken = True
            continue
        if commitments is not None:
            _compare(commitments, found, seq, seen)
    _tell(segments, current, same, last_n, last_offset)
    if not broken and at != len(data) and len(entries) == width:
        seen.openings_problem = "bytes"
    seen.segments = list(segments.values())
    return seen


def _wall(second: bytes, clocks: dict[bytes, int]) -> int:
    """POSIX microseconds of a text without fraction; most entries share their second with the one before."""
    wall = clocks.get(second)
    if wall is None:
        wall = clocks[second] = wall_seconds(second)
    if wall < 0:
        raise EntryError("its time is no time")
    return wall * 1_000_000


def _segment(segments: dict[bytes, Segment], session: bytes, seq: int, n: int, offset: int) -> Segment:
    segment = segments.get(session)
    if segment is None:
        segment = segments[session] = Segment(session.decode(), seq, n, offset)
    return segment


def _tell(segments: dict[bytes, Segment], session: bytes, same: int, n: int, offset: int) -> None:
    """Add the grants that were only counted to their session's segment."""
    if same:
        segments[session].more(same, n, offset)


def _slowly(
    data: bytes, seq: int, seen: Seen, segments: dict[bytes, Segment], clocks: dict[bytes, int]
) -> tuple[tuple[int, bytes], ...]:
    """Any entry, in every detail. Returns its commitments; raises EntryError."""
    entry = Entry(data)
    if entry.seq != seq:
        raise EntryError(f"it says that it is entry {entry.seq}")
    wall = _wall(entry.second, clocks)
    if entry.session:
        offset = wall + entry.micro - entry.mono
        segment = _segment(segments, entry.session.encode(), seq, entry.n, offset)
        detail = entry.fields.get("request" if entry.kind.startswith("request.") else "class")
        if detail is not None and type(detail) not in (str, int):
            raise EntryError("its class or request is of the wrong type")
        segment.add(seq, entry.n, offset, entry.kind, detail)
        if entry.kind in LOG_KINDS:
            raise EntryError(f"a {entry.kind} belongs to no session")
    elif entry.kind in LOG_KINDS:
        seen.own.append((seq, entry.fields))
    elif entry.kind != "policy.load":
        raise EntryError(f"{entry.kind} without a session")
    return tuple((GROUPS.index(name), text.encode()) for name, text in entry.commitments.items())


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
            seen.problems.append(
                (seq, f"its {GROUPS[group]} are not what was written: the commitment differs")
            )
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
        for _, opening in found:
            opened(opening)
    except EntryError as error:
        return str(error)
    return entry.session, entry.n, entry.kind
