"""A writer and its journal: what is there after a write that was cut short, interrupted, or had no place
left."""

from __future__ import annotations

import errno
import fcntl
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from anchorhold.audit import journal
from anchorhold.audit.files import fsync_path
from anchorhold.audit.journal import Writer
from anchorhold.audit.log import Log
from anchorhold.audit.query import entries
from anchorhold.errors import AuditError
from tests.support import TOP
from tests.unit.audit.logs import filled, good, records

NAME = "00000000000000aa"
INTERRUPTS = 1500


def begun(state: Path) -> Log:
    """A log in which a session has started; its start is settled."""
    log = filled(state, 3, sign=False)
    log.append("session.start", NAME, {})
    log.checkpoint()
    return log


def numbers(state: Path) -> list[int]:
    """Those of the session's other events, from 0."""
    return [entry["n"] - 1 for entry in entries(state) if entry["kind"] == "denial"]


def test_a_write_in_parts_is_one_record(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Short writes without an error: what is whole may have been settled and must not be taken back."""
    log = begun(state_dir)
    real = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda fd, data: real(fd, data[:7]))
        for _ in range(3):
            log.append("denial", NAME, {"path": "/home/a"})
    log.checkpoint()
    log.close()
    assert numbers(state_dir) == [0, 1, 2]
    good(state_dir)


@pytest.mark.parametrize("part", [0, 1, 40])
def test_a_part_of_a_record_is_taken_back(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch, part: int
) -> None:
    log = begun(state_dir)
    log.append("denial", NAME, {})
    real = os.write
    calls = iter(range(10))

    def full(fd: int, data: bytes) -> int:
        if next(calls):
            if part == 1:
                return 0
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(fd, data[:part]) if part else 0

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(AuditError, match="No space|nothing was written") as raised:
            log.append("denial", NAME, {})
    assert raised.value.hint
    log.append("denial", NAME, {})
    log.checkpoint()
    log.close()
    assert numbers(state_dir) == [0, 1]
    good(state_dir)


@pytest.mark.parametrize("half", [False, True])
def test_an_interrupt_in_the_middle_of_a_write(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch, half: bool
) -> None:
    """Ctrl-C: the event may be there or not, but no later one is lost, and no number comes twice."""
    log = begun(state_dir)
    log.append("denial", NAME, {})
    real = os.write

    def interrupted(fd: int, data: bytes) -> int:
        real(fd, data[: len(data) // 2] if half else data)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            log.append("denial", NAME, {})
    log.append("denial", NAME, {})

    def full(fd: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(AuditError, match="No space"):
            log.append("denial", NAME, {})  # takes back its own part, and nothing of what is before
    log.append("denial", NAME, {})
    log.checkpoint()
    log.close()
    assert numbers(state_dir) == ([0, 1, 2] if half else [0, 1, 2, 3])
    good(state_dir)


def interrupts(state_dir: Path) -> None:
    """Real signals whose handler raises, a thousand times and more. Prints how many events it was told of."""
    log = begun(state_dir)
    acknowledged = interrupted = 0
    chance = random.Random(7)

    def handler(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGALRM, handler)
    while interrupted < INTERRUPTS:
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.0001 + chance.random() * 0.0004)
            for _ in range(1000):
                log.append("denial", NAME, {"number": acknowledged})
                acknowledged += 1
        except KeyboardInterrupt:
            interrupted += 1
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    log.checkpoint()
    log.close()
    print(acknowledged)


@pytest.mark.slow
def test_interrupts_at_any_moment(state_dir: Path, unmeasured: None) -> None:
    """In a process without coverage, whose own lock would stay locked after an interrupt within it."""
    code = f"from {__name__} import interrupts; import pathlib, sys; interrupts(pathlib.Path(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", code, str(state_dir)],
        env={**os.environ, "PYTHONPATH": f"{TOP}:{TOP / 'daemon'}"},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    acknowledged, mine = int(done.stdout), numbers(state_dir)
    assert mine == list(range(len(mine))) and acknowledged <= len(mine) <= acknowledged + INTERRUPTS
    good(state_dir)


def test_what_cannot_be_settled_is_said_before_the_event(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error of append means that the event is not in the log, also where it is settling that failed."""
    monkeypatch.setattr("anchorhold.audit.log.GATHERED", 2_000)
    log = begun(state_dir)
    os.chmod(state_dir / "log/0/key", 0o640)
    done = 0
    with pytest.raises(AuditError, match="may be read by others"):
        for _ in range(100):
            log.append("denial", NAME, {})
            done += 1
    assert 5 < done < 100 and numbers(state_dir) == list(range(done))
    os.chmod(state_dir / "log/0/key", 0o600)
    log.append("denial", NAME, {})
    log.checkpoint()
    log.close()
    assert numbers(state_dir) == list(range(done + 1))
    good(state_dir)


def remove(log: Path) -> None:
    shutil.rmtree(log)


def replace(log: Path) -> None:
    shutil.rmtree(log)
    Log.open(log.parent).close()


def remove_above(log: Path) -> None:
    shutil.rmtree(log.parent)


@pytest.mark.parametrize("removed", [remove, replace, remove_above])
@pytest.mark.parametrize("began", [False, True])
def test_a_log_that_was_removed_gets_no_events(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch, removed: Callable[[Path], None], began: bool
) -> None:
    """Neither into a folder that is made anew, nor into another log that began in its place."""
    log = begun(state_dir)
    log.append("denial", NAME, {})
    if not began:
        log.checkpoint()
    else:
        monkeypatch.setattr("anchorhold.audit.log.LOOK", 0)
    removed(state_dir / "log")
    before = list(entries(state_dir)) if removed is replace else []
    for call in (lambda: log.append("denial", NAME, {}), log.checkpoint):
        with pytest.raises(
            AuditError, match="removed while in use|No such file|nothing more is written"
        ) as raised:
            call()
        assert raised.value.hint
    log.close()
    if removed is replace:
        assert list(entries(state_dir)) == before
        good(state_dir)
    else:
        assert not (state_dir / "log/journal").exists()


def test_a_new_journal_is_not_waited_for(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who looks whether a writer lives holds the lock for that moment, and may be stopped in it."""
    Log.open(state_dir).close()
    writer = Writer(str(state_dir / "log"), sync=False)
    real = os.open
    held: list[int] = []

    def opened(path: str, flags: int, mode: int = 0o777) -> int:
        fd = real(path, flags, mode)
        if "/journal/" in path and not held:
            held.append(real(path, os.O_RDONLY))
            fcntl.flock(held[0], fcntl.LOCK_EX)
        return fd

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", opened)
        thread = threading.Thread(target=writer.add, args=(b"x",), daemon=True)
        thread.start()
        thread.join(10)
        assert not thread.is_alive()
    os.close(held[0])
    assert writer.size == 1 and writer.is_there()
    assert len(journal.names(str(state_dir / "log"))) == 2  # the abandoned one goes with the next settling
    writer.close()


def test_a_journal_shorter_than_what_is_in_the_tree_goes(state_dir: Path) -> None:
    log = begun(state_dir)
    for _ in range(5):
        log.append("denial", NAME, {"path": "/home/a"})
    Log.open(state_dir).close()  # settles; the writer lives, its journal stays
    (path,) = (state_dir / "log/journal").iterdir()
    assert numbers(state_dir) == list(range(5))
    log.close()
    os.truncate(path, 10)
    Log.open(state_dir).close()
    assert list((state_dir / "log/journal").iterdir()) == [] and numbers(state_dir) == list(range(5))
    assert [entry["kind"] for entry in records(state_dir)].count("log.recovered") == 0
    good(state_dir)


@pytest.mark.parametrize("made", [True, False])
def test_the_folders_name_is_on_the_disk_whoever_made_it(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch, made: bool
) -> None:
    """Another process can have made it a moment ago, and not have come to its fsync."""
    log = Log.open(state_dir, durability="fsync")
    if made:
        (state_dir / "log/journal").mkdir()
    synced: list[str] = []

    def fsync(path: str, *, directory: bool = False) -> None:
        synced.append(os.path.relpath(path, state_dir))
        fsync_path(path, directory=directory)

    monkeypatch.setattr("anchorhold.audit.journal.fsync_path", fsync)
    log.append("policy.load", "", {})
    assert synced == ["log", "log/journal"]
    log.checkpoint()
    synced.clear()
    log.append("policy.load", "", {})  # a new journal, in a folder that is known to be there
    assert synced == ["log/journal"]
    log.close()
