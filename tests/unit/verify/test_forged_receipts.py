"""Receipts forged from the format's page: honest ones prove what they say, and of hostile ones nothing but a
refusal comes."""

from __future__ import annotations

import copy
import hashlib
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from anchorhold.verify.receipt import ReceiptError, report, text, verify_receipt
from tests.unit.verify.forge import Forge, Key, receipt
from tests.unit.verify.shapes import A, B

DOCUMENT, ANSWER, QUESTION, SYSTEM = b"the roof cost 9000\n", b"Nine thousand.", b"How much?", b"Be brief."
SALT = bytes(range(16))


def commitment(data: bytes) -> dict[str, str]:
    return {"salt": SALT.hex(), "sha256": hashlib.sha256(SALT + data).hexdigest()}


def asked(forge: Forge, grants: int = 300) -> None:
    """A session over three epochs, another one beside it; request 1 ends in the third, request 2 follows."""
    forge.session(B, 3, end=False)
    public: dict[str, object] = {"model": {"sha256": "ef" * 32, "size": 7}, "policy_sha256": "cd" * 32}
    forge.event("session.start", A, public, names={"policy": "taxes"})
    forge.event("session.sealed", A)
    forge.rotate()
    prompt = commitment(QUESTION + b"\0" + SYSTEM)
    forge.event("request.start", A, {"request": 1, "prompt": prompt}, names={"files": ["/home/a/roof.txt"]})
    for number in range(grants):
        forge.grant(A, f"/home/a/{number}", request=1)
        forge.grant(B, f"/home/b/{number}")
    forge.rotate()
    digest = hashlib.sha256(DOCUMENT).hexdigest()
    forge.grant(A, "/home/a/r\u00f6of.txt", request=1, digest=digest)
    forge.event("request.end", A, {"request": 1, "output": commitment(ANSWER)}, text={"prompt": "x"})
    forge.event("request.start", A, {"request": 2})
    forge.event("request.end", A, {"request": 2})
    forge.event("session.end", A, names={"reason": "done"})
    forge.save()


@pytest.fixture(scope="module")
def forge(tmp_path_factory: pytest.TempPathFactory) -> Forge:
    forge = Forge(tmp_path_factory.mktemp("receipts"))
    asked(forge)
    return forge


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Forge:
    forge = Forge(tmp_path_factory.mktemp("small"))
    asked(forge, 2)
    return forge


def encoded(value: object) -> bytes:
    return json.dumps(value).encode()


@pytest.mark.parametrize("request_", [1, 2, None])
@pytest.mark.parametrize("hide", [(), ("names",), ("names", "digests", "text")])
def test_an_honest_receipt(forge: Forge, request_: int | None, hide: tuple[str, ...]) -> None:
    proved = verify_receipt(encoded(receipt(forge, A, request_, hide=hide)), forge.vkey)
    assert len(proved.grants) == 301 and [one["n"] for one in proved.entries] == list(
        range(len(proved.entries))
    )
    files = [("roof", DOCUMENT), ("answer", ANSWER + b"\n"), ("other", b"x")]
    result, known = report(proved, files)
    is_ = {one["file"]: one["is"] for one in result["with"]}  # type: ignore[attr-defined]
    assert bool(is_["roof"]) == ("digests" not in hide) and is_["answer"] and not is_["other"] and not known
    assert ("roof" in text(result)) and ("r\\xf6of" in text(result)) == ("names" not in hide)


def test_a_later_key(forge: Forge) -> None:
    """A receipt whose parts are all from that key's epoch on."""
    with pytest.raises(ReceiptError, match="does not follow"):
        verify_receipt(encoded(receipt(forge, A, 1)), forge.key(1).vkey)


def paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    if isinstance(value, dict):
        for name in value:
            yield from paths(value[name], (*path, name))
    elif isinstance(value, list):
        for at in range(len(value)):
            yield from paths(value[at], (*path, at))


ODD: list[Any] = [
    None, True, False, 0, -1, 1, 10**18, 10**19, 10**30, 1.5, "", "x", "\x00", "\udcff", "A" * 44, "=" * 44,
    [], [[]], [0], [0, 0], [1, 0], [[0, 10**18]], {}, {"a": 1}, ["x", {}], ["AAAAAAAAAAAAAAAAAAAAAA==", {}],
]  # fmt: skip


def test_odd_values_anywhere_are_refused(small: Forge) -> None:
    """Each place of the structure takes each odd value; a refusal is all that comes, no error of Python's."""
    good = receipt(small, A, 1)
    places = [path for path in paths(good) if path]
    dice = random.Random(2)
    tried = 0
    for path in places:
        for odd in dice.sample(ODD, 8):
            changed = copy.deepcopy(good)
            target = changed
            for step in path[:-1]:
                target = target[step]
            if target[path[-1]] == odd and type(target[path[-1]]) is type(odd):
                continue
            target[path[-1]] = odd
            try:
                proved = verify_receipt(encoded(changed), small.vkey)
            except ReceiptError as error:
                tried += 1
                assert str(error)
                continue
            assert path[0] in ("request",) and odd is None and proved.request is None, path
    assert tried > 1500


def test_bytes_that_are_no_receipt(forge: Forge) -> None:
    good = encoded(receipt(forge, A, 2, hide=("names",)))
    dice = random.Random(3)
    for _ in range(400):
        at = dice.randrange(len(good))
        way = dice.randrange(3)
        changed = good[:at] if way == 0 else good[:at] + dice.randbytes(1) + good[at + way - 1 :]
        try:
            verify_receipt(changed, forge.vkey)
        except ReceiptError:
            continue
        assert json.loads(changed) == json.loads(good)


HOSTILE = {
    "deep lists": b'{"anchorhold":' + b"[" * 100_000,
    "deep objects": b'{"a":' * 100_000,
    "a huge number": b'{"v":' + b"9" * 100_000 + b"}",
    "a fraction": b'{"v":2.0}',
    "NaN": b'{"v":NaN}',
    "a member twice": b'{"v":2,"v":2}',
    "a member twice within": b'{"chain":[{"a":1,"a":1}]}',
    "no UTF-8": b'{"\xff":1}',
    "a surrogate": b'"\\ud800"',
    "a byte order mark": b"\xef\xbb\xbf{}",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_bytes(name: str, forge: Forge) -> None:
    with pytest.raises(ReceiptError):
        verify_receipt(HOSTILE[name], forge.vkey)


def test_ranges_of_more_places_than_entries_cost_nothing(tmp_path: Path) -> None:
    """A log's own holder can sign a head of any size: its receipt must not fill an auditor's memory."""
    key = Key("anchorhold/0123456789abcdef/0", b"1/0")
    root = "A" * 43 + "="
    part = {
        "vkey": key.vkey,
        "checkpoint": key.sign(f"{key.name}\n{10**18}\n{root}\n"),
        "indexes": [[number * 50_000_000, number * 50_000_000 + 49_999_999] for number in range(10_000)],
        "proof": [],
        "entries": [],
    }
    bad = {"anchorhold": "receipt", "v": 2, "session": A, "request": None, "chain": [], "parts": [part]}
    with pytest.raises(ReceiptError):
        verify_receipt(encoded(bad), key.vkey)


@pytest.mark.parametrize(
    "which", ["first", "middle", "last", "an epoch", "another session's", "doubled", "swapped"]
)
def test_left_out_and_put_in(which: str, forge: Forge) -> None:
    """With a proof that is right for what is there: only the numbers tell."""
    good = receipt(forge, A, 1)
    if which == "an epoch":
        del good["parts"][1]
    elif which == "another session's":
        good["parts"][0] = receipt(forge, B, None)["parts"][0]
    else:
        part = good["parts"][1]
        entries, indexes = part["entries"], [first for first, _ in part["indexes"]]
        at = {"first": 0, "middle": 100, "last": len(entries) - 1}.get(which, 7)
        if which == "doubled":
            entries.insert(at, entries[at])
            indexes.insert(at, indexes[at])
        elif which == "swapped":
            entries[at], entries[at + 1] = entries[at + 1], entries[at]
        else:
            del entries[at], indexes[at]
        from tests.unit.verify.forge import proof

        part["indexes"] = [[one, one] for one in indexes]
        part["proof"] = proof(forge.epochs[1].leaves, set(indexes))
    with pytest.raises(ReceiptError):
        verify_receipt(encoded(good), forge.vkey)


def test_signed_by_a_thief(tmp_path: Path) -> None:
    """Entries of an ended epoch, changed and signed with the key of today."""
    honest, forged = (
        Forge(tmp_path / "one"),
        Forge(tmp_path / "two", keys={0: Key("anchorhold/0123456789abcdef/0", b"t")}),
    )
    for one in (honest, forged):
        asked(one)
    assert verify_receipt(encoded(receipt(forged, A, 1)), forged.vkey).grants
    changed = receipt(forged, A, 1)
    with pytest.raises(ReceiptError):
        verify_receipt(encoded(changed), honest.vkey)
    for one in (*changed["chain"][:1], changed["parts"][0]):
        one["vkey"] = honest.vkey
    with pytest.raises(ReceiptError):
        verify_receipt(encoded(changed), honest.vkey)
