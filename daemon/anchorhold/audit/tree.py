"""The Merkle tree of RFC 6962, and where C2SP tlog-tiles keeps its parts.

Sources: RFC 6962 section 2.1 (leaf hash ``SHA-256(0x00 || entry)``, node hash ``SHA-256(0x01 || left ||
right)``, split at the largest power of two below the size) and https://c2sp.org/tlog-tiles (tiles of 256
hashes, paths ``tile/<L>/<N>[.p/<W>]``, entry bundles of uint16 length-prefixed entries).
"""

from __future__ import annotations

import os
from bisect import bisect_left
from hashlib import sha256

from anchorhold.audit.files import read_file
from anchorhold.errors import AuditError

WIDTH = 256
"""Hashes in a full tile, entries in a full bundle (tlog-tiles)."""

TRIES = 100
"""How often a file is looked for in a log that grows meanwhile."""

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
    """The entries of a whole bundle; AuditError if its framing does not come out even, or there are more than
    in any."""
    entries: list[bytes] = []
    at, end = 0, len(bundle)
    try:
        while at < end and len(entries) < WIDTH:  # one of zeros would have millions
            start = at + 2
            at = start + (bundle[at] << 8 | bundle[at + 1])
            entries.append(bundle[start:at])
    except IndexError:  # one byte of a length
        at = -1
    if at != end:
        raise AuditError(
            "an entry bundle of the audit log is cut off or too long", hint="Run: anchorhold audit verify"
        )
    return entries


def load_hashes(folder: str, level: int, number: int, width: int) -> list[bytes]:
    """The first ``width`` hashes of a tile. Raises AuditError if they are not there."""
    data = (read_part(os.path.join(folder, tile_path(level, number)), width) or b"")[: width * HASH]
    if len(data) != width * HASH:
        raise AuditError(
            f"a hash tile of the audit log is missing or cut off: {tile_path(level, number, width)}",
            hint="Run: anchorhold audit verify",
        )
    return split_hashes(data)


def read_part(path: str, width: int) -> bytes | None:
    """The tile or bundle at ``path`` that holds at least ``width``: the partial one of that width, or where
    the log has grown meanwhile a wider one or the whole one, which begin with the same. None if there is
    none.

    Looked for in the order in which they come and go, and again, since the log can grow between two looks.
    """
    for _ in range(TRIES):
        data = read_file(f"{path}.p/{width}") if width < WIDTH else None
        if data is None:
            for one in _wider(path, width):
                data = read_file(f"{path}.p/{one}")
                if data is not None:
                    break
        if data is None:
            data = read_file(path)
        if data is not None:
            return data
        if not _wider(path, width):
            return read_file(path)
    return None


def _wider(path: str, width: int) -> list[int]:
    """Widths of the partial ones that are there now."""
    try:
        names = os.listdir(path + ".p")
    except FileNotFoundError:
        return []
    return sorted(int(name) for name in names if name.isascii() and name.isdigit() and int(name) > width)


def load_edge(folder: str, size: int) -> list[list[bytes]]:
    """The unfinished tile of each level of a tree of ``size`` entries, level 0 first; some may be empty."""
    levels = []
    level = 0
    while size >> (8 * level):
        width = (size >> (8 * level)) % WIDTH
        levels.append(load_hashes(folder, level, size >> (8 * (level + 1)), width) if width else [])
        level += 1
    return levels


class Subtrees:
    """Roots of parts of a tree of ``size`` entries, from its tiles. AuditError if one is missing."""

    def __init__(self, folder: str, size: int) -> None:
        self._folder, self._size = folder, size
        self._tiles: dict[tuple[int, int], list[bytes]] = {}

    def _row(self, level: int, number: int) -> list[bytes]:
        if (level, number) not in self._tiles:
            if len(self._tiles) > 64:
                self._tiles.clear()
            width = min(WIDTH, (self._size >> (8 * level)) - number * WIDTH)
            self._tiles[level, number] = load_hashes(self._folder, level, number, width)
        return self._tiles[level, number]

    def root(self, low: int, high: int) -> bytes:
        """MTH(D[low:high]) of RFC 6962, for a part that its recursion meets."""
        count = high - low
        if count & (count - 1) == 0 and low % count == 0:  # complete: some tile has its parts
            level = (count.bit_length() - 1) // 8
            span = 1 << (8 * level)
            at = low // span
            return full_root(self._row(level, at // WIDTH)[at % WIDTH : at % WIDTH + count // span])
        middle = low + (1 << ((count - 1).bit_length() - 1))
        return node_hash(self.root(low, middle), self.root(middle, high))


def multiproof(folder: str, size: int, wanted: list[int]) -> list[bytes]:
    """The hashes from which, with the leaves at the ascending indexes ``wanted``, the root follows.

    They are those of the largest subtrees without such a leaf, in the order in which RFC 6962's recursion
    meets them (docs/audit-log.md, Proofs). AuditError if a tile is missing.
    """
    subtrees = Subtrees(folder, size)
    proof: list[bytes] = []
    stack = [(0, size, 0, len(wanted))]
    while stack:
        low, high, first, last = stack.pop()
        if first == last:
            proof.append(subtrees.root(low, high))
        elif high - low > 1:
            middle = low + (1 << ((high - low - 1).bit_length() - 1))
            cut = bisect_left(wanted, middle, first, last)
            stack.append((middle, high, cut, last))
            stack.append((low, middle, first, cut))
    return proof
