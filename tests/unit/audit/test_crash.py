"""Crashes: whatever byte the writing stopped at, the log opens, verifies, and has lost nothing whole."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from anchorhold.audit import recover
from anchorhold.audit.log import Log
from anchorhold.errors import AuditError
from anchorhold.verify.check import verify
from tests.unit.audit.logs import filled, good, records, session

DAEMON = Path(__file__).parents[3] / "daemon"


def torn(state: Path) -> list[str]:
    folder = state / "log/torn"
    return sorted(os.listdir(folder)) if folder.exists() else []


@pytest.mark.slow
def test_cut_at_every_byte_of_the_last_records(state_dir: Path, tmp_path: Path) -> None:
    log = filled(state_dir, 5)
    start = (state_dir / "log/tail").stat().st_size
    for number in range(5, 7):
        log.append("limit", "s", {"n": number})
    log.close()
    data = (state_dir / "log/tail").read_bytes()
    ends = [start]
    while ends[-1] < len(data):
        ends.append(ends[-1] + 2 + int.from_bytes(data[ends[-1] : ends[-1] + 2], "big"))
    for cut in range(start, len(data) + 1):
        copy = tmp_path / "copy"
        shutil.copytree(state_dir, copy)
        os.truncate(copy / "log/tail", cut)
        whole = 5 + sum(end <= cut for end in ends[1:])
        before = verify(str(copy))
        assert before.ok and before.size == whole  # before anybody repairs it
        assert before.torn_bytes == cut - max(end for end in ends if end <= cut)
        log = Log.open(copy)
        found = records(copy)
        assert [entry["n"] for entry in found[:whole]] == list(range(whole))
        rest = data[max(end for end in ends if end <= cut) : cut]
        if rest:
            digest = hashlib.sha256(rest).hexdigest()
            (recovered,) = found[whole:]
            assert (recovered["kind"], recovered["bytes"], recovered["sha256"]) == (
                "log.recovered",
                len(rest),
                digest,
            )
            assert torn(copy) == [digest]
            assert (copy / "log/torn" / digest).read_bytes() == rest
        else:
            assert found[whole:] == [] and torn(copy) == []
        assert log.append("limit", "s", {}) == len(found)
        log.close()
        result = good(copy)
        assert result.signed == len(found)  # signed at the start, since there was a crash
        shutil.rmtree(copy)


@pytest.mark.parametrize("tear", [b"\0", bytes(4096), b"\xff" * 300, os.urandom(1000), b"\0\2{}"])
def test_garbage_after_the_last_record(state_dir: Path, tear: bytes) -> None:
    filled(state_dir, 5).close()
    with (state_dir / "log/tail").open("ab") as file:
        file.write(tear)
    log = Log.open(state_dir)
    assert records(state_dir)[5]["sha256"] == hashlib.sha256(tear).hexdigest()
    log.close()
    good(state_dir)


def test_zeros_in_the_middle_of_an_unsigned_record(state_dir: Path) -> None:
    log = filled(state_dir, 5)
    log.append("limit", "s", {"text": "x" * 5000})
    log.append("limit", "s", {"after": True})
    log.close()
    tail = state_dir / "log/tail"
    data = tail.read_bytes()
    at = data.index(b"xxxx")
    tail.write_bytes(data[:at] + bytes(4096) + data[at + 4096 :])
    assert verify(str(state_dir)).torn_bytes > 5000
    Log.open(state_dir).close()
    assert records(state_dir)[5]["kind"] == "log.recovered"
    good(state_dir)


def test_a_signed_record_is_never_set_aside(state_dir: Path) -> None:
    filled(state_dir, 5).close()
    os.truncate(state_dir / "log/tail", (state_dir / "log/tail").stat().st_size - 1)
    with pytest.raises(AuditError, match="5 entries are signed, 4 are there"):
        Log.open(state_dir)
    assert not verify(str(state_dir)).ok


def test_a_missing_entry_is_damage_not_a_crash(state_dir: Path) -> None:
    log = filled(state_dir, 5)
    lengths = [(state_dir / "log/tail").stat().st_size]
    for _ in range(3):
        log.append("limit", "s", {})
        lengths.append((state_dir / "log/tail").stat().st_size)
    log.close()
    data = (state_dir / "log/tail").read_bytes()
    (state_dir / "log/tail").write_bytes(data[: lengths[1]] + data[lengths[2] :])
    with pytest.raises(AuditError, match="entry 6 is missing"):
        Log.open(state_dir)
    assert torn(state_dir) == []


def test_a_crash_is_signed_at_the_next_start_and_a_second_run_is_no_crash(state_dir: Path) -> None:
    first = Log.open(state_dir)
    session(first, "one", end=False)
    second = Log.open(state_dir)
    assert verify(str(state_dir)).signed == 0  # the first one lives: nothing to sign
    second.close()
    first.close()  # without a checkpoint, as a kill leaves it
    third = Log.open(state_dir)
    assert good(state_dir).unsigned == 0
    third.close()


def test_a_torn_record_of_a_dead_writer_is_set_aside_by_a_living_one(state_dir: Path) -> None:
    living = filled(state_dir, 5)
    with (state_dir / "log/tail").open("ab") as file:
        file.write(b"\1\0{half")
    assert living.append("limit", "s", {"n": 5}) == 6
    found = records(state_dir)
    assert [entry["kind"] for entry in found[5:]] == ["log.recovered", "limit"]
    living.checkpoint()
    living.close()
    good(state_dir)


def test_torn_where_the_bundle_is_full(state_dir: Path) -> None:
    living = filled(state_dir, 256, sign=False)
    with (state_dir / "log/tail").open("ab") as file:
        file.write(b"\1\0{half")
    assert living.append("limit", "s", {}) == 257
    living.close()
    log = Log.open(state_dir)
    log.close()
    assert records(state_dir)[256]["kind"] == "log.recovered"
    assert good(state_dir).size == 258


class Stop(BaseException):
    """A crash, as far as the disk is concerned."""


def crash_points(monkeypatch: pytest.MonkeyPatch, stop_at: int) -> None:
    """Let the n-th changing system call of the log, and all after it, not happen."""
    calls = 0
    for name in ("rename", "open", "unlink", "rmdir", "mkdir", "write", "ftruncate", "fsync"):
        real = getattr(os, name)

        def call(*args: object, _real: object = real, **kwargs: object) -> object:
            nonlocal calls
            calls += 1
            if calls >= stop_at:
                raise Stop
            assert callable(_real)
            return _real(*args, **kwargs)

        monkeypatch.setattr(os, name, call)


def abandon(log: Log) -> None:
    """Close the descriptors as the kernel does for a dead process."""
    log.close()


@pytest.mark.slow
@pytest.mark.parametrize("what", ["rotate", "checkpoint", "recover", "repair", "create"])
def test_stopped_at_every_step(state_dir: Path, tmp_path: Path, what: str) -> None:
    if what != "create":
        log = filled(state_dir, 250)
        for number in range(250, 700 if what in ("recover", "repair") else 250):
            log.append("limit", "s", {"n": number})
        log.close()
    whole = len(records(state_dir)) if what not in ("create", "repair") else 0
    if what == "recover":
        with (state_dir / "log/tail").open("ab") as file:
            file.write(b"\1\0{half")
    if what == "repair":
        os.truncate(state_dir / "log/tile/entries/001", 10_000)
    for stop_at in range(1, 500):
        copy = tmp_path / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        if state_dir.exists():
            shutil.copytree(state_dir, copy)
        finished = False
        opened: list[Log] = []
        with pytest.MonkeyPatch.context() as patch:
            try:
                if what in ("rotate", "checkpoint"):
                    log = Log.open(copy)
                    opened.append(log)
                    for _ in range(5 if what == "rotate" else 450):
                        log.append("limit", "t", {})
                    crash_points(patch, stop_at)
                    for _ in range(3):
                        log.append("limit", "t", {})
                    log.checkpoint()
                else:
                    crash_points(patch, stop_at)
                    opened.append(Log.open(copy))
                finished = True
            except Stop:
                pass
        for dead in opened:
            abandon(dead)
        again = Log.open(copy)
        found = records(copy)
        if what != "repair":
            assert [entry["n"] for entry in found[:whole]] == list(range(whole))
        assert [entry["seq"] for entry in found] == list(range(len(found)))
        again.append("limit", "u", {})
        again.checkpoint()
        again.close()
        good(copy)
        if finished:
            assert stop_at > 5
            return
    pytest.fail("it never came to its end")


def test_the_stop_harness_stops(state_dir: Path) -> None:
    log = Log.open(state_dir)
    with pytest.MonkeyPatch.context() as patch:
        crash_points(patch, 1)
        with pytest.raises(Stop):
            log.append("limit", "s", {})
    log.close()
    assert records(state_dir) == []


@pytest.mark.parametrize("cut", [0, 1, 5_000, -1])
def test_a_power_loss_can_empty_a_bundle_that_is_not_signed(state_dir: Path, cut: int) -> None:
    log = filled(state_dir, 100)
    for number in range(100, 900):
        log.append("limit", "s", {"n": number})
    log.close()
    path = state_dir / "log/tile/entries/001"
    size = path.stat().st_size
    os.truncate(path, cut if cut >= 0 else size - 1)
    Log.open(state_dir).close()
    found = records(state_dir)
    assert found[-1]["kind"] == "log.recovered"
    kept = len(found) - 1
    assert 256 <= kept < 512
    assert [entry["n"] for entry in found[:kept]] == list(range(kept))
    good(state_dir)


def test_a_signed_part_of_a_bundle_is_never_set_aside(state_dir: Path) -> None:
    log = filled(state_dir, 300)
    for _ in range(300):
        log.append("limit", "s", {})
    log.close()
    os.truncate(state_dir / "log/tile/entries/001", 3_000)
    with pytest.raises(AuditError, match="300 entries are signed"):
        Log.open(state_dir)
    assert torn(state_dir) == []
    (state_dir / "log/tile/entries/001").unlink()
    with pytest.raises(AuditError, match="damaged"):
        Log.open(state_dir)


@pytest.mark.parametrize("content", [b"", bytes(8192), None, "half"])
def test_a_power_loss_can_empty_a_tile(state_dir: Path, content: bytes | str | None) -> None:
    log = filled(state_dir, 100)
    for _ in range(500):
        log.append("limit", "s", {})
    log.close()
    tile = state_dir / "log/tile/0/001"
    whole = tile.read_bytes()
    if content is None:
        tile.unlink()
    else:
        tile.write_bytes(content if isinstance(content, bytes) else whole[:4096] + bytes(4096))
    Log.open(state_dir).close()
    assert tile.read_bytes() == whole
    good(state_dir)


def test_a_tile_that_differs_is_damage(state_dir: Path) -> None:
    log = filled(state_dir, 100)
    for _ in range(500):
        log.append("limit", "s", {})
    log.close()
    tile = state_dir / "log/tile/0/001"
    tile.write_bytes(b"x" + tile.read_bytes()[1:])
    with pytest.raises(AuditError, match="entry 256 is not the one"):
        Log.open(state_dir)


def test_a_bundle_that_grew_is_damage(state_dir: Path) -> None:
    log = filled(state_dir, 300, sign=False)
    log.close()
    with (state_dir / "log/tile/entries/000").open("ab") as file:
        file.write(b"more")
    with pytest.raises(AuditError, match="more than it should"):
        Log.open(state_dir)


def test_bundles_are_counted_without_listing(tmp_path: Path) -> None:
    folder = tmp_path / "tile/entries"
    for count in range(20):
        assert recover.count_bundles(str(tmp_path)) == count
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{count:03d}").touch()
    for number in range(20, 1000):
        (folder / f"{number:03d}").touch()
    (folder / "x001").mkdir()
    for number in range(7):
        (folder / f"x001/{number:03d}").touch()
    assert recover.count_bundles(str(tmp_path)) == 1007


def test_an_interrupt_between_write_and_bookkeeping(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = filled(state_dir, 3)
    real = os.write

    def interrupted(fd: int, data: bytes) -> int:
        real(fd, data)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            log.append("limit", "s", {"n": 3})
    assert log.append("limit", "s", {"n": 4}) == 4
    assert [entry["n"] for entry in records(state_dir)] == [0, 1, 2, 3, 4]
    log.close()


WRITER = """
import sys, pathlib
from anchorhold.audit.log import Log
log = Log.open(pathlib.Path(sys.argv[1]))
for n in range(1_000_000):
    seq = log.append("limit", "s", {"text": "x" * (n * 37 % 3000)})
    sys.stdout.write(f"{seq}\\n"); sys.stdout.flush()
    if n % 97 == 96:
        log.checkpoint()
"""


@pytest.mark.slow
def test_kill_9_at_random_moments_loses_nothing_acknowledged(state_dir: Path) -> None:
    seed = random.randrange(1 << 30)
    moments = random.Random(seed)
    print("seed", seed)
    for _ in range(12):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(state_dir)],
            env={**os.environ, "PYTHONPATH": str(DAEMON)},
            stdout=subprocess.PIPE,
            text=True,
        ) as writer:
            assert writer.stdout is not None
            last = int(writer.stdout.readline())
            time.sleep(moments.random() * 0.15)
            writer.send_signal(signal.SIGKILL)
            for line in writer.stdout:
                if line.endswith("\n"):
                    last = int(line)
        before = verify(str(state_dir))
        assert before.ok, before.text()
        assert before.size > last
    log = Log.open(state_dir)
    log.close()
    assert good(state_dir).unsigned == 0
