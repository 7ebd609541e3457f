"""Adds entries to the right end of an epoch's tree: bundles, tiles and openings.

Constraint: changes nothing that a reader of the committed size looks at. Files are written whole under names
of the new size, or replaced by ones that begin with the same entries, so a crash before `State.save` leaves
only what nobody reads and the next run writes anew.
"""

from __future__ import annotations

import os
import zlib
from hashlib import sha256

from anchorhold.audit.entry import build, split_openings
from anchorhold.audit.files import fsync_path, read_file, remove_quietly, replace
from anchorhold.audit.tree import WIDTH, fold, full_root, load_edge, number_path, split_entries, tile_path
from anchorhold.errors import AuditError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

COMPRESSION = 1
"""zlib's fastest: salts and digests do not compress, and paths do at any level."""

MOST = WIDTH * (1 + 3 * (2 + 0xFFFF)) + 1
"""Bytes that a bundle's openings can have, and one: a small file can unpack to more than the memory."""


def openings_path(number: int) -> str:
    """Path below the epoch's folder of the openings of a bundle."""
    return f"openings/{number_path(number)}"


def read_openings(folder: str, number: int) -> bytes | None:
    """The openings of a bundle, not compressed; None where the file is not there. AuditError, OSError."""
    data = read_file(os.path.join(folder, openings_path(number)))
    if data is None:
        return None
    try:
        if zlib.crc32(data[:-4]).to_bytes(4, "big") != data[-4:]:
            raise zlib.error
        stream = zlib.decompressobj()
        unpacked = stream.decompress(data[:-4], MOST)
        if not stream.eof or stream.unused_data:
            raise zlib.error
        return unpacked
    except zlib.error:
        raise AuditError(
            f"a file of the audit log is damaged: {openings_path(number)}",
            hint="Run: anchorhold audit verify",
        ) from None


def write_openings(folder: str, number: int, data: bytes, *, sync: bool) -> None:
    """Replace the openings of a bundle. OSError.

    Old ones are not gone before the new ones are on the disk: they are of entries that are in the tree.
    """
    packed = zlib.compress(data, COMPRESSION)
    check = zlib.crc32(packed).to_bytes(4, "big")  # bits that pad a deflate stream are in no other sum
    path = os.path.join(folder, openings_path(number))
    replace(path, packed + check, sync=sync or os.path.lexists(path), name_later=not sync, owned=True)


class Grow:
    """The right edge of the tree in ``folder``, ``size`` entries long."""

    def __init__(self, folder: str, first: int, size: int) -> None:
        """``first``: seq of the epoch's first entry. Raises AuditError, OSError."""
        self.folder = folder
        self.first = first
        self.size = size
        self.levels = load_edge(folder, size) or [[]]
        self._entries: list[bytes] = []  # of the unfinished bundle, each after its length
        self._openings: list[bytes] = []
        self._written: list[str] = []
        self._filled: list[str] = []  # partial folders that go once the new size is committed
        self._changed: set[int] = set()  # levels whose unfinished tile is not the one that is there
        width = size % WIDTH
        if width:
            self._load(size // WIDTH, width)

    def _load(self, number: int, width: int) -> None:
        # the whole bundle can be what a crash left: it counts where nothing else is there
        data = read_file(os.path.join(self.folder, tile_path("entries", number, width)))
        if data is None:
            data = read_file(os.path.join(self.folder, tile_path("entries", number))) or b""
        self._entries = [len(entry).to_bytes(2, "big") + entry for entry in split_entries(data)[:width]]
        openings = read_openings(self.folder, number)
        at = 0
        try:
            while openings is not None and len(self._openings) < width:
                start, (_, _, at) = at, split_openings(openings, at)
                self._openings.append(openings[start:at])
        except (IndexError, ValueError):
            openings = None
        if len(self._entries) != width or openings is None:
            raise AuditError(
                f"the audit log is damaged: its last bundle or the openings of it are missing: {self.folder}",
                hint="Run: anchorhold audit verify",
            )

    def root(self) -> bytes:
        """Root of the tree as it is now."""
        return fold(self.levels)

    def add(self, records: Iterable[tuple[bytes, bytes]]) -> None:
        """Append entries from records: text, openings. OSError."""
        hashes = self.levels[0]
        self._changed.add(0)
        for shown, openings in records:
            entry = build(self.first + self.size, shown, openings)
            self._entries.append(len(entry).to_bytes(2, "big") + entry)
            self._openings.append(openings)
            hashes.append(sha256(b"\0" + entry).digest())
            self.size += 1
            if len(hashes) == WIDTH:
                self._full()
                hashes = self.levels[0]

    def _full(self) -> None:
        """The bundle and its tile are full, and perhaps tiles above."""
        number = self.size // WIDTH - 1
        self._bundle(number, WIDTH)
        level = 0
        while len(self.levels[level]) == WIDTH:
            hashes = self.levels[level]
            self._put(tile_path(level, number), b"".join(hashes))
            self._filled.append(tile_path(level, number) + ".p")
            self.levels[level] = []
            if level + 1 == len(self.levels):
                self.levels.append([])
            self.levels[level + 1].append(full_root(hashes))
            self._changed.add(level + 1)
            level, number = level + 1, number // WIDTH
        self._entries, self._openings = [], []

    def _bundle(self, number: int, width: int) -> None:
        self._put(tile_path("entries", number, width), b"".join(self._entries))
        write_openings(self.folder, number, b"".join(self._openings), sync=False)
        self._written.append(os.path.join(self.folder, openings_path(number)))
        if width == WIDTH:
            self._filled.append(tile_path("entries", number) + ".p")

    def _put(self, path: str, data: bytes) -> None:
        whole = os.path.join(self.folder, path)
        replace(whole, data, sync=False, owned=True)
        self._written.append(whole)

    def flush(self) -> bytes:
        """Write what is unfinished, bring everything to the disk; returns the root. OSError."""
        for level, hashes in enumerate(self.levels):
            if hashes and level in self._changed:  # a tile that readers look at is left alone
                self._put(tile_path(level, self.size >> (8 * (level + 1)), len(hashes)), b"".join(hashes))
        if self._entries:
            self._bundle(self.size // WIDTH, len(self._entries))
        folders = set()
        for path in self._written:
            fsync_path(path)
            while len(path) > len(self.folder):
                path = os.path.dirname(path)
                folders.add(path)
        for folder in sorted(folders, key=len, reverse=True):
            fsync_path(folder, directory=True)
        self._written = []
        return self.root()

    def tidy(self) -> None:
        """After the commit: partial tiles go when the full one is there, as tlog-tiles allows."""
        for path in self._filled:
            _remove_folder(os.path.join(self.folder, path))
        self._filled = []


def tidy_partials(folder: str, size: int) -> None:
    """Partial tiles of smaller trees than the one that was just signed: the wider ones begin with the same.
    They would add up, since a bundle can be signed 255 times before it is full."""
    level = 0
    while size >> (8 * level):
        number, width = size >> (8 * (level + 1)), (size >> (8 * level)) % WIDTH
        for name in (level, "entries") if level == 0 else (level,):
            path = os.path.join(folder, tile_path(name, number) + ".p")
            try:
                remove_quietly([f"{path}/{one}" for one in os.listdir(path) if one != str(width)])
            except OSError:
                continue
        level += 1


def _remove_folder(path: str) -> None:
    """Leftovers harm nobody."""
    try:
        remove_quietly([f"{path}/{name}" for name in os.listdir(path)])
        os.rmdir(path)
    except OSError:
        return
