"""Text that a terminal may be shown.

What the model says, every path and every word of the worker is hostile. A terminal obeys ESC, the
C0 and C1 controls and (in what order it shows text) the bidirectional controls; it shows nothing at
all for zero-width characters, which can carry hidden words into whatever the reader copies. So:

- what acts on the terminal or on the order of text is shown as an escape, ``\\x1b``, ``\\u202e``;
- what shows nothing is left out, but for the joiners and selectors that real scripts and emoji
  need, in the one place where they mean something;
- ``MARK`` begins the lines that anchorhold itself writes after an answer. It is escaped in all
  other text, so the model cannot forge such a line.

Lone surrogates are bytes that were no UTF-8 (``surrogateescape``): two of them, even from two tokens,
could become one C1 control on the way out, so they are escaped as well.

Sources: ECMA-48; Unicode 15.1, DerivedGeneralCategory; CVE-2021-42574 ("Trojan Source").
"""

from __future__ import annotations

import re

MARK = "\N{ANCHOR}"

MOST_COMBINING = (
    8  # marks on one letter; Vietnamese and vocalised Hebrew need 3, stacks that cover other lines many
)

_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_LINE_BREAKERS = re.compile(r"([\n\t\r])")
_IN_LINE = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}
_JOINERS = frozenset("\u200c\u200d")
_SELECTORS = frozenset("\ufe0e\ufe0f")
_KEYCAPS = frozenset("0123456789#*")
# Format characters that are drawn: Arabic number signs, Syriac abbreviation, Kaithi numbers.
_DRAWN = frozenset("\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2\U000110bd\U000110cd")
_REORDERING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
# Show nothing, although their general category does not say so (Default_Ignorable_Code_Point).
_INVISIBLE = frozenset("\u034f\u17b4\u17b5\u180b\u180c\u180d\u180f\u2065\u3164\uffa0")


def escape(character: str) -> str:
    """How one character is shown that must not be sent as it is."""
    code = ord(character)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


class Filter:
    """Makes a stream of text safe to show, chunk by chunk; what it returns can be written at once.

    State is kept between chunks: a carriage return waits for its line feed, and joiners and
    combining marks are judged by what came before them.
    """

    __slots__ = ("_carriage", "_combining", "_previous")

    def __init__(self) -> None:
        self._carriage = False
        self._previous = ""
        self._combining = 0

    def feed(self, text: str) -> str:
        if not text:
            return ""
        if not self._carriage and text.isascii() and _CONTROLS.search(text) is None:
            self._previous, self._combining = text[-1], 0
            return text
        return "".join([self._next(character) for character in text])

    def end(self) -> str:
        """What was held back: a carriage return that no line feed followed."""
        held, self._carriage = self._carriage, False
        return "\\x0d" if held else ""

    def _next(self, character: str) -> str:
        if self._carriage:
            self._carriage = False
            before = "" if character == "\n" else "\\x0d"
            return before + self._next(character)
        if character == "\r":
            self._carriage = True
            return ""
        shown = self._show(character)
        if shown == character:
            self._previous = character
        return shown

    def _show(self, character: str) -> str:
        if character.isascii():
            self._combining = 0
            return character if character.isprintable() or character in "\n\t" else escape(character)
        if character == MARK or character in _REORDERING:
            return escape(character)
        if character in _JOINERS:
            plain = self._previous.isascii() or self._previous in _JOINERS
            return "" if plain else character
        if character in _SELECTORS:
            takes_one = not self._previous.isascii() or self._previous in _KEYCAPS
            return character if takes_one and self._previous not in _SELECTORS else ""
        return self._by_category(character)

    def _by_category(self, character: str) -> str:
        import unicodedata

        category = unicodedata.category(character)
        if category in ("Mn", "Me"):
            self._combining += 1
            hidden = self._combining > MOST_COMBINING or character in _INVISIBLE or ord(character) >= 0xE0000
            return "" if hidden or "\ufe00" <= character <= "\ufe0d" else character
        self._combining = 0
        if category in ("Cc", "Cs", "Zl", "Zp"):
            return escape(character)
        if category == "Cf" and character not in _DRAWN:
            return ""
        if character in _INVISIBLE or 0xE0000 <= ord(character) <= 0xE0FFF:
            return ""
        return character


def clean(text: str) -> str:
    """One line that is safe to show: as `Filter`, and line feeds and tabs are escaped too."""
    if text.isascii() and text.isprintable():
        return text
    safe = Filter()
    parts = [_IN_LINE.get(part) or safe.feed(part) for part in _LINE_BREAKERS.split(text)]
    return "".join(parts) + safe.end()


def clean_lines(text: str) -> str:
    """As `clean`, but line feeds stay: for messages of several lines."""
    return "\n".join(clean(line) for line in text.split("\n"))


_PLAIN_NAME = re.compile(r"[\w./~+@%,:=-]+")


def quote(path: str) -> str:
    """A path as one word: plain names as they are, others in double quotes with escapes.

    So a file's name can pass neither for two names nor for words of anchorhold's own.
    """
    if _PLAIN_NAME.fullmatch(path) and clean(path) == path:
        return path
    return '"' + clean(path.replace("\\", "\\\\")).replace('"', '\\"') + '"'


def human_size(size: int) -> str:
    """Bytes for people, in powers of 1000 as `ls --si`: ``0 B``, ``999 B``, ``41 kB``, ``1.2 MB``."""
    if size < 1000:
        return f"{size} B"
    value, units = size / 1000, ["kB", "MB", "GB", "TB", "PB"]
    while value >= 999.5 and len(units) > 1:
        value, units = value / 1000, units[1:]
    return f"{value:.1f} {units[0]}" if value < 9.95 else f"{value:.0f} {units[0]}"


def count(number: int, one: str, many: str = "") -> str:
    """``1 file``, ``2 files``."""
    return f"{number} {one if number == 1 else many or one + 's'}"
