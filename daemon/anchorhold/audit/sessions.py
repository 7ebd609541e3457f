"""Finds the entries of one session in the tree, newest bundles first, without an index.

Constraint: fast in a large log, since a receipt is asked for right after an answer. A bundle is only taken
apart
if its bytes hold the session's name; reading ends where the session begins.
"""

from __future__ import annotations

import json

from anchorhold.audit.read import Bundle, Pruned, Snapshot, read_bundle, read_raw, unreadable
from anchorhold.audit.tree import WIDTH

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Found:
    """An entry in its place: ``epoch`` and ``index`` in its tree, its bytes, its openings (None: not in this
    copy)."""

    __slots__ = ("data", "epoch", "fields", "index", "openings")

    def __init__(
        self, epoch: int, index: int, data: bytes, openings: bytes | None, fields: dict[str, Any]
    ) -> None:
        self.epoch, self.index, self.data, self.openings, self.fields = epoch, index, data, openings, fields


def of_session(snapshot: Snapshot, session: str) -> list[Found]:
    """The session's entries in order; none if the tree has none. ``session`` is the whole name. AuditError,
    OSError."""
    mark = b'"session":"%b"' % session.encode("ascii", "replace")
    found: list[Found] = []
    for epoch in reversed(snapshot.epochs):
        if epoch.pruned:
            break
        for number in range(-(-epoch.size // WIDTH) - 1, -1, -1):
            try:
                if mark not in read_raw(epoch, number):
                    continue
                bundle = read_bundle(epoch, number)
            except Pruned:  # meanwhile, as is all that is older
                return found
            found[:0] = _in_bundle(bundle, bundle.first - epoch.first, mark, session)
            if found and found[0].fields.get("n") == 0:
                return found
    return found


def _in_bundle(bundle: Bundle, index: int, mark: bytes, session: str) -> list[Found]:
    found = []
    for at, data in enumerate(bundle.entries):
        if mark in data:
            try:
                fields = json.loads(data)
            except (ValueError, RecursionError):
                raise unreadable(bundle.first + at) from None
            if isinstance(fields, dict) and fields.get("session") == session:
                openings = bundle.openings[at] if bundle.openings is not None else None
                found.append(Found(bundle.epoch, index + at, data, openings, fields))
    return found
