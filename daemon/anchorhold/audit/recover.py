"""What a crash leaves behind, and how it is put right without losing what was acknowledged.

Constraint: runs under the log's exclusive lock. Every step can itself be cut short at any point and is then
repeated by the next run: bytes are set aside, and are on disk, before they leave the log.

Three things can be found. A torn last record in the tail (``kill -9`` in the middle of a write, power loss,
a full disk): set aside. A whole bundle or tile that a power loss emptied although its rename had reached the
disk (only with ``durability = "write"``, and never below a checkpoint, since signing one flushes everything
under it): the entries from the first bad one on are set aside, a tile is computed anew. Anything else is
damage or tampering, and is refused, not repaired.
"""

from __future__ import annotations

import os
from hashlib import sha256

from anchorhold.audit.entry import scan
from anchorhold.audit.files import TMP, fsync_path, read_file, remove_quietly, replace
from anchorhold.audit.tree import HASH, WIDTH, leaf_hash, split_entries, tile_path
from anchorhold.errors import AuditError

PENDING = ".pending"
"""Suffix in ``torn/`` until the entry ``log.recovered`` that names the bytes is in the log."""

_DAMAGED = (
    "Run: anchorhold audit verify. To go on with a new log, move the folder aside; keep it as evidence."
)


def damaged(log: str, what: str) -> AuditError:
    """The log is not what a crash can make of it."""
    return AuditError(f"the audit log is damaged: {log}: {what}", hint=_DAMAGED)


def count_bundles(log: str) -> int:
    """How many full bundles there are. They have no gaps, so doubling and halving finds the end."""

    def exists(number: int) -> bool:
        return os.path.exists(os.path.join(log, tile_path("entries", number)))

    low, high = -1, 0
    while exists(high):
        low, high = high, high * 2 + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if exists(middle) else (low, middle)
    return high


def set_aside(log: str, data: bytes) -> None:
    """Keep the bytes in ``torn/`` under their digest, on disk before this returns."""
    name = sha256(data).hexdigest()
    replace(os.path.join(log, "torn", name + PENDING), data, sync=True)


def pending(log: str) -> list[tuple[str, int]]:
    """Digest and length of what was set aside and is not named by an entry yet."""
    try:
        names = sorted(os.listdir(os.path.join(log, "torn")))
    except FileNotFoundError:
        return []
    found = []
    for name in names:
        if name.endswith(PENDING) and not name.startswith(TMP):
            size = os.stat(os.path.join(log, "torn", name)).st_size
            found.append((name.removesuffix(PENDING), size))
    return found


def settle(log: str, digest: str) -> None:
    """The entry is written: the bytes get their final name."""
    path = os.path.join(log, "torn", digest)
    os.rename(path + PENDING, path)
    fsync_path(os.path.dirname(path), directory=True)


def repair_bundles(log: str, signed: int, count: int) -> int:
    """Check the ``count`` bundles as far as no checkpoint covers them whole; return how many of them stay.

    Raises AuditError for what a power loss does not explain.
    """
    for number in range(signed // WIDTH, count):
        path = os.path.join(log, tile_path("entries", number))
        data = read_file(path)
        if data is None:
            raise damaged(log, f"{tile_path('entries', number)} is missing")
        good, end = scan(data, number * WIDTH, parse=True)
        if good < WIDTH:
            if number * WIDTH + good < signed:
                raise damaged(
                    log, f"{signed} entries are signed, entry {number * WIDTH + good} is unreadable"
                )
            _cut(log, number, count, data, end)
            return number
        if end != len(data):
            raise damaged(log, f"{tile_path('entries', number)} holds more than it should")
        _check_tile(log, number, data)
    return count


def _check_tile(log: str, number: int, data: bytes) -> None:
    """Write a tile anew that a power loss emptied; any other difference is damage."""
    whole = b"".join(map(leaf_hash, split_entries(data)))
    stored = read_file(os.path.join(log, tile_path(0, number))) or b""
    stored = stored.ljust(len(whole), b"\0")
    if stored == whole:
        return
    for at in range(0, len(whole), HASH):
        found = stored[at : at + HASH]
        if found != whole[at : at + HASH] and any(found):
            raise damaged(log, f"entry {number * WIDTH + at // HASH} is not the one that was written")
    replace(os.path.join(log, tile_path(0, number)), whole, sync=True)


def _cut(log: str, number: int, count: int, data: bytes, end: int) -> None:
    """Everything from byte ``end`` of bundle ``number`` on is set aside; what is before becomes the tail."""
    tail = os.path.join(log, "tail")
    later = [read_file(os.path.join(log, tile_path("entries", n))) or b"" for n in range(number + 1, count)]
    rest = b"".join([data[end:], *later, read_file(tail) or b""])
    if rest:
        set_aside(log, rest)
    remove_quietly((tail,))
    for n in range(count - 1, number, -1):
        remove_quietly([os.path.join(log, tile_path(0, n)), os.path.join(log, tile_path("entries", n))])
    replace(tail, data[:end], sync=True)
    remove_quietly([os.path.join(log, tile_path(0, number))])
    os.unlink(os.path.join(log, tile_path("entries", number)))
