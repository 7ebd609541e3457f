"""Goes through a log from its first entry to its last and holds everything against everything else.

What is compared: the checkpoint's signature with the key; the tree's root, once from the entries and once
from the stored hashes, with the signed root (which of both agrees tells whether an entry or a hash was
changed); each stored tile, full or partial, with what the entries give; each entry with its place and with
its session's rules; what was set aside with the entry that names it.

A log may grow while it is read: see `Disk`.
"""

from __future__ import annotations

import hashlib
import os

from anchorhold.verify.disk import Disk
from anchorhold.verify.entries import EntryError, frames, parse
from anchorhold.verify.merkle import HASH, WIDTH, Tree, index_path, leaf
from anchorhold.verify.note import Head, NoteError, VerifierKey, private_belongs, read_head
from anchorhold.verify.result import Finding, LogUnreadable, Result
from anchorhold.verify.rules import Rules

SUSPECTS = 100_000
"""Entries remembered as wrong by number; beyond, they are only counted."""


def verify(directory: str, *, vkey: str | None = None) -> Result:
    """Verify the log in ``directory`` (a state directory or a log's own folder).

    ``vkey`` is the key to trust; without it, the one that lies beside the log, which proves that nothing
    changed since the log was signed by whoever holds that key. Raises LogUnreadable.
    """
    inner = os.path.join(directory, "log")
    log = inner if os.path.isdir(inner) else directory
    try:
        os.stat(os.path.join(log, "."))
    except FileNotFoundError:
        pass
    except OSError as error:
        raise LogUnreadable(f"{log}: {error.strerror}") from error
    if not any(os.path.lexists(os.path.join(log, name)) for name in ("checkpoint", "tail", "tile", "key")):
        raise LogUnreadable(f"there is no audit log at {directory}")
    try:
        return _Check(log, vkey).run()
    except OSError as error:
        raise LogUnreadable(f"{error.filename or log}: {error.strerror}") from error


class _Check:
    def __init__(self, log: str, vkey: str | None) -> None:
        self.disk = Disk(log)
        self.count = self.disk.bundles
        self.trusted = vkey
        self.result = Result(log)
        self.result.notes += [f"unknown file {ascii(name)}" for name in self.disk.strange]
        self.rules = Rules()
        self.head: Head | None = None
        self.recovered: set[str] = set()
        # the tree as the entries give it, and as the stored hashes of level 0 do
        self.entries = Tree(self._full_tile)
        self.hashes = Tree(lambda level, number, hashes: None)
        self.entries_whole = self.hashes_whole = True
        self.roots: tuple[bytes | None, bytes | None] = (None, None)
        self.last: list[bytes] = []  # leaf hashes of the tail
        self.last_entries: list[bytes] = []
        self.suspects: list[tuple[int, str]] = []  # entries that differ from their stored hash, and the tile
        self.suspects_left_out = 0
        self.bad: set[int] = set()  # of the bundle at hand
        self.reported: set[int] = set()  # entries with a finding of their own
        self.upper: list[Finding] = []

    def run(self) -> Result:
        self._read_head()
        result = self.result
        for number in range(self.count):
            self._bundle(number, self.disk.read(f"tile/entries/{index_path(number)}"))
        self._tail()
        self._judge(self.head)
        self._partials()
        self._torn()
        result.sessions, result.open_sessions = self.rules.sessions, self.rules.open_sessions
        if result.open_sessions:
            result.notes.append(f"{result.open_sessions} sessions have no end: still running, or crashed")
        return result

    def _wrong(self, place: str, problem: str, seq: int | None = None, last: int | None = None) -> None:
        self.result.add(Finding(place, problem, seq, last))

    def _wrong_entry(self, place: str, problem: str, seq: int) -> None:
        self._wrong(place, problem, seq)
        self.bad.add(seq)
        if len(self.reported) < SUSPECTS:
            self.reported.add(seq)

    # -- key and checkpoint

    def _read_head(self) -> None:
        stored = (self.disk.read("vkey") or b"").decode("utf-8", "replace")
        key: VerifierKey | None = None
        place = "vkey"
        try:
            if self.trusted is not None:
                place = "the given key"
                key = VerifierKey(self.trusted.strip())
                if stored != f"{key.text}\n":
                    self._wrong("vkey", "it is not the key that was given")
            else:
                key = VerifierKey(stored.removesuffix("\n"))
                if not stored.endswith("\n"):
                    self._wrong("vkey", "it does not end with a newline")
        except NoteError as error:
            self._wrong(place, str(error))
        if key is not None:
            self.result.vkey = key.text
            self._private_key(key)
        if self.disk.checkpoint is None:
            self._wrong("checkpoint", "it is missing; a log has one from its beginning")
            return
        try:
            self.head = read_head(self.disk.checkpoint, key)
            self.result.proven = key is not None
        except NoteError as error:
            self._wrong("checkpoint", str(error))
            try:  # its size and root still tell where things went wrong
                self.head = read_head(self.disk.checkpoint, None)
            except NoteError:
                return
        self.result.origin, self.result.signed = self.head.origin, self.head.size
        self.result.root = self.head.root.hex()

    def _private_key(self, key: VerifierKey) -> None:
        try:
            private = self.disk.read("key")
        except PermissionError:
            return  # an auditor need not be able to read it
        if private is not None and not private_belongs(private.decode("utf-8", "replace"), key):
            self._wrong("key", "it is not the private half of the verifier key")

    # -- entries

    def _bundle(self, number: int, data: bytes | None) -> None:
        place = f"tile/entries/{index_path(number)}"
        start = number * WIDTH
        if data is None:
            self._wrong(place, "the bundle is missing", start, start + WIDTH - 1)
            data = b""
        found, end = frames(data)
        if len(found) > WIDTH or (len(found) == WIDTH and end != len(data)):
            self._wrong(place, "bytes follow its last entry", start + WIDTH - 1)
            self.bad.add(start + WIDTH - 1)
        hashes = self._entries(place, start, found[:WIDTH])
        if len(hashes) < WIDTH and data:
            self._wrong_entry(
                place, "its length is wrong: the rest of the bundle cannot be read", start + len(hashes)
            )
        stored = self._hash_tile(number, hashes)
        self._root_here(number, hashes, stored)
        self.bad.update(range(start + len(hashes), start + WIDTH))
        self.result.bad_entries += len(self.bad)
        self.bad.clear()
        self.result.size = start + WIDTH
        if len(hashes) == WIDTH and self.entries_whole:
            self.entries.add(hashes)
        else:
            self.entries_whole = False
        if stored is not None and self.hashes_whole:
            self.hashes.add(stored)
        else:
            self.hashes_whole = False

    def _entries(self, place: str, start: int, found: list[bytes]) -> list[bytes]:
        """Check each entry by itself and by the rules; return the leaf hashes."""
        for seq, data in enumerate(found, start):
            try:
                entry = parse(data)
                if entry["seq"] != seq:
                    raise EntryError(f"it says that it is entry {entry['seq']}"[:80])
                problem = self.rules.check(entry)
            except EntryError as error:
                problem = str(error)
            else:
                if entry["kind"] == "log.recovered":
                    self.recovered.add(str(entry.get("sha256")))
            if problem:
                self._wrong_entry(place, problem, seq)
        return [leaf(data) for data in found]

    def _hash_tile(self, number: int, hashes: list[bytes], *, needed: bool = True) -> list[bytes] | None:
        place = f"tile/0/{index_path(number)}"
        data = self.disk.read(place)
        if data is None and not needed:
            return None
        if data is None or len(data) != WIDTH * HASH:
            self._wrong(
                place, "the hash tile is missing" if data is None else "the hash tile has a wrong length"
            )
            return None
        stored = [data[at : at + HASH] for at in range(0, len(data), HASH)]
        for at, (ours, theirs) in enumerate(zip(hashes, stored, strict=False)):
            if ours != theirs:
                if len(self.suspects) < SUSPECTS:
                    self.suspects.append((number * WIDTH + at, place))
                else:
                    self.suspects_left_out += 1
        return stored

    def _full_tile(self, level: int, number: int, hashes: list[bytes]) -> None:
        """A tile of level 1 and above has filled: compare it with the stored one."""
        place = f"tile/{level}/{index_path(number)}"
        data = self.disk.read(place)
        if data is None or len(data) != WIDTH * HASH:
            self._wrong(
                place, "the hash tile is missing" if data is None else "the hash tile has a wrong length"
            )
            return
        self._compare(place, level, number, hashes, data)

    def _compare(self, place: str, level: int, number: int, hashes: list[bytes], data: bytes) -> None:
        for at in range(len(data) // HASH):
            if hashes[at] != data[at * HASH : (at + 1) * HASH]:
                span = WIDTH**level
                first = (number * WIDTH + at) * span
                self.upper.append(
                    Finding(place, "a stored hash is not the one of these entries", first, first + span - 1)
                )
                return

    def _tail(self) -> None:
        """The entries after the last full bundle."""
        start = self.count * WIDTH
        found, end = frames(self.disk.tail)
        torn = len(self.disk.tail) - end
        good = len(found)
        for at in range(max(0, self.result.signed - start), len(found)):
            try:
                parse(found[at])
            except EntryError:
                good = at  # a power loss can leave zeros; the next run sets this aside
                torn = len(self.disk.tail) - sum(len(entry) + 2 for entry in found[:at])
                break
        if good > WIDTH:
            self._wrong("tail", "it holds more entries than a bundle", start + WIDTH)
        hashes = self._entries("tail", start, found[:good])
        self.last, self.last_entries = hashes, found[:good]
        full = len(hashes) == WIDTH
        stored = self._hash_tile(self.count, hashes, needed=False) if full else None
        self._root_here(self.count, hashes, stored)
        self.result.size = start + good
        self.result.bad_entries += len(self.bad)
        self.bad.clear()
        missing = self.result.signed - self.result.size
        if missing > 0:
            self._wrong(
                "tail", f"{missing} signed entries are missing", self.result.size, self.result.signed - 1
            )
        elif torn:
            self.result.torn_bytes = torn
            self.result.notes.append(f"the last record is torn ({torn} bytes): the next run sets it aside")

    # -- the tree

    def _root_here(self, number: int, hashes: list[bytes], stored: list[bytes] | None) -> None:
        """If the checkpoint ends in this bundle: both trees' roots at that size."""
        if self.head is None or self.head.size // WIDTH != number:
            return
        width = self.head.size % WIDTH
        if len(hashes) < width:
            self.entries_whole = False
        ours = self.entries.root(hashes[:width]) if self.entries_whole else None
        if stored is None and width:
            data = self.disk.read(f"tile/0/{index_path(number)}.p/{width}") or b""
            if len(data) == width * HASH:
                stored = [data[at : at + HASH] for at in range(0, len(data), HASH)]
                for at, (mine, theirs) in enumerate(zip(hashes, stored, strict=False)):
                    if mine != theirs:
                        self.suspects.append((number * WIDTH + at, f"tile/0/{index_path(number)}.p/{width}"))
        theirs_whole = self.hashes_whole and (stored is not None or not width)
        theirs_root = self.hashes.root((stored or [])[:width]) if theirs_whole else None
        self.roots = (ours, theirs_root)

    def _judge(self, head: Head | None) -> None:
        """Who is right, where an entry and its stored hash differ?"""
        ours, theirs = self.roots
        if head is not None and ours == head.root:
            for seq, place in self.suspects:
                if seq < head.size:
                    self._wrong(place, f"its hash of entry {seq} was changed; the entry is as it was signed")
                else:
                    self._blame(seq, "it differs from its stored hash; it is not signed yet")
            for finding in self.upper:
                self._wrong(finding.place, finding.problem)
            return
        if head is None or theirs != head.root:
            self.result.proven = False
            if head is None:
                pass
            elif ours is not None or theirs is not None or not self.result.findings:
                self._wrong(
                    "checkpoint", f"the tree of its {head.size} entries has another root than the signed one"
                )
            self.result.findings += self.upper
        for seq, _ in self.suspects:
            self._blame(seq, "it is not the entry that was written: its hash differs")
        if self.suspects_left_out:
            self.result.bad_entries += self.suspects_left_out
            self.result.findings_left_out += self.suspects_left_out

    def _blame(self, seq: int, problem: str) -> None:
        """An entry whose hash differs; it may have been found to be bad for another reason already."""
        if seq in self.reported:
            return
        bundle = seq // WIDTH
        full = WIDTH in self.disk.tiles.get("entries", {}).get(bundle, set())
        self._wrong(f"tile/entries/{index_path(bundle)}" if full else "tail", problem, seq)
        self.result.bad_entries += 1

    # -- partial tiles

    def _partials(self) -> None:
        """Each stored partial tile is the beginning of its tile; those of the checkpoint's size are there."""
        for level_name, numbers in sorted(self.disk.tiles.items()):
            for number, widths in sorted(numbers.items()):
                for width in sorted(widths):
                    if width < WIDTH:
                        self._partial(level_name, number, width)
                    elif self._beyond(level_name, number):
                        place = f"tile/{level_name}/{index_path(number)}"
                        self._wrong(place, "it is about entries that are not there")
        size = self.head.size if self.head else 0
        level = 0
        while size >> (8 * level):
            number, width = size >> (8 * (level + 1)), (size >> (8 * level)) % WIDTH
            for name in (str(level), "entries")[: 2 if level == 0 else 1]:
                if width and not self.disk.tiles.get(name, {}).get(number, set()) & {width, WIDTH}:
                    self._wrong(
                        f"tile/{name}/{index_path(number)}.p/{width}", "the checkpoint's tile is missing"
                    )
            level += 1

    def _beyond(self, level_name: str, number: int) -> bool:
        if level_name == "entries":
            return False
        # a full tail is not renamed yet, but its tiles may be there
        count = self.count + (len(self.last) == WIDTH)
        return number >= count >> (8 * int(level_name))

    def _partial(self, level_name: str, number: int, width: int) -> None:
        path = f"tile/{level_name}/{index_path(number)}"
        place = f"{path}.p/{width}"
        data = self.disk.read(place)
        if data is None:  # removed since, when the full one came
            return
        full = self.disk.read(path)
        if level_name == "entries":
            tail = self.last_entries if number == self.count else []
            entries = tail if full is None else frames(full)[0]
            if len(entries) < width or frames(data) != (entries[:width], len(data)):
                self._wrong(place, "it is not the beginning of its bundle")
            return
        expected = b"".join(self._edge(int(level_name), number)) if full is None else full
        if len(data) != width * HASH or data != expected[: width * HASH]:
            self._wrong(place, "it is not the beginning of its hash tile")

    def _edge(self, level: int, number: int) -> list[bytes]:
        """The hashes of the unfinished tile of a level, from the entries."""
        if number != self.count >> (8 * level):
            return []
        if level == 0:
            return self.last
        return self.entries.edge[level - 1] if level <= len(self.entries.edge) else []

    # -- what crashes tore

    def _torn(self) -> None:
        try:
            names = os.listdir(os.path.join(self.disk.log, "torn"))
        except FileNotFoundError:
            names = []
        present = set()
        for name in sorted(names):
            if name.startswith(".tmp-"):
                continue
            digest = name.removesuffix(".pending")
            present.add(digest)
            data = self.disk.read(f"torn/{name}") or b""
            if hashlib.sha256(data).hexdigest() != digest:
                self._wrong(f"torn/{ascii(name)[1:-1]}", "its content is not what was set aside")
            elif name == digest and digest not in self.recovered:
                self._wrong(f"torn/{name}", "no entry tells of it")
        for digest in sorted(self.recovered - present):
            self._wrong(f"torn/{ascii(digest)[1:-1][:80]}", "what a crash tore and was set aside is missing")
