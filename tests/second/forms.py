"""The small forms: canonical JSON, verifier keys, signed notes, numbers of tiles, proofs."""

from __future__ import annotations

import base64
import binascii
import json
import re
from hashlib import sha256
from typing import Any

from tests.second import ed25519


class Bad(Exception):
    """Something is not as the page says."""


def _no_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Bad("a member twice")
    return found


def _no_float(text: str) -> Any:
    raise Bad(f"{text} is no integer")


def canonical(data: bytes) -> Any:
    """The value of a text in canonical form."""
    try:
        value = json.loads(
            data.decode("ascii"),
            object_pairs_hook=_no_doubles,
            parse_float=_no_float,
            parse_constant=_no_float,
        )
        again = json.dumps(value, separators=(",", ":")).encode("ascii")
    except (ValueError, RecursionError) as error:
        raise Bad(f"no JSON: {error}") from None
    if again != data:
        raise Bad("not in canonical form")
    return value


def unbase64(text: str) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Bad("no base64") from None
    if base64.b64encode(data).decode() != text:
        raise Bad("no canonical base64")
    return data


class Key:
    """A verifier key, from ``<name>+<id>+<base64>``."""

    def __init__(self, text: str) -> None:
        name, plus, rest = text.partition("+")
        number, plus, data = rest.partition("+")
        key = unbase64(data) if plus else b""
        if len(key) != 33 or key[0] != 1:
            raise Bad("no Ed25519 vkey")
        if sha256(name.encode() + b"\n" + key).hexdigest()[:8] != number:
            raise Bad("the vkey's id is wrong")
        match = re.fullmatch(r"anchorhold/([0-9a-f]{16})/(0|[1-9][0-9]*)", name)
        if match is None:
            raise Bad("the vkey's name is no origin of a log")
        self.text, self.name, self.public = text, name, key[1:]
        self.number = bytes.fromhex(number)
        self.log, self.epoch = match[1], int(match[2])


class Head:
    """A checkpoint: its text, and that ``key`` signed it."""

    def __init__(self, data: bytes, key: Key) -> None:
        try:
            whole = data.decode("utf-8")
        except UnicodeDecodeError:
            raise Bad("the checkpoint is no UTF-8") from None
        text, gap, signatures = whole.partition("\n\n")
        if not gap or not signatures.endswith("\n"):
            raise Bad("the checkpoint is no signed note")
        text += "\n"
        if any(ord(character) < 32 and character != "\n" for character in whole):
            raise Bad("a control character in the checkpoint")
        good = 0
        for line in signatures[:-1].split("\n"):
            match = re.fullmatch(r"— ([^ +]+) ([A-Za-z0-9+/=]+)", line)
            if match is None:
                raise Bad("a signature line is malformed")
            value = unbase64(match[2])
            if len(value) < 5:
                raise Bad("a signature is too short")
            if match[1] == key.name and value[:4] == key.number:
                if not ed25519.verify(key.public, text.encode(), value[4:]):
                    raise Bad("the signature is not good")
                good += 1
        if good != 1:
            raise Bad("not signed by the log's key, or twice")
        lines = text[:-1].split("\n")
        if len(lines) != 3 or lines[0] != key.name:
            raise Bad("the checkpoint is of another origin, or not of three lines")
        if not re.fullmatch(r"0|[1-9][0-9]{0,17}", lines[1], re.ASCII):
            raise Bad("the checkpoint's size is no number")
        self.size, self.root, self.root_text = int(lines[1]), unbase64(lines[2]), lines[2]
        if len(self.root) != 32:
            raise Bad("the checkpoint's root is no SHA-256")


def leaf(entry: bytes) -> bytes:
    return sha256(b"\0" + entry).digest()


def node(left: bytes, right: bytes) -> bytes:
    return sha256(b"\1" + left + right).digest()


def split(size: int) -> int:
    """The largest power of two below ``size``."""
    return 1 << (size - 1).bit_length() - 1


def root(hashes: list[bytes]) -> bytes:
    if not hashes:
        return sha256(b"").digest()
    if len(hashes) == 1:
        return hashes[0]
    k = split(len(hashes))
    return node(root(hashes[:k]), root(hashes[k:]))


def proved(size: int, leaves: dict[int, bytes], proof: list[bytes]) -> bytes:
    """The root that a proof gives. ``leaves``: place → leaf hash."""
    rest = iter(proof)
    places = sorted(leaves)

    def reached(low: int, high: int) -> bytes:
        if not any(low <= place < high for place in places):
            found = next(rest, b"")
            if len(found) != 32:
                raise Bad("the proof is too short")
            return found
        if high - low == 1:
            return leaves[low]
        k = split(high - low)
        return node(reached(low, low + k), reached(low + k, high))

    if not places or places[0] < 0 or places[-1] >= size:
        raise Bad("a place outside of the tree")
    found = reached(0, size)
    if next(rest, None) is not None:
        raise Bad("the proof is too long")
    return found


def tile_name(number: int) -> str:
    """``<N>`` of a path."""
    text = f"{number % 1000:03}"
    while number := number // 1000:
        text = f"x{number % 1000:03}/{text}"
    return text
