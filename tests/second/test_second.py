"""The second verifier and ours agree: on a thousand honest logs, a thousand damaged ones, and receipts."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from anchorhold.audit import prune, receipt, redact
from anchorhold.audit.log import Log
from anchorhold.audit.query import entries
from anchorhold.verify.check import verify
from anchorhold.verify.receipt import verify_receipt
from tests.second import receipts
from tests.second.forms import Bad
from tests.second.verifier import Log as Second
from tests.support import TOP
from tests.unit.audit.logs import GRANT, session

HONEST = DAMAGED = 1000
DAMAGES = ("flip", "cut", "remove", "grow", "zero", "foreign", "older", "swap", "double")


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """In memory where that can be: thousands of logs are made and copied."""
    base = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    folder = Path(tempfile.mkdtemp(prefix="anchorhold-test.", dir=base))
    yield folder
    shutil.rmtree(folder)


def honest(state: Path, chance: random.Random) -> None:
    """Some sessions, finished or not, over some epochs, perhaps with erased names, pruned, or unsettled."""
    log = Log.open(state)
    names = [f"{chance.getrandbits(64):016x}" for _ in range(5)]
    for name in names[: chance.randint(0, 5)]:
        grants = chance.choice((30, 250, 270)) if chance.random() < 0.05 else chance.randint(0, 6)
        session(log, name, grants, end=chance.random() < 0.7)
        what = chance.random()
        if what < 0.5:
            log.checkpoint(rotate=what < 0.2)
        elif what < 0.6:
            log.append("policy.load", "", {"path": "/p"})
    if chance.random() < 0.8:
        log.checkpoint()
    log.close()
    what = chance.random()
    if what < 0.25:
        groups = ("names",) if what < 0.1 else ("names", "text", "digests")
        redact.redact(
            state, lambda entry: "/home/a/" in str(entry.get("path")), groups, reason="x", by="me",
            path=lambda path: path.startswith("/home/a/"),
        )  # fmt: skip
    elif what < 0.35:
        prune.prune(state, "2999-01-01T00:00:00.000000Z", reason="old", by="me")


@pytest.fixture(scope="module")
def logs(place: Path) -> list[Path]:
    made = []
    for number in range(HONEST):
        made.append(place / str(number))
        honest(made[-1], random.Random(number))
    return made


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_on_honest_logs(logs: list[Path]) -> None:
    for state in logs:
        ours, second = verify(str(state)), Second(state)
        assert (ours.ok, second.problems) == (True, []), state
        assert second.size == ours.size - ours.unsettled
    assert sum((state / "log" / "1").is_dir() for state in logs) > HONEST // 4
    assert sum(bool(Second(state).erased) for state in logs[:100]) > 5


def test_on_clocks(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set now and then, with sessions at once, over bundles, epochs and boots: both tell the same."""
    real, total = time.time_ns, 0
    for seed in range(12):
        chance, off, boot = random.Random(seed), [0], "boot-0"
        monkeypatch.setattr(time, "time_ns", lambda off=off: real() + off[0])
        state = place / f"clocks-{seed}"
        log = Log.open(state)
        running: list[str] = []
        for number in range(60):
            what = chance.random()
            if what < 0.25:
                off[0] += chance.choice((-7_200, -3, -1, 1, 3, 7_200)) * 10**9 // chance.choice((1, 2))
            elif what < 0.35:
                boot = f"boot-{chance.randrange(3)}"
            elif what < 0.55 or not running:
                running.append(f"{seed:08x}{number:08x}")
                log.append("session.start", running[-1], {"boot": boot} if chance.random() < 0.9 else {})
                log.append("session.sealed", running[-1], {})
            elif what < 0.65:
                log.append("session.end", running.pop(chance.randrange(len(running))), {})
            elif what < 0.75:
                log.checkpoint(rotate=chance.random() < 0.5)
            else:
                name = chance.choice(running)
                for _ in range(chance.choice((1, 1, 3, 300))):
                    log.append("grant", name, {**GRANT, "path": "/x"})
        log.checkpoint()
        log.close()
        ours, second = verify(str(state)), Second(state)
        assert (ours.ok, second.problems) == (True, [])
        told = [note for note in ours.notes if "the clock" in note]
        words = [
            (f"{'forward' if by > 0 else 'back'} by {abs(by) / 1e6:.1f} s", at) for at, by in second.clocks
        ]
        assert told == [f"the clock was set {way} before entry {at}" for way, at in words][:20], seed
        total += len(told)
        shutil.rmtree(state)
    assert total > 60


def damaged(state: Path, how: str, logs: list[Path], chance: random.Random) -> bool:
    """Damage one file; whether there was something to do."""
    log = state / "log"
    files = sorted(path for path in log.rglob("*") if path.is_file() and path.name not in ("lock", "key"))
    path = chance.choice([one for one in files if not one.name.startswith(".tmp")])
    data = bytearray(path.read_bytes())
    before = bytes(data)
    if how == "remove":
        path.unlink()
        return True
    if how == "flip" and data:
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    elif how == "cut" and data:
        del data[chance.randrange(len(data)) :]
    elif how == "grow":
        data += chance.randbytes(chance.randint(1, 5))
    elif how == "zero" and data:
        at = chance.randrange(len(data))
        data[at : at + 8] = bytes(len(data[at : at + 8]))
    elif how == "foreign":
        other = chance.choice(logs) / path.relative_to(state)
        data[:] = other.read_bytes() if other.is_file() else data
    elif how == "older":
        smaller = [one for one in files if one.parent == path.parent and one != path]
        data[:] = chance.choice(smaller).read_bytes() if smaller else data
    elif how in ("swap", "double"):
        bundles = [one for one in files if "entries" in one.parts]
        if not bundles:
            return False
        path = chance.choice(bundles)
        data = bytearray(path.read_bytes())
        rows, at = [], 0
        before = bytes(data)
        while at < len(data):
            end = at + 2 + int.from_bytes(data[at : at + 2], "big")
            rows.append(bytes(data[at:end]))
            at = end
        one, two = chance.randrange(len(rows)), chance.randrange(len(rows))
        rows[one], rows[two] = (rows[two], rows[one]) if how == "swap" else (rows[two], rows[two])
        data = bytearray(b"".join(rows))
    path.write_bytes(data)
    return bytes(data) != before


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_on_damaged_logs(logs: list[Path], place: Path) -> None:
    """Sound or not, and which entry is the first bad one where both name one."""
    chance = random.Random(42)
    found = named = number = 0
    while number < DAMAGED:
        state = place / "damaged"
        shutil.rmtree(state, ignore_errors=True)
        shutil.copytree(chance.choice(logs), state)
        how = DAMAGES[number % len(DAMAGES)]
        if not damaged(state, how, logs, chance):
            continue
        number += 1
        ours, second = verify(str(state)), Second(state)
        words = (number, how, [(one.seq, one.problem) for one in ours.findings][:3], second.problems[:3])
        assert ours.ok == second.sound, words
        found += not ours.ok
        first = min((one.seq for one in ours.findings if one.seq is not None), default=None)
        framed = any("length" in one.problem or "epoch.end" in one.problem for one in ours.findings)
        if first is not None and second.first_bad is not None and not framed:
            assert first == second.first_bad, words
            named += 1
    assert found > 0.8 * DAMAGED and named > 0.1 * DAMAGED, (found, named)


def with_receipt(state: Path) -> tuple[str, str]:
    """A log over three epochs; its root key, and a session's name."""
    name = "00000000000000cc"
    log = Log.open(state)
    session(log, "00000000000000aa", 3)
    log.checkpoint(rotate=True)
    session(log, "00000000000000bb", 3)
    log.checkpoint(rotate=True)
    session(log, name, 300)
    log.checkpoint()
    log.close()
    return (state / "log" / "vkey").read_text().strip(), name


@pytest.mark.parametrize("hidden", [False, True])
def test_on_receipts(state_dir: Path, hidden: bool) -> None:
    vkey, name = with_receipt(state_dir)
    text = receipt.make(state_dir, f"{name}-1", hide=("names",) if hidden else ())
    proven = receipts.receipt(text, vkey)
    wanted = [entry for entry in entries(state_dir, session=name) if entry["kind"] != "session.end"]
    assert [entry["seq"] for entry in proven] == [entry["seq"] for entry in wanted]
    shown = [entry.get("path") for entry in proven if entry["kind"] == "grant"]
    assert shown == ([None] * 301 if hidden else [one["path"] for one in wanted if one["kind"] == "grant"])
    chance = random.Random(3)
    for _ in range(150):
        changed = bytearray(text)
        at = chance.randrange(len(changed))
        changed[at] ^= 1 << chance.randrange(7)
        try:
            again = receipts.receipt(bytes(changed), vkey)
        except (Bad, ValueError, KeyError, TypeError, AttributeError):
            continue
        assert again == proven, f"byte {at} was changed and it is still proven"


def test_both_tell_a_receipt_that_was_cut_to_its_beginning(state_dir: Path) -> None:
    """A request's receipt with the request taken out is a good one of the session, as far as it goes."""
    vkey, name = with_receipt(state_dir)
    whole = receipt.make(state_dir, name)
    cut = json.loads(receipt.make(state_dir, f"{name}-1"))
    cut["request"] = None
    for text, end in ((whole, True), (json.dumps(cut).encode(), False)):
        proven = receipts.receipt(text, vkey)
        assert receipts.ended(proven) is verify_receipt(text, vkey).ended is end
    assert receipts.receipt(whole, vkey)[:-1] == proven


def test_it_runs_alone(state_dir: Path) -> None:
    """Without anything but Python's standard library, and it says 5 where a log is not sound."""
    with_receipt(state_dir)
    verifier = TOP / "tests" / "second" / "verifier.py"
    command = [sys.executable, "-I", "-S", str(verifier), str(state_dir)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "sound" in done.stdout, done.stderr
    (state_dir / "log" / "1" / "checkpoint").write_text("nothing\n")
    assert subprocess.run(command, capture_output=True, check=False).returncode == 5


def test_it_imports_nothing_of_ours() -> None:
    for path in (TOP / "tests" / "second").glob("*.py"):
        if not path.name.startswith(("test_", "make_")):
            assert "import anchorhold" not in path.read_text() and "from anchorhold" not in path.read_text()
