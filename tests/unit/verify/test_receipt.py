"""Receipts: what they prove, what they withhold, and that nothing in one can be changed."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from anchorhold.audit import prune, redact
from anchorhold.audit.log import Log
from anchorhold.audit.query import entries
from anchorhold.audit.receipt import make
from anchorhold.errors import AuditError, UsageError
from anchorhold.verify.note import NoteError, VerifierKey
from anchorhold.verify.receipt import ReceiptError, report, text, verify_receipt
from tests.support import TOP
from tests.unit.audit.logs import GRANT, session

NAME, OTHER = "a" * 16, "b" * 16
DOCUMENT, ANSWER, QUESTION = b"the roof cost 9000\n", "Nine thousand.", "What did the roof cost?"
SALT = os.urandom(16)


def commitment(data: bytes) -> dict[str, str]:
    return {"salt": SALT.hex(), "sha256": hashlib.sha256(SALT + data).hexdigest()}


@pytest.fixture
def state(state_dir: Path) -> Path:
    """A request with everything, others before and around it, over two epochs."""
    log = Log.open(state_dir)
    session(log, OTHER, 5, end=False)
    log.append("session.start", NAME, {"model": {"sha256": "ef" * 32, "size": 7}, "policy_sha256": "cd" * 32})
    log.append("grant", NAME, {**GRANT, "class": "runtime", "path": "/usr/lib/x.py"})
    log.append("session.sealed", NAME, {})
    log.append("request.start", NAME, {"request": 1, "prompt": commitment(QUESTION.encode() + b"\0")})
    for number in range(300):
        log.append("grant", NAME, {**GRANT, "path": f"/home/a/{number}", "request": 1})
        log.append("denial", OTHER, {"call": "open", "path": "/home/b", "reason": "outside", "count": 1})
    log.checkpoint(rotate=True)
    digest = hashlib.sha256(DOCUMENT).hexdigest()
    log.append("grant", NAME, {**GRANT, "path": "/home/a/roof.txt", "sha256": digest, "request": 1})
    log.append("request.end", NAME, {"request": 1, "output": commitment(ANSWER.encode())})
    log.append("request.start", NAME, {"request": 2})
    log.append("grant", NAME, {**GRANT, "path": "/home/a/later", "request": 2})
    log.append("request.end", NAME, {"request": 2})
    log.append("session.end", NAME, {"reason": "done"})
    log.checkpoint(rotate=True)
    log.close()
    return state_dir


def vkey(state: Path, epoch: int | None = None) -> str:
    return (state / "log" / ("vkey" if epoch is None else f"{epoch}/vkey")).read_text()


def test_what_a_receipt_proves(state: Path) -> None:
    proved = verify_receipt(make(state, f"{NAME}-1"), vkey(state))
    mine = [entry for entry in entries(state, session=NAME)][:306]
    assert [entry["n"] for entry in proved.entries] == list(range(306))
    assert [(entry["seq"], entry.get("path")) for entry in proved.entries] == [
        (entry["seq"], entry.get("path")) for entry in mine
    ]
    result, known = report(
        proved, [("doc", DOCUMENT), ("answer", ANSWER.encode() + b"\n"), ("q", QUESTION.encode())]
    )
    assert known and [one["is"][0].split(":")[0] for one in result["with"]] == [  # type: ignore[attr-defined]
        "shown to the model", "the answer", "the question",
    ]  # fmt: skip
    assert result["model"] == {"sha256": "ef" * 32, "size": 7} and result["policy_sha256"] == "cd" * 32
    assert "/home/a/later" not in json.dumps(result) and "/home/b" not in json.dumps(result)
    assert "the receipt verifies" in text(result)
    assert not report(proved, [("other", b"something else")])[1]


def test_it_discloses_neither_document_nor_answer(state: Path) -> None:
    data = make(state, f"{NAME}-1")
    assert ANSWER.encode() not in data and QUESTION.encode() not in data and DOCUMENT.strip() not in data


def test_names_can_be_withheld(state: Path) -> None:
    data = make(state, f"{NAME}-1", hide=("names", "text"))
    assert b"/home/a" not in data and b"roof." not in data
    proved = verify_receipt(data, vkey(state))
    assert proved.withheld == 302 and len(proved.grants) == 301
    assert all("path" not in one and one["class"] == "data" and one["sha256"] for one in proved.grants)
    assert proved.matches(DOCUMENT) and proved.matches(ANSWER.encode())
    hidden = make(state, f"{NAME}-1", hide=("names", "text", "digests"))
    assert b"ab" * 32 not in hidden and not verify_receipt(hidden, vkey(state)).matches(DOCUMENT)


def test_a_whole_session_and_the_key_of_a_later_epoch(state: Path) -> None:
    proved = verify_receipt(make(state, NAME), vkey(state))
    assert [entry["kind"] for entry in proved.entries][-1] == "session.end" and len(proved.entries) == 310
    with pytest.raises(ReceiptError, match="does not follow from the given one"):
        verify_receipt(make(state, NAME), vkey(state, 1))  # its first part is of an epoch before that key


def test_redacted_names_stay_away(state: Path) -> None:
    redact.redact(state, lambda entry: entry.get("path") == "/home/a/7", ("names",), reason="r", by="b")
    data = make(state, f"{NAME}-1")
    assert b'"/home/a/7"' not in data and verify_receipt(data, vkey(state)).withheld == 1


def test_after_pruning_other_epochs(state: Path) -> None:
    log = Log.open(state)
    session(log, "c" * 16, 3)
    log.checkpoint()
    log.close()
    prune.prune(state, "2999", reason="r", by="b")
    proved = verify_receipt(make(state, "c" * 16), vkey(state))
    assert len(proved.entries) == 9
    with pytest.raises(AuditError, match="no such session"):
        make(state, NAME)


@pytest.mark.parametrize("which", ["", "x", NAME + "-0", NAME + "-1-1", "A" * 16, NAME[:8]])
def test_what_is_no_name(state: Path, which: str) -> None:
    with pytest.raises(UsageError, match="no session and no request"):
        make(state, which)


def test_what_the_log_does_not_have(state: Path) -> None:
    for which in ("d" * 16, f"{NAME}-3", f"{OTHER}-2"):
        with pytest.raises(AuditError, match="there is no receipt"):
            make(state, which)
    log = Log.open(state)
    session(log, "d" * 16)
    with pytest.raises(AuditError, match="there is no receipt"):
        make(state, "d" * 16)  # not settled yet
    log.close()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_every_character_changed(state: Path) -> None:
    """No byte of a receipt can be another one, but for white space and the salt of what it does not check."""
    log = Log.open(state)
    session(log, "c" * 16, 2)
    log.checkpoint()
    log.close()
    data, key = make(state, f"{'c' * 16}-1"), vkey(state)
    good = verify_receipt(data, key).as_dict()
    accepted = []
    for at in range(len(data)):
        changed = data[:at] + bytes((data[at] ^ 1,)) + data[at + 1 :]
        try:
            if verify_receipt(changed, key).as_dict() != good or not chr(data[at]).isspace():
                accepted.append((at, data[at - 20 : at + 20]))
        except ReceiptError:
            continue
    assert accepted == []


def parsed(state: Path) -> dict[str, Any]:
    receipt: dict[str, Any] = json.loads(make(state, f"{NAME}-1"))
    return receipt


def test_nothing_can_be_left_out_or_put_in(state: Path) -> None:
    key = vkey(state)

    def refused(receipt: object) -> None:
        with pytest.raises(ReceiptError):
            verify_receipt(json.dumps(receipt).encode(), key)

    verify_receipt(json.dumps(parsed(state)).encode(), key)
    for at in (0, 5, 100, -1):
        receipt = parsed(state)
        del receipt["parts"][0]["entries"][at]
        refused(receipt)
        indexes = [one for first, last in receipt["parts"][0]["indexes"] for one in range(first, last + 1)]
        del indexes[at]
        receipt["parts"][0]["indexes"] = [[one, one] for one in indexes]
        refused(receipt)
    for change in (
        lambda r: r["parts"].pop(0),
        lambda r: r["parts"].pop(),
        lambda r: r["parts"].reverse(),
        lambda r: r["chain"].pop(),
        lambda r: r["chain"][0].update(vkey=r["parts"][1]["vkey"]),
        lambda r: r["parts"][0]["proof"].append(r["parts"][0]["proof"][0]),
        lambda r: r.update(request=f"{NAME}-2"),
        lambda r: r.update(request=None, extra=1),
        lambda r: r.update(v=1),
        lambda r: r["parts"][0]["entries"][9]["names"][1].update(path="/etc/passwd"),
        lambda r: r["parts"][0]["entries"][9].update(size=1),
        lambda r: r["parts"][0].update(indexes=[[0, 10**9]]),
        lambda r: r["parts"][0].update(indexes=[]),
        lambda r: r["parts"][0].update(indexes=[[5, 4]]),
    ):
        receipt = parsed(state)
        change(receipt)  # type: ignore[no-untyped-call]
        refused(receipt)


@pytest.mark.parametrize(
    "data",
    [
        b"", b"null", b"[]", b"{}", b"\xff", b"[" * 200_000, b'{"a":' * 100_000, b"NaN", b"1e9", b"9" * 5000,
        b'{"anchorhold":"receipt","v":2,"session":1,"request":null,"chain":[],"parts":[]}',
        b'{"anchorhold":"receipt","v":2,"session":"a","request":null,"chain":[],"parts":[]}',
        b'{"anchorhold":"receipt","v":2,"session":"a","request":null,"chain":[1],"parts":[1]}',
        b'{"v":2,"v":2,"anchorhold":"receipt","session":"a","request":null,"chain":[],"parts":[]}',
    ],
)  # fmt: skip
def test_what_is_no_receipt(state: Path, data: bytes) -> None:
    with pytest.raises(ReceiptError):
        verify_receipt(data, vkey(state))


def test_a_receipt_of_another_log(state: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    log = Log.open(other)
    session(log, NAME)
    log.checkpoint()
    log.close()
    with pytest.raises(ReceiptError):
        verify_receipt(make(other, NAME), vkey(state))


def test_a_thousand_grants_are_quick_and_small(state_dir: Path) -> None:
    """The issue's bars: making and verifying below 100 ms each, at most 1.3 times the entries' own bytes."""
    log = Log.open(state_dir)
    log.append("session.start", NAME, {})
    log.append("session.sealed", NAME, {})
    log.append("request.start", NAME, {"request": 1})
    for number in range(1000):
        path = f"/home/somebody/documents/2025/letter-{number}.txt"
        digest = hashlib.sha256(str(number).encode()).hexdigest()
        public = {name: GRANT[name] for name in ("class", "size", "mode", "phase")}
        log.append("grant", NAME, {**public, "request": 1, "path": path, "resolved": path, "sha256": digest})
    log.append("request.end", NAME, {"request": 1})
    log.checkpoint()
    log.close()
    lines = sum(
        len(json.dumps(entry, separators=(",", ":"))) + 1 for entry in entries(state_dir, session=NAME)
    )
    data = make(state_dir, f"{NAME}-1")
    assert len(data) <= 1.3 * lines
    # in a process of its own, which no coverage tool slows down
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    out = subprocess.run(
        [sys.executable, "-c", TIMED, str(state_dir), f"{NAME}-1"],
        capture_output=True,
        text=True,
        check=True,
        env={**environment, "PYTHONPATH": str(TOP / "daemon")},
        timeout=50,
    )
    made, verified = map(float, out.stdout.split())
    assert made < 0.1 and verified < 0.1


TIMED = """
import sys, time
from pathlib import Path
from anchorhold.audit.receipt import make
from anchorhold.verify.receipt import verify_receipt
state, which = Path(sys.argv[1]), sys.argv[2]
made, verified = [], []
for _ in range(5):
    began = time.perf_counter()
    data = make(state, which)
    made.append(time.perf_counter() - began)
    began = time.perf_counter()
    verify_receipt(data, (state / "log/vkey").read_text())
    verified.append(time.perf_counter() - began)
print(min(made), min(verified))
"""


def test_a_receipt_that_was_cut_says_that_the_end_is_missing(state: Path) -> None:
    """Whoever has a receipt of a session can make a shorter one: it must not pass for the whole session."""
    whole, _ = report(verify_receipt(make(state, NAME), vkey(state)), [])
    assert whole["ended"] is True and "to its end, none left out" in text(whole)
    cut = parsed(state)
    cut["request"] = None
    result, _ = report(verify_receipt(json.dumps(cut).encode(), vkey(state)), [])
    assert result["ended"] is False and "END IS NOT in it" in text(result)
    request, _ = report(verify_receipt(make(state, f"{NAME}-1"), vkey(state)), [])
    assert request["ended"] is False and "to the request's end, none left out" in text(request)


@pytest.mark.parametrize("value", [{}, [], {"a": []}])
@pytest.mark.parametrize("kind", ["grant", "list", "request.start", "request.end", "denial"])
def test_a_class_that_is_no_text(state: Path, kind: str, value: object) -> None:
    """The rules are looked at before the proof is."""
    receipt = parsed(state)
    receipt["parts"][0]["entries"][9].update({"kind": kind, "class": value, "request": value})
    with pytest.raises(ReceiptError):
        verify_receipt(json.dumps(receipt).encode(), vkey(state))


@pytest.mark.parametrize("name", ["a\ud800", "a\u202e", "a\x9b2J", "a\x7f", "a\u2028", "a b", "a\n"])
def test_a_key_whose_name_acts_on_the_reader(name: str) -> None:
    material = base64.b64encode(b"\1" + bytes(32)).decode()
    identifier = hashlib.sha256(name.encode("utf-8", "surrogatepass") + b"\n\1" + bytes(32)).hexdigest()[:8]
    with pytest.raises(NoteError):
        VerifierKey(f"{name}/0+{identifier}+{material}")


def test_a_question_with_instructions_to_the_model(state_dir: Path) -> None:
    log = Log.open(state_dir)
    system = b"Answer in one word."
    log.append("session.start", NAME, {})
    log.append(
        "request.start", NAME, {"request": 1, "prompt": commitment(QUESTION.encode() + b"\0" + system)}
    )
    log.append("request.end", NAME, {"request": 1, "output": commitment(ANSWER.encode())})
    log.checkpoint()
    log.close()
    proved = verify_receipt(make(state_dir, f"{NAME}-1"), vkey(state_dir))
    files = [("q", QUESTION.encode() + b"\n"), ("s", system + b"\n"), ("a", ANSWER.encode())]
    result, known = report(proved, files)
    assert known and [one["is"] for one in result["with"]] == [  # type: ignore[attr-defined]
        ["the question: entry 2"], ["the instructions to the model: entry 2"], ["the answer: entry 3"],
    ]  # fmt: skip
    assert not report(proved, files[:1])[1] and not report(proved, [files[0], ("x", b"other")])[1]
