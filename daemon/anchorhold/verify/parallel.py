"""Reads and looks at the bundles of an epoch, in several processes where that pays, and gives them in order.

Constraint: the findings are the same whatever the number of processes. A bundle is looked at by itself; what
goes from process to process are plain values.
"""

from __future__ import annotations

import contextlib
import marshal
import os
import signal
import zlib
from collections.abc import Iterator
from typing import Any

from anchorhold.verify.bundle import Seen, look
from anchorhold.verify.files import MOST, names_in, read
from anchorhold.verify.merkle import HASH, WIDTH, index_path, root
from anchorhold.verify.result import LogUnreadable
from anchorhold.verify.rules import Segment

ENOUGH = 80
"""Bundles from which on another process pays: it costs a few milliseconds."""


class Looked:
    """A bundle: its number, whether the file was there, what was seen, which openings were read
    (``openings``: "here", "gone", or what is wrong with the file), and the ``stored`` tile of its hashes
    (None: there is none). For a full bundle whose hashes are the stored ones ``root`` is set, and neither
    they nor the tile are kept.
    """

    __slots__ = ("missing", "number", "openings", "root", "seen", "stored")

    def __init__(
        self, number: int, seen: Seen, openings: str, *, missing: bool, stored: bytes | None
    ) -> None:
        self.number, self.seen, self.openings = number, seen, openings
        self.missing, self.stored = missing, stored
        self.root: bytes | None = None
        if len(seen.hashes) == WIDTH and b"".join(seen.hashes) == stored:
            self.root = root(seen.hashes)
            seen.hashes, self.stored = [], None


class Reader:
    """Looks at bundles of the epoch in ``folder``, whose first entry is number ``first``."""

    def __init__(self, folder: str, first: int, committed: int) -> None:
        """``committed``: entries in the tree; an unfinished bundle can hold more, which a crash left."""
        self.folder, self.first, self.committed = folder, first, committed
        self.clocks: dict[bytes, int] = {}

    def one(self, number: int) -> Looked:
        """Look at one bundle."""
        width = min(WIDTH, self.committed - number * WIDTH)
        data = tile(os.path.join(self.folder, "tile", "entries", index_path(number)), width)
        raw, state = self.openings(number)
        seen = look(data or b"", raw, self.first + number * WIDTH, width, self.clocks)
        if seen.loose and width == WIDTH:
            state = "bytes follow the last opening"
        stored = tile(os.path.join(self.folder, "tile", "0", index_path(number)), width)
        stored = stored[: width * HASH] if stored is not None and width < WIDTH else stored
        return Looked(number, seen, state, missing=data is None, stored=stored)

    def openings(self, number: int) -> tuple[bytes | None, str]:
        """Those of a bundle, unpacked, and "here"; or None, and "gone" or what is wrong with the file."""
        packed = read(os.path.join(self.folder, "openings", index_path(number)))
        if packed is None:
            return None, "gone"
        if zlib.crc32(packed[:-4]).to_bytes(4, "big") != packed[-4:]:
            return None, "its sum is not right"
        stream = zlib.decompressobj()
        try:
            data = stream.decompress(packed[:-4], MOST)
        except zlib.error:
            return None, "it cannot be unpacked"
        if not stream.eof or stream.unused_data:
            return None, "it cannot be unpacked"
        return data, "here"

    def all(self, processes: int) -> Iterator[Looked]:
        """All bundles in order. LogUnreadable if a process dies."""
        count = -(-self.committed // WIDTH)
        processes = min(processes, count // ENOUGH)
        if processes < 2:
            for number in range(count):
                yield self.one(number)
            return
        workers = [_Worker(self, at, processes, count) for at in range(processes)]
        try:
            for number in range(count):
                yield workers[number % processes].next(number)
        finally:
            for worker in workers:
                worker.end()


def tile(path: str, width: int) -> bytes | None:
    """A tile or bundle of that width. A log that is written to can have a wider one by now, which begins with
    it."""
    if width < WIDTH:
        data = read(f"{path}.p/{width}")
        if data is not None:
            return data
    data = read(path)
    if data is None and width < WIDTH:
        wider = sorted(int(name) for name in names_in(f"{path}.p") if name.isascii() and name.isdigit())
        data = next((read(f"{path}.p/{one}") for one in wider if one > width), None)
    return data


class _Worker:
    """A process that looks at every ``step``-th bundle from ``start`` on; a pipe holds it back."""

    def __init__(self, reader: Reader, start: int, step: int, count: int) -> None:
        source, sink = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                os.close(source)
                with open(sink, "wb", buffering=1 << 16) as file:
                    for number in range(start, count, step):
                        marshal.dump(_pack(reader.one(number)), file)
                code = 0
            finally:
                os._exit(code)
        os.close(sink)
        self.file = open(source, "rb", buffering=1 << 16)  # noqa: SIM115

    def next(self, number: int) -> Looked:
        """The next bundle of this process."""
        try:
            return _unpack(number, marshal.load(self.file))
        except (EOFError, ValueError, TypeError):
            raise LogUnreadable("a process that helped to verify has died (out of memory?)") from None

    def end(self) -> None:
        """Nothing is left running, whatever the reason."""
        self.file.close()
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


def _pack(one: Looked) -> Any:
    seen = one.seen
    return (
        (one.openings, one.missing, one.root, one.stored),
        b"".join(seen.hashes),
        [segment.pack() for segment in seen.segments],
        (seen.trailing, seen.problems, seen.own, seen.erased),
    )


def _unpack(number: int, values: Any) -> Looked:
    (openings, missing, found, stored), hashes, segments, rest = values
    seen = Seen()
    seen.trailing, seen.problems, seen.own, seen.erased = rest
    seen.segments = [Segment.unpack(values) for values in segments]
    one = Looked(number, seen, openings, missing=missing, stored=stored)
    seen.hashes = [hashes[at : at + HASH] for at in range(0, len(hashes), HASH)]
    one.root = found
    return one
