"""How an event becomes the bytes of an entry.

Constraint: 50,000 a second, so one call of json's C encoder, nonces and the second's text made in batches.

An entry is one JSON object in ASCII, without spaces: the common fields ``v``, ``seq``, ``time``, ``session``,
``kind``, ``nonce`` in this order, then the event's own. A path's bytes that are no UTF-8 come as surrogate
escapes (``\\udc80``…), so they round-trip. tlog-tiles gives an entry a uint16 length: at most 65,535 bytes.
Two paths of 4,096 bytes, each byte escaped (six characters), fit. What does not fit is shortened in a
defined way, and says so: see `shorten`.
"""

from __future__ import annotations

import json
import json.encoder
import os
import time
from hashlib import sha256

from anchorhold.errors import AuditError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

VERSION = 1
LIMIT = 65_535
"""Bytes of an entry: tlog-tiles prefixes it with a uint16."""

HEAD = 1_000
"""Characters that a shortened field keeps."""

COMMON = frozenset({"v", "seq", "time", "session", "kind", "nonce"})
_NONCES = 256
_NONCE_HEX = 32
_ROOM = 400
"""Bytes that the common fields may take: session and kind are bounded by `Encoder.head`."""

_HEADS = 1_000
"""Pairs of session and kind that are remembered."""


def _make_encode() -> Callable[[object], str]:
    """json's encoder, built once: ``json.dumps`` with options builds one for each call."""
    encoder = json.JSONEncoder(separators=(",", ":"), allow_nan=False, check_circular=False)
    make = getattr(json.encoder, "c_make_encoder", None)
    if make is None:  # a Python without the C accelerator
        return encoder.encode
    escape = json.encoder.encode_basestring_ascii
    call = make(None, encoder.default, escape, None, ":", ",", False, False, False)
    join = "".join
    return lambda value: join(call(value, 0))


_encode = _make_encode()


def encode_fields(fields: dict[str, object]) -> str:
    """The event's own fields as the rest of a JSON object: ``,"a":1}`` or ``}``.

    Raises AuditError if a field takes a common field's name (that would forge it), is no JSON, or too long.
    """
    if not COMMON.isdisjoint(fields):
        raise AuditError(f"an audit entry may not set {', '.join(sorted(COMMON & fields.keys()))}")
    try:
        text = _encode(fields)
    except (TypeError, ValueError, RecursionError) as error:
        raise AuditError(f"an audit entry cannot be written as JSON: {error}") from error
    if len(text) > LIMIT - _ROOM:
        text = _encode(shorten(fields))
        if len(text) > LIMIT - _ROOM:
            raise AuditError(f"an audit entry of {len(text)} bytes is too long; {LIMIT} are the limit")
    return "," + text[1:] if fields else "}"


def shorten(fields: dict[str, object]) -> dict[str, object]:
    """Cut the longest text fields to their first `HEAD` characters until the entry fits.

    What was cut is named in the field ``shortened``: ``{name: {"bytes": n, "sha256": hex}}``, both of the
    field's whole value as it would have stood in the entry, quotes included. So the log still commits to it.
    """
    fields = dict(fields)
    cut: dict[str, dict[str, object]] = {}
    texts = {name: _encode(value) for name, value in fields.items() if isinstance(value, str)}
    for name in sorted(texts, key=lambda name: -len(texts[name])):
        value = fields[name]
        if len(texts[name]) <= 6 * HEAD or not isinstance(value, str):
            break
        whole = texts[name].encode("ascii")
        cut[name] = {"bytes": len(whole), "sha256": sha256(whole).hexdigest()}
        fields[name] = value[:HEAD]
        fields["shortened"] = cut
        if len(_encode(fields)) <= LIMIT - _ROOM:
            break
    return fields


class Encoder:
    """Builds entries; one for each `Log`, used under its lock."""

    __slots__ = ("_heads", "_nonces", "_second", "_stamp", "_used")

    def __init__(self) -> None:
        self._heads: dict[tuple[str, str], str] = {}
        self._nonces = ""
        self._used = 0
        self._second = -1
        self._stamp = ""

    def head(self, session: str, kind: str) -> str:
        """The fields between ``time`` and the nonce; few different ones, so remembered."""
        text = f'Z","session":{_encode(session)},"kind":{_encode(kind)},"nonce":"'
        if len(text) > _ROOM // 2 or not kind:
            raise AuditError("an audit entry's session or kind is too long or empty")
        if len(self._heads) >= _HEADS:
            self._heads.clear()
        self._heads[session, kind] = text
        return text

    def entry(self, seq: int, session: str, kind: str, rest: str) -> bytes:
        """The entry's bytes, with its two bytes of length before them. ``rest`` is from `encode_fields`."""
        second, nanosecond = divmod(time.time_ns(), 1_000_000_000)
        if second != self._second:
            self._stamp = time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(second))
            self._second = second
        at = self._used
        if at >= len(self._nonces):
            self._nonces = os.urandom(_NONCES * _NONCE_HEX // 2).hex()
            at = 0
        self._used = at + _NONCE_HEX
        head = self._heads.get((session, kind)) or self.head(session, kind)
        nonce = self._nonces[at : at + _NONCE_HEX]
        body = (
            f'{{"v":1,"seq":{seq},"time":"{self._stamp}{nanosecond // 1000:06d}{head}{nonce}"{rest}'
        ).encode("ascii")
        return len(body).to_bytes(2, "big") + body


def scan(data: bytes, seq: int, *, parse: bool) -> tuple[int, int]:
    """How many whole entries ``data`` starts with, numbered from ``seq``, and where the last one ends.

    A record is whole if its length is there and it is the entry that has to stand at this place.
    ``parse`` reads the JSON too: after a power loss a page of zeros can lie in the middle of a record.
    """
    count = at = 0
    end = len(data)
    while at + 2 <= end:
        stop = at + 2 + int.from_bytes(data[at : at + 2], "big")
        entry = data[at + 2 : stop]
        if stop > end or not entry.startswith(b'{"v":1,"seq":%d,' % (seq + count)) or entry[-1:] != b"}":
            break
        if parse:
            try:
                json.loads(entry)
            except (ValueError, RecursionError):
                break
        at = stop
        count += 1
    return count, at
