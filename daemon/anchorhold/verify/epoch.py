"""One epoch held against itself: its entries against its tree, its tree against the signed head, stored tile
by tile.

The root is computed twice, once from the entries and once from the stored hashes. Which of both is the signed
one tells whether an entry or a hash was changed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from hashlib import sha256

from anchorhold.verify.entries import frames
from anchorhold.verify.files import names_in, read
from anchorhold.verify.merkle import HASH, WIDTH, Tiles, Tree, index_path, root
from anchorhold.verify.note import Head
from anchorhold.verify.parallel import Looked, tile
from anchorhold.verify.result import Finding, Result
from anchorhold.verify.rules import Rules
from anchorhold.verify.told import Books, Epoch

SUSPECTS = 100_000
"""Entries remembered as wrong by number; beyond, they are only counted."""

OPENINGS = re.compile(r"x?[0-9]{3}", re.ASCII)


class EpochCheck:
    """Fills in the epoch's ``own`` entries and the books."""

    def __init__(
        self,
        folder: str,
        epoch: Epoch,
        head: Head | None,
        result: Result,
        rules: Rules,
        books: Books,
        *,
        outdated: Callable[[], bool],
    ) -> None:
        """``outdated``: whether the log has gone on since its ``state`` and heads were read."""
        self.number, self.first, self.committed = epoch.number, epoch.first, epoch.committed
        self.folder, self.outdated = folder, outdated
        self.epoch, self.head, self.result, self.rules, self.books = epoch, head, result, rules, books
        # the tree as the entries give it, and as the stored hashes of level 0 do
        self.entries = Tree(self._full_tile)
        self.hashes = Tree(lambda level, number, hashes: None)
        self.entries_whole = self.hashes_whole = True
        self.roots: tuple[bytes | None, bytes | None] = (None, None)
        self.last: list[bytes] = []  # leaf hashes of the unfinished bundle, from its entries
        self.last_stored: list[bytes] = []
        self.suspects: list[tuple[int, str]] = []  # entries that differ from their stored hash, and the tile
        self.suspects_left_out = 0
        self.reported: set[int] = set()  # entries with a finding of their own
        self.upper: list[Finding] = []
        self._stored_are_signed = False  # the stored hashes give the signed root, the entries do not

    def run(self, bundles: Iterator[Looked], *, with_names: bool) -> bool:
        """Look at everything, at the epoch's ``bundles`` first; whether the signed root is the tree's."""
        self.bad: set[int] = set()
        if self.committed == 0:
            self._root_here(0, [], None)
        names_here = os.path.isdir(os.path.join(self.folder, "openings"))
        if not names_here:
            self.books.without_names.add(self.number)
        for looked in bundles:
            self._bundle(looked)
            if looked.openings != "here" and (names_here or with_names):
                what = "is missing" if looked.openings == "gone" else f"cannot be read: {looked.openings}"
                start = self.first + looked.number * WIDTH
                end = min(start + WIDTH, self.first + self.committed) - 1
                self._wrong(f"openings/{index_path(looked.number)}", f"the file {what}", start, end)
        if (
            self.head is not None
            and self.head.size % WIDTH == 0
            and self.head.size
            and self.roots == (None, None)
        ):
            self._root_here(self.head.size // WIDTH, [], None)
        proven = self._judge()
        self._partials()
        return proven

    def was_changed(self, seq: int) -> bool:
        """After `run`: whether an entry is not the one that was signed, though the stored hashes are. So what
        it says now is no word of the log's. Of the first `SUSPECTS` such entries alone."""
        return self._stored_are_signed and any(seq == one for one, _ in self.suspects)

    # -- findings

    def _wrong(self, place: str, problem: str, seq: int | None = None, last: int | None = None) -> None:
        self.result.add(Finding(f"{self.number}/{place}", problem, seq, last))

    def _wrong_entry(self, place: str, problem: str, seq: int, count: int = 1) -> None:
        self._wrong(place, problem if count == 1 else f"{problem} ({count} such entries from here on)", seq)
        self.bad.update(range(seq, seq + count))
        if len(self.reported) < SUSPECTS:
            self.reported.add(seq)

    # -- bundles

    def _bundle(self, looked: Looked) -> None:
        number, seen = looked.number, looked.seen
        place = f"tile/entries/{index_path(number)}"
        start = self.first + number * WIDTH
        width = min(WIDTH, self.committed - number * WIDTH)
        if width < WIDTH:
            place += f".p/{width}"
        if looked.missing:
            self._wrong(place, "the bundle is missing", start, start + width - 1)
        elif looked.root is None and len(seen.hashes) < width:
            self._wrong_entry(place, "its length is wrong: the rest cannot be read", start + len(seen.hashes))
        if seen.trailing:
            self._wrong(place, "bytes follow its last entry", start + width - 1)
            self.bad.add(start + width - 1)
        for seq, problem in seen.problems:
            self._wrong_entry(place, problem, seq)
        self.rules.unreadable += len({seq for seq, _ in seen.problems}) + (width if looked.missing else 0)
        if looked.root is None and not looked.missing:
            self.rules.unreadable += width - len(seen.hashes)
        for segment in seen.segments:
            for seq, problem, count in self.rules.check(segment):
                self._wrong_entry(place, problem, seq, count)
        self.rules.went_on(seen.last)
        self.epoch.own += seen.own
        for seq, mask in seen.erased:
            self.books.erased.add(seq, mask)
        if looked.root is None:
            self._hashed(number, width, seen.hashes, looked.stored)
            self.bad.update(range(start + len(seen.hashes), start + width))
        else:
            self._root_inside(looked)
            if self.entries_whole:
                self.entries.add(looked.root)
            if self.hashes_whole:
                self.hashes.add(looked.root)
        self.result.bad_entries += len(self.bad)
        self.bad.clear()

    def _root_inside(self, looked: Looked) -> None:
        """The head can end within a full bundle; then its hashes are needed after all."""
        if self.head is not None and self.head.size // WIDTH == looked.number:
            data = self._read(f"tile/0/{index_path(looked.number)}") or b""
            hashes = [data[at : at + HASH] for at in range(0, len(data), HASH)]
            if len(hashes) == WIDTH and root(hashes) == looked.root:
                self._root_here(looked.number, hashes, hashes)

    def _hashed(self, number: int, width: int, hashes: list[bytes], data: bytes | None) -> None:
        """A bundle that is not full, or whose hashes are not the stored ones (``data``)."""
        stored = self._stored(number, width, hashes, data)
        self._root_here(number, hashes, stored)
        if width < WIDTH:
            self.last, self.last_stored = hashes, stored or []
        elif len(hashes) == WIDTH and self.entries_whole:
            self.entries.add(root(hashes))
        if len(hashes) < width:
            self.entries_whole = False
        if stored is None:
            self.hashes_whole = False
        elif width == WIDTH and self.hashes_whole:
            self.hashes.add(root(stored))

    def _stored(self, number: int, width: int, hashes: list[bytes], data: bytes | None) -> list[bytes] | None:
        """The stored leaf hashes of a bundle; differences from the entries' become suspects."""
        place = f"tile/0/{index_path(number)}" + (f".p/{width}" if width < WIDTH else "")
        if data is None or len(data) != width * HASH:
            self._wrong(
                place, "the hash tile is missing" if data is None else "the hash tile has a wrong length"
            )
            return None
        stored = [data[at : at + HASH] for at in range(0, len(data), HASH)]
        for at, (ours, theirs) in enumerate(zip(hashes, stored, strict=False)):
            if ours != theirs:
                if len(self.suspects) < SUSPECTS:
                    self.suspects.append((self.first + number * WIDTH + at, place))
                else:
                    self.suspects_left_out += 1
        return stored

    def _full_tile(self, level: int, number: int, hashes: list[bytes]) -> None:
        """A tile of level 1 and above has filled: compare it with the stored one."""
        place = f"tile/{level}/{index_path(number)}"
        data = self._read(place)
        if data is None or len(data) != WIDTH * HASH:
            self._wrong(
                place, "the hash tile is missing" if data is None else "the hash tile has a wrong length"
            )
            return
        for at in range(WIDTH):
            if hashes[at] != data[at * HASH : (at + 1) * HASH]:
                span = WIDTH**level
                first = self.first + (number * WIDTH + at) * span
                problem = "a stored hash is not the one of these entries"
                self.upper.append(Finding(f"{self.number}/{place}", problem, first, first + span - 1))
                return

    # -- the tree

    def _root_here(self, number: int, hashes: list[bytes], stored: list[bytes] | None) -> None:
        """If the head ends in this bundle: both trees' roots at that size."""
        if self.head is None or self.head.size // WIDTH != number:
            return
        width = self.head.size % WIDTH
        ours = theirs = None
        if self.entries_whole and len(hashes) >= width:
            ours = self.entries.root(hashes[:width])
        if self.hashes_whole and (stored is not None or not width):
            theirs = self.hashes.root((stored or [])[:width])
        self.roots = (ours, theirs)

    def _judge(self) -> bool:
        """Who is right, where an entry and its stored hash differ? Whether the signed root was reached."""
        ours, theirs = self.roots
        head = self.head
        if head is not None and ours == head.root:
            for seq, place in self.suspects:
                if seq < self.first + head.size:
                    self._wrong(place, f"its hash of entry {seq} was changed; the entry is as it was signed")
                else:
                    self._blame(seq, "it differs from its stored hash; it is not signed yet")
            for finding in self.upper:
                self.result.add(Finding(finding.place, finding.problem))
            return True
        proven = self._stored_are_signed = head is not None and theirs == head.root
        if head is not None and not proven:
            if ours is not None or theirs is not None or not self.result.findings:
                self._wrong(
                    "checkpoint", f"the tree of its {head.size} entries has another root than the signed one"
                )
            for finding in self.upper:
                self.result.add(finding)
        for seq, _ in self.suspects:
            self._blame(seq, "it is not the entry that was written: its hash differs")
        self.result.bad_entries += self.suspects_left_out
        self.result.findings_left_out += self.suspects_left_out
        return proven

    def _blame(self, seq: int, problem: str) -> None:
        """An entry whose hash differs; it may have been found to be bad for another reason already."""
        if seq in self.reported:
            return
        self._wrong(f"tile/entries/{index_path((seq - self.first) // WIDTH)}", problem, seq)
        self.result.bad_entries += 1

    # -- partial tiles

    def _partials(self) -> None:
        """Each stored partial tile is the beginning of its tile; those of the head's size are there."""
        tiles = Tiles(self.folder, self.committed)
        self.result.left_over += tiles.left_over  # a crash left them; the next run writes them anew
        for (level_name, number), widths in sorted(tiles.partial.items()):
            for width in sorted(widths):
                self._partial(level_name, number, width)
        for size in {self.head.size if self.head else 0, self.committed}:
            level = 0
            while size >> (8 * level):
                number, width = size >> (8 * (level + 1)), (size >> (8 * level)) % WIDTH
                for name in (str(level), "entries")[: 2 if level == 0 else 1]:
                    if width and not tiles.has(name, number, width) and not self._grew(name, number, width):
                        self._wrong(f"tile/{name}/{index_path(number)}.p/{width}", "the tile is missing")
                level += 1
        self._strange(tiles.strange)

    def _grew(self, level_name: str, number: int, width: int) -> bool:
        """Whether a tile gave way to a wider one that begins with the same, as it does when the log has gone
        on since: else a crash left the wider one, and this one should be there."""
        if not self.outdated():
            return False
        data = tile(os.path.join(self.folder, "tile", level_name, index_path(number)), width) or b""
        if level_name == "entries":
            leaves = [sha256(b"\0" + entry).digest() for entry in frames(data)[0][:width]]
            return len(leaves) == width and leaves == self.last[:width]
        expected = b"".join(self._edge(int(level_name)))[: width * HASH]
        return len(expected) == width * HASH and data[: width * HASH] == expected

    def _partial(self, level_name: str, number: int, width: int) -> None:
        path = f"tile/{level_name}/{index_path(number)}"
        place = f"{path}.p/{width}"
        data = self._read(place)
        if data is None:  # removed since, when the full one came
            return
        if level_name == "entries":
            whole = self._whole_bundle(number)
            entries = frames(whole)[0] if whole is not None else []
            if len(entries) < width or frames(data) != (entries[:width], len(data)):
                self._wrong(place, "it is not the beginning of its bundle")
            return
        level = int(level_name)
        edge = number == self.committed >> (8 * (level + 1))
        expected = b"".join(self._edge(level)) if edge else self._read(path) or b""
        if len(data) != width * HASH or data != expected[: width * HASH]:
            self._wrong(place, "it is not the beginning of its hash tile")

    def _whole_bundle(self, number: int) -> bytes | None:
        path = f"tile/entries/{index_path(number)}"
        return tile(os.path.join(self.folder, path), min(WIDTH, self.committed - number * WIDTH))

    def _edge(self, level: int) -> list[bytes]:
        """The hashes of the unfinished tile of a level: from the entries, or, where those are not the signed
        ones, from the stored hashes if they are."""
        ours, theirs = self.roots
        signed = self.head.root if self.head is not None else None
        stored = ours != signed and theirs == signed
        if level == 0:
            return self.last_stored if stored else self.last
        edge = self.hashes.edge if stored else self.entries.edge
        return edge[level - 1] if level <= len(edge) else []

    def _strange(self, names: list[str]) -> None:
        known = {"vkey", "key", "checkpoint", "cosigned", "tile", "openings"}
        names += [name for name in names_in(self.folder) if name not in known]
        names += [
            f"openings/{name}"
            for name in names_in(os.path.join(self.folder, "openings"))
            if not OPENINGS.fullmatch(name)
        ]
        self.result.unknown([f"{self.number}/{name}" for name in names])

    def _read(self, name: str) -> bytes | None:
        return read(os.path.join(self.folder, name))


def root_at(folder: str, size: int) -> bytes | None:
    """The root that the stored tiles give at an earlier size; None if they are not there."""
    tree = Tree(lambda level, number, hashes: None)
    partial: list[bytes] = []
    level = 0
    while size >> (8 * level):
        number, width = size >> (8 * (level + 1)), (size >> (8 * level)) % WIDTH
        hashes: list[bytes] = []
        if width:
            path = os.path.join(folder, "tile", str(level), index_path(number))
            data = (tile(path, width) or b"")[: width * HASH]
            if len(data) != width * HASH:
                return None
            hashes = [data[at : at + HASH] for at in range(0, len(data), HASH)]
        if level == 0:
            partial = hashes
        else:
            tree.edge.append(hashes)
        level += 1
    return tree.root(partial)
