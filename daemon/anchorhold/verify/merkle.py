"""RFC 6962 hashing over C2SP tlog-tiles (https://c2sp.org/tlog-tiles), for reading."""

from __future__ import annotations

import bisect
import hashlib
import os
from collections.abc import Callable

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


def listing(log: str) -> tuple[dict[str, dict[int, set[int]]], list[str]]:
    """Which tiles are stored: level (or ``entries``) → number → widths, 256 for the full one.

    Second, the names below ``tile/`` that are no tile's.
    """
    found: dict[str, dict[int, set[int]]] = {}
    strange: list[str] = []
    top = os.path.join(log, "tile")
    for folder, _, names in os.walk(top):
        for name in names:
            if name.startswith(".tmp-"):  # a crash's leftover, never read
                continue
            path = os.path.relpath(os.path.join(folder, name), top)
            level, number, width = _parse(path)
            if level:
                found.setdefault(level, {}).setdefault(number, set()).add(width)
            else:
                strange.append(os.path.join("tile", path))
    return found, strange


def _parse(path: str) -> tuple[str, int, int]:
    level, _, rest = path.partition("/")
    stem, dot, width_text = rest.partition(".p/")
    number_text = stem.replace("/", "").replace("x", "")
    width = int(width_text) if width_text.isascii() and width_text.isdigit() else 0
    if not (number_text.isascii() and number_text.isdigit()):
        return "", 0, 0
    number = int(number_text)
    written = index_path(number) + (f".p/{width}" if dot else "")
    known = level == "entries" or (level.isascii() and level.isdigit() and str(int(level)) == level)
    if not known or rest != written or (dot and not 0 < width < WIDTH):
        return "", 0, 0
    return level, number, width if dot else WIDTH
