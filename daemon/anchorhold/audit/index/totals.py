"""How often, and with how many bytes, files were shown: by file, folder, session or model.

Constraint: as for `find`, the same answer with the index as without.
"""

from __future__ import annotations

from collections import defaultdict

from anchorhold.audit.index.filters import Filter, model_of
from anchorhold.audit.index.find import find

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime
    from pathlib import Path

SHOWN = ("data", "stdin")
UNNAMED = "(name redacted)"


def totals(
    state_dir: Path,
    by: str,
    *,
    since: str | datetime | None = None,
    until: str | datetime | None = None,
    note: Callable[[str], None],
) -> dict[str, tuple[int, int]]:
    """``by`` is file, folder, session or model; how often and how many bytes for each of its names."""
    times: dict[str, int] = defaultdict(int)
    sizes: dict[str, int] = defaultdict(int)
    models = _models(state_dir, note) if by == "model" else {}
    for entry in find(state_dir, Filter(kinds=("grant",), since=since, until=until), note=note):
        if entry.get("class") not in SHOWN:
            continue
        session = str(entry.get("session", ""))
        name = str(entry.get("resolved", UNNAMED))
        if by == "folder":
            name = name.rpartition("/")[0] or "/"
        elif by != "file":
            name = session if by == "session" else models.get(session, "?")
        size = entry.get("size")
        times[name] += 1
        sizes[name] += size if isinstance(size, int) else 0
    return {name: (number, sizes[name]) for name, number in times.items()}


def _models(state_dir: Path, note: Callable[[str], None]) -> dict[str, str]:
    """The model of each session: its path, or its digest where the path is erased."""
    found = {}
    for entry in find(state_dir, Filter(kinds=("session.start",)), note=note):
        digest, path = model_of(entry)
        found[str(entry.get("session", ""))] = path or digest or "?"
    return found
