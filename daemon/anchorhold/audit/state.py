"""Where the tree of the log ends: one small file, whose rename is the moment that entries enter the tree.

Constraint: everything that the file speaks of is on the disk before it is renamed into place. So whatever a
crash leaves in bundles and tiles beyond it is not there, and is written anew.
"""

from __future__ import annotations

import json
import os

from anchorhold.audit.files import read_file, replace
from anchorhold.audit.journal import is_name
from anchorhold.errors import AuditError

FILE = "state"


class State:
    """``epoch``: the current one, ``first``: its first entry's seq, ``size``: its entries, ``ended``: whether
    the last of them is ``epoch.end``, ``journals``: bytes of each journal that are in the tree."""

    __slots__ = ("ended", "epoch", "first", "journals", "size")

    def __init__(
        self,
        epoch: int = 0,
        first: int = 0,
        size: int = 0,
        *,
        ended: bool = False,
        journals: dict[str, int] | None = None,
    ) -> None:
        self.epoch, self.first, self.size, self.ended = epoch, first, size, ended
        self.journals = journals or {}

    @property
    def total(self) -> int:
        """Entries in all trees of the chain: the seq of the next one."""
        return self.first + self.size

    def save(self, log: str, *, sync: bool = True) -> None:
        """Commit. OSError."""
        content = {
            "v": 2,
            "epoch": self.epoch,
            "first": self.first,
            "size": self.size,
            "ended": self.ended,
            "journals": self.journals,
        }
        text = json.dumps(content, separators=(",", ":")) + "\n"
        replace(os.path.join(log, FILE), text.encode(), sync=sync)

    @classmethod
    def load(cls, log: str) -> State | None:
        """The stored one; None if there is none. AuditError if it is none of ours, OSError."""
        data = read_file(os.path.join(log, FILE))
        return None if data is None else cls.parse(data, log)

    @classmethod
    def parse(cls, data: bytes, log: str) -> State:
        """Read the file's content strictly."""
        try:
            content = json.loads(data)
            if content.pop("v") != 2 or content.keys() != {"epoch", "first", "size", "ended", "journals"}:
                raise ValueError
            state = cls(**content)
            journals = state.journals
            numbers = (state.epoch, state.first, state.size, *journals.values())
            if (
                any(type(number) is not int or number < 0 for number in numbers)
                or type(state.ended) is not bool
            ):
                raise ValueError
            if not all(map(is_name, journals)):
                raise ValueError
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            raise AuditError(
                f"the audit log is damaged: {os.path.join(log, FILE)} is not what was written",
                hint="Run: anchorhold audit verify",
            ) from None
        return state
