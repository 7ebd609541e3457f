"""``anchorhold audit redact | prune``: what the log is to forget. Both ask first, and both are told in the
log."""

from __future__ import annotations

import os
import pwd
from typing import Any

import click

from anchorhold.cli.output import Notes
from anchorhold.cli.selection import moment, pattern, say
from anchorhold.cli.state import state_dir
from anchorhold.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

PATHS = ("path", "resolved", "model_path")


def _by() -> str:
    """Who does it, for the log: the account, as the system names it."""
    try:
        name = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        name = "?"
    return f"{name} (uid {os.getuid()})"


def _sure(question: str, yes: bool) -> bool:
    if yes:
        return True
    if not os.isatty(0):
        raise UsageError("nothing was done: there is nobody to ask", hint="Say --yes if you are sure.")
    return click.confirm(question, err=True)


@click.command()
@click.option(
    "--path", metavar="PATTERN", help="Names of paths like this: ~/taxes, '~/taxes/2019/**', '*.pdf'."
)
@click.option("--session", metavar="ID", help="Everything private of this session; its whole name.")
@click.option("--since", metavar="TIME", help="Of entries from this time on.")
@click.option("--until", metavar="TIME", help="Of entries before this time; a day is included whole.")
@click.option("--digests", is_flag=True, help="Digests of contents too: whoever has a file knows its digest.")
@click.option(
    "--reason", default="", metavar="TEXT", help="Why. It is kept in the log, for everybody to read."
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--complete", is_flag=True, help="Only finish redactions that were cut short.")
@click.pass_context
def redact(
    ctx: click.Context,
    path: str | None,
    session: str | None,
    since: str | None,
    until: str | None,
    digests: bool,
    reason: str,
    yes: bool,
    complete: bool,
) -> None:
    """Forget names (and prompts, where they were kept), and keep the proof.

    Entries stay, with their times, classes and sizes, and the log still verifies; the names are gone from
    every file of the state directory. How many, why and by whom is an entry itself. It cannot be undone.
    Receipts and exports that were given away are not reached.
    """
    from anchorhold.audit import redact as forget
    from anchorhold.audit.query import path_pattern

    if complete:
        count = forget.complete(state_dir(ctx))
        say(f"redactions in the log: {count} entries; all of them are done")
        return
    if not (path or session or since or until):
        raise UsageError("nothing was chosen", hint="Say --path, --session, --since or --until.")
    whole = pattern(path)
    fits = path_pattern(whole) if whole is not None else None
    matches = _chosen(fits, session, moment_text(since), moment_text(until, end=True))
    groups = ("names", "text", *(("digests",) if digests else ()))
    found = forget.plan(state_dir(ctx), matches, groups, path=fits)
    if not found:
        Notes().line("no entry matches, or all of them are redacted already")
        return
    what = "names and digests" if digests else "names"
    if not _sure(f"Forget the {what} in {len(found)} entries for ever?", yes):
        Notes().line("nothing was done")
        return
    count = forget.redact(state_dir(ctx), matches, groups, reason=reason, by=_by(), path=fits)
    say(f"redacted {count} entries")


def moment_text(text: str | None, *, end: bool = False) -> str | None:
    """A point in time in the log's own form."""
    from datetime import UTC

    when = moment(text, end=end)
    return None if when is None else when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _chosen(
    fits: Callable[[str], bool] | None, session: str | None, since: str | None, until: str | None
) -> Callable[[dict[str, Any]], bool]:
    def matches(entry: dict[str, Any]) -> bool:
        if session is not None and entry.get("session") != session:
            return False
        time = str(entry.get("time"))
        if (since is not None and time < since) or (until is not None and time >= until):
            return False
        if fits is None:
            return True
        files = entry.get("files")
        names = [entry.get(name) for name in PATHS] + (files if isinstance(files, list) else [])
        return any(isinstance(name, str) and fits(name) for name in names)

    return matches


@click.command()
@click.option("--before", metavar="TIME", required=True, help="Epochs that ended before: 2026-01-31, -365d.")
@click.option("--reason", default="", metavar="TEXT", help="Why. It is kept in the log.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_context
def prune(ctx: click.Context, before: str, reason: str, yes: bool) -> None:
    """Remove the oldest entries, whole epochs at a time, and keep their signed heads.

    The chain of keys from the root key on can still be checked. It cannot be undone; export first what is to
    be kept.
    """
    from anchorhold.audit import prune as old

    limit = moment_text(before)
    assert limit is not None
    found = old.old_epochs(state_dir(ctx), limit)
    if not found:
        Notes().line("no epoch ended before that")
        return
    entries = sum(one.entries for one in found)
    question = (
        f"Remove {entries} entries, in epochs {found[0].epoch.number} to {found[-1].epoch.number}, for ever?"
    )
    if not _sure(question, yes):
        Notes().line("nothing was done")
        return
    gone = old.prune(state_dir(ctx), limit, reason=reason, by=_by())
    say(f"removed {sum(one.entries for one in gone)} entries in {len(gone)} epochs")
