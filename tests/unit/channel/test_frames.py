"""Frames: what is sent arrives, and whatever else arrives is refused without being kept."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anchorhold.channel import frames
from anchorhold.channel.errors import ProtocolError


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    yield reader, writer
    for fd in (reader, writer):
        try:
            os.close(fd)
        except OSError:
            assert fd == writer  # a test closed it


@given(st.lists(st.binary(min_size=1, max_size=300), max_size=8), st.integers(1, 50))
def test_frames_arrive_however_the_stream_is_cut(sent: list[bytes], step: int) -> None:
    stream = b"".join(map(frames.frame, sent))
    reader = frames.FrameReader()
    found: list[bytes] = []
    for at in range(0, len(stream), step):
        found += reader.feed(stream[at : at + step])
    assert found == sent
    assert reader.pending == 0


@given(st.binary(max_size=400))
def test_any_bytes_make_frames_or_a_protocol_error(data: bytes) -> None:
    reader = frames.FrameReader(limit=64)
    try:
        found = reader.feed(data)
    except ProtocolError:
        with pytest.raises(ProtocolError, match="earlier"):
            reader.feed(b"")
    else:
        assert all(0 < len(frame) <= 64 for frame in found)
        assert reader.pending <= 64 + 4


@pytest.mark.parametrize("length", [0, 65, 2**32 - 1])
def test_a_wrong_length_is_refused_before_anything_is_kept(length: int, pipe: tuple[int, int]) -> None:
    header = length.to_bytes(4, "big")
    reader = frames.FrameReader(limit=64)
    with pytest.raises(ProtocolError, match="bytes"):
        reader.feed(header)
    assert reader.pending == 0
    os.write(pipe[1], header)
    with pytest.raises(ProtocolError, match="bytes"):
        frames.read_frame(pipe[0], limit=64)
    with pytest.raises(ProtocolError, match="bytes"):
        frames.write_frame(pipe[1], b"x" * (length % 1000), limit=64)


@pytest.mark.parametrize("size", [1, 65_536, 65_537, 3_000_000])
def test_a_frame_of_any_size_goes_through_a_pipe(size: int, pipe: tuple[int, int]) -> None:
    data = os.urandom(size)
    sender = threading.Thread(target=frames.write_frame, args=(pipe[1], data, frames.TO_WORKER_LIMIT))
    sender.start()
    assert frames.read_frame(pipe[0]) == data
    sender.join()


def test_a_slow_reader_gets_the_whole_frame_from_a_pipe_that_takes_only_parts(pipe: tuple[int, int]) -> None:
    os.set_blocking(pipe[1], True)
    data = b"y" * 400_000
    got: list[bytes] = []

    def read() -> None:
        while sum(map(len, got)) < len(data):
            got.append(os.read(pipe[0], 1000))

    reader = threading.Thread(target=read)
    reader.start()
    frames.write_all(pipe[1], data)
    reader.join()
    assert b"".join(got) == data


def test_what_write_leaves_over_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    got = bytearray()

    def write(fd: int, data: bytes) -> int:
        part = bytes(data[:7])
        got.extend(part)
        return len(part)

    monkeypatch.setattr(os, "write", write)
    frames.write_all(99, b"a message of some length")
    assert got == b"a message of some length"


def test_the_end_of_the_stream_is_none_and_a_cut_frame_an_error(pipe: tuple[int, int]) -> None:
    for cut in (2, 9):
        reader, writer = os.pipe()
        os.write(writer, frames.frame(b"0123456789")[:cut])
        os.close(writer)
        with pytest.raises(ProtocolError, match="cut-off"):
            frames.read_frame(reader)
        os.close(reader)
    os.close(pipe[1])
    assert frames.read_frame(pipe[0]) is None
