"""Frames on a pipe: a length as unsigned 32-bit big-endian number, then so many bytes.

A frame announces its length, so the limit is checked before one byte of it is kept: whoever sends can
make the other side hold no more than the limit. Limits in bytes, without the four of the length.
"""

from __future__ import annotations

import os

from anchorhold.channel.errors import ProtocolError

TO_WORKER_LIMIT = 16 << 20
FROM_WORKER_LIMIT = 1 << 20
_HEADER = 4
_CHUNK = 1 << 16


class FrameReader:
    """Cuts a stream into frames, however the bytes arrive. After a ProtocolError it takes nothing more."""

    __slots__ = ("_buffer", "_broken", "limit")

    def __init__(self, limit: int = FROM_WORKER_LIMIT) -> None:
        self.limit = limit
        self._buffer = bytearray()
        self._broken = False

    def feed(self, data: bytes) -> list[bytes]:
        """All frames that are complete now. Raises ProtocolError for an empty or over-long one."""
        if self._broken:
            raise ProtocolError("the channel broke off earlier")
        buffer = self._buffer
        buffer += data
        frames: list[bytes] = []
        start = 0
        held = len(buffer)
        while held - start >= _HEADER:
            length = int.from_bytes(buffer[start : start + _HEADER], "big")
            if not 0 < length <= self.limit:
                self._broken = True
                buffer.clear()
                raise ProtocolError(f"a frame of {length} bytes (limit: {self.limit})")
            end = start + _HEADER + length
            if held < end:
                break
            frames.append(bytes(buffer[start + _HEADER : end]))
            start = end
        if start:
            del buffer[:start]
        return frames

    @property
    def pending(self) -> int:
        """Bytes of a frame that is not complete; at the end of a stream, more than 0 means: cut off."""
        return len(self._buffer)


def read_frame(fd: int, limit: int = TO_WORKER_LIMIT) -> bytes | None:
    """One frame from a blocking descriptor; None at the end of the stream.

    Raises ProtocolError for an empty, over-long or cut-off frame, OSError as read(2).
    """
    header = _read_exactly(fd, _HEADER)
    if not header:
        return None
    length = int.from_bytes(header, "big")
    if len(header) < _HEADER or not 0 < length <= limit:
        raise ProtocolError(
            "a cut-off frame" if len(header) < _HEADER else f"a frame of {length} bytes (limit: {limit})"
        )
    data = _read_exactly(fd, length)
    if len(data) < length:
        raise ProtocolError("a cut-off frame")
    return data


def _read_exactly(fd: int, size: int) -> bytes:
    """So many bytes, or fewer at the end of the stream."""
    data = os.read(fd, min(size, _CHUNK))
    if len(data) == size:
        return data
    held = bytearray(data)
    while data and len(held) < size:
        data = os.read(fd, min(size - len(held), _CHUNK))
        held += data
    return bytes(held)


def frame(data: bytes, limit: int = FROM_WORKER_LIMIT) -> bytes:
    """The frame around one encoded message. Raises ProtocolError over the limit."""
    if not 0 < len(data) <= limit:
        raise ProtocolError(f"a frame of {len(data)} bytes (limit: {limit})")
    return len(data).to_bytes(_HEADER, "big") + data


def write_frame(fd: int, data: bytes, limit: int = FROM_WORKER_LIMIT) -> None:
    """Send one whole frame on a blocking descriptor. Raises ProtocolError, OSError as write(2)."""
    write_all(fd, frame(data, limit))


def write_all(fd: int, data: bytes) -> None:
    """All bytes to a blocking descriptor. Raises OSError as write(2)."""
    written = os.write(fd, data)
    if written < len(data):
        rest = memoryview(data)[written:]
        while rest:
            rest = rest[os.write(fd, rest) :]
