"""A QR code of a short text (a checkpoint, a verifier key) for the terminal, to be photographed.

Constraint: a camera has to read it whatever the terminal's colours are. With colour, black on white is asked
for by number (16 and 231 of the 256, which themes leave alone) and the quiet zone of four modules, which
ISO/IEC 18004 demands, is drawn too. Without, the terminal's own two colours have to do: blocks are the light
modules, as on a dark terminal; ``light`` turns that round.

The matrix is segno's: pure Python, no dependencies, and an encoder is nothing of this project's own.
"""

from __future__ import annotations

from anchorhold.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

QUIET = 4
"""Modules of empty border (ISO/IEC 18004, 9.1)."""

LIMIT = 2_953
"""Bytes in version 40 at level L, the most there is."""

LEVELS = ("M", "L")
"""Tried in this order: M mends 15 % of the code, L 7 % in fewer modules."""

WIDE = 80
"""Columns; a code that would be wider is drawn at the lower level if that makes it smaller."""

_BLACK_ON_WHITE = "\x1b[38;5;16;48;5;231m"
_PLAIN = "\x1b[0m"
_BLOCKS = (" ", "▄", "▀", "█")
"""By upper * 2 + lower half."""


def matrix(text: str) -> list[list[bool]]:
    """The code's modules, True for dark, without a border.

    Byte mode: the text's UTF-8 as it is, so that what is scanned is what was signed. Level M, or L where M
    does not fit or is too wide to show. UsageError where nothing fits.
    """
    import segno

    data = text.encode("utf-8", "surrogateescape")
    if not data:
        raise UsageError("there is nothing to put into a QR code")
    best: list[list[bool]] | None = None
    for level in LEVELS:
        try:
            code = segno.make(data, error=level, mode="byte", micro=False, boost_error=False)
        except segno.DataOverflowError:
            continue
        found = [[bool(module) for module in row] for row in code.matrix]
        if best is None or len(found) < len(best):
            best = found
        if len(best) + 2 * QUIET <= WIDE:
            break
    if best is None:
        raise UsageError(f"a QR code holds {LIMIT} bytes, these are {len(data)}")
    return best


def half_blocks(modules: Sequence[Sequence[bool]], *, colour: bool, light: bool = False) -> Iterator[str]:
    """The lines to print: two rows of modules each, with the quiet zone.

    ``light`` is for a terminal of dark text on a light ground, and counts only without ``colour``.
    """
    width = len(modules) + 2 * QUIET
    edge = [False] * QUIET
    empty = [[False] * width for _ in range(QUIET)]
    rows = [*empty, *([*edge, *row, *edge] for row in modules), *empty]
    if len(rows) % 2:
        rows.append([False] * width)
    ink = colour or light  # whether a drawn block is a dark module
    for upper, lower in zip(rows[::2], rows[1::2], strict=True):
        line = "".join(
            _BLOCKS[(above is ink) * 2 + (below is ink)] for above, below in zip(upper, lower, strict=True)
        )
        yield f"{_BLACK_ON_WHITE}{line}{_PLAIN}" if colour else line


def lines(text: str, *, colour: bool, light: bool = False) -> Iterator[str]:
    """``text`` as a QR code, line by line."""
    return half_blocks(matrix(text), colour=colour, light=light)
