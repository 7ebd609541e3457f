"""Makes text of the log safe to put into HTML, and times and numbers easy to read.

Constraint: a name must neither act (HTML), nor hide or reorder what is around it (controls, bidi, characters
that show nothing), nor break the file's UTF-8 (lone surrogates), nor fill the page. What cannot be shown as
itself is shown as an escape in a ``<b>``, which no name can forge, and every name is isolated in a ``<bdi>``.

The terminal leaves some invisible characters out (`anchorhold.cli.terminal`); a report shows all of them.
"""

from __future__ import annotations

from datetime import UTC, datetime
from html import escape

MOST_COMBINING = 8
"""Marks on one letter; more of them cover the lines around it."""

LONGEST = 400
"""Characters of HTML that one name may take before its middle is left out."""

ENDS = ((240, 96), (120, 48), (60, 24), (15, 6))
"""Characters that are kept of both ends where a name's middle is left out: the first that fit."""

# Printable by their category, but they show nothing: fillers, blanks, selectors.
_BLANK = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\uffa0")


def _is_selector(code: int) -> bool:
    return 0xFE00 <= code <= 0xFE0F or code >= 0xE0000


def visible(text: str) -> str:
    """HTML for ``text``: what is no plain character is an escape in ``<b>``."""
    if text.isascii() and text.isprintable() and text[:1] != " " and text[-1:] != " ":
        return escape(text)
    from unicodedata import category

    parts = []
    combining = 0
    last = len(text) - 1
    for at, character in enumerate(text):
        code = ord(character)
        plain = character.isprintable() and character not in _BLANK and not _is_selector(code)
        if plain and code > 0x7F and category(character) in ("Mn", "Me"):
            combining += 1
            plain = combining <= MOST_COMBINING and at > 0
        else:
            combining = 0
        if character == " " and at in (0, last):
            plain = False
        parts.append(escape(character) if plain else f"<b>{escaped(code)}</b>")
    return "".join(parts)


def escaped(code: int) -> str:
    """How a character is written that is not shown; a byte that was no UTF-8 as that byte."""
    if 0xDC80 <= code <= 0xDCFF:
        code -= 0xDC00
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def name(text: object) -> str:
    """A name, or any text of the log, as HTML of bounded length that stays within itself."""
    whole = plain(text)
    shown = visible(whole) if len(whole) <= LONGEST else ""
    if not shown or len(shown) > LONGEST:
        shown = _shortened(whole)
    return f"<bdi>{shown}</bdi>"


def words(text: object) -> str:
    """As `name`, for sentences: in the page's own type."""
    return name(text).replace("<bdi>", "<bdi class=w>", 1)


def _shortened(text: str) -> str:
    """Both ends of a long name, as much as fits. A name of many escapes keeps less of itself."""
    shown = ""
    for head, tail in ENDS:
        left = len(text) - head - tail
        if left <= 0:
            shown = visible(text)
        else:
            gap = f"<em>… {number(left)} more characters …</em>"
            shown = visible(text[:head]) + gap + visible(text[-tail:])
        if len(shown) <= 2 * LONGEST:
            break
    return shown


def plain(value: object) -> str:
    """Any value as text; what Python refuses to write out (a number of 5,000 digits) is a question mark."""
    if isinstance(value, str):
        return value
    try:
        return str(value)
    except (ValueError, RecursionError):
        return "?"


def number(value: int) -> str:
    """With thin groups, as ``12,345``."""
    return f"{value:,}"


def count(value: int, one: str, many: str = "") -> str:
    """``1 file``, ``2,000 files``."""
    return f"{value:,} {one if value == 1 else many or one + 's'}"


def size(value: int) -> str:
    """Bytes in powers of 1000: ``999 B``, ``41 kB``."""
    if value < 1000:
        return f"{value} B"
    amount, units = value / 1000, ["kB", "MB", "GB", "TB", "PB"]
    while amount >= 999.5 and len(units) > 1:
        amount, units = amount / 1000, units[1:]
    return f"{amount:.1f} {units[0]}" if amount < 9.95 else f"{amount:.0f} {units[0]}"


def moment(stamp: str) -> datetime | None:
    """A time of the log; None where it is none."""
    try:
        return datetime.strptime(stamp[:19], "%Y-%m-%dT%H:%M:%S").replace(tzinfo=UTC)
    except ValueError:
        return None


def when(stamp: str) -> str:
    """A time of the log to the minute, as HTML; what is no time is shown as it is."""
    if not stamp:
        return "unknown"
    return f"{stamp[:10]} {stamp[11:16]}" if moment(stamp) else name(stamp[:40])


_MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October",
    "November", "December",
)  # fmt: skip


def long_date(at: datetime) -> str:
    """``3 January 2026``, whatever the locale."""
    return f"{at.day} {_MONTHS[at.month - 1]} {at.year}"


def month_name(at: datetime) -> str:
    """``Jan 2026``."""
    return f"{_MONTHS[at.month - 1][:3]} {at.year}"
