"""``anchorhold audit diff``: what did one run read that another did not?"""

from __future__ import annotations

import json
import sys

import click

from anchorhold.cli import terminal
from anchorhold.cli.named import whole_name
from anchorhold.cli.rows import columns, fitted, said, shown
from anchorhold.cli.selection import say
from anchorhold.cli.state import state_dir
from anchorhold.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path

UNNAMED = "(name redacted)"
MARKS = {"new": "+", "no longer read": "-", "changed": "~"}


@click.command()
@click.argument("before", required=False, metavar="[SESSION|REQUEST")
@click.argument("after", required=False, metavar="SESSION|REQUEST]")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.pass_context
def diff(ctx: click.Context, before: str | None, after: str | None, as_json: bool) -> None:
    """What did one run read that another did not? Without names: the last run against the one before it.

    + a file only the second one read, - a file only the first one read, ~ a file whose content was another.
    After "=" (in a pipe: in a third column) is where the other run read the same content.
    """
    state = state_dir(ctx)
    if (before is None) != (after is None):
        raise UsageError("two runs are needed, or none", hint="anchorhold audit diff OLDER NEWER")
    if before is None or after is None:
        before, after = _last_two(state)
    old, new = _read_by(state, before), _read_by(state, after)
    rows = []
    for path in sorted(old.keys() | new.keys()):
        if path not in old:
            rows.append(("new", path, _places(old, new[path])))
        elif path not in new:
            rows.append(("no longer read", path, _places(new, old[path])))
        elif old[path] != new[path]:
            rows.append(("changed", path, []))
    for change, path, same in rows:
        if as_json:
            contents = {"before": sorted(old.get(path, ())), "after": sorted(new.get(path, ()))}
            say(json.dumps({"change": change, "path": path, **contents, "same": same}))
        elif not sys.stdout.isatty():
            say(columns(MARKS[change], shown(path), *map(shown, same[:1])))
        else:
            also = f" = {shown(same[0])}" if same else ""
            say(fitted(f"{MARKS[change]} {shown(path)}{also}"))
    if not rows:
        said("both read the same")


def _last_two(state: Path) -> tuple[str, str]:
    from anchorhold.audit.index.filters import Filter
    from anchorhold.audit.index.find import find

    names = [
        str(entry["session"]) for entry in find(state, Filter(kinds=("session.start",)), last=2, note=said)
    ]
    if len(names) < 2:
        raise UsageError("the log has not two runs")
    return names[0], names[1]


def _places(read: dict[str, set[str]], contents: set[str]) -> list[str]:
    """Where a run read the same content: a file that was moved or copied."""
    return sorted(path for path, its in read.items() if its & contents)


def _read_by(state: Path, which: str) -> dict[str, set[str]]:
    """The files that a session or request was shown, with the digests of their contents."""
    from anchorhold.audit.index.filters import Filter
    from anchorhold.audit.index.find import find

    which = whole_name(state, which)
    session, dash, _ = which.partition("-")
    found: dict[str, set[str]] = {}
    names = set()
    wanted = Filter(session=session, request=which if dash else None)
    for entry in find(state, wanted, note=said):
        names.add(str(entry["session"]))
        if entry["kind"] == "grant" and entry.get("class") in ("data", "stdin"):
            contents = found.setdefault(str(entry.get("resolved", UNNAMED)), set())
            if "sha256" in entry:
                contents.add(str(entry["sha256"]))
    if not session or len(names) != 1:
        from anchorhold.audit.gone import pruned_before

        what = "no run is" if not names else f"{len(names)} runs are"
        gone = pruned_before(state) if session and not names else ""
        raise UsageError(
            f"{what} called {terminal.clean(ascii(which))}" + (gone and f"; it may have been pruned: {gone}"),
            hint="Run: anchorhold audit list --kind session.start",
        )
    return found
