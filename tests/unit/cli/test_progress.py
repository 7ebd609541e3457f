"""The line that shows while there is nothing to read yet."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from anchorhold.cli.output import Notes
from anchorhold.cli.progress import INTERVAL, Progress


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def tty(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[int, int]]:
    monkeypatch.setenv("TERM", "xterm")
    ends = os.openpty()
    yield ends
    for fd in ends:
        os.close(fd)


def screen(fd: int) -> bytes:
    os.set_blocking(fd, False)
    shown = b""
    try:
        while True:
            shown += os.read(fd, 65536)
    except BlockingIOError:
        return shown


def test_shown_and_erased(tty: tuple[int, int]) -> None:
    clock = Clock()
    progress = Progress(Notes(tty[1]), clock)
    progress.show("load", 30, 100)
    assert screen(tty[0]) == "\r\x1b[Kloading the model 30 % …".encode()
    clock.now += INTERVAL
    progress.show("read", 3, 12)
    assert screen(tty[0]) == "\r\x1b[Kreading files 3/12 …".encode()
    progress.clear()
    assert screen(tty[0]) == b"\r\x1b[K"
    progress.clear()
    assert screen(tty[0]) == b""


def test_a_flood_is_thinned_but_a_new_stage_shows_at_once(tty: tuple[int, int]) -> None:
    progress = Progress(Notes(tty[1]), Clock())
    for done in range(1000):
        progress.show("read", done, 1000)
    progress.show("prompt")
    assert screen(tty[0]).count(b"\r") == 2


def test_hostile_reports(tty: tuple[int, int]) -> None:
    clock = Clock()
    progress = Progress(Notes(tty[1]), clock)
    for stage, done, total in (
        ("\x1b[2J", 0, 0),
        ("load", -5, 10),
        ("load", 10**5000, 10**5000),
        ("load", 11, 10),
        ("load", 1, -1),
    ):
        clock.now += 1
        progress.show(stage, done, total)
    shown = screen(tty[0]).replace(b"\r\x1b[K", b"|").decode()
    assert shown == "|working …|loading the model …"


def test_nothing_without_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    progress = Progress(Notes(writing))
    progress.show("load", 1, 2)
    progress.clear()
    os.close(writing)
    assert os.read(reading, 10) == b""
    os.close(reading)
