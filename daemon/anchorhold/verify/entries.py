"""Reads bundles, openings and entries, strictly.

Constraint: 300,000 entries a second on two cores. So grants, of which there are many, are matched whole by
regular expressions that leave no freedom, and other objects by one that knows the canonical form; whatever
does not match is taken apart with care, to the same verdict.
"""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

GROUPS = ("names", "digests", "text")
LIMIT = 65_535
SALT = 16

_COMMITMENT = rb"[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]="
"""44 characters of base64 of 32 bytes."""
_INTEGER = rb"(?:0|[1-9][0-9]{0,18})"
_STRING = (
    rb'"[ !#-\[\]-~]*+(?:\\(?:["\\bfnrt]|u(?:00(?:0[0-7bef]|1[0-9a-f]|7f|[89a-f][0-9a-f])|(?!00)[0-9a-f]{4}))'
    rb'[ !#-\[\]-~]*+)*+"'
)
"""A string in canonical form: what can stand for itself does, and what has a short escape has that."""

GRANT = re.compile(
    rb'\{"v":2,"seq":(0|[1-9][0-9]{0,18}),"time":"(.{19})\.([0-9]{6})Z","mono":(0|[1-9][0-9]{0,18})'
    rb',"session":"([0-9a-f]{16})","n":(0|[1-9][0-9]{0,18}),"kind":"grant","class":"([a-z]+)","size":'
    + _INTEGER
    + rb',"mode":"[a-z]+","phase":"[a-z]+"(?:,"request":[1-9][0-9]{0,18})?'
    rb',"names":"(.{44})","digests":"(.{44})"\}'
)
"""A grant as anchorhold writes it: seq, second, microseconds, mono, session, n, class, names, digests.

What stands for a dot is still to be looked at: the second as a time, the commitments by comparing them.
"""

GRANT_OPENINGS = re.compile(
    rb'\x03(..)(.{16}\{"path":'
    + _STRING
    + rb'(?:,"resolved":'
    + _STRING
    + rb')?\})\x00\x5d(.{16}\{"sha256":"[0-9a-f]{64}"\})',
    re.DOTALL,
)
"""The openings of a grant: the length of the first, which is still to be compared, and both."""

_SCALAR = rb"(?:" + _STRING + rb"|-?[1-9][0-9]{0,18}|0|true|false|null)"
_INNER = rb'\{(?:"[a-z0-9_]+":' + _SCALAR + rb'(?:,"[a-z0-9_]+":' + _SCALAR + rb")*+)?\}"
_USUAL = re.compile(
    rb'\{"[a-z0-9_]+":' + _SCALAR + rb'(?:,"[a-z0-9_]+":(?:' + _SCALAR + rb"|" + _INNER + rb"))*+\}"
)
"""An object in canonical form, but that a member may stand twice; objects in it hold no others."""

_COMMON = re.compile(
    rb'\{"v":2,"seq":(0|[1-9][0-9]{0,18}),"time":"([0-9-]{10}T[0-9:]{8})\.([0-9]{6})Z","mono":(0|[1-9][0-9]{0,18})'
    rb',"session":"(?:([0-9a-f]{16})","n":(0|[1-9][0-9]{0,18})|")'
    rb',"kind":"([a-z]+(?:\.[a-z]+)?)"'
)


_IS = re.compile(_COMMITMENT)


def is_commitment(data: bytes) -> bool:
    """44 characters of base64 of 32 bytes."""
    return _IS.fullmatch(data) is not None


class EntryError(Exception):
    """Bytes that are no entry. The text says why."""


ENOUGH = 257
"""Entries of a file that are looked for: a bundle has 256. One of zeros would have millions."""


def frames(data: bytes) -> tuple[list[bytes], int]:
    """The entries of a bundle (big-endian uint16 length before each), `ENOUGH` at most, and where the last
    whole one of them ends."""
    found: list[bytes] = []
    at = 0
    end = len(data)
    while at + 2 <= end and len(found) < ENOUGH:
        start = at + 2
        stop = start + (data[at] << 8 | data[at + 1])
        if stop > end:
            break
        found.append(data[start:stop])
        at = stop
    return found, at


def openings_at(data: bytes, at: int) -> tuple[list[tuple[int, bytes]], int]:
    """The openings of one entry: (group's number, its bytes; empty if erased), and where they end.

    Raises EntryError where the bytes are none.
    """
    if at >= len(data) or data[at] > 7:
        raise EntryError("its openings cannot be read")
    mask = data[at]
    at += 1
    found = []
    for group in range(3):
        if mask >> group & 1:
            start = at + 2
            at = start + int.from_bytes(data[at:start], "big")
            if at > len(data):
                raise EntryError("its openings cannot be read")
            found.append((group, data[start:at]))
    return found, at


def no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """For json: an object in which no member stands twice."""
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise EntryError("a field stands twice in it")
    return fields


def _no_constant(name: str) -> NoReturn:
    raise EntryError(f"{name} is no JSON")


def _no_fraction(text: str) -> NoReturn:
    raise EntryError("a number in it is no integer")


def _integer(text: str) -> int:
    if len(text) > 20:
        raise EntryError("a number in it is too large")
    return int(text)


_decode = json.JSONDecoder(
    object_pairs_hook=no_duplicates, parse_constant=_no_constant, parse_float=_no_fraction, parse_int=_integer
).decode
_quick = json.JSONDecoder().raw_decode
encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode
"""The canonical form."""


def canonical(data: bytes) -> Any:
    """A JSON value in canonical form (docs/audit-log.md, Entries). Raises EntryError."""
    if _USUAL.fullmatch(data) is not None:
        value: Any = _quick(data.decode("ascii"))[0]
        members = len(value) + sum(len(one) for one in value.values() if type(one) is dict)
        if data.count(b'":') == members:  # each member has one, so none was lost to another of its name
            return value
    try:
        text = data.decode("ascii")
        value = _decode(text)
        if encode(value) != text:
            raise EntryError("it is not in the canonical form")
    except (ValueError, RecursionError):
        raise EntryError("it is no JSON") from None
    return value


class Entry:
    """An entry's common members, and ``fields``: all of them. ``second`` and ``micro`` are of its time."""

    __slots__ = ("commitments", "fields", "kind", "micro", "mono", "n", "second", "seq", "session")

    def __init__(self, data: bytes) -> None:
        """Raises EntryError unless it is an entry in every detail."""
        fields = canonical(data)
        if not isinstance(fields, dict):
            raise EntryError("it is no JSON object")
        match = _COMMON.match(data)
        if fields.get("v") != 2 or type(fields.get("v")) is not int:
            raise EntryError("it is of an unknown version")
        if match is None or ("n" in fields) != (match[6] is not None):
            raise EntryError("its first members are not those of an entry")
        self.fields: dict[str, Any] = fields
        self.seq, self.second, self.micro = int(match[1]), match[2], int(match[3])
        self.mono, self.session = int(match[4]), (match[5] or b"").decode()
        self.n = int(match[6]) if match[6] is not None else -1
        self.kind = match[7].decode()
        self.commitments: dict[str, str] = {name: fields[name] for name in GROUPS if name in fields}
        count = len(self.commitments)
        if count:
            if list(fields)[-count:] != list(self.commitments):
                raise EntryError("its commitments are not its last members")
            if not all(
                type(one) is str and is_commitment(one.encode("ascii", "replace"))
                for one in self.commitments.values()
            ):
                raise EntryError("a commitment in it is malformed")


def opened(opening: bytes) -> dict[str, Any]:
    """The group in an opening. Raises EntryError."""
    if len(opening) <= SALT:
        raise EntryError("an opening of it is too short")
    try:
        fields = canonical(opening[SALT:])
    except EntryError as error:
        raise EntryError(f"an opening of it: {error}") from None
    if not isinstance(fields, dict):
        raise EntryError("an opening of it is no object")
    return fields
