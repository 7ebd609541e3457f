"""``anchorhold audit``: what the log says, and whether it can be believed.

Constraint: everything in the log but its numbers is hostile text (a file's name can hold terminal escapes),
so tables show it as one quoted word each and JSON as ASCII.
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from typing import Any

import click

from anchorhold.cli import terminal
from anchorhold.cli.lazy import LazyGroup
from anchorhold.cli.rows import Rows, columns, said
from anchorhold.cli.rows import shown as word
from anchorhold.cli.selection import key_given, not_verified, say
from anchorhold.cli.state import state_dir
from anchorhold.errors import AuditError, UsageError, VerifyError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path

_SEQ = re.compile(r"[0-9]{1,15}", re.ASCII)
_BEGINNING = re.compile(r"[0-9a-f]{1,16}", re.ASCII)

COMMANDS = {
    "list": ("listing", "List what was granted, refused and done, oldest first."),
    "tail": ("tail", "Show the newest entries, and with -f those that come, as they come."),
    "top": ("top", "Show what was shown to a model most often: files, folders, sessions, models."),
    "diff": ("diff", "What did one run read that another did not?"),
    "index": ("index", "Bring the index up to date, or make it anew."),
    "export": ("export", "Write the log as JSON lines, CSV, OCSF or CEF, one line an entry, oldest first."),
    "report": (
        "report",
        "Write what the model was shown as one HTML page: for a client, a board, an auditor.",
    ),
    "key": ("proof", "Print the log's public key (a C2SP vkey)."),
    "checkpoint": ("proof", "Sign what is in the log, and print the signed head."),
    "cosign": (
        "proof",
        "Be a witness: check that somebody's log goes on from what you saw last, and sign its head.",
    ),
    "receipt": ("proof", "What an answer was made from, with the proof."),
    "verify-receipt": ("proof", "Check a receipt with the log's public key alone."),
    "redact": ("forget", "Forget names (and prompts, where they were kept), and keep the proof."),
    "prune": ("forget", "Remove the oldest entries, whole epochs at a time, and keep their signed heads."),
}
"""Each with its module below `anchorhold.cli`."""


@click.group(
    cls=LazyGroup,
    table={name: (f"anchorhold.cli.{where}", words) for name, (where, words) in COMMANDS.items()},
)
def audit() -> None:
    """Read and check the log of all that was handed out."""


@audit.command()
@click.argument("which", metavar="SEQ|SESSION")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line: the entry's own fields.")
@click.pass_context
def show(ctx: click.Context, which: str, as_json: bool) -> None:
    """Show one entry whole, or one session: a summary and its entries."""
    from anchorhold.audit.index.filters import Filter
    from anchorhold.audit.index.find import find
    from anchorhold.audit.query import entries

    if _SEQ.fullmatch(which):
        for entry in entries(state_dir(ctx), first=int(which)):
            if entry.get("seq") == int(which):
                say(json.dumps(entry) if as_json else _whole(entry))
                return
            break
    found = list(find(state_dir(ctx), Filter(session=which), note=said)) if which else []
    names = sorted({str(entry["session"]) for entry in found})
    if not names:
        raise _not_there(state_dir(ctx), which)
    if len(names) > 1:
        raise UsageError(
            f"{len(names)} sessions begin with {ascii(which)}",
            hint=f"Write more of it: {', '.join(map(ascii, names[:5]))}",
        )
    if not as_json:
        say(_summary(names[0], found))
    with Rows("json" if as_json else "table") as rows:
        for entry in found:
            rows.write(entry)


def _not_there(state: Path, which: str) -> AuditError:
    """Nothing has this number or name; or not any more."""
    from anchorhold.audit.gone import HINT, pruned_before, pruned_entry

    if _SEQ.fullmatch(which) and (words := pruned_entry(state, int(which))):
        return AuditError(words, hint=HINT)
    words = f"the log has no entry and no session {ascii(which)}"
    if _BEGINNING.fullmatch(which) and (gone := pruned_before(state)):
        return AuditError(f"{words}; such a session may have been pruned: {gone}", hint=HINT)
    return AuditError(words, hint="Run: anchorhold audit list")


def _whole(entry: dict[str, Any]) -> str:
    if not sys.stdout.isatty():
        return "\n".join(columns(terminal.clean(name), word(value)) for name, value in entry.items())
    width = max(len(name) for name in entry)
    return "\n".join(f"{terminal.clean(name):{width}}  {word(value)}" for name, value in entry.items())


def _summary(name: str, found: list[dict[str, Any]]) -> str:
    from anchorhold.audit.index.filters import is_refusal

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
    left_out = sum(entry["hidden"] for entry in found if entry.get("kind") == "list" and is_refusal(entry))
    first, last = (terminal.clean(str(found[at].get("time"))) for at in (0, -1))
    ended = "" if kinds["session.end"] else " (no end: still running, or crashed)"
    lines = [
        f"session   {terminal.clean(name)}",
        f"time      {first} to {last}{ended}",
        "entries   " + ", ".join(f"{count} {terminal.clean(kind)}" for kind, count in sorted(kinds.items())),
        f"shown     {terminal.count(len(shown), 'file')} of class data",
        f"refused   {terminal.count(refused, 'request')}",
    ]
    if left_out:  # by the rules: data.deny, a second name, a link that leads out
        lines.append(f"left out  {terminal.count(left_out, 'name')} of listings")
    lines += [f"  {terminal.clean(digest)[:12]}  {word(path)}" for path, digest in sorted(shown)]
    return "\n".join([*lines, ""])


@audit.command()
@click.option(
    "--key",
    "vkey",
    metavar="VKEY|FILE",
    help="The verifier key to trust, instead of the one beside the log.",
)
@click.option(
    "--witness",
    "witnesses",
    multiple=True,
    metavar="VKEY|FOLDER|FILE",
    help="A witness that must have cosigned, or a folder or file of checkpoints kept elsewhere. May be"
    " repeated.",
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
    from anchorhold.verify.result import LogUnreadable, WitnessUnusable

    try:
        result = check(
            str(state_dir(ctx)), vkey=key_given(vkey), witnesses=witnesses, names=not without_names
        )
    except WitnessUnusable as error:
        raise UsageError(str(error)) from None
    except LogUnreadable as error:
        raise not_verified(state_dir(ctx), error) from None
    say(json.dumps(result.as_dict()) if as_json else result.text())
    if not result.ok:
        raise VerifyError(
            f"the audit log does not verify: {result.first_bad}",
            hint="Keep a copy of the folder as it is. docs/audit-log.md tells what each finding means.",
        )
