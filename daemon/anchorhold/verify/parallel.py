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


TRIES = 100
"""Times that a tile is looked for while others come and go in its place."""


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

    @property
    def bundles(self) -> int:
        """How many there are."""
        return -(-self.committed // WIDTH)


class Pool:
    """Looks at all bundles of several epochs, in several processes, and gives them in order: `all` those of
    the first, then of the second, and so on. Nothing is left running after its ``with``."""

    def __init__(self, readers: list[Reader], processes: int) -> None:
        self._readers = iter(readers)
        self._workers: list[_Worker] = []
        self._at = 0
        self._todo, self._processes = readers, min(processes, sum(one.bundles for one in readers) // ENOUGH)

    def __enter__(self) -> Pool:
        for number in range(self._processes if self._processes > 1 else 0):
            self._workers.append(_Worker(self._todo, number, self._processes, self._workers))
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.end()

    def all(self) -> Iterator[Looked]:
        """The bundles of the next epoch. LogUnreadable if a process dies."""
        reader = next(self._readers)
        for number in range(reader.bundles):
            if self._workers:
                yield self._workers[self._at % len(self._workers)].next(number)
                self._at += 1
            else:
                yield reader.one(number)


def tile(path: str, width: int) -> bytes | None:
    """A tile or bundle of that width. A log that is written to can have a wider one by now, which begins with
    it.

    Looked for in the order in which they come and go, and again while others come: those that were listed can
    be gone when they are read.
    """
    if width == WIDTH:
        return read(path)
    listed = None
    for _ in range(TRIES):
        data = read(f"{path}.p/{width}")
        names = [name for name in names_in(f"{path}.p") if name.isascii() and name.isdigit()]
        wider = sorted(one for one in map(int, names) if one > width)
        for one in wider if data is None else ():
            data = read(f"{path}.p/{one}")
            if data is not None:
                break
        if data is None:
            data = read(path)
        if data is not None or wider == listed:
            return data
        listed = wider
    return None


class _Worker:
    """A process that looks at every ``step``-th bundle from ``start`` on; a pipe holds it back."""

    def __init__(self, readers: list[Reader], start: int, step: int, others: list[_Worker]) -> None:
        source, sink = os.pipe()
        self.file = open(source, "rb", buffering=1 << 16)  # noqa: SIM115  # open as long as the process: see `end`
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                for other in [self, *others]:
                    other.file.close()
                with open(sink, "wb", buffering=1 << 16) as file:
                    skip = start
                    for reader in readers:
                        for number in range(skip, reader.bundles, step):
                            marshal.dump(_pack(reader.one(number)), file)
                        skip = (skip - reader.bundles) % step
                code = 0
            finally:
                os._exit(code)
        os.close(sink)

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
        (seen.trailing, seen.problems, seen.own, seen.erased, seen.last),
    )


def _unpack(number: int, values: Any) -> Looked:
    (openings, missing, found, stored), hashes, segments, rest = values
    seen = Seen()
    seen.trailing, seen.problems, seen.own, seen.erased, seen.last = rest
    seen.segments = [Segment.unpack(values) for values in segments]
    one = Looked(number, seen, openings, missing=missing, stored=stored)
    seen.hashes = [hashes[at : at + HASH] for at in range(0, len(hashes), HASH)]
    one.root = found
    return one
