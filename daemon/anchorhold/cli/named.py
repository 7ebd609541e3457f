"""Which session or request a person means by the beginning of its name."""

from __future__ import annotations

import re

from anchorhold.cli.rows import said
from anchorhold.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path

WHOLE = 16
"""Characters of a session's name."""

_SESSION = re.compile(r"[0-9a-f]{1,16}", re.ASCII)
_REQUEST = re.compile(r"[0-9a-f]{1,16}-[1-9][0-9]{0,15}", re.ASCII)

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


def session_asked(given: str | None) -> str | None:
    """The beginning of a session's name that is asked for. UsageError where no session can begin so: the
    answer that nothing matches would look like one about the log."""
    if given is not None and not _SESSION.fullmatch(given):
        raise UsageError(
            f"{ascii(given)} is no session",
            hint="Write up to 16 hexadecimal digits in small letters, as "
            "anchorhold audit list --kind session.start shows them.",
        )
    return given


def request_asked(state: Path, given: str | None) -> str | None:
    """The whole name of the request that is asked for, of which the session's can be a beginning. UsageError
    where no request can be called so, or several sessions begin so; AuditError where there is no log."""
    if given is None:
        return None
    if not _REQUEST.fullmatch(given):
        raise UsageError(
            f"{ascii(given)} is no request",
            hint="Write a session's name and a number, as 7f3a-2: "
            "anchorhold audit list --kind request.end shows them.",
        )
    return whole_name(state, given)


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
