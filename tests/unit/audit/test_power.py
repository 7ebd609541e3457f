"""Power losses: what the disk had not been told to keep may be gone, or be zeros. The log opens all the same,
and has everything that was promised to be on the disk."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from anchorhold.audit.log import Log
from anchorhold.audit.query import entries
from tests.unit.audit.logs import good
from tests.unit.audit.power import Disk, Image, put


@pytest.fixture
def memory() -> Iterator[Path]:
    """A folder where fsync costs nothing: the disk that forgets is made by the test."""
    place = Path(tempfile.mkdtemp(dir="/dev/shm"))
    yield place
    shutil.rmtree(place)


class Promise:
    """How many events, and which root key, the log has promised to keep."""

    def __init__(self, log: Path) -> None:
        self.log, self.events, self.vkey = log, 0, b""
        self.hurried = False  # too many events to stop at each

    def opened(self) -> None:
        self.vkey = (self.log / "log/vkey").read_bytes()


Story = Callable[[Path, Promise], None]


def append(log: Log, promise: Promise, first: int, last: int) -> None:
    for number in range(first, last):
        promise.hurried = number < last - 2
        log.append("policy.load", "", {"number": number, "path": f"/home/a/{number}"})


def beginning(state: Path, promise: Promise) -> None:
    log = Log.open(state)
    promise.opened()
    append(log, promise, 0, 3)
    log.checkpoint()
    promise.events = 3
    log.close()


def settling(state: Path, promise: Promise) -> None:
    """A bundle that is begun, filled, and another one; a writer that dies; one that goes on."""
    log, other = Log.open(state), Log.open(state)
    promise.opened()
    append(log, promise, 0, 5)
    log.checkpoint()
    promise.events = 5
    append(other, promise, 5, 9)
    other.close()  # dead: its journal is settled by somebody else
    log.checkpoint()
    promise.events = 9
    append(log, promise, 9, 300)
    log.checkpoint()
    promise.events = 300
    append(log, promise, 300, 302)
    log.checkpoint()
    promise.events = 302
    log.close()


def rotating(state: Path, promise: Promise) -> None:
    log = Log.open(state)
    promise.opened()
    append(log, promise, 0, 3)
    log.checkpoint(rotate=True)
    promise.events = 3
    append(log, promise, 3, 5)
    log.checkpoint(rotate=True)
    promise.events = 5
    log.close()


def syncing(state: Path, promise: Promise) -> None:
    """With ``fsync`` each event is on the disk when append returns."""
    log = Log.open(state, durability="fsync")
    promise.opened()
    for number in range(4):
        append(log, promise, number, number + 1)
        promise.events = number + 1
        if number == 1:
            log.checkpoint()
    log.close()


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("story", [beginning, settling, rotating, syncing])
def test_whatever_a_power_loss_leaves_opens_and_has_what_was_promised(memory: Path, story: Story) -> None:
    state = memory / "state"
    state.mkdir()
    promise = Promise(state)
    found: list[tuple[Image, int, bytes]] = []
    seen: set[int] = set()

    def after() -> None:
        for image in disk.images() if not promise.hurried else ():
            known = hash((tuple(sorted(image.items())), promise.events, promise.vkey))
            if known not in seen:
                seen.add(known)
                found.append((image, promise.events, promise.vkey))

    with pytest.MonkeyPatch.context() as patch:
        disk = Disk(state, patch, after)
        story(state, promise)
    disk.close()
    assert len(found) > 100
    for number, (image, events, vkey) in enumerate(found):
        again = memory / "again"
        put(image, str(state), again)
        try:
            check(again, events, vkey)
        except Exception as error:
            names = [(path, len(data or b"")) for path, data in sorted(image.items())]
            raise AssertionError(f"disk {number} of {len(found)}: {names}") from error
        shutil.rmtree(again)


def check(state: Path, events: int, vkey: bytes) -> None:
    log = Log.open(state)
    have = [entry["number"] for entry in entries(state) if "number" in entry]
    assert have == list(range(len(have))) and len(have) >= events
    assert not vkey or (state / "log/vkey").read_bytes() == vkey
    log.append("policy.load", "", {})
    log.checkpoint()
    log.close()
    result = good(state)
    assert result.unsettled == 0 and result.signed == result.size
    assert len(list((state / "log").glob("*/key"))) == 1
    assert os.listdir(state / "log/journal") == []
