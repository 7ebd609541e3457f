"""``anchorhold audit tail``: the newest entries, and with ``-f`` those that come.

Constraint: an entry is met in a journal, and again when it has its place in the tree; it is shown once. While
nothing comes, nothing but the names and sizes of a few files is looked at.
"""

from __future__ import annotations

import time
from typing import Any

import click

from anchorhold.cli.rows import Rows
from anchorhold.cli.state import state_dir
from anchorhold.errors import Interrupted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path

    Entry = dict[str, Any]

POLL = 0.2
"""Seconds between two looks."""

REMEMBERED = 100_000
"""Entries of journals that are remembered as shown."""


@click.command()
@click.option(
    "-n", "count", type=click.IntRange(0), default=10, metavar="N", help="Begin with the last N entries."
)
@click.option("-f", "--follow", is_flag=True, help="Go on as entries come, until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.pass_context
def tail(ctx: click.Context, count: int, follow: bool, as_json: bool) -> None:
    """Show the newest entries, and with -f those that come, as they come."""
    from anchorhold.audit.query import entries, log_mark, log_size

    state = state_dir(ctx)
    shown = Shown(max(0, log_size(state) - count))
    with Rows("json" if as_json else "table") as rows:
        mark = log_mark(state) if follow else ()
        found = list(entries(state, first=shown.following))
        for entry in found:
            shown.add(entry)
        for entry in found[max(0, len(found) - count) :]:
            rows.write(entry)
        if follow:
            _follow(state, rows, shown, mark)


def _follow(state: Path, rows: Rows, shown: Shown, mark: tuple[object, ...]) -> None:
    from anchorhold.audit.query import entries, log_mark
    from anchorhold.cli.signals import stdout_is_closed

    try:
        while True:
            rows.flush(through=True)
            if stdout_is_closed():
                raise Interrupted("")
            time.sleep(POLL)
            now = log_mark(state)
            if now == mark:
                continue
            mark = now
            for entry in entries(state, first=shown.following):
                if shown.add(entry):
                    rows.write(entry)
    except KeyboardInterrupt:  # the way in which it is meant to end
        raise Interrupted("") from None


class Shown:
    """What was shown, as long as it can come again, and the number from which reading goes on."""

    def __init__(self, following: int) -> None:
        self.following = following
        self._keys: dict[tuple[str, object], None] = {}

    def add(self, entry: Entry) -> bool:
        """Whether the entry is a new one."""
        key = _key(entry)
        new = key not in self._keys
        self._keys[key] = None
        while len(self._keys) > REMEMBERED:
            del self._keys[next(iter(self._keys))]
        if not entry.get("unsettled"):
            self.following = max(self.following, int(entry.get("seq", 0)) + 1)
        return new


def _key(entry: Entry) -> tuple[str, object]:
    """What an entry is known by before it has its place: its session and number; else its times."""
    session = str(entry.get("session"))
    return (session, entry.get("n", 0)) if session else (str(entry.get("time")), entry.get("mono"))
