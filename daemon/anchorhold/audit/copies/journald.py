"""An entry as a message of journald's native protocol.

Source: systemd's docs/JOURNAL_NATIVE_PROTOCOL.md and systemd.journal-fields(7). One datagram is one record.
A field is ``NAME=value`` and a line feed, or ``NAME``, a line feed, the value's length as 64 bits,
little-endian, the value, and a line feed. Text of an entry always goes in the second form, so that what it
holds cannot end a field; only what is made here goes in the first.
"""

from __future__ import annotations

import re

from anchorhold.audit.export.kinds import grade, summary
from anchorhold.audit.export.text import compact, word

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

IDENTIFIER = "anchorhold"
MESSAGE_ID = "3b47359b77da48fb8a2bbba9225ef424"
"""Ours in every record (``journalctl MESSAGE_ID=...``)."""

PREFIX = "ANCHORHOLD_"
_NAME = re.compile(r"[a-z][a-z0-9_]{0,50}")
"""Names that become a field: journald takes at most 64 characters, capitals, digits and underscores."""


def message(entry: dict[str, Any]) -> bytes:
    parts = [
        f"PRIORITY={grade(entry).syslog}\nSYSLOG_IDENTIFIER={IDENTIFIER}\nMESSAGE_ID={MESSAGE_ID}\n".encode(
            "ascii"
        ),
        field("MESSAGE", summary(entry)),
    ]
    rest = {}
    for name, value in entry.items():
        if not _NAME.fullmatch(name):
            rest[name] = value
        elif isinstance(value, int) and not isinstance(value, bool):
            parts.append(f"{PREFIX}{name.upper()}={value:d}\n".encode("ascii"))
        else:
            parts.append(field(PREFIX + name.upper(), word(value)))
    if rest:
        parts.append(field(PREFIX + "_DETAILS", compact(rest)))
    return b"".join(parts)


def field(name: str, text: str) -> bytes:
    """A field in the form that carries any bytes."""
    value = text.encode("utf-8")
    return name.encode("ascii") + b"\n" + len(value).to_bytes(8, "little") + value + b"\n"
