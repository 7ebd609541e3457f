"""Hostile text as text that stays in its line and its field, and can be had back exactly.

One way of writing for every format that has no way of its own: a backslash is doubled; a byte that was no
UTF-8 (in Python a surrogate escape) is ``\\xff``; a character that ends a line, moves a cursor, turns the
order of text round, shows nothing or is no character is ``\\u000a`` or ``\\U000e0001``. All else, so nearly
every name, stays as it is. `unescape` undoes it.
"""

from __future__ import annotations

import json
import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DEPTH = 32
"""Values nested deeper than this are exported as JSON text: readers have limits of their own."""

_UNSAFE = re.compile(
    "[\\\\\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f"
    "\ud800-\udfff\ufdd0-\ufdef\ufeff\ufff9-\ufffb\ufffe\uffff\U000e0000-\U000e0fff]"
)
_ESCAPED = re.compile(r"\\(?:\\|x([0-9a-f]{2})|u([0-9a-f]{4})|U([0-9a-f]{8}))")


def escape(text: str) -> str:
    """``text`` in one line of valid UTF-8."""
    if text.isascii() and text.isprintable() and "\\" not in text:
        return text
    return _UNSAFE.sub(_escaped, text)


def _escaped(match: re.Match[str]) -> str:
    return "\\\\" if match[0] == "\\" else code(match[0])


def code(character: str) -> str:
    """One character by its number, as `escape` writes it."""
    number = ord(character)
    if 0xDC80 <= number <= 0xDCFF:
        return f"\\x{number - 0xDC00:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def unescape(text: str) -> str:
    """The text that `escape` was given."""
    return _ESCAPED.sub(_unescaped, text)


def _unescaped(match: re.Match[str]) -> str:
    byte, short, long = match.groups()
    if byte:
        return chr(0xDC00 + int(byte, 16))
    return chr(int(short or long, 16)) if short or long else "\\"


def word(value: object) -> str:
    """Any value of an entry as safe text: text itself, all else as JSON."""
    return escape(value) if isinstance(value, str) else compact(value)


def compact(value: object) -> str:
    """A value as JSON in ASCII on one line, as every reader takes it: no lone surrogates, no NaN."""
    return json.dumps(plain(value), separators=(",", ":"), allow_nan=False).replace("\x7f", "\\u007f")


def plain(value: Any, depth: int = DEPTH) -> Any:
    """A value whose texts are escaped, whose numbers are JSON's, and which is not too deep."""
    if isinstance(value, str):
        return escape(value)
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float):
        return value if value - value == 0 else str(value)  # infinities and NaN are no JSON
    if depth <= 0:
        return escape(json.dumps(value))
    if isinstance(value, dict):
        return {escape(str(name)): plain(one, depth - 1) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(one, depth - 1) for one in value]
    return escape(str(value))


def number(value: object, most: int = 2**63 - 1) -> int | None:
    """A whole number that fits, or None: an entry's field can hold anything."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most:
        return value
    return None


def milliseconds(time: object) -> int | None:
    """An entry's time since 1970, or None where it says none."""
    from datetime import datetime

    if not isinstance(time, str):
        return None
    try:
        moment = datetime.fromisoformat(time)
        return round(moment.timestamp() * 1000) if moment.tzinfo else None
    except (ValueError, OverflowError, OSError):
        return None
