"""How an event becomes the bytes of a journal's record, and a record the bytes of an entry.

Constraint: 100,000 a second, so json's C encoder is called once for each part, and salts and the second's
text are made in batches.

An entry holds its public fields in the open, and of each *group* of private fields (what can name a file, the
digests of contents, texts) only a commitment: SHA-256 of the *opening*, which is 16 random bytes and the
group as JSON. So an opening can be erased, or withheld from a receipt, and the tree still stands.
docs/audit-log.md has the format.

A path's bytes that are no UTF-8 come as surrogate escapes (``\\udc80``…), so they round-trip. tlog-tiles
gives an entry a uint16 length: at most 65,535 bytes; an opening has the same bound. What does not fit is
shortened in a defined way, and says so: see `shorten`.
"""

from __future__ import annotations

import json
import json.encoder
import os
import re
import time
from binascii import b2a_base64
from hashlib import sha256
from struct import Struct

from anchorhold.errors import AuditError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    Fields = dict[str, object]

VERSION = 2
LIMIT = 65_535
"""Bytes of an entry (tlog-tiles prefixes it with a uint16) and of an opening."""

HEAD = 1_000
"""Characters that a shortened field keeps."""

GROUPS = ("names", "digests", "text")
"""The private groups; bit N of a mask stands for GROUPS[N]."""

COMMON = frozenset(
    {"v", "seq", "time", "mono", "session", "n", "kind", "epoch", "redacted", "unsettled", *GROUPS}
)
"""Members that no event can set: they would forge an entry, or be mistaken for what a reader adds."""

_HIDDEN = {
    "path": 0, "resolved": 0, "files": 0, "model_path": 0, "policy": 0, "reason": 0, "detail": 0,
    "sha256": 1,
}  # fmt: skip
"""Which group a field belongs to. Free text is private too: an error's words can hold a path."""

_OPEN = frozenset({"request.end", "redaction", "log.recovered", "epoch.start", "epoch.end"})
"""Kinds whose ``reason`` and ``sha256`` are anchorhold's own, and are public."""

_SESSION = re.compile(r"[0-9a-f]{16}", re.ASCII)
_KIND = re.compile(r"[a-z]{1,20}(\.[a-z]{1,20})?", re.ASCII)

SALT = 16
_SALTS = 256
_ROOM = 600
"""Bytes that common fields and commitments may take: session and kind are bounded."""

_join = b"".join
_length = Struct(">H").pack
_head = Struct(">HBH").pack
"""Two bytes, and a record's head: two, and three as one and two."""

_HEADS = 1_000
"""Pairs of session and kind that are remembered."""


def _make_encode() -> Callable[[object], str]:
    """json's encoder, built once: ``json.dumps`` builds one for each call."""
    encoder = json.JSONEncoder(separators=(",", ":"), allow_nan=False, check_circular=False)
    make = getattr(json.encoder, "c_make_encoder", None)
    if make is None:  # a Python without the C accelerator
        return encoder.encode
    escape = json.encoder.encode_basestring_ascii
    call = make(None, encoder.default, escape, None, ":", ",", False, False, False)
    join = "".join
    return lambda value: join(call(value, 0))


encode = _make_encode()
_escape = json.encoder.encode_basestring_ascii


def split(kind: str, fields: Fields) -> tuple[Fields, tuple[Fields | None, Fields | None, Fields | None]]:
    """An event's fields apart: the public ones, and those of each group (None where it has none)."""
    public: Fields = {}
    groups: list[Fields | None] = [None, None, None]
    try:
        fraction = _has_fraction(fields)
    except RecursionError as error:
        raise AuditError(f"an audit entry cannot be written as JSON: {error}") from error
    if fraction:
        raise AuditError("an audit entry may hold no fraction: its text would not be the same everywhere")
    for name, value in fields.items():
        at = _HIDDEN.get(name)
        if name == "prompt" and isinstance(value, dict) and "text" in value:
            at = 2
        elif (
            at is None
            or not isinstance(value, (str, list))
            or (kind in _OPEN and name in ("reason", "sha256"))
        ):
            public[name] = value
            continue
        group = groups[at]
        if group is None:
            group = groups[at] = {}
        group[name] = value
    return public, (groups[0], groups[1], groups[2])


def _has_fraction(value: object) -> bool:
    if isinstance(value, dict):
        return any(map(_has_fraction, value.values()))
    return isinstance(value, float) or (isinstance(value, (list, tuple)) and any(map(_has_fraction, value)))


def _encoded(fields: Fields, room: int) -> str:
    try:
        text = encode(fields)
    except (TypeError, ValueError, RecursionError) as error:
        raise AuditError(f"an audit entry cannot be written as JSON: {error}") from error
    if len(text) > room:
        text = encode(shorten(fields, room))
        if len(text) > room:
            raise AuditError(f"an audit entry of {len(text)} bytes is too long; {room} are the limit")
    return text


def encode_public(fields: Fields) -> str:
    """The public fields as the rest of an object's members: ``,"a":1`` or nothing.

    Raises AuditError if a field takes a common member's name (that would forge it), is no JSON, or too long.
    """
    if not COMMON.isdisjoint(fields):
        raise AuditError(f"an audit entry may not set {', '.join(sorted(COMMON & fields.keys()))}")
    return "," + _encoded(fields, LIMIT - _ROOM)[1:-1] if fields else ""


def encode_group(fields: Fields) -> bytes:
    """A group as JSON, as it stands in an opening after the salt. Raises AuditError as `encode_public`."""
    if not COMMON.isdisjoint(fields):
        raise AuditError(f"an audit entry may not set {', '.join(sorted(COMMON & fields.keys()))}")
    return _encoded(fields, LIMIT - SALT).encode("ascii")


_GRANTS: dict[tuple[str, str, str], tuple[str, str]] = {}


def encode_grant(
    cls: str, size: int, mode: str, phase: str, request: int | None, path: str, resolved: str
) -> tuple[str, bytes]:
    """The public text and the names of a grant: what `encode_public` and `encode_group` make of them, in a
    third of the time, since grants are what there are many of."""
    around = _GRANTS.get((cls, mode, phase))
    if around is None:
        first, last = encode_public({"class": cls, "size": 0, "mode": mode, "phase": phase}).split(":0,")
        if len(_GRANTS) > _HEADS:
            _GRANTS.clear()
        around = _GRANTS[cls, mode, phase] = f"{first}:", f",{last}"
    asked = "" if request is None else f',"request":{request:d}'
    names = f'{{"path":{_escape(path)},"resolved":{_escape(resolved)}}}'
    if len(names) > LIMIT - SALT:
        return f"{around[0]}{size:d}{around[1]}{asked}", encode_group({"path": path, "resolved": resolved})
    return f"{around[0]}{size:d}{around[1]}{asked}", names.encode("ascii")


def shorten(fields: Fields, room: int) -> Fields:
    """Cut the longest fields until they fit: a text to its first `HEAD` characters, so each text of an object
    (a prompt), a list to its first elements that have room in as many.

    What was cut is named in the field ``shortened``: ``{name: {"bytes": n, "sha256": hex}}``, both of the
    field's whole value as it would have stood in the entry, quotes included. So the log still commits to it.
    """
    fields = dict(fields)
    cut: dict[str, Fields] = {}
    texts = {name: encode(value) for name, value in fields.items() if isinstance(value, (str, list, dict))}
    for name in sorted(texts, key=lambda name: -len(texts[name])):
        if len(texts[name]) <= 6 * HEAD:
            break
        whole = texts[name].encode("ascii")
        cut[name] = {"bytes": len(whole), "sha256": sha256(whole).hexdigest()}
        fields[name] = _cut(fields[name])
        fields["shortened"] = cut
        if len(encode(fields)) <= room:
            break
    return fields


def _cut(value: object) -> object:
    if isinstance(value, str):
        return value[:HEAD]
    if isinstance(value, dict):
        return {name: one[:HEAD] if isinstance(one, str) else one for name, one in value.items()}
    kept, room = [], HEAD
    for one in value if isinstance(value, list) else ():
        room -= len(encode(one))
        if room < 0:
            break
        kept.append(one)
    return kept


class Encoder:
    """Makes records; one for each `Log`, used under its mutex."""

    __slots__ = ("_heads", "_next", "_numbers", "_salts", "_second", "_stamp", "_used", "now")

    def __init__(self) -> None:
        self._heads: dict[tuple[str, str], tuple[str, str]] = {}
        self._numbers: dict[str, int] = {}
        self._next = 0
        self._salts = b""
        self._used = 0
        self._second = -1
        self.now = 0
        self._stamp = ""

    def _head(self, session: str, kind: str) -> tuple[str, str]:
        """The texts around ``n``; few different ones, so remembered."""
        if not _KIND.fullmatch(kind) or (session and not _SESSION.fullmatch(session)):
            raise AuditError(f"an audit entry cannot be of kind {kind!a} and session {session!a}")
        head = f',"session":"{session}"'
        tail = f',"kind":"{kind}"'
        if session:
            head += ',"n":'
        if len(self._heads) >= _HEADS:
            self._heads.clear()
        self._heads[session, kind] = head, tail
        return head, tail

    def salt(self, length: int = SALT) -> bytes:
        """Random bytes, never given twice."""
        at = self._used
        if at + length > len(self._salts):
            self._salts = os.urandom(_SALTS * SALT)
            at = 0
        self._used = at + length
        return self._salts[at : at + length]

    def record(
        self, session: str, kind: str, public: str, names: bytes, digests: bytes = b"", text: bytes = b""
    ) -> bytes:
        """A whole record of a journal. ``public`` is from `encode_public`, the groups from `encode_group`.

        `written` must follow once it is in the journal.
        """
        self.now = now = time.time_ns()
        second, nanosecond = divmod(now, 1_000_000_000)
        if second != self._second:
            self._stamp = time.strftime('"time":"%Y-%m-%dT%H:%M:%S.', time.gmtime(second))
            self._second = second
        head, tail = self._heads.get((session, kind)) or self._head(session, kind)
        mono = time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000
        number: int | str = ""
        if session:
            number = self._numbers.get(session, 0)
            self._next = number + 1
        micro = str(nanosecond // 1000).zfill(6)
        shown = f'{self._stamp}{micro}Z","mono":{mono}{head}{number}{tail}{public}'.encode("ascii")
        if names and digests and not text:  # a grant: the one that has to be fast
            salts = self.salt(2 * SALT)
            one, two = len(names) + SALT, len(digests) + SALT
            rest = 1 + 2 + one + 2 + two
            return _join(
                (_head(len(shown), rest >> 16, rest & 65_535), shown,
                 b"\3", _length(one), salts[:SALT], names, _length(two), salts[SALT:], digests)
            )  # fmt: skip
        openings = self._openings(names, digests, text)
        return _join((_head(len(shown), len(openings) >> 16, len(openings) & 65_535), shown, openings))

    def _openings(self, names: bytes, digests: bytes, text: bytes) -> bytes:
        mask, parts = 0, []
        for bit, group in ((1, names), (2, digests), (4, text)):
            if group:
                mask |= bit
                parts += [_length(len(group) + SALT), self.salt(), group]
        return bytes((mask,)) + _join(parts)

    def written(self, session: str) -> None:
        """The record made last is in the journal: the session's next entry has the next number. Twice is
        once."""
        if session:
            self._numbers[session] = self._next

    def forget(self, session: str) -> None:
        """The session has ended; its name never comes again."""
        self._numbers.pop(session, None)


RECORD_HEAD = 5
"""Bytes before a record's text: two of the text's length, three of its openings'."""

_MARKS = tuple(f',"{name}":"'.encode() for name in GROUPS)
_NAMES_AND_DIGESTS = 3
_MASKS = tuple(tuple(at for at in range(3) if mask >> at & 1) for mask in range(8))


def split_openings(data: bytes, at: int) -> tuple[list[tuple[int, int]], tuple[int, ...], int]:
    """The openings that begin at ``at``: (start, end) of each, which groups they are, and where they end.

    An erased one has start = end. Raises IndexError or ValueError where the bytes are none.
    """
    groups = _MASKS[data[at]]
    at += 1
    spans = []
    for _ in groups:
        start = at + 2
        at = start + (data[at] << 8 | data[at + 1])
        spans.append((start, at))
    if at > len(data):
        raise ValueError
    return spans, groups, at


def divide_openings(data: bytes, count: int) -> list[bytes]:
    """Those of each of the first ``count`` entries, undivided. Raises as `split_openings` does."""
    found = []
    at, end = 0, len(data)
    for _ in range(count):
        start = at
        mask = data[at]
        if mask == _NAMES_AND_DIGESTS:  # of a grant, that is of nearly all
            at += 3 + (data[at + 1] << 8 | data[at + 2])
            at += 2 + (data[at] << 8 | data[at + 1])
        else:
            at += 1
            for _ in _MASKS[mask]:
                at += 2 + (data[at] << 8 | data[at + 1])
        if at > end:
            raise ValueError
        found.append(data[start:at])
    return found


def build(seq: int, shown: bytes, openings: bytes) -> bytes:
    """The entry that a record becomes as number ``seq``."""
    spans, groups, _ = split_openings(openings, 0)
    text = b'{"v":2,"seq":%d,%b' % (seq, shown)
    for group, (start, end) in zip(groups, spans, strict=True):
        text += _MARKS[group] + b2a_base64(sha256(openings[start:end]).digest(), newline=False) + b'"'
    return text + b"}"


def records(data: bytes, at: int = 0) -> Iterator[tuple[bytes, bytes, int]]:
    """The whole records from ``at`` on: text, openings, and where each ends."""
    end = len(data)
    while at + RECORD_HEAD <= end:
        start = at + RECORD_HEAD
        middle = start + (data[at] << 8 | data[at + 1])
        at = middle + (data[at + 2] << 16 | data[at + 3] << 8 | data[at + 4])
        if at > end or middle == start or at == middle:  # zeros are no record
            return
        yield data[start:middle], data[middle:at], at


def is_sound(shown: bytes, openings: bytes) -> bool:
    """Whether a record is what was written, as far as it can be told: after a power loss it can hold
    zeros."""
    try:
        parts = [b"{%b}" % shown]
        spans, _, end = split_openings(openings, 0)
        parts += [openings[start + SALT : stop] for start, stop in spans]
        return end == len(openings) and all(isinstance(json.loads(part), dict) for part in parts)
    except (ValueError, IndexError, RecursionError):
        return False


def merge(shown: dict[str, object], openings: Iterable[tuple[str, bytes]]) -> dict[str, object]:
    """What a reader sees: the public fields and those of the openings in one; ``redacted`` names erased ones.

    ``openings``: group's name and the opening, empty where erased. Raises ValueError if one is no JSON.
    """
    entry = {name: value for name, value in shown.items() if name not in GROUPS}
    erased = []
    for name, opening in openings:
        fields = json.loads(opening[SALT:]) if opening else None
        if fields is None:
            erased.append(name)
        elif isinstance(fields, dict):
            cut, more = entry.get("shortened"), fields.get("shortened")
            entry.update((key, value) for key, value in fields.items() if key not in COMMON)
            if isinstance(cut, dict) and isinstance(more, dict):
                entry["shortened"] = {**cut, **more}
        else:
            raise ValueError
    if erased:
        entry["redacted"] = erased
    return entry
