"""Standard input as question or material, and the kinds of files below the folders."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from anchorhold.cli import inputs
from anchorhold.cli.inputs import LIBRARY_SUFFIXES, read_material, read_question, suffixes
from anchorhold.errors import UsageError


class Ends:
    """Descriptors to clean up, and what was told."""

    def __init__(self) -> None:
        self.fds: list[int] = []
        self.told: list[str] = []

    def pipe(self, *written: bytes, close: bool = True) -> int:
        reading, writing = os.pipe()
        self.fds.append(reading)
        for data in written:
            os.write(writing, data)
        if close:
            os.close(writing)
        else:
            self.fds.append(writing)
        return reading

    def file(self, path: Path, data: bytes) -> int:
        path.write_bytes(data)
        fd = os.open(path, os.O_RDONLY)
        self.fds.append(fd)
        return fd

    def material(self, fd: int, *, asked: bool = False) -> str | None:
        return read_material(self.told.append, asked=asked, started=time.monotonic(), fd=fd)


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> Iterator[Ends]:
    monkeypatch.setattr(inputs, "PATIENCE", 0.2)
    kept = Ends()
    yield kept
    for fd in kept.fds:
        os.close(fd)


def test_a_pipe_with_data_is_material(ends: Ends) -> None:
    assert ends.material(ends.pipe("größe\n".encode())) == "größe\n"
    assert ends.told == []


def test_a_regular_file_is_material_from_where_it_stands(ends: Ends, tmp_path: Path) -> None:
    fd = ends.file(tmp_path / "a", b"first\nsecond\n")
    os.lseek(fd, 6, os.SEEK_SET)
    assert ends.material(fd) == "second\n"


def test_what_is_no_material(ends: Ends, tmp_path: Path) -> None:
    null = os.open("/dev/null", os.O_RDONLY)
    zero = os.open("/dev/zero", os.O_RDONLY)
    left, right = socket.socketpair()
    master, slave = os.openpty()
    ends.fds += [null, zero, master, slave]
    right.send(b"data")
    for fd in (null, zero, left.fileno(), slave, 987):
        assert ends.material(fd) is None
    left.close()
    right.close()
    assert ends.told == []


def test_empty_input_is_said(ends: Ends, tmp_path: Path) -> None:
    assert ends.material(ends.pipe()) is None
    assert ends.material(ends.file(tmp_path / "empty", b"")) is None
    assert ends.told == ["note: standard input is empty"] * 2


def test_an_inherited_silent_pipe_does_not_hang(ends: Ends) -> None:
    silent = ends.pipe(close=False)
    before = time.monotonic()
    assert ends.material(silent) is None
    assert time.monotonic() - before < 2
    assert "sent nothing" in ends.told[0] and "--file -" in ends.told[0]


def test_asked_for_it_waits(ends: Ends) -> None:
    slow = ends.pipe(close=False)
    writing = ends.fds.pop()

    def write() -> None:
        time.sleep(0.5)
        os.write(writing, b"late")
        os.close(writing)

    writer = threading.Thread(target=write)
    writer.start()
    assert ends.material(slow, asked=True) == "late"
    writer.join()


def test_asked_for_it_takes_a_socket_and_waits_if_it_is_non_blocking(ends: Ends) -> None:
    left, right = socket.socketpair()
    left.setblocking(False)
    timer = threading.Timer(0.2, lambda: right.sendall(b"sent"))
    timer.start()
    closer = threading.Timer(0.4, right.close)
    closer.start()
    assert ends.material(left.fileno(), asked=True) == "sent"
    timer.join()
    closer.join()
    left.close()


def test_bytes_that_are_no_utf8(ends: Ends) -> None:
    assert ends.material(ends.pipe(b"caf\xe9 noir")) == "caf\ufffd noir"
    assert "byte 3" in ends.told[0]
    with pytest.raises(UsageError, match="not text"):
        ends.material(ends.pipe(b"%PDF-1.7\0\0"))


def test_too_long_and_unreadable(ends: Ends, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "MOST_MATERIAL", 1000)
    assert ends.material(ends.file(tmp_path / "fits", b"x" * 1000)) == "x" * 1000
    with pytest.raises(UsageError, match=r"standard input is longer than 1\.0 kB"):
        ends.material(ends.file(tmp_path / "long", b"x" * 1001))
    folder = os.open(tmp_path, os.O_RDONLY)
    ends.fds.append(folder)
    with pytest.raises(UsageError, match="cannot read standard input: Is a directory"):
        ends.material(folder, asked=True)


def test_question(ends: Ends) -> None:
    assert read_question(ends.told.append, ends.pipe(b"  What?\n")) == "What?"
    assert ends.told == []
    with pytest.raises(UsageError, match="no question"):
        read_question(ends.told.append, ends.pipe(b" \n"))
    with pytest.raises(UsageError, match="cannot read the question"):
        read_question(ends.told.append, 987)


def test_question_from_a_terminal(ends: Ends) -> None:
    master, slave = os.openpty()
    ends.fds += [master, slave]
    os.write(master, b"What?\n\x04")
    assert read_question(ends.told.append, slave) == "What?"
    assert "Ctrl-D" in ends.told[0]


def test_suffixes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "notes.md").touch()
    assert suffixes([str(tmp_path)], []) == ()
    (tmp_path / "deep" / "er" / "Report.PDF").touch()
    (tmp_path / "loop").symlink_to(tmp_path)
    assert suffixes([str(tmp_path)], []) == (".pdf",)
    assert suffixes([], ["/x/a.docx", "/x/b.txt"]) == (".docx",)
    assert suffixes([str(tmp_path), "/nonexistent"], ["/x/a.docx"]) == (".docx", ".pdf")
    (tmp_path / "deep" / "page.htm").touch()
    assert suffixes([str(tmp_path)], ["/x/a.docx"]) == tuple(sorted(LIBRARY_SUFFIXES))


def test_suffixes_of_a_huge_folder_are_taken_as_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "MOST_ENTRIES", 10)
    for number in range(9):
        (tmp_path / f"{number}.txt").touch()
    assert suffixes([str(tmp_path)], []) == ()
    (tmp_path / "9.txt").touch()
    assert suffixes([str(tmp_path)], []) == tuple(sorted(LIBRARY_SUFFIXES))
