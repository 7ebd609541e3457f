"""Entries as they are written out: rows of a table on a terminal, plain columns elsewhere, JSON and CSV.

Constraint: everything in the log but its numbers is hostile text (a file's name can hold terminal escapes),
so it is shown as one quoted word each, which holds no tab and no line feed either.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from typing import Any

from anchorhold.cli import terminal
from anchorhold.cli.output import Notes
from anchorhold.cli.selection import say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

SHORT = 8
"""Characters of a session's name in a table; enough to name it with."""


def shown(value: object) -> str:
    """One word, safe on a terminal."""
    if isinstance(value, str):
        return terminal.quote(value)
    return json.dumps(value)


def line(entry: dict[str, Any], width: int | None = None) -> str:
    """An entry as one line of the table. Where it is wider than ``width`` the path loses its beginning, since
    its end says which file it is; what is still too wide is for `fitted`."""
    stamp = str(entry.get("time", ""))[:19].replace("T", " ")
    session = str(entry.get("session", ""))[:SHORT] or "-"
    head = f"{entry.get('seq', '?'):>8}  {terminal.clean(stamp):19}  {terminal.clean(session):{SHORT}}"
    head = f"{head}  {terminal.clean(str(entry.get('kind', ''))):14}  "
    return f"{head}{_what(entry, None if width is None else width - len(head) - len(' …'))}".rstrip()


def plain(entry: dict[str, Any]) -> str:
    """An entry as columns for a pipe, whole and in the log's own words (docs/cli.md)."""
    fields = {name: entry[name] for name in entry if name not in COMMON}
    path, resolved = fields.pop("path", ""), fields.pop("resolved", None)
    if resolved not in (None, path):
        fields["resolved"] = resolved
    cls = fields.pop("class", "")
    rest = " ".join(f"{terminal.clean(name)}={shown(value)}" for name, value in fields.items())
    return columns(
        entry.get("seq", ""),
        *(terminal.clean(str(entry.get(name, ""))) for name in ("time", "session", "kind")),
        terminal.clean(str(cls)),
        shown(path) if path != "" else "",
        rest,
    )


def columns(*values: object) -> str:
    """One row for a pipe: each value safe and without a tab, which the caller sees to."""
    return "\t".join(map(str, values))


HEADING = f"{'SEQ':>8}  {'TIME (UTC)':19}  {'SESSION':{SHORT}}  {'KIND':14}  WHAT"


def _what(entry: dict[str, Any], room: int | None = None) -> str:
    fields = {name: entry[name] for name in entry if name not in COMMON}
    words = []
    for name in ("class", "call"):
        if name in fields:
            words.append(terminal.clean(str(fields.pop(name))))
    if "path" in fields:
        path, resolved = fields.pop("path"), fields.pop("resolved", None)
        words.append(_end_of(shown(path), None if room is None else room - len(" ".join([*words, ""]))))
        if resolved not in (None, path):
            words.append(f"-> {shown(resolved)}")
    if isinstance(fields.get("sha256"), str):
        fields["sha256"] = fields["sha256"][:12]
    words += [f"{terminal.clean(name)}={_brief(value)}" for name, value in fields.items()]
    return " ".join(words)


def _end_of(path: str, room: int | None) -> str:
    return path if room is None or len(path) <= room or room < LEAST else f"…{path[1 - room :]}"


LEAST = 8
"""Characters of a path's end that are worth showing; with less room it is cut as any other text."""


COMMON = frozenset({"v", "seq", "time", "mono", "session", "n", "kind", "epoch", "unsettled"})


def _brief(value: object) -> str:
    text = shown(value)
    return text if len(text) <= 200 else f"{text[:200]}..."


def fitted(line: str) -> str:
    """A line of a table as wide as the terminal that it goes to."""
    width = shutil.get_terminal_size().columns
    return line if len(line) <= width else line[: width - 1] + "…"


_MOST = 1 << 15
"""Characters that are gathered before they are written, where nobody watches."""


class Rows:
    """Writes entries to standard output, under a heading where the form has one. The form ``table`` is one on
    a terminal only; a pipe or file gets plain columns.

    A context manager: what was gathered is written at its end, also where an error ends it.
    """

    def __init__(self, form: str = "table") -> None:
        self.none = True
        self._form = form
        self._waiting: list[str] = []
        self._size = 0
        self._watched = sys.stdout.isatty()
        self._colour = form == "table" and is_coloured()

    def __enter__(self) -> Rows:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.flush()

    def write(self, entry: dict[str, Any]) -> None:
        """One entry."""
        if self._form == "json":
            self._put(json.dumps(entry))
        elif self._form == "csv":
            from anchorhold.audit.export import table

            if self.none:
                self._put(table.HEADING.decode("utf-8").rstrip("\r\n"))
            self._put(table.line(entry).decode("utf-8").rstrip("\r\n"))
        elif not self._watched:
            self._put(plain(entry))
        else:
            from anchorhold.audit.index.filters import is_refusal  # a pipe needs none of it

            if self.none:
                self._put(dim(fitted(HEADING), self._colour))
            text = fitted(line(entry, shutil.get_terminal_size().columns))
            self._put(f"\x1b[31m{text}\x1b[39m" if self._colour and is_refusal(entry) else text)
        self.none = False

    def _put(self, text: str) -> None:
        self._waiting.append(text)
        self._size += len(text)
        if self._watched or self._size >= _MOST:
            self.flush()

    def flush(self, *, through: bool = False) -> None:
        """Write what was gathered; ``through`` Python's own buffer too."""
        if self._waiting:
            text = "\n".join(self._waiting)
            self._waiting.clear()
            self._size = 0
            say(text)
        if through:
            sys.stdout.flush()


def is_coloured() -> bool:
    """Whether standard output shows colours, and its owner wants them (https://no-color.org)."""
    dumb = os.environ.get("TERM", "dumb") in ("dumb", "")
    return sys.stdout.isatty() and not dumb and not os.environ.get("NO_COLOR")


def dim(text: str, colour: bool) -> str:
    return f"\x1b[2m{text}\x1b[22m" if colour else text


def said(text: str) -> None:
    """A line beside the results, on standard error."""
    Notes().line(text)
