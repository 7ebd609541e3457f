"""CSV (RFC 4180): one header, columns that stay, one line an entry.

Every cell is quoted, and every text is in `text.escape`'s form, so that a line feed or quote cannot leave its
cell. A spreadsheet takes a cell that begins with ``=``, ``+``, ``-`` or ``@`` for a formula, and where its
separator is another than the comma, cells begin inside ours too: so such a character is written by its number
(``\\u003d``) at the beginning of a cell and after any separator. The same `text.unescape` gives it back. A
lone ``-``, which is standard input, stays.
"""

from __future__ import annotations

import re

from anchorhold.audit.export.text import code, compact, number, word

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

COLUMNS = (
    "epoch", "seq", "time", "session", "n", "kind", "class", "path", "resolved", "sha256", "size", "mode",
    "phase", "request", "call", "reason", "count", "redacted", "details",
)  # fmt: skip
"""Never renamed, moved or taken away; new ones come after the last. ``details`` is JSON: all other fields."""

HEADING = (",".join(f'"{name}"' for name in COLUMNS) + "\r\n").encode("ascii")

_OWN = frozenset(COLUMNS) - {"details"}
_NUMBERS = frozenset({"epoch", "seq", "n", "size", "count"})
_FORMULA = re.compile(r"""(?:^|(?<=[,;|]))(["' ]*)([=+\-@\uff1d\uff0b\uff0d\uff20])""")
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')


def defuse(text: str) -> str:
    """Text that no spreadsheet takes for a formula."""
    return text if text == "-" else _FORMULA.sub(_coded, text)


def _coded(match: re.Match[str]) -> str:
    return match[1] + code(match[2])


def _defuse_json(text: str) -> str:
    """JSON whose texts are harmless: ``\\u003d`` is JSON's own way of writing, too. Numbers stay."""
    return _STRING.sub(lambda string: '"' + _FORMULA.sub(_coded, string[0][1:-1]) + '"', text)


def _cell(name: str, entry: dict[str, Any]) -> str:
    value = entry.get(name)
    if value is None:
        return ""
    if name in _NUMBERS and number(value) is not None:
        return str(value)
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return defuse(" ".join(map(word, value)))  # ``redacted``
    return defuse(word(value)) if isinstance(value, str) else _defuse_json(compact(value))


def line(entry: dict[str, Any]) -> bytes:
    cells = [_cell(name, entry) for name in COLUMNS[:-1]]
    rest = {name: value for name, value in entry.items() if name not in _OWN}
    cells.append(_defuse_json(compact(rest)))
    return (",".join('"' + cell.replace('"', '""') + '"' for cell in cells) + "\r\n").encode("utf-8")
