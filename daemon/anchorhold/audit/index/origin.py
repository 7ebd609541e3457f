"""What an index was made of: which log, how much of it, and whether it still is that log's past.

Constraint: asked for each answer, so nothing is read but a few small files and one bundle.
"""

from __future__ import annotations

import os
from hashlib import sha256

from anchorhold.audit.files import read_file
from anchorhold.audit.read import Epoch, Pruned, Snapshot, read_raw
from anchorhold.audit.tree import WIDTH, split_entries

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def anchor(snapshot: Snapshot, size: int) -> str:
    """A digest of entry ``size - 1`` as it stands in the tree: another log, or another past, has another."""
    if size == 0:
        return ""
    state = snapshot.state
    if state.first < size <= state.total:  # as nearly always; the other epochs need not be looked at
        epoch = Epoch(snapshot.log, state.epoch, state.first, state.size)
        number, at = divmod(size - 1 - epoch.first, WIDTH)
        try:
            return sha256(split_entries(read_raw(epoch, number))[at]).hexdigest()
        except Pruned:  # it is not the current epoch any more
            return ""
    bundle = snapshot.one(size - 1)
    return "" if bundle is None else sha256(bundle.entries[size - 1 - bundle.first]).hexdigest()


def token(log: str) -> str:
    """What tells this log from another one."""
    return (read_file(os.path.join(log, "vkey")) or b"").decode("ascii", "replace").strip()


def pruned(snapshot: Snapshot) -> int:
    return sum(epoch.pruned for epoch in snapshot.epochs)


def is_current(meta: dict[str, Any], snapshot: Snapshot) -> bool:
    """Whether an index was made of this log, at an earlier time or now."""
    size = meta.get("size")
    return (
        isinstance(size, int)
        and 0 <= size <= snapshot.total
        and meta.get("token") == token(snapshot.log)
        and meta.get("pruned") == pruned(snapshot)
        and meta.get("anchor") == anchor(snapshot, size)
    )


def forgets(data: bytes) -> bool:
    """Whether an entry says that others were erased, which an older index still holds."""
    return b'"kind":"redaction"' in data or b'"kind":"prune"' in data
