"""Which session or request a person means by the beginning of its name."""

from __future__ import annotations

from anchorhold.cli.rows import said
from anchorhold.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path

WHOLE = 16
"""Characters of a session's name."""

MOST_NAMED = 5
"""Names that a message offers to choose from."""


def whole_name(state: Path, given: str) -> str:
    """The name of the one session that begins so, with ``-<number>`` behind it for a request.

    A whole name, and one that no session begins with, come back as they are: whoever looks for them says that
    there is none. UsageError where several begin so, AuditError where there is no log.
    """
    begin, dash, number = given.partition("-")
    if not begin or len(begin) >= WHOLE:
        return given
    names = _beginning(state, begin, ("session.start",)) or _beginning(state, begin, ())
    if len(names) > 1:
        many = f"more than {MOST_NAMED}" if len(names) > MOST_NAMED else str(len(names))
        few = ", ".join(ascii(name) for name in names[:MOST_NAMED])
        raise UsageError(f"{many} sessions begin with {ascii(begin)}", hint=f"Write more of it: {few}")
    return f"{names[0]}{dash}{number}" if names else given


def _beginning(state: Path, begin: str, kinds: tuple[str, ...]) -> list[str]:
    """Sessions, a few more than are named. Without ``kinds``, those whose beginning was pruned as well."""
    from anchorhold.audit.index.filters import Filter
    from anchorhold.audit.index.find import find

    names: dict[str, None] = {}
    for entry in find(state, Filter(session=begin, kinds=kinds), note=said):
        names[str(entry["session"])] = None
        if len(names) > MOST_NAMED:
            break
    return list(names)
