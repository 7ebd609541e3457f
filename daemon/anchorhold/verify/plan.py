"""Where each epoch lies, before anything is checked: from the heads as they are, signed or not, from
``state`` and from what is stored. So that all bundles can be looked at by several processes at once; nothing
of it is believed that is not checked later.
"""

from __future__ import annotations

import os

from anchorhold.verify.disk import Disk, State
from anchorhold.verify.entries import Entry, EntryError, canonical, frames
from anchorhold.verify.files import read
from anchorhold.verify.merkle import WIDTH, Tiles, index_path
from anchorhold.verify.note import Head, NoteError, read_head
from anchorhold.verify.parallel import Reader, tile

LOOKS = 3
"""Times that the bundles are listed where some seem to be missing: one can give way to a wider one just then.
"""


class Plan:
    """An epoch: ``committed`` entries from number ``first`` on. ``stored``: how many its bundles can have.

    ``pruned``: a file ``end`` is in the place of its entries.
    """

    __slots__ = ("committed", "first", "folder", "number", "pruned", "stored")

    def __init__(self, number: int, folder: str) -> None:
        self.number, self.folder = number, folder
        self.first = self.committed = self.stored = 0
        self.pruned = False

    def reader(self) -> Reader:
        """Looks at its bundles."""
        return Reader(self.folder, self.first, self.committed)


def plans(disk: Disk, state: State | None, start: int, last: int) -> dict[int, Plan]:
    """The epochs that are there, from ``start`` to the current one, ``last``."""
    found: dict[int, Plan] = {}
    first: int | None = 0 if start == 0 else None
    before = start - 1
    for number in disk.epochs:
        if not start <= number <= last:
            continue
        if number != before + 1:
            first = None
        before = number
        plan = found[number] = Plan(number, os.path.join(disk.log, str(number)))
        head = _head(disk.checkpoints[number])
        signed = head.size if head is not None else 0
        plan.pruned = number < last and os.path.lexists(os.path.join(plan.folder, "end"))
        if plan.pruned:
            plan.committed = signed
            plan.first = _end(plan.folder) - signed + 1 if first is None else first
        else:
            current = state if number == last else None
            wanted = current.size if current is not None else 0
            if head is None or wanted > signed:
                for _ in range(LOOKS):
                    plan.stored = Tiles(plan.folder, 0).most
                    if plan.stored >= wanted:
                        break
            wanted = current.size if current is not None else plan.stored
            plan.committed = max(signed, min(wanted, plan.stored))
            if first is not None:
                plan.first = first
            else:
                plan.first = current.first if current is not None else _first(plan)
        first = plan.first + plan.committed
    return found


def _head(note: bytes | None) -> Head | None:
    try:
        return read_head(note or b"", None)
    except NoteError:
        return None


def _first(plan: Plan) -> int:
    """What the first entry says of itself, where nothing before it tells."""
    path = os.path.join(plan.folder, "tile", "entries", index_path(0))
    try:
        return Entry(frames(tile(path, min(WIDTH, plan.committed)) or b"")[0][0]).seq
    except (EntryError, IndexError):
        return 0


def _end(folder: str) -> int:
    """The same of the last entry of a pruned epoch."""
    try:
        content = canonical((read(os.path.join(folder, "end")) or b"")[:-1])
        return Entry(content["entry"].encode("ascii")).seq
    except (EntryError, KeyError, TypeError, AttributeError, UnicodeError):
        return 0
