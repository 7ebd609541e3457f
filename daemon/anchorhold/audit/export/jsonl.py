"""JSON lines: each entry's own fields, as ``audit list --json`` prints them.

ASCII. A byte of a path that is no UTF-8 is a lone surrogate (``\\udcff``), so that `os.fsencode` gives the
path back; it is the one format that leaves this to the reader.
"""

from __future__ import annotations

import json

from anchorhold.audit.export.text import plain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def line(entry: dict[str, Any]) -> bytes:
    try:
        text = json.dumps(entry, allow_nan=False)
    except (ValueError, RecursionError):  # NaN, which no log of ours holds, or nested beyond reason
        text = json.dumps(plain(entry), allow_nan=False)
    return text.replace("\x7f", "\\u007f").encode("ascii") + b"\n"
