"""The Merkle tree of RFC 6962, and where C2SP tlog-tiles keeps its parts.

Sources: RFC 6962 section 2.1 (leaf hash ``SHA-256(0x00 || entry)``, node hash ``SHA-256(0x01 || left ||
right)``, split at the largest power of two below the size) and https://c2sp.org/tlog-tiles (tiles of 256
hashes, paths ``tile/<L>/<N>[.p/<W>]``, entry bundles of uint16 length-prefixed entries).
"""

from __future__ import annotations

import os
from hashlib import sha256

from anchorhold.audit.files import read_file
from anchorhold.errors import AuditError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

WIDTH = 256
"""Hashes in a full tile, entries in a full bundle (tlog-tiles)."""

HASH = 32
"""Bytes of a SHA-256 hash."""

EMPTY_ROOT = sha256(b"").digest()
"""Root of the tree with no entries (RFC 6962 section 2.1)."""


def leaf_hash(entry: bytes) -> bytes:
    """RFC 6962: the hash of one entry."""
    return sha256(b"\0" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """RFC 6962: the hash of an inner node."""
    return sha256(b"\1" + left + right).digest()


def full_root(hashes: list[bytes]) -> bytes:
    """Root of a complete subtree; the number of hashes is a power of two."""
    while len(hashes) > 1:
        hashes = [
            sha256(b"\1" + left + right).digest()
            for left, right in zip(hashes[::2], hashes[1::2], strict=True)
        ]
    return hashes[0]


def fold(levels: list[list[bytes]]) -> bytes:
    """Root of a tree given the rightmost, partial tile of each level, level 0 first.

    The tree of RFC 6962 is a row of complete subtrees, largest first; hashed together from the right.
    A partial tile of W hashes at level L holds those of heights 8L to 8L+7, one for each bit of W.
    """
    root: bytes | None = None
    for hashes in levels:
        end = len(hashes)
        bit = 1
        while end:
            if end & bit:
                peak = full_root(hashes[end - bit : end])
                root = peak if root is None else node_hash(peak, root)
                end -= bit
            bit <<= 1
    return EMPTY_ROOT if root is None else root


def number_path(number: int) -> str:
    """``N`` as three-digit elements, all but the last with an ``x`` before them: 1234067 → x001/x234/067."""
    path = f"{number % 1000:03d}"
    while number >= 1000:
        number //= 1000
        path = f"x{number % 1000:03d}/{path}"
    return path


def tile_path(level: int | str, number: int, width: int = WIDTH) -> str:
    """Path below the log's folder; level ``"entries"`` names an entry bundle."""
    path = f"tile/{level}/{number_path(number)}"
    return path if width == WIDTH else f"{path}.p/{width}"


def split_hashes(data: bytes) -> list[bytes]:
    """The hashes of a tile."""
    return [data[at : at + HASH] for at in range(0, len(data), HASH)]


def split_entries(bundle: bytes) -> list[bytes]:
    """The entries of a whole bundle; AuditError if its framing does not come out even."""
    entries = []
    at, end = 0, len(bundle)
    while at < end:
        start = at + 2
        at = start + int.from_bytes(bundle[at:start], "big")
        entries.append(bundle[start:at])
    if at != end:
        raise AuditError("an entry bundle of the audit log is cut off", hint="Run: anchorhold audit verify")
    return entries


def partial_widths(log: str, level: int | str, number: int) -> list[int]:
    """Widths of the partial tiles that are stored, ascending."""
    try:
        names = os.listdir(os.path.join(log, tile_path(level, number) + ".p"))
    except FileNotFoundError:
        return []
    return sorted(int(name) for name in names if name.isascii() and name.isdigit())


class Tiles:
    """Hashes of the tree as the stored tiles give them.

    ``roots`` remembers the roots of level-0 tiles, so that a checkpoint need not read 255 tiles again.
    """

    __slots__ = ("log", "roots", "tail_hashes")

    def __init__(self, log: str, tail_hashes: Callable[[], tuple[int, list[bytes]]]) -> None:
        self.log = log
        self.roots: dict[int, bytes] = {}
        self.tail_hashes = tail_hashes

    def hashes(self, level: int, number: int, width: int) -> list[bytes]:
        """The first ``width`` hashes of a tile, from disk as far as they are there, else computed."""
        if level == 0:
            tail_number, hashes = self.tail_hashes()
            if number == tail_number:
                return hashes[:width]
        data = read_file(os.path.join(self.log, tile_path(level, number)))
        if data is None and level:
            for stored in reversed(partial_widths(self.log, level, number)):
                data = read_file(os.path.join(self.log, tile_path(level, number, stored)))
                if data is not None and len(data) == stored * HASH:
                    break
                data = None
        found = split_hashes((data or b"")[: width * HASH])
        if any(len(one) != HASH for one in found) or (level == 0 and len(found) < width):
            raise AuditError(
                f"a hash tile of the audit log is missing or cut off: {tile_path(level, number)}",
                hint="Run: anchorhold audit verify",
            )
        return found + [self.root(level - 1, number * WIDTH + at) for at in range(len(found), width)]

    def root(self, level: int, number: int) -> bytes:
        """Root of a full tile."""
        known = self.roots.get(number) if level == 0 else None
        if known is None:
            known = full_root(self.hashes(level, number, WIDTH))
            if level == 0:
                self.remember(number, known)
        return known

    def remember(self, number: int, root: bytes) -> None:
        """Keep the root of a level-0 tile; bounded, since only the newest 256 are ever asked for again."""
        self.roots[number] = root
        self.roots.pop(number - WIDTH, None)

    def right_edge(self, size: int) -> list[list[bytes]]:
        """The partial tile of each level for a tree of ``size`` entries, level 0 first; some may be empty."""
        levels = []
        level = 0
        while size >> (8 * level):
            number = size >> (8 * (level + 1))
            width = (size >> (8 * level)) % WIDTH
            levels.append(self.hashes(level, number, width) if width else [])
            level += 1
        return levels
