"""``anchorhold audit``: what the log says, and whether it can be believed.

Constraint: everything in the log but its numbers is hostile text (a file's name can hold terminal escapes),
so tables show it as one quoted word each and JSON as ASCII.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections import Counter
from typing import Any

import click

from anchorhold.cli import terminal
from anchorhold.cli.export import export
from anchorhold.cli.forget import prune, redact
from anchorhold.cli.output import Notes
from anchorhold.cli.proof import checkpoint, key, receipt, verify_receipt
from anchorhold.cli.report import report
from anchorhold.cli.selection import moment, pattern, say
from anchorhold.cli.state import state_dir
from anchorhold.errors import AuditError, UsageError, VerifyError

SHORT = 8
"""Characters of a session's name in a table; enough to name it with."""


@click.group()
def audit() -> None:
    """Read and check the log of all that was handed out."""


def _shown(value: object) -> str:
    """One word, safe on a terminal."""
    if isinstance(value, str):
        return terminal.quote(value)
    return json.dumps(value)


def _line(entry: dict[str, Any]) -> str:
    """An entry as one line of the table."""
    stamp = str(entry.get("time", ""))[:19].replace("T", " ")
    session = str(entry.get("session", ""))[:SHORT] or "-"
    head = f"{entry.get('seq', '?'):>8}  {terminal.clean(stamp):19}  {terminal.clean(session):{SHORT}}"
    return f"{head}  {terminal.clean(str(entry.get('kind', ''))):14}  {_what(entry)}".rstrip()


HEADING = f"{'SEQ':>8}  {'TIME (UTC)':19}  {'SESSION':{SHORT}}  {'KIND':14}  WHAT"


def _what(entry: dict[str, Any]) -> str:
    fields = {name: entry[name] for name in entry if name not in _COMMON}
    words = []
    for name in ("class", "call"):
        if name in fields:
            words.append(terminal.clean(str(fields.pop(name))))
    if "path" in fields:
        path, resolved = fields.pop("path"), fields.pop("resolved", None)
        words.append(_shown(path))
        if resolved not in (None, path):
            words.append(f"-> {_shown(resolved)}")
    if isinstance(fields.get("sha256"), str):
        fields["sha256"] = fields["sha256"][:12]
    words += [f"{terminal.clean(name)}={_brief(value)}" for name, value in fields.items()]
    return " ".join(words)


_COMMON = frozenset({"v", "seq", "time", "mono", "session", "n", "kind", "epoch", "unsettled"})


def _brief(value: object) -> str:
    text = _shown(value)
    return text if len(text) <= 200 else f"{text[:200]}..."


@audit.command("list")
@click.option("--session", metavar="ID", help="Only this session; the beginning of its name will do.")
@click.option(
    "--kind",
    "kinds",
    multiple=True,
    metavar="KIND",
    help="Only this kind, as grant or denial. May be repeated.",
)
@click.option("--path", metavar="PATTERN", help="Only paths like this: ~/taxes, '~/taxes/**', '*.pdf'.")
@click.option("--since", metavar="TIME", help="From this time on: 2026-01-31, 2026-01-31T18:30, -30d, -2h.")
@click.option("--until", metavar="TIME", help="Before this time; a day is included whole.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line: the entry's own fields.")
@click.pass_context
def list_(
    ctx: click.Context,
    session: str | None,
    kinds: tuple[str, ...],
    path: str | None,
    since: str | None,
    until: str | None,
    as_json: bool,
) -> None:
    """List what was granted, refused and done, oldest first."""
    from anchorhold.audit.query import KINDS, entries

    unknown = sorted(set(kinds) - set(KINDS))
    if unknown:
        raise UsageError(f"no kind of entry is called {ascii(unknown[0])}", hint=f"Kinds: {', '.join(KINDS)}")
    found = entries(
        state_dir(ctx),
        session=session,
        kinds=kinds,
        path=pattern(path),
        since=moment(since),
        until=moment(until, end=True),
    )
    none = True
    for entry in found:
        if none and not as_json:
            say(HEADING)
        none = False
        say(json.dumps(entry) if as_json else _fitted(_line(entry)))
    if none:
        Notes().line("no entry matches")


@audit.command()
@click.argument("which", metavar="SEQ|SESSION")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line: the entry's own fields.")
@click.pass_context
def show(ctx: click.Context, which: str, as_json: bool) -> None:
    """Show one entry whole, or one session: a summary and its entries."""
    from anchorhold.audit.query import entries

    if which.isascii() and which.isdigit() and len(which) < 16:
        for entry in entries(state_dir(ctx), first=int(which)):
            if entry.get("seq") == int(which):
                say(json.dumps(entry) if as_json else _whole(entry))
                return
            break
    found = list(entries(state_dir(ctx), session=which)) if which else []
    names = sorted({str(entry["session"]) for entry in found})
    if not names:
        raise AuditError(
            f"the log has no entry and no session {ascii(which)}", hint="Run: anchorhold audit list"
        )
    if len(names) > 1:
        raise UsageError(
            f"{len(names)} sessions begin with {ascii(which)}",
            hint=f"Write more of it: {', '.join(map(ascii, names[:5]))}",
        )
    if not as_json:
        say(_summary(names[0], found))
        say(HEADING)
    for entry in found:
        say(json.dumps(entry) if as_json else _fitted(_line(entry)))


def _whole(entry: dict[str, Any]) -> str:
    width = max(len(name) for name in entry)
    return "\n".join(f"{terminal.clean(name):{width}}  {_shown(value)}" for name, value in entry.items())


def _summary(name: str, found: list[dict[str, Any]]) -> str:
    kinds = Counter(str(entry.get("kind")) for entry in found)
    shown = {
        (str(entry.get("resolved")), str(entry.get("sha256")))
        for entry in found
        if entry.get("kind") == "grant" and entry.get("class") == "data"
    }
    refused = sum(
        count if isinstance(count := entry.get("count", 1), int) else 1
        for entry in found
        if entry.get("kind") == "denial"
    )
    first, last = (terminal.clean(str(found[at].get("time"))) for at in (0, -1))
    ended = "" if kinds["session.end"] else " (no end: still running, or crashed)"
    lines = [
        f"session   {terminal.clean(name)}",
        f"time      {first} to {last}{ended}",
        "entries   " + ", ".join(f"{count} {terminal.clean(kind)}" for kind, count in sorted(kinds.items())),
        f"shown     {len(shown)} files of class data",
        f"refused   {refused} requests",
    ]
    lines += [f"  {terminal.clean(digest)[:12]}  {_shown(path)}" for path, digest in sorted(shown)]
    return "\n".join([*lines, ""])


@audit.command()
@click.option(
    "--key", "vkey", metavar="VKEY", help="The verifier key to trust, instead of the one beside the log."
)
@click.option(
    "--witness",
    "witnesses",
    multiple=True,
    metavar="VKEY|FOLDER",
    help="A witness that must have cosigned, or a folder of checkpoints kept elsewhere. May be repeated.",
)
@click.option(
    "--without-names", is_flag=True, help="This copy of the log was made without names and digests."
)
@click.option("--json", "as_json", is_flag=True, help="The whole result as one JSON object.")
@click.pass_context
def verify(
    ctx: click.Context, vkey: str | None, witnesses: tuple[str, ...], without_names: bool, as_json: bool
) -> None:
    """Check every entry, hash and signature. Exit code 5 if anything is wrong."""
    from anchorhold.verify.check import verify as check
    from anchorhold.verify.result import LogUnreadable

    try:
        result = check(str(state_dir(ctx)), vkey=vkey, witnesses=witnesses, names=not without_names)
    except LogUnreadable as error:
        raise AuditError(str(error), hint="Name the state directory with --state-dir.") from None
    say(json.dumps(result.as_dict()) if as_json else result.text())
    if not result.ok:
        raise VerifyError(
            f"the audit log does not verify: {result.first_bad}",
            hint="Keep a copy of the folder as it is. docs/audit-log.md tells what each finding means.",
        )


def _fitted(line: str) -> str:
    """A line of a table as wide as the terminal that it goes to; whole where it goes elsewhere."""
    if not sys.stdout.isatty():
        return line
    columns = shutil.get_terminal_size().columns
    return line if len(line) <= columns else line[: columns - 1] + "…"


for command in (export, key, checkpoint, receipt, verify_receipt, redact, prune, report):
    audit.add_command(command)
