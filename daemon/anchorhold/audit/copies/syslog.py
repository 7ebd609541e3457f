"""An entry as a message of syslog (RFC 5424).

``<PRI>1 TIME HOST anchorhold PID KIND [anchorhold@32473 name="value" ...] TEXT``. Facility 10 (authpriv):
what names files is for those who may read such logs. The entry's fields are the structured data; in a value
``"``, ``\\`` and ``]`` get a backslash (6.3.3), after `text.escape` has taken out all that could end a
line. 32473 is the enterprise number that RFC 5612 keeps for examples: the project has none of its own.
"""

from __future__ import annotations

import os
import re

from anchorhold.audit.export.kinds import grade, kind_of, summary
from anchorhold.audit.export.text import compact, word

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

AUTHPRIV = 10
APP = "anchorhold"
SD_ID = "anchorhold@32473"
BOM = "\ufeff"
"""Stands before a text that is UTF-8 and more than ASCII (6.4)."""

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?(?:Z|[+-]\d\d:\d\d)", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,32}")
_SPECIAL = re.compile(r'["\\\]]')
_UNPRINTABLE = re.compile(r"[^\x21-\x7e]")


class Syslog:
    """Makes messages; knows the host's name and the process."""

    def __init__(self, hostname: str = "") -> None:
        self._host = header(hostname or os.uname().nodename, 255)
        self._pid = os.getpid()

    def message(self, entry: dict[str, Any]) -> bytes:
        time = entry.get("time")
        stamp = time if isinstance(time, str) and _TIME.fullmatch(time) else "-"
        priority = AUTHPRIV * 8 + grade(entry).syslog
        kind = header(kind_of(entry), 32)
        text = summary(entry)
        mark = "" if text.isascii() else BOM
        line = f"<{priority}>1 {stamp} {self._host} {APP} {self._pid} {kind} {structured(entry)} {mark}{text}"
        return line.encode("utf-8")


def header(text: str, most: int) -> str:
    """A part of the header: printable ASCII without spaces, ``-`` for none."""
    return _UNPRINTABLE.sub("_", text[:most]) or "-"


def structured(entry: dict[str, Any]) -> str:
    """The entry's fields as one SD-ELEMENT."""
    parts = [SD_ID]
    rest = {}
    for name, value in entry.items():
        if _NAME.fullmatch(name) and name != "_details":
            parts.append(f'{name}="{_SPECIAL.sub(_escaped, word(value))}"')
        else:
            rest[name] = value
    if rest:
        parts.append(f'_details="{_SPECIAL.sub(_escaped, compact(rest))}"')
    return f"[{' '.join(parts)}]"


def _escaped(match: re.Match[str]) -> str:
    return "\\" + match[0]
