"""An entry as a row of the index, and a row as the entry again, exactly.

Constraint: a thousand entries that lie far apart cannot be read from the log in a tenth of a second (each is
in another compressed bundle), so a row holds all of an entry. What has no column of its own, and the order of
all fields, is the row's *form*; nearly all entries share a few hundred of these. An entry whose form is long
and its own (a session's start) has none and is read from the log.
"""

from __future__ import annotations

import json

from anchorhold.audit.index.schema import time_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Entry = dict[str, Any]

MOST = 1 << 62

COLUMNS = ("seq", "time", "mono", "session", "n", "path", "resolved", "size", "request", "sha256")
_NUMBERS = frozenset({"seq", "mono", "n", "size"})


def is_number(value: object) -> bool:
    return type(value) is int and 0 <= value < MOST


def form_of(entry: Entry) -> str:
    """The fields in order, as JSON: a name alone where a column has the value, else name and value."""
    items: list[object] = []
    for name, value in entry.items():
        if name in COLUMNS and (name not in _NUMBERS or is_number(value)):
            items.append(name)
        else:
            items.append((name, value))
    return json.dumps(items, separators=(",", ":"))


def entry_of(items: list[Any], row: tuple[Any, ...], session: str, path: str, resolved: str) -> Entry:
    """The entry. ``row``: seq, time, mono, n, size, request, digest, rest."""
    entry: Entry = {}
    for item in items:
        if type(item) is list:
            entry[item[0]] = item[1]
        elif item == "seq":
            entry[item] = row[0]
        elif item == "time":
            entry[item] = time_of(row[1])
        elif item == "mono":
            entry[item] = row[2]
        elif item == "session":
            entry[item] = session
        elif item == "n":
            entry[item] = row[3]
        elif item == "path":
            entry[item] = path
        elif item == "resolved":
            entry[item] = resolved
        elif item == "size":
            entry[item] = row[4]
        elif item == "request":
            entry[item] = f"{session}-{row[5]}"
        else:
            entry[item] = f"{row[6]:012x}{row[7].hex()}"
    return entry
