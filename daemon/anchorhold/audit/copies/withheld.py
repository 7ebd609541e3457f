"""What a copy without names still says.

A list of what may go, not of what may not: a name can stand in a reason, in the text of an error, in a
field that comes with the next version. A digest is left out as well: it tells whoever has the file that it
was this one.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

NUMBERS = frozenset(
    {"v", "seq", "epoch", "mono", "n", "size", "count", "names", "hidden", "shown", "denied", "turns",
     "prompt_tokens", "output_tokens", "max_tokens", "milliseconds"}
)  # fmt: skip
"""Fields that go where they hold a number."""

WORDS = frozenset({"time", "session", "kind", "class", "mode", "phase", "request", "call"})
"""Fields of the supervisor's own words; none comes from a file's name."""


def without_names(entry: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value
        for name, value in entry.items()
        if (name in WORDS and isinstance(value, str)) or (name in NUMBERS and isinstance(value, (int, float)))
    }
