"""Forges logs from docs/audit-log.md alone: honest ones of any shape, and ones that break a rule.

Constraint: imports nothing of anchorhold, so that a mistake of the writer is not taken for the format, and
the verifier is held against logs that the writer would never write. The same seed gives the same log, byte
for byte. Fast enough for a million entries in less than a minute.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import random
import shutil
import time
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

GROUPS = ("names", "digests", "text")
START = 1_769_884_200_000_000  # 2026-01-31T18:30:00Z, microseconds
BOOTED = 86_400_000_000  # time since boot at START
STEP = 17  # microseconds from one entry to the next
BASE = "anchorhold/0123456789abcdef"


def canonical(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode("ascii")


def tile_name(number: int) -> str:
    digits = f"{number:03d}"
    while len(digits) % 3:
        digits = f"0{digits}"
    groups = [digits[at : at + 3] for at in range(0, len(digits), 3)]
    return "/".join([f"x{group}" for group in groups[:-1]] + groups[-1:])


def leaf(entry: bytes) -> bytes:
    return hashlib.sha256(b"\0" + entry).digest()


def mth(hashes: list[bytes]) -> bytes:
    """RFC 6962, 2.1, word for word, over leaf hashes."""
    if not hashes:
        return hashlib.sha256(b"").digest()
    if len(hashes) == 1:
        return hashes[0]
    k = 1
    while 2 * k < len(hashes):
        k *= 2
    return hashlib.sha256(b"\1" + mth(hashes[:k]) + mth(hashes[k:])).digest()


def proof(hashes: list[bytes], wanted: set[int]) -> list[str]:
    """docs/audit-log.md, Proofs."""
    out: list[str] = []

    def below(low: int, high: int) -> None:
        if not any(low <= one < high for one in wanted):
            out.append(base64.b64encode(mth(hashes[low:high])).decode())
        elif high - low > 1:
            k = 1
            while 2 * k < high - low:
                k *= 2
            below(low, low + k)
            below(low + k, high)

    below(0, len(hashes))
    return out


def framed(data: bytes, size: int = 2) -> bytes:
    return len(data).to_bytes(size, "big") + data


def frames(data: bytes) -> list[bytes]:
    """The entries of an undamaged bundle, each with its length before it."""
    found = []
    while data:
        end = 2 + int.from_bytes(data[:2], "big")
        found.append(data[:end])
        data = data[end:]
    return found


def packed(openings: Iterable[bytes]) -> bytes:
    data = zlib.compress(b"".join(openings), 1)
    return data + zlib.crc32(data).to_bytes(4, "big")


def write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


class Key:
    """An Ed25519 key with a name; ``kind`` 4 is a witness's."""

    def __init__(self, name: str, seed: bytes, kind: int = 1) -> None:
        self.name, self.seed, self.kind = name, hashlib.sha256(seed).digest(), kind
        self.private = Ed25519PrivateKey.from_private_bytes(self.seed)
        self.material = bytes([kind]) + self.private.public_key().public_bytes_raw()
        self.id = hashlib.sha256(name.encode() + b"\n" + self.material).digest()[:4]
        self.vkey = f"{name}+{self.id.hex()}+{base64.b64encode(self.material).decode()}"

    @property
    def file(self) -> bytes:
        secret = base64.b64encode(b"\1" + self.seed).decode()
        return f"PRIVATE+KEY+{self.name}+{self.id.hex()}+{secret}\n".encode()

    def line(self, signature: bytes) -> str:
        return f"\u2014 {self.name} {base64.b64encode(self.id + signature).decode()}\n"

    def sign(self, text: str) -> str:
        """The whole note."""
        return f"{text}\n{self.line(self.private.sign(text.encode()))}"

    def cosign(self, note: str, when: int) -> str:
        """The note with this witness's line at its end."""
        body = note[: note.index("\n\n") + 1]
        signature = self.private.sign(f"cosignature/v1\ntime {when}\n{body}".encode())
        return note + self.line(when.to_bytes(8, "big") + signature)


class Epoch:
    """One tree. Full bundles and tiles are written as they fill, the rest by `settle`."""

    def __init__(self, log: Path, number: int, first: int, key: Key) -> None:
        self.folder, self.number, self.first, self.key = log / str(number), number, first, key
        self.size = self.signed = self.settled = 0
        self.bundle: list[bytes] = []
        self.openings: list[bytes] = []
        self.levels: list[list[bytes]] = [[]]
        self.note = ""
        self.last = b""  # the last entry
        self.leaves: list[bytes] = []  # all of them, where the epoch is small enough for proofs
        write(self.folder / "vkey", f"{key.vkey}\n".encode())
        self.sign()

    def add(self, entry: bytes, openings: bytes = b"\0") -> None:
        self.bundle.append(framed(entry))
        self.openings.append(openings)
        self.levels[0].append(leaf(entry))
        if self.size < 10_000:
            self.leaves.append(self.levels[0][-1])
        self.last = entry
        self.size += 1
        if len(self.bundle) == 256:
            self._full()

    def _full(self) -> None:
        number = self.size // 256 - 1
        write(self.folder / "tile/entries" / tile_name(number), b"".join(self.bundle))
        write(self.folder / "openings" / tile_name(number), packed(self.openings))
        self.bundle, self.openings = [], []
        level = 0
        while len(self.levels[level]) == 256:
            write(self.folder / f"tile/{level}" / tile_name(number), b"".join(self.levels[level]))
            if level + 1 == len(self.levels):
                self.levels.append([])
            self.levels[level + 1].append(mth(self.levels[level]))
            self.levels[level] = []
            level, number = level + 1, number // 256

    def settle(self) -> None:
        """Bring what is not full yet to the disk."""
        number, width = divmod(self.size, 256)
        if width:
            write(self.folder / f"tile/entries/{tile_name(number)}.p/{width}", b"".join(self.bundle))
            write(self.folder / "openings" / tile_name(number), packed(self.openings))
        for level, hashes in enumerate(self.levels):
            if hashes:
                place = f"tile/{level}/{tile_name(self.size >> 8 * (level + 1))}.p/{len(hashes)}"
                write(self.folder / place, b"".join(hashes))
        self.settled = self.size

    def root(self) -> bytes:
        value = mth(self.levels[0]) if self.levels[0] else None
        for hashes in self.levels[1:]:
            while hashes:
                peak = len(hashes) & -len(hashes)
                left = mth(hashes[-peak:])
                value = left if value is None else hashlib.sha256(b"\1" + left + value).digest()
                hashes = hashes[:-peak]
        return mth([]) if value is None else value

    def head(self) -> dict[str, object]:
        return {
            "origin": self.key.name,
            "size": self.size,
            "root": base64.b64encode(self.root()).decode(),
        }

    def sign(self) -> None:
        self.settle()
        head = self.head()
        self.note = self.key.sign(f"{head['origin']}\n{head['size']}\n{head['root']}\n")
        write(self.folder / "checkpoint", self.note.encode())
        self.signed = self.size


class Forge:
    """A log below ``state`` that is being forged. `event` adds entries, `save` makes the disk agree."""

    def __init__(
        self, state: Path, seed: int = 1, *, base: str = BASE, keys: dict[int, Key] | None = None
    ) -> None:
        """``keys``: other keys than the seed's, for some epochs: a thief's."""
        self.log, self.seed, self.base, self.keys = state / "log", seed, base, keys or {}
        self.dice = random.Random(seed)
        self.clock, self.mono = START, BOOTED
        self.numbers: dict[str, int] = {}
        self.journals: dict[str, int] = {}
        self.ended = False
        write(self.log / "lock", b"")
        self.epochs = [Epoch(self.log, 0, 0, self.key(0))]
        write(self.log / "vkey", f"{self.key(0).vkey}\n".encode())
        self.event("epoch.start", public={"epoch": 0})

    def key(self, epoch: int) -> Key:
        return self.keys.get(epoch) or Key(f"{self.base}/{epoch}", f"{self.seed}/{epoch}".encode())

    @property
    def epoch(self) -> Epoch:
        return self.epochs[-1]

    @property
    def vkey(self) -> str:
        return self.key(0).vkey

    @property
    def seq(self) -> int:
        """The number of the next entry."""
        return self.epoch.first + self.epoch.size

    # -- entries

    def opening(self, fields: dict[str, object]) -> bytes:
        return self.dice.randbytes(16) + canonical(fields)

    def stamp(self) -> str:
        seconds, micro = divmod(self.clock, 1_000_000)
        return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{micro:06d}Z"

    def parts(
        self,
        kind: str,
        session: str = "",
        public: dict[str, object] | None = None,
        *,
        n: int | None = None,
        **groups: dict[str, object],
    ) -> tuple[dict[str, Any], dict[str, bytes]]:
        """An event as the members of its entry, without v, seq and commitments; and its openings."""
        self.clock += STEP
        self.mono += STEP
        members: dict[str, Any] = {"time": self.stamp(), "mono": self.mono, "session": session}
        if session:
            members["n"] = self.numbers.get(session, 0) if n is None else n
            self.numbers[session] = members["n"] + 1
        members.update({"kind": kind, **(public or {})})
        return members, {name: self.opening(groups[name]) for name in GROUPS if name in groups}

    def event(
        self,
        kind: str,
        session: str = "",
        public: dict[str, object] | None = None,
        *,
        n: int | None = None,
        **groups: dict[str, object],
    ) -> int:
        """Add an entry to the tree; returns its seq."""
        members, opened = self.parts(kind, session, public, n=n, **groups)
        seq = self.seq
        commitments = {
            name: base64.b64encode(hashlib.sha256(one).digest()).decode() for name, one in opened.items()
        }
        self.epoch.add(canonical({"v": 2, "seq": seq, **members, **commitments}), encoded(opened))
        return seq

    def raw(self, entry: bytes, openings: bytes = b"\0") -> int:
        """Any bytes in the place of an entry; ``SEQ`` in them becomes its number."""
        seq = self.seq
        self.clock += STEP
        self.mono += STEP
        self.epoch.add(entry.replace(b"SEQ", b"%d" % seq), openings)
        return seq

    def session(self, name: str, grants: int = 3, *, end: bool = True) -> None:
        """One as the supervisor writes it: 6 entries and the grants; one less without its end."""
        self.event(
            "session.start",
            name,
            {"policy_sha256": "cd" * 32, "layers": {"seccomp": "on"}},
            names={"policy": "taxes"},
        )
        self.grant(name, "/usr/lib/x.py", kind="runtime")
        self.event("session.sealed", name)
        self.event("request.start", name, {"request": 1}, names={"files": ["/home/a/roof.pdf"]})
        for number in range(grants):
            self.grant(name, f"/home/a/{number}", request=1)
        self.event("request.end", name, {"request": 1, "reason": "stop"})
        if end:
            self.event("session.end", name, names={"reason": "done"})

    def grant(
        self, name: str, path: str, *, kind: str = "data", request: int = 0, digest: str = "ab" * 32
    ) -> int:
        public: dict[str, object] = {"class": kind, "size": 12345, "mode": "snapshot", "phase": "sealed"}
        if request:
            public["request"] = request
        return self.event(
            "grant", name, public, names={"path": path, "resolved": path}, digests={"sha256": digest}
        )

    def many(self, name: str, count: int) -> None:
        """Many grants, quickly; the same as `grant` gives."""
        randbytes, sha256, b64 = self.dice.randbytes, hashlib.sha256, base64.b64encode
        digest = b'{"sha256":"%b"}' % (b"ab" * 32)
        second, text = -1, b""
        n = self.numbers.get(name, 0)
        seq = self.seq
        for number in range(count):
            self.clock += STEP
            self.mono += STEP
            if self.clock // 1_000_000 != second:
                second = self.clock // 1_000_000
                text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second)).encode()
            path = b"/home/somebody/documents/2025/letter-%d.txt" % number
            salts = randbytes(32)
            one = b'%b{"path":"%b","resolved":"%b"}' % (salts[:16], path, path)
            two = salts[16:] + digest
            entry = (
                b'{"v":2,"seq":%d,"time":"%b.%06dZ","mono":%d,"session":"%b","n":%d,"kind":"grant","class":"data","size":12345'
                b',"mode":"snapshot","phase":"sealed","request":1,"names":"%b","digests":"%b"}'
                % (
                    seq + number, text, self.clock % 1_000_000, self.mono, name.encode(), n + number,
                    b64(sha256(one).digest()), b64(sha256(two).digest()),
                )
            )  # fmt: skip
            self.epoch.add(entry, b"\3" + framed(one) + framed(two))
        self.numbers[name] = n + count

    # -- the chain

    def sign(self) -> None:
        self.epoch.sign()

    def end(self) -> None:
        """The last entry of the epoch, and its final head."""
        following = self.key(len(self.epochs))
        self.event("epoch.end", public={"epoch": self.epoch.number, "next": following.vkey})
        self.epoch.sign()
        self.ended = True

    def rotate(self) -> None:
        self.end()
        before, number = self.epoch.head(), len(self.epochs)
        self.epochs.append(Epoch(self.log, number, self.seq, self.key(number)))
        self.ended = False
        self.event("epoch.start", public={"epoch": number, "previous": before})

    def prune(self, count: int) -> None:
        """The first ``count`` epochs go; their heads and last entries stay."""
        self.event("prune", public={"epochs": [0, count - 1], "reason": "old", "by": "a"})
        for epoch in self.epochs[:count]:
            shutil.rmtree(epoch.folder / "tile")
            shutil.rmtree(epoch.folder / "openings")
            end = {"entry": epoch.last.decode(), "proof": proof(epoch.leaves, {epoch.size - 1})}
            write(epoch.folder / "end", canonical(end) + b"\n")

    def redact(
        self,
        ranges: list[list[int]],
        what: tuple[str, ...] = ("names",),
        *,
        tell: bool = True,
        erase: bool = True,
        **more: object,
    ) -> None:
        """Tell of it and do it, or only one of both."""
        if tell:
            count = sum(last - first + 1 for first, last in ranges)
            self.event(
                "redaction",
                public={
                    "what": list(what),
                    "count": count,
                    "ranges": ranges,
                    "reason": "r",
                    "by": "b",
                    **more,
                },
            )
        if erase:
            self.sign()
            mask = sum(1 << GROUPS.index(name) for name in what)
            for first, last in ranges:
                for seq in range(first, last + 1):
                    self._erase(seq, mask)

    def _erase(self, seq: int, mask: int) -> None:
        epoch = next(one for one in reversed(self.epochs) if one.first <= seq)
        number, at = divmod(seq - epoch.first, 256)
        path = epoch.folder / "openings" / tile_name(number)
        rows = split_openings(zlib.decompress(path.read_bytes()[:-4]))
        rows[at] = erased(rows[at], mask)
        path.write_bytes(packed(rows))
        if epoch is self.epoch and number == epoch.size // 256:
            epoch.openings = rows[: epoch.size % 256]

    def torn(self, data: bytes, *, tell: bool = True) -> Path:
        """What a crash tore and a run set aside."""
        digest = hashlib.sha256(data).hexdigest()
        if tell:
            self.event(
                "log.recovered", public={"bytes": len(data), "sha256": digest, "file": f"torn/{digest}"}
            )
        write(self.log / "torn" / digest, data)
        return self.log / "torn" / digest

    def record(
        self, kind: str, session: str = "", public: dict[str, object] | None = None, **groups: Any
    ) -> bytes:
        """An event as a journal has it."""
        members, opened = self.parts(kind, session, public, **groups)
        return journal_record(canonical(members)[1:-1], encoded(opened))

    def journal(self, name: str, records: list[bytes], *, settled: bytes = b"", tail: bytes = b"") -> Path:
        """``settled``: its first bytes, which are in the tree; ``tail``: a record that was torn."""
        write(self.log / "journal" / name, settled + b"".join(records) + tail)
        if settled:
            self.journals[name] = len(settled)
        return self.log / "journal" / name

    def cosign(self, *witnesses: Key, when: int = START // 1_000_000, epoch: int = -1) -> None:
        """A copy of an epoch's checkpoint with the witnesses' lines."""
        one = self.epochs[epoch]
        note = one.note
        for witness in witnesses:
            note = witness.cosign(note, when)
        write(one.folder / "cosigned", note.encode())

    def state(self, **changes: object) -> None:
        """Write ``state``; ``changes`` are what it is to say falsely."""
        epoch = self.epoch
        content = {
            "v": 2, "epoch": epoch.number, "first": epoch.first, "size": epoch.settled,
            "signed": epoch.signed, "ended": self.ended, "journals": self.journals, **changes,
        }  # fmt: skip
        content["sum"] = hashlib.sha256(canonical(content)).hexdigest()
        write(self.log / "state", canonical(content) + b"\n")

    def save(self, *, sign: bool = True, tidy: bool = True) -> Path:
        """Sign (or only settle) what there is and write all the small files; returns the log's folder."""
        if sign:
            self.sign()
        self.epoch.settle()
        self.state()
        write(self.epoch.folder / "key", self.epoch.key.file)
        if tidy:
            for epoch in self.epochs:
                tidy_partials(epoch)
        return self.log


def encoded(opened: dict[str, bytes]) -> bytes:
    """Openings as an openings file and a journal have them."""
    mask = sum(1 << GROUPS.index(name) for name in opened)
    return bytes([mask]) + b"".join(framed(opened[name]) for name in GROUPS if name in opened)


def split_openings(data: bytes) -> list[bytes]:
    """One item for each entry."""
    rows = []
    at = 0
    while at < len(data):
        start, groups = at, data[at].bit_count()
        at += 1
        for _ in range(groups):
            at += 2 + int.from_bytes(data[at : at + 2], "big")
        rows.append(data[start:at])
    return rows


def erased(row: bytes, mask: int) -> bytes:
    parts, at = [row[:1]], 1
    for group in range(3):
        if row[0] >> group & 1:
            end = at + 2 + int.from_bytes(row[at : at + 2], "big")
            parts.append(b"\0\0" if mask >> group & 1 else row[at:end])
            at = end
    return b"".join(parts)


def journal_record(text: bytes, openings: bytes) -> bytes:
    return len(text).to_bytes(2, "big") + len(openings).to_bytes(3, "big") + text + openings


def tidy_partials(epoch: Epoch) -> None:
    """Keep the partial tiles of the signed head and of the committed size."""
    keep = {epoch.folder / name for size in (epoch.signed, epoch.settled) for name in partials(size)}
    for folder in (epoch.folder / "tile").rglob("*.p"):
        for path in folder.iterdir():
            if path not in keep:
                path.unlink()
        if not any(folder.iterdir()):
            os.rmdir(folder)


def partials(size: int) -> Iterator[str]:
    """The partial tiles of a tree of that size."""
    level = 0
    while size >> 8 * level:
        number, width = size >> 8 * (level + 1), (size >> 8 * level) % 256
        if width:
            yield f"tile/{level}/{tile_name(number)}.p/{width}"
            if level == 0:
                yield f"tile/entries/{tile_name(number)}.p/{width}"
        level += 1


def receipt(
    forge: Forge, session: str, request: int | None, *, hide: tuple[str, ...] = (), root: int = 0
) -> dict[str, Any]:
    """docs/audit-log.md, Receipts; of epochs that are small and not pruned. ``root``: the chain's first."""
    parts: list[dict[str, Any]] = []
    done = False
    for epoch in forge.epochs:
        found: dict[int, dict[str, Any]] = {}
        for number in range(-(-epoch.size // 256)):
            name, width = tile_name(number), min(256, epoch.size - number * 256)
            path = epoch.folder / "tile/entries" / (name if width == 256 else f"{name}.p/{width}")
            rows = split_openings(zlib.decompress((epoch.folder / "openings" / name).read_bytes()[:-4]))
            for at, data in enumerate(frames(path.read_bytes())):
                entry = json.loads(data[2:])
                if entry["session"] == session and not done:
                    found[number * 256 + at] = opened(entry, rows[at], hide)
                    done = entry["kind"] == "request.end" and entry["request"] == request
        if found:
            parts.append(
                {
                    "vkey": epoch.key.vkey,
                    "checkpoint": epoch.note,
                    "indexes": [[at, at] for at in found],
                    "proof": proof(epoch.leaves, set(found)),
                    "entries": list(found.values()),
                }
            )
            last = epoch.number
    chain = [
        {
            "vkey": epoch.key.vkey,
            "checkpoint": epoch.note,
            "entry": json.loads(epoch.last),
            "proof": proof(epoch.leaves, {epoch.size - 1}),
        }
        for epoch in forge.epochs[root:last]
    ]
    name_ = f"{session}-{request}" if request else None
    return {
        "anchorhold": "receipt", "v": 2, "session": session, "request": name_, "chain": chain, "parts": parts
    }  # fmt: skip


def opened(entry: dict[str, Any], row: bytes, hide: tuple[str, ...]) -> dict[str, Any]:
    """An entry with its openings in the place of its commitments, but hidden and erased ones."""
    at = 1
    for group, name in enumerate(GROUPS):
        if row[0] >> group & 1:
            end = at + 2 + int.from_bytes(row[at : at + 2], "big")
            opening = row[at + 2 : end]
            if opening and name not in hide:
                entry[name] = [base64.b64encode(opening[:16]).decode(), json.loads(opening[16:])]
            at = end
    return entry
