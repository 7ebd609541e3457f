"""An entry as a row of a table.

Constraint: everything in the log but its numbers is hostile text (a file's name can hold terminal escapes),
so a table shows it as one quoted word each.
"""

from __future__ import annotations

import json
import shutil
import sys
from typing import Any

from anchorhold.cli import terminal

SHORT = 8
"""Characters of a session's name in a table; enough to name it with."""


def shown(value: object) -> str:
    """One word, safe on a terminal."""
    if isinstance(value, str):
        return terminal.quote(value)
    return json.dumps(value)


def line(entry: dict[str, Any]) -> str:
    """An entry as one line of the table."""
    stamp = str(entry.get("time", ""))[:19].replace("T", " ")
    session = str(entry.get("session", ""))[:SHORT] or "-"
    head = f"{entry.get('seq', '?'):>8}  {terminal.clean(stamp):19}  {terminal.clean(session):{SHORT}}"
    return f"{head}  {terminal.clean(str(entry.get('kind', ''))):14}  {_what(entry)}".rstrip()


HEADING = f"{'SEQ':>8}  {'TIME (UTC)':19}  {'SESSION':{SHORT}}  {'KIND':14}  WHAT"


def _what(entry: dict[str, Any]) -> str:
    fields = {name: entry[name] for name in entry if name not in COMMON}
    words = []
    for name in ("class", "call"):
        if name in fields:
            words.append(terminal.clean(str(fields.pop(name))))
    if "path" in fields:
        path, resolved = fields.pop("path"), fields.pop("resolved", None)
        words.append(shown(path))
        if resolved not in (None, path):
            words.append(f"-> {shown(resolved)}")
    if isinstance(fields.get("sha256"), str):
        fields["sha256"] = fields["sha256"][:12]
    words += [f"{terminal.clean(name)}={_brief(value)}" for name, value in fields.items()]
    return " ".join(words)


COMMON = frozenset({"v", "seq", "time", "mono", "session", "n", "kind", "epoch", "unsettled"})


def _brief(value: object) -> str:
    text = shown(value)
    return text if len(text) <= 200 else f"{text[:200]}..."


def fitted(line: str) -> str:
    """A line of a table as wide as the terminal that it goes to; whole where it goes elsewhere."""
    if not sys.stdout.isatty():
        return line
    columns = shutil.get_terminal_size().columns
    return line if len(line) <= columns else line[: columns - 1] + "…"
