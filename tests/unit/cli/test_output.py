"""Where text goes, byte for byte: terminals, pipes, closed and full descriptors."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from anchorhold.cli import output
from anchorhold.cli.output import Answer, Notes, encode_raw, open_standard_descriptors, write_all
from anchorhold.cli.terminal import MARK

HOSTILE = "red \x1b[31m\x9b2J \u202e\udc9b end"


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for fd in ends:
        try:
            os.close(fd)
        except OSError:
            continue


@pytest.fixture
def tty() -> Iterator[tuple[int, int]]:
    ends = os.openpty()
    yield ends
    for fd in ends:
        os.close(fd)


def test_a_pipe_gets_the_text_unchanged(pipe: tuple[int, int]) -> None:
    answer = Answer(pipe[1])
    answer.text(HOSTILE)
    answer.end()
    assert os.read(pipe[0], 1000) == HOSTILE.encode("utf-8", "surrogateescape") + b"\n"


def test_a_terminal_gets_safe_text_only(tty: tuple[int, int]) -> None:
    answer = Answer(tty[1])
    for character in HOSTILE + "\r":
        answer.text(character)
    answer.end()
    shown = b""
    while not shown.endswith(b"\n"):  # a terminal hands over what it has
        shown += os.read(tty[0], 1000)
    assert shown == b"red \\x1b[31m\\x9b2J \\u202e\\udc9b end\\x0d\r\n"
    unprotected = HOSTILE.encode("utf-8", "surrogateescape")
    assert b"\x1b[31m" in unprotected and b"\x9b" in unprotected  # what would have come


def test_a_latin1_terminal_gets_no_control_bytes(
    tty: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert b"\x9b" in "Û".encode()  # as UTF-8 this letter holds CSI for an 8-bit terminal
    monkeypatch.setattr(output, "locale_encoding", lambda: "iso-8859-1")
    answer = Answer(tty[1])
    answer.text("Û €")
    assert os.read(tty[0], 100) == b"\xdb \\u20ac"


def test_the_last_line_is_ended_once(pipe: tuple[int, int]) -> None:
    answer = Answer(pipe[1])
    answer.text("")
    answer.end()
    answer.text("a\n")
    answer.end()
    answer.text("b")
    answer.end()
    answer.end()
    assert os.read(pipe[0], 100) == b"a\nb\n"


def test_raw_encoding_keeps_bytes_and_survives_lone_surrogates() -> None:
    assert encode_raw("é\udcff") == b"\xc3\xa9\xff"
    assert encode_raw("a\ud800b") == "a\ufffdb".encode()


def test_writes_are_completed_on_a_non_blocking_pipe(pipe: tuple[int, int]) -> None:
    os.set_blocking(pipe[1], False)
    data = bytes(range(256)) * 4096
    got = bytearray()

    def read() -> None:
        while len(got) < len(data):
            got.extend(os.read(pipe[0], 65536))

    reader = threading.Thread(target=read)
    reader.start()
    write_all(pipe[1], data)
    reader.join(10)
    assert bytes(got) == data


def test_notes_are_safe_everywhere(pipe: tuple[int, int], tty: tuple[int, int]) -> None:
    for out, into in (pipe, tty):
        Notes(into).line("a\x1b[2J\nb" + MARK)
        assert os.read(out, 100).replace(b"\r", b"") == b"a\\x1b[2J\nb\\u2693\n"


@pytest.mark.parametrize(
    ("environment", "colour", "moves"),
    [
        ({"TERM": "xterm"}, True, True),
        ({"TERM": "xterm", "NO_COLOR": "1"}, False, True),
        ({"TERM": "xterm", "NO_COLOR": ""}, True, True),
        ({"TERM": "dumb"}, False, False),
        ({"TERM": ""}, False, False),
    ],
)
def test_colour_and_cursor(
    environment: dict[str, str],
    colour: bool,
    moves: bool,
    tty: tuple[int, int],
    pipe: tuple[int, int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    notes = Notes(tty[1])
    assert (notes.colour, notes.moves) == (colour, moves)
    notes.mark("seen")
    expected = f"{MARK} seen".encode()
    assert os.read(tty[0], 100) == (b"\x1b[2m" + expected + b"\x1b[22m\r\n" if colour else expected + b"\r\n")
    piped = Notes(pipe[1])
    assert not piped.colour and not piped.moves


def test_notes_never_fail(pipe: tuple[int, int]) -> None:
    os.close(pipe[0])
    Notes(pipe[1]).line("nobody reads this")
    Notes(987).line("no such descriptor")


def test_closed_descriptors_are_filled(tmp_path: Path) -> None:
    """In a child: with 0 to 2 closed, the next file opened must not become one of them."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            for fd in (0, 1, 2):
                os.close(fd)
            unprotected = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT)
            os.close(unprotected)
            open_standard_descriptors()
            log = os.open(tmp_path / "log", os.O_WRONLY)
            try:
                os.write(1, b"the answer")
                wrote = True
            except OSError:
                wrote = False
            os.write(2, b"a note")
            good = unprotected == 0 and log > 2 and os.read(0, 1) == b"" and not wrote
            code = 0 if good else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_open_descriptors_stay(capfd: pytest.CaptureFixture[str]) -> None:
    before = [os.fstat(fd).st_ino for fd in (0, 1, 2)]
    open_standard_descriptors()
    assert [os.fstat(fd).st_ino for fd in (0, 1, 2)] == before
