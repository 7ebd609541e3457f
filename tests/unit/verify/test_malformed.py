"""Entries that are none: each way is refused, with the entry's number, and all others are sound."""

from __future__ import annotations

import base64
import hashlib
import random
import re
import zlib
from pathlib import Path
from typing import Any

import pytest

from anchorhold.verify import bundle, entries
from tests.unit.verify.forge import Forge, framed, frames, split_openings
from tests.unit.verify.shapes import (
    COMMITMENT,
    GOOD,
    OF_SESSION,
    A,
    B,
    hostile_names,
    judged,
)


def test_the_template_is_good(state_dir: Path) -> None:
    def make(forge: Forge) -> None:
        forge.raw(GOOD)
        forge.event("session.start", A)
        forge.raw(OF_SESSION)
        forge.raw(GOOD[:-1] + b',"names":"%b"}' % COMMITMENT, b"\1\0\0")
        forge.redact([[4, 4]])

    assert judged(state_dir, make).ok


MALFORMED = {
    "nothing": b"",
    "no JSON": b"{",
    "no object": b"[]",
    "deep": b"[" * 60_000,
    "deep objects": b'{"a":' * 10_000,
    "a space": GOOD.replace(b'"a":1', b'"a": 1'),
    "a newline at its end": GOOD + b"\n",
    "a member twice": GOOD.replace(b'"a":1', b'"a":1,"a":1'),
    "a member twice within": GOOD.replace(b'"a":1', b'"a":{"b":1,"b":1}'),
    "a common member twice": GOOD.replace(b'"a":1', b'"kind":"kill"'),
    "a fraction": GOOD.replace(b'"a":1', b'"a":1.0'),
    "an exponent": GOOD.replace(b'"a":1', b'"a":1e3'),
    "minus zero": GOOD.replace(b'"a":1', b'"a":-0'),
    "a leading zero": GOOD.replace(b'"a":1', b'"a":01'),
    "NaN": GOOD.replace(b'"a":1', b'"a":NaN'),
    "infinity": GOOD.replace(b'"a":1', b'"a":-Infinity'),
    "a huge number": GOOD.replace(b'"a":1', b'"a":' + b"9" * 5000),
    "no ASCII": GOOD.replace(b'"a":1', b'"a":"\xc3\xa9"'),
    "delete": GOOD.replace(b'"a":1', b'"a":"\x7f"'),
    "a control character": GOOD.replace(b'"a":1', b'"a":"\x01"'),
    "an escaped slash": GOOD.replace(b'"a":1', b'"a":"\\/"'),
    "an escaped letter": GOOD.replace(b'"a":1', b'"a":"\\u0041"'),
    "a long escape": GOOD.replace(b'"a":1', b'"a":"\\u000a"'),
    "upper case digits": GOOD.replace(b'"a":1', b'"a":"\\u00E9"'),
    "an escape in a name": GOOD.replace(b'"a":1', b'"\\u0061":1'),
    "version 1": GOOD.replace(b'"v":2', b'"v":1'),
    "version true": GOOD.replace(b'"v":2', b'"v":true'),
    "no version": GOOD.replace(b'"v":2,', b""),
    "another order": GOOD.replace(b'"v":2,"seq":SEQ', b'"seq":SEQ,"v":2'),
    "seq as text": GOOD.replace(b"SEQ", b'"SEQ"'),
    "another seq": GOOD.replace(b"SEQ", b"0"),
    "no time": GOOD.replace(b'"time":"2026-01-31T18:30:01.000000Z",', b""),
    "a time without a fraction": GOOD.replace(b".000000Z", b"Z"),
    "lower case t": GOOD.replace(b"31T18", b"31t18"),
    "a day that is none": GOOD.replace(b"01-31", b"02-30"),
    "second 60": GOOD.replace(b"30:01", b"30:60"),
    "a time before all": GOOD.replace(b"2026", b"1026"),
    "mono as text": GOOD.replace(b'"mono":86401000000', b'"mono":"1"'),
    "mono below zero": GOOD.replace(b'"mono":86', b'"mono":-86'),
    "session null": GOOD.replace(b'"session":""', b'"session":null'),
    "a short session": OF_SESSION.replace(A.encode(), A[1:].encode()),
    "n without a session": GOOD.replace(b'"session":""', b'"session":"","n":0'),
    "n further back": GOOD.replace(b'"a":1', b'"n":0'),
    "a session without n": OF_SESSION.replace(b',"n":1', b""),
    "no kind": GOOD.replace(b',"kind":"policy.load"', b""),
    "an unknown kind": GOOD.replace(b"policy.load", b"banana"),
    "a kind that needs a session": GOOD.replace(b"policy.load", b"limit"),
    "a kind of the log in a session": OF_SESSION.replace(b'"limit"', b'"prune"'),
    "a class that is a list": OF_SESSION.replace(b'"a":1', b'"class":[]'),
    "names in the middle": GOOD.replace(b'"a":1', b'"names":"%b","a":1' % COMMITMENT),
    "groups in another order": GOOD.replace(
        b'"a":1', b'"digests":"%b","names":"%b"' % (COMMITMENT, COMMITMENT)
    ),
    "a commitment that is null": GOOD.replace(b'"a":1', b'"names":null'),
    "a short commitment": GOOD.replace(b'"a":1', b'"names":"%b"' % COMMITMENT[4:]),
    "spare bits in a commitment": GOOD.replace(b'"a":1', b'"names":"%bB="' % COMMITMENT[:42]),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_what_is_no_entry(name: str, state_dir: Path) -> None:
    """Signed as it is: only its form is wrong, and all others are sound."""
    mask = b"\1\0\0" if "commitment" in name or name == "names in the middle" else b"\0"
    seqs = []

    def make(forge: Forge) -> None:
        forge.event("session.start", A)
        seqs.append(forge.raw(MALFORMED[name], mask if name != "groups in another order" else b"\3\0\0\0\0"))
        forge.event("policy.load")

    result = judged(state_dir, make)
    assert result.first_bad is not None and result.first_bad.seq == seqs[0] == 2, result.text()
    assert result.first_bad.place == "0/tile/entries/000.p/4" and result.proven
    assert {finding.seq for finding in result.findings} <= {2}, result.text()
    assert result.sound_after == 1


def mixed(forge: Forge) -> None:
    """Bundle 0 has all kinds of names, 1 grants of two sessions in turn, 2 those of one, 3 a step of the
    clock, another class and another session."""
    hostile_names(forge)
    forge.event("session.start", B)
    forge.event("session.sealed", B)
    for number in range(140):
        forge.grant(A, f"/{number}", request=number % 3)
    while forge.seq < 512:
        forge.grant((A, B)[forge.seq % 2], f"/{forge.seq}", digest=f"{forge.seq:064x}")
    forge.many(A, 256)
    forge.many(A, 100)
    forge.clock += 5_000_000
    forge.many(A, 50)
    forge.grant(A, "/x", kind="runtime")
    forge.many(B, 105)


def recommitted(data: bytes, openings: bytes, at: int, opening: bytes) -> tuple[bytes, bytes]:
    """A bundle of grants in which one's names are opened by this, and it commits to that."""
    found, rows = frames(data), split_openings(openings)
    row = rows[at]
    end = 3 + int.from_bytes(row[1:3], "big")
    old, new = (base64.b64encode(hashlib.sha256(one).digest()) for one in (row[3:end], opening))
    assert found[at].count(old) == 1
    found[at] = found[at].replace(old, new)
    rows[at] = b"\3" + framed(opening) + row[end:]
    return b"".join(found), b"".join(rows)


OPENINGS = [
    b'', b'x', b'{"path":"/"}', b'{"path": "/"}', b'{"path":"/","path":"/"}', b'{"path":"\\u0041"}',
    b'{"path":"\\/"}', b'{"path":"/","resolved":"\\ud800\\u00ff\\n\\u007f"}', b'{"path":"\\u000a"}',
    b'{"path":"\\u00FF"}', b'{"path":"\x7f"}', b'{"path":"\n"}', b'{"path":1}', b'{"path":"/"}}',
    b'{"path":"/","sha256":"x"}', b'[]', b'{"path":"\xff"}',
]  # fmt: skip


def test_bundles_are_judged_the_same_by_both_ways(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With and without the shortcuts, honest and with bytes changed."""
    forge = Forge(state_dir)
    mixed(forge)
    forge.save()
    assert forge.seq == 1024
    dice = random.Random(1)
    cases = []
    for number in range(4):
        data = (forge.log / f"0/tile/entries/00{number}").read_bytes()
        openings = zlib.decompress((forge.log / f"0/openings/00{number}").read_bytes()[:-4])
        cases += [(number, data, openings), (number, data, None), (number, data[:-20], openings)]
        for opening in OPENINGS if number else ():
            cases.append((number, *recommitted(data, openings, dice.randrange(256), bytes(16) + opening)))
        for _ in range(200):
            changed, changed_openings = bytearray(data), bytearray(openings)
            target = dice.choice((changed, changed_openings))
            for _ in range(dice.choice((1, 1, 1, 3))):
                target[dice.randrange(len(target))] = dice.choice(b'0123456789abcdef"\\{}:, TZ=\x00\x01\xff')
            cases.append((number, bytes(changed), bytes(changed_openings)))
    quick = [summary(*case) for case in cases]
    never = re.compile(rb"(?!)")
    for name in ("GRANT", "GRANT_OPENINGS"):
        monkeypatch.setattr(bundle, name, never)
    monkeypatch.setattr(entries, "_USUAL", never)
    slow = [summary(*case) for case in cases]
    for at, (one, other) in enumerate(zip(quick, slow, strict=True)):
        assert one == other, (at, cases[at][0])
    assert quick[0][2] == [] and sum(bool(one[2]) for one in quick) > 600


def summary(number: int, data: bytes, openings: bytes | None) -> tuple[Any, ...]:
    seen = bundle.look(data, openings, number * 256, 256, {})
    return (
        seen.hashes, [one.pack() for one in seen.segments], sorted(seen.problems), seen.own, seen.erased,
        seen.trailing, seen.loose,
    )  # fmt: skip
