"""Reads entry bundles and entries, strictly."""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", re.ASCII)
NONCE = re.compile(r"[0-9a-f]{32}")


class EntryError(Exception):
    """Bytes that are no entry. The text says why."""


def frames(data: bytes) -> tuple[list[bytes], int]:
    """The entries of a bundle (big-endian uint16 length before each), and where the last whole one ends."""
    found = []
    at = 0
    while at + 2 <= len(data):
        end = at + 2 + (data[at] << 8 | data[at + 1])
        if end > len(data):
            break
        found.append(data[at + 2 : end])
        at = end
    return found, at


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise EntryError("a field stands twice in it")
    return fields


def _no_constant(name: str) -> NoReturn:
    raise EntryError(f"{name} is no JSON")


_decode = json.JSONDecoder(object_pairs_hook=_no_duplicates, parse_constant=_no_constant).decode


def parse(data: bytes) -> dict[str, Any]:
    """One entry: strict JSON in ASCII, an object, with the common fields. Raises EntryError."""
    try:
        fields = _decode(data.decode("ascii"))
    except (ValueError, RecursionError):
        raise EntryError("it is no JSON object") from None
    if not isinstance(fields, dict):
        raise EntryError("it is no JSON object")
    for name, kind in (("v", int), ("seq", int), ("time", str), ("session", str), ("kind", str)):
        if type(fields.get(name)) is not kind:
            raise EntryError(f"its field {name} is missing or of the wrong type")
    if fields["v"] != 1:
        raise EntryError("it is of an unknown version")
    if not TIME.fullmatch(fields["time"]):
        raise EntryError("its time is no RFC 3339 time in UTC with microseconds")
    nonce = fields.get("nonce")
    if type(nonce) is not str or not NONCE.fullmatch(nonce):
        raise EntryError("its nonce is missing or malformed")
    return fields
