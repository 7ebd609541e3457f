"""``anchorhold audit redact | prune``: what the log is to forget. Both ask first, and both are told in the
log."""

from __future__ import annotations

import os
import pwd
from typing import Any

import click

from anchorhold.cli import terminal
from anchorhold.cli.named import whole_name
from anchorhold.cli.output import Notes
from anchorhold.cli.selection import content_asked, moment, pattern, say
from anchorhold.cli.state import state_dir
from anchorhold.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

PATHS = ("path", "resolved", "model_path")
LEAST = 16
"""Digits of a digest that are enough to forget by: chance does not make so many the same."""


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
@click.option(
    "--file", metavar="FILE", help="Of entries that handed out this very file, by its content's digest."
)
@click.option("--digest", metavar="SHA256", help="Of entries that handed out this content, by its digest.")
@click.option(
    "--session", metavar="ID", help="Everything private of this session; the beginning of its name will do."
)
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
    file: str | None,
    digest: str | None,
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

    A pattern that ends in /** takes the entries of the folder itself too, so that its name goes with the
    rest. With --file and --digest the names that the content had are forgotten wherever they stand; with
    --digests, also where its names are gone already.
    """
    from anchorhold.audit import redact as forget

    if complete:
        count = forget.complete(state_dir(ctx))
        say(f"redactions in the log: {entries(count)}; all of them are done")
        return
    if not (path or file or digest or session or since or until):
        raise UsageError(
            "nothing was chosen", hint="Say --path, --file, --digest, --session, --since or --until."
        )
    if session:
        session = whole_name(state_dir(ctx), session)
    whole = pattern(path)
    fits = path_test(whole) if whole is not None else None
    content = content_asked(file, digest, least=LEAST)
    if content is not None and fits is None:
        repeated: Callable[[str], bool] | None = _any_name
    else:
        repeated = fits
    matches = _chosen(fits, content, session, moment_text(since), moment_text(until, end=True))
    groups = ("names", "text", *(("digests",) if digests else ()))
    found = forget.plan(state_dir(ctx), matches, groups, path=repeated)
    if not found:
        if forget.may_be_cut_short(state_dir(ctx)):
            forget.complete(state_dir(ctx))
        Notes().line("no entry matches, or all of them are redacted already")
        return
    what = "names and digests" if digests else "names"
    folder = folder_of(whole) if whole is not None else None
    also = f", those of the folder {terminal.quote(folder)} itself among them," if folder else ""
    if not _sure(f"Forget the {what} in {entries(len(found))}{also} for ever?", yes):
        Notes().line("nothing was done")
        return
    count = forget.redact(state_dir(ctx), matches, groups, reason=reason, by=_by(), path=repeated)
    say(f"redacted {entries(count)}")


def entries(number: int) -> str:
    return terminal.count(number, "entry", "entries")


def folder_of(pattern: str) -> str | None:
    """The folder (or pattern of folders) below which all is meant; None where the pattern says no such
    thing."""
    folder = pattern.removesuffix("/").removesuffix("/**")
    return folder if folder and folder != pattern.removesuffix("/") else None


def path_test(pattern: str) -> Callable[[str], bool]:
    """As `path_pattern`; but whoever forgets all below a folder, with ``/**``, means its own name too."""
    from anchorhold.audit.query import path_pattern

    fits, folder = path_pattern(pattern), folder_of(pattern)
    if folder is None:
        return fits
    itself = path_pattern(folder)
    return lambda path: fits(path) or itself(path.rstrip("/") or "/")


def _any_name(_path: str) -> bool:
    return True


def moment_text(text: str | None, *, end: bool = False) -> str | None:
    """A point in time in the log's own form."""
    from datetime import UTC

    when = moment(text, end=end)
    return None if when is None else when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _chosen(
    fits: Callable[[str], bool] | None,
    content: str | None,
    session: str | None,
    since: str | None,
    until: str | None,
) -> Callable[[dict[str, Any]], bool]:
    def matches(entry: dict[str, Any]) -> bool:
        if content is not None and not str(entry.get("sha256", "")).startswith(content):
            return False
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
        if old.is_cut_short(state_dir(ctx)):
            old.prune(state_dir(ctx), limit, reason=reason, by=_by())
        Notes().line("no epoch ended before that")
        return
    first, last = found[0].epoch.number, found[-1].epoch.number
    where = f"in epochs {first} to {last}" if last > first else f"in epoch {first}"
    question = f"Remove {entries(sum(one.entries for one in found))}, {where}, for ever?"
    if not _sure(question, yes):
        Notes().line("nothing was done")
        return
    gone = old.prune(state_dir(ctx), limit, reason=reason, by=_by())
    count = sum(one.entries for one in gone)
    say(f"removed {entries(count)} in {terminal.count(len(gone), 'epoch')}")
