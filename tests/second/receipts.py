"""Receipts and cosignatures, from docs/audit-log.md (Receipts, Proofs) and C2SP tlog-cosignature."""

from __future__ import annotations

import base64
import json
import re
from hashlib import sha256
from typing import Any

from tests.second import ed25519
from tests.second.forms import Bad, Head, Key, canonical, leaf, proved, unbase64
from tests.second.verifier import GROUPS, Entry, Sessions, whole


def ended(entries: list[dict[str, Any]]) -> bool:
    """Whether the entries that a receipt proves are all of the session, or only its beginning."""
    return bool(entries[-1]["kind"] == "session.end")


def receipt(text: bytes, vkey: str) -> list[dict[str, Any]]:
    """The entries that a receipt proves, disclosed groups among their members. Raises Bad.

    Nothing is missing before the last of them. Whether anything came after it, `ended` tells.
    """
    try:
        found = json.loads(text)
    except ValueError as error:
        raise Bad(f"no JSON: {error}") from None
    if list(found) != ["anchorhold", "v", "session", "request", "chain", "parts"]:
        raise Bad("other members")
    if found["anchorhold"] != "receipt" or found["v"] != 2:
        raise Bad("no receipt")
    keys = _chain(found["chain"], Key(vkey))
    entries: list[dict[str, Any]] = []
    sessions = Sessions(pruned=False)
    for part in found["parts"]:
        key = keys.get(part["vkey"])
        if key is None:
            raise Bad("a part is signed by no key of the chain")
        for fields, shown in _part(part, key):
            if fields["session"] != found["session"]:
                raise Bad("an entry of another session")
            sessions.add(fields)
            entries.append({**fields, **shown})
    if not entries:
        raise Bad("no entries")
    if found["request"] is not None:
        number = int(found["request"].removeprefix(found["session"] + "-"))
        if entries[-1]["kind"] != "request.end" or entries[-1].get("request") != number:
            raise Bad("it does not end with the request's end")
    return entries


def _chain(chain: list[dict[str, Any]], key: Key) -> dict[str, Key]:
    """The keys that the chain of epochs names, from the root key on."""
    keys = {key.text: key}
    for link in chain:
        if link["vkey"] != key.text:
            raise Bad("the chain has another key")
        head = Head(link["checkpoint"].encode(), key)
        entry = json.dumps(link["entry"], separators=(",", ":")).encode()
        if proved(head.size, {head.size - 1: leaf(entry)}, list(map(unbase64, link["proof"]))) != head.root:
            raise Bad("an epoch.end is not proved")
        end = canonical(entry)
        if end["kind"] != "epoch.end" or end["epoch"] != key.epoch:
            raise Bad("the chain holds no epoch.end")
        following = Key(end["next"])
        if following.log != key.log or following.epoch != key.epoch + 1:
            raise Bad("the chain leads to another log")
        key = following
        keys[key.text] = key
    return keys


def _part(part: dict[str, Any], key: Key) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    head = Head(part["checkpoint"].encode(), key)
    places = [place for low, high in part["indexes"] for place in range(low, high + 1)]
    if len(places) != len(part["entries"]) or places != sorted(set(places)):
        raise Bad("its places are not those of its entries")
    leaves, found = {}, []
    for place, given in zip(places, part["entries"], strict=True):
        fields, shown = dict(given), {}
        for name in GROUPS:
            if type(fields.get(name)) is list:
                salt, group = fields[name]
                opening = unbase64(salt) + json.dumps(group, separators=(",", ":")).encode()
                if len(unbase64(salt)) != 16:
                    raise Bad("a salt of another length")
                fields[name] = base64.b64encode(sha256(opening).digest()).decode()
                shown.update(group)
        data = json.dumps(fields, separators=(",", ":")).encode("ascii")
        if not whole(fields.get("seq")):
            raise Bad("an entry without a number")
        Entry(data, fields["seq"])
        leaves[place] = leaf(data)
        found.append((fields, shown))
    if proved(head.size, leaves, list(map(unbase64, part["proof"]))) != head.root:
        raise Bad("the entries are not in the tree that was signed")
    return found


def cosigned(note: str, witness: str) -> int:
    """When that witness saw the checkpoint, POSIX seconds. Raises Bad. Source: c2sp.org/tlog-cosignature."""
    name, number, data = witness.split("+", 2)
    key = unbase64(data)
    if len(key) != 33 or key[0] != 4 or sha256(name.encode() + b"\n" + key).hexdigest()[:8] != number:
        raise Bad("no witness's vkey")
    text, _, signatures = note.partition("\n\n")
    for line in signatures.splitlines():
        match = re.fullmatch(r"— ([^ +]+) ([A-Za-z0-9+/=]+)", line)
        value = unbase64(match[2]) if match else b""
        if match and match[1] == name and value[:4].hex() == number:
            when = int.from_bytes(value[4:12], "big")
            if ed25519.verify(key[1:], f"cosignature/v1\ntime {when}\n{text}\n".encode(), value[12:]):
                return when
            raise Bad("the cosignature is not good")
    raise Bad("not cosigned by this witness")
