"""Crashes: whatever step or byte the writing stopped at, the log opens, verifies, and has lost nothing."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from anchorhold.audit import prune, redact
from anchorhold.audit.log import Log
from anchorhold.audit.query import entries
from anchorhold.audit.state import State
from anchorhold.errors import AuditError
from anchorhold.verify.check import verify
from tests.unit.audit.logs import filled, good, records, session

DAEMON = Path(__file__).parents[3] / "daemon"
NAME = "00000000000000aa"
STOPPED = 99

CALLS = ("open", "write", "pwrite", "fsync", "fdatasync", "ftruncate", "rename", "unlink", "mkdir", "rmdir")
"""Every way in which the log changes a disk."""


def stop_at(step: int, action: Callable[[Path], object], state: Path) -> bool:
    """Run the action in a child that dies in the middle of its ``step``-th call on a disk; if it died."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            count = 0

            def dying(call: Callable[..., object], name: str) -> Callable[..., object]:
                def wrapper(*arguments: object, **options: object) -> object:
                    nonlocal count
                    count += 1
                    if count == step:
                        if name == "write" and isinstance(arguments[1], (bytes, bytearray)):
                            half = arguments[1][: len(arguments[1]) // 2]
                            call(arguments[0], half)  # torn: half of it is there
                        os._exit(STOPPED)
                    return call(*arguments, **options)

                return wrapper

            for name in CALLS:
                setattr(os, name, dying(getattr(os, name), name))
            action(state)
            code = 0
        finally:
            os._exit(code)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, STOPPED), status
    return status == STOPPED


def keys(state: Path) -> list[int]:
    """Epochs of which there is a private key."""
    return sorted(int(path.parent.name) for path in (state / "log").glob("*/key"))


def open_and_end(state: Path) -> None:
    """What the next run does."""
    log = Log.open(state)
    log.append("policy.load", "", {"number": 1})
    log.checkpoint()
    log.close()


def create(state: Path) -> None:
    Log.open(state).close()


def settle(state: Path) -> None:
    log = Log.open(state)
    session(log, NAME, 300)
    log.checkpoint()
    log.close()


def rotate(state: Path) -> None:
    log = Log.open(state)
    session(log, NAME)
    log.checkpoint(rotate=True)
    log.close()


def forget(state: Path) -> None:
    redact.redact(state, lambda entry: True, ("names", "text"), reason="test", by="test")


def remove(state: Path) -> None:
    prune.prune(state, "2999", reason="test", by="test")


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("action", [create, settle, rotate, forget, remove])
def test_stopped_at_every_step(tmp_path: Path, action: Callable[[Path], None]) -> None:
    first = tmp_path / "first"
    if action is not create:
        log = Log.open(first)
        session(log, "00000000000000bb", 250)
        log.checkpoint(rotate=action is remove)
        log.close()
    before = [] if action is create else list(entries(first))
    step = 0
    died = True
    while died:
        step += 1
        state = tmp_path / "state"
        if first.exists():
            shutil.copytree(first, state)
        died = stop_at(step, action, state)
        if (state / "log/state").exists():
            result = verify(str(state))
            assert result.ok, (step, result.text())  # before anybody puts it right
        open_and_end(state)
        result = good(state)
        assert result.signed == result.size and result.unsettled == 0
        assert len(keys(state)) == 1, (step, keys(state))  # not even of an epoch that is still to begin
        found = list(entries(state))
        kinds = [entry["kind"] for entry in found]
        if action is settle:
            mine = [entry["n"] for entry in found if entry["session"] == NAME]
            assert mine == list(range(len(mine)))
            assert died or len(mine) == 306
        if action is rotate:
            assert kinds.count("epoch.start") == kinds.count("epoch.end") + 1
        if action is forget:
            told = "redaction" in kinds
            redact.complete(state)
            assert good(state).redacted == (254 if told else 0) or died
            assert all("path" not in entry for entry in found if "redacted" in entry)
        if action is remove and "prune" in kinds:
            remove(state)
            assert good(state).pruned == 1
            assert not (state / "log/0/tile").exists()
        if action not in (forget, remove):
            assert found[: len(before)] == before
        shutil.rmtree(state)
    assert step > 10


def test_the_stop_harness_stops(tmp_path: Path) -> None:
    assert stop_at(1, lambda path: os.mkdir(path), tmp_path / "one") and not (tmp_path / "one").exists()
    assert not stop_at(2, lambda path: os.mkdir(path), tmp_path / "two") and (tmp_path / "two").exists()


def dead_journal(state: Path, count: int) -> Path:
    """A log whose writer died with that many events in its journal."""
    Log.open(state).close()
    log = Log.open(state)
    for number in range(count):
        log.append("policy.load", "", {"number": number, "path": f"/home/a/{number}"})
    (path,) = (state / "log/journal").iterdir()
    log.close()  # as a crash: nothing is settled
    return path


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_cut_at_every_byte_of_the_last_records(tmp_path: Path) -> None:
    path = dead_journal(tmp_path / "first", 3)
    data = path.read_bytes()
    ends = [0]
    while ends[-1] < len(data):
        at = ends[-1]
        ends.append(
            at + 5 + int.from_bytes(data[at : at + 2], "big") + int.from_bytes(data[at + 2 : at + 5], "big")
        )
    assert len(ends) == 4
    for cut in range(len(data) + 1):
        state = tmp_path / "copy"
        shutil.copytree(tmp_path / "first", state)
        os.truncate(state / "log/journal" / path.name, cut)
        whole = sum(0 < end <= cut for end in ends)
        rest = data[max(end for end in ends if end <= cut) : cut]
        before = verify(str(state))
        assert before.ok and before.unsettled == whole and before.torn_bytes == len(rest)
        Log.open(state).close()
        found = records(state)
        assert [entry["number"] for entry in found[1 : 1 + whole]] == list(range(whole))
        told = found[1 + whole :]
        assert [entry["kind"] for entry in told] == (["log.recovered"] if rest else [])
        if rest:
            assert told[0]["bytes"] == len(rest)
            assert (state / "log" / told[0]["file"]).read_bytes() == rest
        assert list((state / "log/journal").iterdir()) == []
        good(state)
        shutil.rmtree(state)


@pytest.mark.parametrize("tear", [b"\0", bytes(4096), b"\xff" * 300, os.urandom(1000), b"\0\2\0\0\1{}\0"])
def test_garbage_after_the_last_record(state_dir: Path, tear: bytes) -> None:
    path = dead_journal(state_dir, 2)
    with path.open("ab") as file:
        file.write(tear)
    Log.open(state_dir).close()
    found = records(state_dir)
    assert [entry["kind"] for entry in found] == [
        "epoch.start",
        "policy.load",
        "policy.load",
        "log.recovered",
    ]
    assert (state_dir / "log" / found[-1]["file"]).read_bytes() == tear
    good(state_dir)


def test_zeros_in_the_middle_of_a_record(state_dir: Path) -> None:
    """A power loss can leave a page of zeros: from there on it is set aside, what is before stays."""
    path = dead_journal(state_dir, 9)
    data = path.read_bytes()
    at = data.index(b'"number":4')
    path.write_bytes(data[:at] + bytes(40) + data[at + 40 :])
    Log.open(state_dir).close()
    found = records(state_dir)
    assert [entry.get("number") for entry in found] == [None, 0, 1, 2, 3, None]
    assert found[-1]["kind"] == "log.recovered"
    good(state_dir)


def test_a_torn_record_of_a_living_writer_is_left_alone(state_dir: Path) -> None:
    log = filled(state_dir, 3, sign=False)
    (path,) = (state_dir / "log/journal").iterdir()
    with path.open("ab") as file:
        file.write(b"\1\2\0\0")  # as another process sees a write that is going on
    other = Log.open(state_dir)
    assert other.checkpoint().size == 3
    assert path.exists() and not (state_dir / "log/torn").exists()
    log.close()
    other.checkpoint()
    assert [entry["kind"] for entry in records(state_dir)][-1] == "log.recovered"
    other.close()
    good(state_dir)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda log: os.unlink(log / "state"), "state is gone"),
        (lambda log: (log / "state").write_bytes(b"{}\n"), "not what was written"),
        (
            lambda log: _edit(log / "state", b'"size":301', b'"size":300'),
            "not what was written",
        ),
        (lambda log: _edit(log / "state", b'"size":301', b'"size":302'), "not what was written"),
        (lambda log: _resize(log, 300), "missing"),
        (lambda log: _resize(log, 302), "missing or cut off"),
        (lambda log: os.unlink(log / "0/checkpoint"), "the checkpoint is gone"),
        (lambda log: (log / "0/checkpoint").write_bytes(b"x\n"), "checkpoint is damaged"),
        (lambda log: os.unlink(log / "0/key"), "the signing key is gone"),
        (lambda log: _flip(log / "0/tile/0/001.p/45"), "not those of its last checkpoint"),
        (lambda log: _flip(log / "0/tile/1/000.p/1"), "not those of its last checkpoint"),
        (lambda log: shutil.rmtree(log / "0/tile/entries/001.p"), "last bundle or the openings"),
        (lambda log: os.unlink(log / "0/openings/001"), "last bundle or the openings"),
        (lambda log: _flip(log / "0/openings/001"), "is damaged: openings/001"),
    ],
)
def test_damage_is_refused(state_dir: Path, damage: Callable[[Path], None], words: str) -> None:
    log = filled(state_dir, 301)
    log.close()
    good(state_dir)
    damage(state_dir / "log")
    with pytest.raises(AuditError, match=words):
        open_and_end(state_dir)
    if words != "the signing key is gone":
        assert not verify(str(state_dir)).ok


def _resize(log: Path, size: int) -> None:
    """As somebody who knows the file's form would."""
    state = State.load(str(log))
    assert state is not None
    state.size = size
    state.save(str(log))


def _edit(path: Path, old: bytes, new: bytes) -> None:
    data = path.read_bytes()
    assert data.count(old) == 1
    path.write_bytes(data.replace(old, new))


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[10] ^= 1
    path.write_bytes(data)


WRITER = """
import os, sys
from pathlib import Path
from anchorhold.audit.log import Log
name, rotates = sys.argv[2], sys.argv[3] == "1"
log = Log.open(Path(sys.argv[1]))
fields = {"class": "data", "size": 1, "mode": "snapshot", "phase": "sealed"}
fields |= {"path": "/home/a", "sha256": "0" * 64}
number = 0
while True:
    kind = ("session.start", "session.sealed")[number] if number < 2 else "grant"
    log.append(kind, name, {**fields, "number": number} if kind == "grant" else {})
    os.write(1, b"%d\\n" % number)
    number += 1
    if number % 97 == 0:
        log.checkpoint(rotate=rotates and number % 291 == 0)
"""


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_kill_9_at_random_moments_loses_nothing_acknowledged(state_dir: Path, tmp_path: Path) -> None:
    """201 times: three writers at once, one of which begins new epochs, killed while they work."""
    random.seed(4)
    Log.open(state_dir).close()
    acknowledged: dict[str, int] = {}
    environment = {**os.environ, "PYTHONPATH": str(DAEMON)}
    for round_ in range(67):
        jobs = []
        for writer in range(3):
            name = f"{round_ * 3 + writer:016x}"
            told = (tmp_path / name).open("wb")
            command = [sys.executable, "-S", "-c", WRITER, str(state_dir), name, str(int(writer == 0))]
            sites = [path for path in sys.path if path.endswith("site-packages")]
            environment["PYTHONPATH"] = os.pathsep.join([str(DAEMON), *sites])
            jobs.append((name, told, subprocess.Popen(command, stdout=told, env=environment)))
        if round_ % 4:  # else they are killed wherever they are by then, some before their first word
            at_work = time.monotonic() + 30
            while not all((tmp_path / name).stat().st_size for name, _told, _job in jobs):
                assert time.monotonic() < at_work
                time.sleep(0.01)
        else:
            time.sleep(0.12)
        time.sleep(random.random() * 0.25)
        random.shuffle(jobs)
        for name, told, job in jobs:
            job.send_signal(signal.SIGKILL)
            job.wait()
            told.close()
            acknowledged[name] = (tmp_path / name).read_bytes().count(b"\n")
            time.sleep(random.random() * 0.01)
        if round_ % 10 == 0:
            good(state_dir)  # before it is put right
    log = Log.open(state_dir)
    log.checkpoint()
    log.close()
    result = good(state_dir)
    assert result.epochs > 10 and result.signed == result.size
    have: dict[str, list[int]] = {}
    for entry in entries(state_dir):
        if entry["session"]:
            have.setdefault(entry["session"], []).append(entry["n"])
    assert sum(acknowledged.values()) > 20_000
    for name, count in acknowledged.items():
        mine = have.get(name, [])
        assert mine == list(range(len(mine))), name
        assert count <= len(mine) <= count + 1, name  # one may have been written and not told of
    assert len(keys(state_dir)) == 1
    assert json.loads((state_dir / "log/state").read_bytes())["journals"] == {}
