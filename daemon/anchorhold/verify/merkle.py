"""RFC 6962 hashing over C2SP tlog-tiles (https://c2sp.org/tlog-tiles), for reading."""

from __future__ import annotations

import bisect
import hashlib
import os
import re
from collections.abc import Callable

from anchorhold.verify.files import names_in

WIDTH = 256
HASH = 32


def leaf(entry: bytes) -> bytes:
    """RFC 6962 section 2.1: hash of an entry."""
    return hashlib.sha256(b"\x00" + entry).digest()


def node(left: bytes, right: bytes) -> bytes:
    """RFC 6962 section 2.1: hash of an inner node."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def root(hashes: list[bytes]) -> bytes:
    """RFC 6962's MTH over the hashes of complete subtrees of one height."""
    count = len(hashes)
    if count == 0:
        return hashlib.sha256(b"").digest()
    if count & (count - 1) == 0:  # complete itself: level by level
        sha256 = hashlib.sha256
        while len(hashes) > 1:
            pairs = iter(hashes)
            hashes = [
                sha256(b"\x01" + left + right).digest() for left, right in zip(pairs, pairs, strict=True)
            ]
        return hashes[0]
    split = 1 << ((count - 1).bit_length() - 1)
    return node(root(hashes[:split]), root(hashes[split:]))


class ProofError(Exception):
    """A proof that does not come out even."""


def proved_root(size: int, leaves: list[tuple[int, bytes]], proof: list[bytes]) -> bytes:
    """The root of a tree of ``size`` entries that follows from some leaves (index, hash; ascending) and a
    proof.

    docs/audit-log.md, Proofs. Raises ProofError.
    """
    if not leaves or leaves[0][0] < 0 or leaves[-1][0] >= size or len(proof) > 64 * (len(leaves) + 1):
        raise ProofError
    hashes = iter(proof)

    def below(low: int, high: int, first: int, last: int) -> bytes:
        if first == last:
            value = next(hashes, None)
            if value is None:
                raise ProofError
            return value
        if high - low == 1:
            return leaves[first][1]
        middle = low + (1 << ((high - low - 1).bit_length() - 1))
        cut = first
        if last - first > 8:
            cut = bisect.bisect_left(leaves, (middle,), first, last)
        else:
            while cut < last and leaves[cut][0] < middle:
                cut += 1
        left = below(low, middle, first, cut)
        return node(left, below(middle, high, cut, last))

    value = below(0, size, 0, len(leaves))
    if next(hashes, None) is not None:
        raise ProofError
    return value


class Tree:
    """Takes level-0 tiles from left to right, keeps only the right edge: memory does not grow with the log.

    ``on_full(level, number, hashes)`` is called for each tile of level 1 and above as it fills.
    """

    def __init__(self, on_full: Callable[[int, int, list[bytes]], None]) -> None:
        self.edge: list[list[bytes]] = []
        self.numbers: list[int] = []
        self._on_full = on_full

    def add(self, tile_root: bytes) -> None:
        """The root of the next full level-0 tile."""
        self._push(0, tile_root)

    def _push(self, at: int, value: bytes) -> None:
        # edge[0] is level 1: level 0 is never kept
        if at == len(self.edge):
            self.edge.append([])
            self.numbers.append(0)
        self.edge[at].append(value)
        if len(self.edge[at]) == WIDTH:
            full, self.edge[at] = self.edge[at], []
            self._on_full(at + 1, self.numbers[at], full)
            self.numbers[at] += 1
            self._push(at + 1, root(full))

    def root(self, partial: list[bytes]) -> bytes:
        """Root of what was added and the leaf hashes of an unfinished tile after it."""
        value = root(partial) if partial else None
        for hashes in self.edge:
            if hashes:
                value = _joined(hashes, value)
        return root([]) if value is None else value


def _joined(hashes: list[bytes], right: bytes | None) -> bytes:
    """A row of complete subtrees and, right of them, one smaller subtree: the split is at powers of two."""
    while hashes:
        size = len(hashes) & -len(hashes)
        peak = root(hashes[-size:])
        right = peak if right is None else node(peak, right)
        hashes = hashes[:-size]
    assert right is not None
    return right


def index_path(number: int) -> str:
    """tlog-tiles' encoding of N."""
    digits = f"{number:d}"
    digits = digits.rjust(-(-len(digits) // 3) * 3, "0")
    groups = [digits[at : at + 3] for at in range(0, len(digits), 3)]
    return "/".join([f"x{group}" for group in groups[:-1]] + groups[-1:])


class Tiles:
    """Which tiles are stored below ``tile/`` of an epoch, of those that ``committed`` entries can have.

    ``partial``: (level or ``entries``, number) → widths. ``left_over`` counts tiles of more entries than
    that, ``strange`` are names that are no tile's. Full tiles are not kept: there are too many.
    """

    def __init__(self, folder: str, committed: int) -> None:
        self.folder, self.committed = folder, committed
        self.partial: dict[tuple[str, int], set[int]] = {}
        self.left_over = 0
        self.strange: list[str] = []
        self.most = 0  # entries that the stored bundles hold
        for level in names_in(os.path.join(folder, "tile")):
            if level == "entries" or (level.isascii() and level.isdigit() and str(int(level)) == level):
                self._folder(level, f"tile/{level}", "")
            else:
                self.strange.append(f"tile/{level}")

    def _folder(self, level: str, place: str, digits: str) -> None:
        for name in names_in(os.path.join(self.folder, place)):
            number = digits + name[-3:]
            if _NUMBER.fullmatch(name):
                self._tile(level, place, name, number, WIDTH)
            elif name[:1] == "x" and _NUMBER.fullmatch(name[1:]) and len(digits) < 15:
                self._folder(level, f"{place}/{name}", number)
            elif name[3:] == ".p" and _NUMBER.fullmatch(name[:3]):
                for width in names_in(os.path.join(self.folder, place, name)):
                    if _WIDTH.fullmatch(width) and int(width) < WIDTH:
                        self._tile(level, f"{place}/{name}", width, digits + name[:3], int(width))
                    else:
                        self.strange.append(f"{place}/{name}/{width}")
            else:
                self.strange.append(f"{place}/{name}")

    def _tile(self, level: str, place: str, name: str, digits: str, width: int) -> None:
        number = int(digits)
        if len(digits) > 3 and number < 1000 ** (len(digits) // 3 - 1):
            self.strange.append(f"{place}/{name}")
            return
        filled = number * WIDTH + width
        height = 0 if level == "entries" else int(level)
        if level == "entries":
            self.most = max(self.most, filled)
        if height > 7 or filled > self.committed >> (8 * height):
            self.left_over += 1
        elif width < WIDTH:
            self.partial.setdefault((level, number), set()).add(width)

    def has(self, level: str, number: int, width: int) -> bool:
        """Whether there is a tile that begins with the first ``width`` of this one."""
        return any(one >= width for one in self.partial.get((level, number), ())) or os.path.isfile(
            os.path.join(self.folder, "tile", level, index_path(number))
        )


_NUMBER = re.compile(r"[0-9]{3}", re.ASCII)
_WIDTH = re.compile(r"[1-9][0-9]{0,2}", re.ASCII)
