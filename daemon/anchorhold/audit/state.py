"""Where the tree of the log ends: one small file, whose rename is the moment that entries enter the tree.

Constraint: everything that the file speaks of is on the disk before it is renamed into place. So whatever a
crash leaves in bundles and tiles beyond it is not there, and is written anew.
"""

from __future__ import annotations

import json
import os
from hashlib import sha256

from anchorhold.audit.files import read_file, replace
from anchorhold.audit.journal import is_name
from anchorhold.errors import AuditError

FILE = "state"


class State:
    """``epoch``: the current one, ``first``: its first entry's seq, ``size``: its entries, ``signed``: how
    many of them the head covers that was signed last, ``ended``: whether
    the last of them is ``epoch.end``, ``journals``: bytes of each journal that are in the tree."""

    __slots__ = ("ended", "epoch", "first", "journals", "signed", "size")

    def __init__(
        self,
        epoch: int = 0,
        first: int = 0,
        size: int = 0,
        *,
        signed: int = 0,
        ended: bool = False,
        journals: dict[str, int] | None = None,
    ) -> None:
        self.epoch, self.first, self.size = epoch, first, size
        self.signed, self.ended = signed, ended
        self.journals = journals or {}

    @property
    def total(self) -> int:
        """Entries in all trees of the chain: the seq of the next one."""
        return self.first + self.size

    def save(self, log: str, *, name_later: bool = False) -> None:
        """Commit. ``name_later``: after a power loss the last one may be there instead. OSError."""
        content: dict[str, object] = {
            "v": 2,
            "epoch": self.epoch,
            "first": self.first,
            "size": self.size,
            "signed": self.signed,
            "ended": self.ended,
            "journals": self.journals,
        }
        content["sum"] = _sum(content)
        text = json.dumps(content, separators=(",", ":")) + "\n"
        replace(os.path.join(log, FILE), text.encode(), sync=True, name_later=name_later, owned=True)

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
            if content.pop("sum") != _sum(content) or content.pop("v") != 2:
                raise ValueError
            if content.keys() != {
                "epoch",
                "first",
                "size",
                "signed",
                "ended",
                "journals",
            }:
                raise ValueError
            state = cls(**content)
            journals = content["journals"]
            numbers = (state.epoch, state.first, state.size, state.signed, *journals.values())
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


def _sum(content: dict[str, object]) -> str:
    """Against bits that turn by themselves; whoever writes the file can write this too."""
    return sha256(json.dumps(content, separators=(",", ":")).encode()).hexdigest()
