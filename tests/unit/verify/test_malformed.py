"""Entries that are none: each way is refused, with the entry's number, and all others are sound."""

from __future__ import annotations

import random
import re
import zlib
from pathlib import Path
from typing import Any

import pytest

from anchorhold.verify import bundle, entries
from tests.unit.verify.forge import (
    Forge,
)
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


def test_entries_are_judged_the_same_by_both_ways(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bundles looked at with and without the shortcuts, honest and with bytes changed."""

    forge = Forge(state_dir)
    hostile_names(forge)
    interleaved_more(forge)
    forge.save()
    dice = random.Random(1)
    data = (forge.log / "0/tile/entries/000").read_bytes()
    packed_openings = (forge.log / "0/openings/000").read_bytes()
    openings = zlib.decompress(packed_openings[:-4])
    cases = [(data, openings)]
    for _ in range(1500):
        changed, changed_openings = bytearray(data), bytearray(openings)
        target = dice.choice((changed, changed_openings))
        for _ in range(dice.choice((1, 1, 1, 3))):
            target[dice.randrange(len(target))] = dice.choice(b'0123456789abcdef"\\{}:, TZ=\x00\x01\xff')
        cases.append((bytes(changed), bytes(changed_openings)))
    quick = [summary(one, two) for one, two in cases]
    never = re.compile(rb"(?!)")
    for name in ("GRANT", "GRANT_OPENINGS"):
        monkeypatch.setattr(bundle, name, never)
    monkeypatch.setattr(entries, "_USUAL", never)
    slow = [summary(one, two) for one, two in cases]
    for at, (one, other) in enumerate(zip(quick, slow, strict=True)):
        assert one == other, at
    assert quick[0][2] == [] and sum(bool(one[2]) for one in quick) > 1200


def interleaved_more(forge: Forge) -> None:
    forge.event("session.start", B)
    forge.event("session.sealed", B)
    for number in range(120):
        forge.grant(A, f"/{number}", request=number % 3)
        forge.grant(B, f"/{number}", kind="runtime", digest=f"{number:064x}")


def summary(data: bytes, openings: bytes) -> tuple[Any, ...]:
    seen = bundle.look(data, openings, 0, 256, {})
    return (
        seen.hashes, [one.pack() for one in seen.segments], sorted(seen.problems), seen.own, seen.erased,
        seen.trailing, seen.loose,
    )  # fmt: skip
