"""The verifier's own readers, against published values and against malformed input."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import random
from typing import Any

import pytest

from anchorhold.audit import tree as writer
from anchorhold.verify.entries import EntryError, frames, parse
from anchorhold.verify.merkle import Tree, index_path, leaf, node, root
from anchorhold.verify.note import NoteError, VerifierKey, private_belongs, read_head
from anchorhold.verify.rules import Rules
from tests.unit.audit.test_note import GO_KEY, GO_NOTE, GO_VKEY
from tests.unit.audit.test_tree import LEAVES, ROOTS, mth

# c2sp.org/signed-note, "Example"
C2SP_VKEY = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
C2SP_TEXT = b"This is an example message.\n"
C2SP_SIGNATURE = (
    "Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM="
)


def test_the_specifications_note_verifies() -> None:
    key = VerifierKey(C2SP_VKEY)
    data = base64.b64decode(C2SP_SIGNATURE)
    assert data[:4] == key.identifier == bytes.fromhex("530d903a")
    assert key.check(data[4:], C2SP_TEXT)
    assert not key.check(data[4:], C2SP_TEXT + b"\n")
    assert not key.check(data[4:-1], C2SP_TEXT)


def test_gos_note_verifies() -> None:
    key = VerifierKey(GO_VKEY)
    text, _, line = GO_NOTE.rpartition("\n\n")
    signature = base64.b64decode(line.split(" ")[2])
    assert key.check(signature[4:], f"{text}\n".encode())
    assert private_belongs(GO_KEY, key)
    assert not private_belongs(GO_KEY, VerifierKey(C2SP_VKEY))
    assert not private_belongs(GO_KEY[:-1], key)
    assert not private_belongs(GO_KEY.replace("+AYEK", "+!YEK"), key)
    assert not private_belongs(GO_KEY.replace("+AYEK", "+AoEK"), key)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a+b",
        "+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k",
        C2SP_VKEY.replace("530d903a", "530D903A"),
        C2SP_VKEY.replace("530d903a", "530d903b"),
        C2SP_VKEY.replace("+Aeky", "+Aoky"),
        C2SP_VKEY[:-4],
        C2SP_VKEY + "=",
    ],
)
def test_malformed_verifier_keys(text: str) -> None:
    with pytest.raises(NoteError):
        VerifierKey(text)


def signed(text: str, *, key: str = GO_KEY, tail: str = "") -> tuple[bytes, VerifierKey]:
    from anchorhold.audit.note import Key

    signer = Key.parse(key)
    return signer.sign(text) + tail.encode(), VerifierKey(signer.vkey())


ROOT64 = base64.b64encode(bytes(32)).decode()


def test_a_checkpoint_with_other_signatures_and_extensions() -> None:
    others = "".join(f"\u2014 witness/{n} {base64.b64encode(bytes(76)).decode()}\n" for n in range(16))
    note, key = signed(f"PeterNeumann\n7\n{ROOT64}\nextension\n", tail=others)
    assert read_head(note, key).size == 7


@pytest.mark.parametrize(
    "text",
    [
        "PeterNeumann\n7\n",
        f"PeterNeumann\n07\n{ROOT64}\n",
        f"PeterNeumann\n-7\n{ROOT64}\n",
        f"PeterNeumann\n\u0667\n{ROOT64}\n",
        f"PeterNeumann\n{'9' * 30}\n{ROOT64}\n",
        f"PeterNeumann\n7\n{ROOT64[:-2]}B=\n",
        "PeterNeumann\n7\nAAAA\n",
        f"Somebody\n7\n{ROOT64}\n",
        f"PeterNeumann\n7\n{ROOT64}\n\nx\n",
        f"Peter\x1bNeumann\n7\n{ROOT64}\n",
    ],
)
def test_malformed_checkpoints(text: str) -> None:
    note, key = signed(text)
    with pytest.raises(NoteError):
        read_head(note, key)


@pytest.mark.parametrize(
    "line",
    [
        "- PeterNeumann AAAAAAAA",
        "\u2014  AAAAAAAA",
        "\u2014 Peter+Neumann AAAAAAAA",
        "\u2014 PeterNeumann AAAAA",
        "\u2014 PeterNeumann AAAA",
        "\u2014 PeterNeumann x08goAAAAAAA",
        "\u2014 other/key AAAAAAAAAAAA",
    ],
)
def test_malformed_signatures(line: str) -> None:
    note = f"PeterNeumann\n7\n{ROOT64}\n\n{line}\n".encode()
    with pytest.raises(NoteError):
        read_head(note, VerifierKey(GO_VKEY))


def test_oversize_and_unsigned_notes() -> None:
    key = VerifierKey(GO_VKEY)
    line = f"\u2014 other/key {base64.b64encode(bytes(68)).decode()}\n"
    for note in (b"\n" * 200_000, b"\xff\n\n\n", b"no signature", f"a\n7\n{ROOT64}\n\nx".encode()):
        with pytest.raises(NoteError):
            read_head(note, key)
    with pytest.raises(NoteError, match="too many"):
        read_head(f"PeterNeumann\n7\n{ROOT64}\n\n{line * 65}".encode(), key)


@pytest.mark.parametrize("count", range(1, 9))
def test_reference_roots(count: int) -> None:
    assert root([leaf(one) for one in LEAVES[:count]]).hex() == ROOTS[count - 1]


def test_the_tree_agrees_with_the_rfc_at_every_kind_of_size() -> None:
    hashes = [hashlib.sha256(number.to_bytes(4, "big")).digest() for number in range(256 * 258)]
    full: list[tuple[int, int]] = []
    tree = Tree(lambda level, number, tile: full.append((level, number)))
    for number in range(258):
        if number in (0, 1, 2, 3, 255, 256, 257):
            for width in (0, 1, 2, 3, 128, 255):
                part = hashes[number * 256 : number * 256 + width]
                assert tree.root(part) == mth(hashes[: number * 256 + width])
        tree.add(hashes[number * 256 : (number + 1) * 256])
    assert full == [(1, 0)]
    assert node(b"a" * 32, b"b" * 32) == writer.node_hash(b"a" * 32, b"b" * 32)


def test_both_write_paths_alike() -> None:
    for number in (0, 7, 999, 1000, 65_535, 1_234_067):
        assert index_path(number) == writer.number_path(number)


def entry(**changes: Any) -> bytes:
    fields: dict[str, Any] = {
        "v": 1,
        "seq": 3,
        "time": "2026-01-31T18:30:00.000001Z",
        "session": "s",
        "kind": "grant",
        "nonce": "0" * 32,
        **changes,
    }
    return json.dumps({name: value for name, value in fields.items() if value is not ...}).encode()


def test_a_good_entry() -> None:
    assert parse(entry(path="\udcff"))["path"] == "\udcff"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"1",
        b"\xc3\xa9",
        b"{",
        b"[" * 100_000,
        entry() + b" x",
        b'{"v":1,"v":1}',
        entry().replace(b'"v": 1', b'"v": NaN'),
        entry().replace(b'"v": 1', b'"v": Infinity'),
        entry(v=2),
        entry(v=True),
        entry(v=...),
        entry(seq="3"),
        entry(seq=3.0),
        entry(time="2026-01-31 18:30:00.000001Z"),
        entry(time="2026-01-31T18:30:00Z"),
        entry(time="2026-01-31T18:30:00.000001Z\n"),
        entry(time="\u0662026-01-31T18:30:00.000001Z"),
        entry(session=None),
        entry(kind=...),
        entry(nonce=...),
        entry(nonce="0" * 31),
        entry(nonce=7),
        entry(extra=...).replace(b'"v": 1', b'"v": 1, "x": {"a": 1, "a": 2}'),
    ],
)
def test_malformed_entries(data: bytes) -> None:
    with pytest.raises(EntryError):
        parse(data)


def test_frames() -> None:
    assert frames(b"") == ([], 0)
    assert frames(b"\0\1a\0\0\0\2bc") == ([b"a", b"", b"bc"], 9 - 0)
    assert frames(b"\0\1a\0") == ([b"a"], 3)
    assert frames(b"\0\1a\0\5b") == ([b"a"], 3)


def test_parsers_raise_nothing_else() -> None:
    dice = random.Random(1)
    good = entry(path="/a")
    note, key = signed(f"PeterNeumann\n7\n{ROOT64}\n")
    for _ in range(3000):
        for data, read in ((good, parse), (note, lambda data: read_head(data, key))):
            changed = bytearray(data)
            for _ in range(dice.randrange(1, 4)):
                changed[dice.randrange(len(changed))] = dice.randrange(256)
            try:
                read(bytes(changed))
            except (EntryError, NoteError):
                continue
    for _ in range(300):
        with pytest.raises(EntryError):
            parse(os.urandom(dice.randrange(100)))


GRANT = {"class": "data", "path": "/a"}


def broken(*events: tuple[str, str, dict[str, Any]]) -> list[str | None]:
    rules = Rules()
    return [rules.check({"kind": kind, "session": session, **fields}) for kind, session, fields in events]


Event = tuple[str, str, dict[str, Any]]
START: Event = ("session.start", "s", {})
SEALED: Event = ("session.sealed", "s", {})
END: Event = ("session.end", "s", {})


def test_a_whole_session_breaks_no_rule() -> None:
    events: tuple[Event, ...] = (
        ("policy.load", "", {}),
        START,
        ("grant", "s", {"class": "runtime"}),
        ("list", "s", {"class": "runtime"}),
        SEALED,
        ("grant", "s", {"class": "model"}),
        ("request.start", "s", {"request": "1"}),
        ("grant", "s", GRANT),
        ("denial", "s", {}),
        ("request.end", "s", {"request": "1"}),
        ("request.start", "s", {"request": 2}),
        ("request.end", "s", {"request": 2}),
        END,
    )
    assert broken(*events) == [None] * len(events)


@pytest.mark.parametrize(
    ("events", "what"),
    [
        ((("grant", "s", GRANT),), "before its session's start"),
        ((("grant", "", GRANT),), "before its session's start"),
        ((START, SEALED, END, ("grant", "s", GRANT)), "after its session's end"),
        ((START, SEALED, END, ("list", "s", GRANT)), "after its session's end"),
        ((START, ("grant", "s", GRANT)), "before session.sealed"),
        ((START, ("grant", "s", {"class": "model"})), "before session.sealed"),
        ((START, ("list", "s", GRANT)), "before session.sealed"),
        ((START, ("grant", "s", {})), "no class"),
        ((START, ("grant", "s", {"class": ["data"]})), "no class"),
        ((START, START), "started before"),
        ((START, END, START), "started before"),
        ((("session.start", "", {}),), "no name"),
        ((END,), "before its session's start"),
        ((SEALED,), "before its session's start"),
        ((START, ("request.end", "s", {"request": "1"})), "without its request.start"),
        ((START, ("request.start", "s", {})), "names no request"),
        ((START, ("request.start", "s", {"request": True})), "names no request"),
        ((START, *(("request.start", "s", {"request": "1"}),) * 2), "started before"),
        (
            (START, ("request.start", "s", {"request": "1"}), *(("request.end", "s", {"request": "1"}),) * 2),
            "without its request.start",
        ),
    ],
)
def test_rules(events: tuple[tuple[str, str, dict[str, Any]], ...], what: str) -> None:
    *before, last = broken(*events)
    assert before == [None] * len(before)
    assert last is not None and what in last


def test_sessions_are_counted() -> None:
    rules = Rules()
    for kind, session in (("session.start", "a"), ("session.start", "b"), ("session.end", "a")):
        assert rules.check({"kind": kind, "session": session}) is None
    assert (rules.sessions, rules.open_sessions) == (2, 1)
