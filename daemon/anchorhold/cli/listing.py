"""``anchorhold audit list | tail | top | diff``: which data did the model see?

Constraint: rows for people on a terminal, the same lines without width in a pipe, JSON and CSV for programs.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections import Counter, deque
from typing import Any

import click

from anchorhold.cli import terminal
from anchorhold.cli.output import Notes
from anchorhold.cli.rows import HEADING, fitted, line, shown
from anchorhold.cli.selection import moment, pattern, say
from anchorhold.cli.state import state_dir
from anchorhold.errors import AnchorholdError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    Entry = dict[str, Any]

REFUSED = ("denial", "breach")
POLL = 0.2
"""Seconds between two looks of ``tail -f``."""


@click.command("list")
@click.option("--session", metavar="ID", help="Only this session; the beginning of its name will do.")
@click.option("--request", metavar="ID", help="Only this request: a session's name and a number, as 7f3a…-2.")
@click.option(
    "--kind", "kinds", multiple=True, metavar="KIND", help="Only this kind, as grant. May be repeated."
)
@click.option("--class", "cls", metavar="CLASS", help="Only this class: data, model, runtime, system, stdin.")
@click.option("--path", metavar="PATTERN", help="Only paths like this: ~/taxes, '~/taxes/**', '*.pdf'.")
@click.option("--file", metavar="FILE", help="Has a model ever seen this very file? By its content's digest.")
@click.option("--digest", metavar="SHA256", help="Only this content; the beginning of the digest will do.")
@click.option(
    "--model", metavar="MODEL", help="Only sessions with this model: a digest's beginning, or a path."
)
@click.option("--refused", is_flag=True, help="Only what was refused.")
@click.option("--since", metavar="TIME", help="From this time on: 2026-01-31, 2026-01-31T18:30, -30d, -2h.")
@click.option("--until", metavar="TIME", help="Before this time; a day is included whole.")
@click.option("--last", type=click.IntRange(1), metavar="N", help="Only the last N of them.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line: the entry's own fields.")
@click.option("--csv", "as_csv", is_flag=True, help="CSV with stable columns: docs/export.md.")
@click.pass_context
def list_(ctx: click.Context, /, as_json: bool, as_csv: bool, last: int | None, **chosen: Any) -> None:
    """List what was granted, refused and done, oldest first."""
    if as_json and as_csv:
        raise UsageError("--json and --csv exclude each other")
    found: Iterable[Entry] = _found(state_dir(ctx), **chosen)
    if last is not None:
        found = deque(found, last)
    none = True
    write = _writer(as_json, as_csv)
    for entry in found:
        write(entry, none)
        none = False
    if none:
        Notes().line("no entry matches")


def _writer(as_json: bool, as_csv: bool) -> Callable[[Entry, bool], None]:
    """What writes an entry; told whether it is the first one."""
    if as_json:
        return lambda entry, first: say(json.dumps(entry))
    if as_csv:
        from anchorhold.audit.export.table import HEADING as CSV_HEADING
        from anchorhold.audit.export.table import line as row

        def csv(entry: Entry, first: bool) -> None:
            if first:
                say(CSV_HEADING.decode().rstrip("\r\n"))
            say(row(entry).decode().rstrip("\r\n"))

        return csv

    def table(entry: Entry, first: bool) -> None:
        if first:
            say(fitted(HEADING))
        say(fitted(line(entry)))

    return table


def _found(
    state: Path,
    *,
    session: str | None,
    request: str | None,
    kinds: tuple[str, ...],
    cls: str | None,
    path: str | None,
    file: str | None,
    digest: str | None,
    model: str | None,
    refused: bool,
    since: str | None,
    until: str | None,
) -> Iterator[Entry]:
    from anchorhold.audit.query import KINDS, entries

    unknown = sorted(set(kinds) - set(KINDS))
    if unknown:
        raise UsageError(f"no kind of entry is called {ascii(unknown[0])}", hint=f"Kinds: {', '.join(KINDS)}")
    tests: list[Callable[[Entry], bool]] = []
    if refused:
        kinds = tuple(set(kinds) & set(REFUSED)) if kinds else REFUSED
    if request is not None:
        tests.append(lambda entry: str(entry.get("request", "")) == request)
        session = session or request.partition("-")[0]
    if cls is not None:
        tests.append(lambda entry: entry.get("class") == cls)
    if file is not None:
        content = _digest_of(file)
        tests.append(lambda entry: entry.get("sha256") == content)
    if digest is not None:
        if not re.fullmatch(r"[0-9a-f]{4,64}", digest, re.ASCII):
            raise UsageError(f"{ascii(digest)} is no digest", hint="Write 4 to 64 hexadecimal digits.")
        tests.append(lambda entry: str(entry.get("sha256", "")).startswith(digest))
    if model is not None:
        names = _sessions_of(state, model)
        tests.append(lambda entry: entry.get("session") in names)
    found = entries(
        state,
        session=session,
        kinds=kinds,
        path=pattern(path),
        since=moment(since),
        until=moment(until, end=True),
    )
    return (entry for entry in found if all(test(entry) for test in tests))


def _digest_of(name: str) -> str:
    try:
        with open(name, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise AnchorholdError(f"{ascii(name)} cannot be read: {error.strerror}") from error


def _sessions_of(state: Path, model: str) -> set[str]:
    """The sessions that ran a model: by the beginning of its digest, or by its path."""
    from anchorhold.audit.query import entries, path_pattern

    digest = re.fullmatch(r"[0-9a-f]{4,64}", model, re.ASCII)
    fits = path_pattern(pattern(model) or model)
    names = set()
    for entry in entries(state, kinds=("session.start",)):
        told = entry.get("model")
        content = str(told.get("sha256", "")) if isinstance(told, dict) else ""
        if (digest and content.startswith(model)) or fits(str(entry.get("model_path", ""))):
            names.add(str(entry["session"]))
    return names


@click.command()
@click.option(
    "-n", "count", type=click.IntRange(0), default=10, metavar="N", help="Begin with the last N entries."
)
@click.option("-f", "--follow", is_flag=True, help="Go on as entries come, until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.pass_context
def tail(ctx: click.Context, count: int, follow: bool, as_json: bool) -> None:
    """Show the newest entries, and with -f those that come, as they come."""
    from anchorhold.audit.query import entries, log_size

    state = state_dir(ctx)
    first = max(0, log_size(state) - count)
    write = _writer(as_json, False)
    seen: dict[tuple[str, int], None] = {}
    fresh, following = True, first
    found = list(entries(state, first=first))
    for entry in found:
        following = _remember(seen, entry, following)
    for entry in found[max(0, len(found) - count) :]:
        write(entry, fresh)
        fresh = False
    while follow:
        time.sleep(POLL)
        for entry in entries(state, first=following):
            if _key(entry) not in seen:
                write(entry, fresh)
                fresh = False
            following = _remember(seen, entry, following)


def _key(entry: Entry) -> tuple[str, int]:
    """What an entry is known by before it has its place: its session and number; else its time."""
    session = str(entry.get("session"))
    return (session, int(entry.get("n", 0))) if session else (str(entry.get("time")), 0)


def _remember(seen: dict[tuple[str, int], None], entry: Entry, following: int) -> int:
    """What was shown, as long as it can come again; where reading goes on."""
    seen[_key(entry)] = None
    while len(seen) > 100_000:
        del seen[next(iter(seen))]
    return following if entry.get("unsettled") else max(following, int(entry.get("seq", 0)) + 1)


@click.command()
@click.option(
    "--by", type=click.Choice(("file", "folder", "session", "model")), default="file", help="What is counted."
)
@click.option("-n", "count", type=click.IntRange(1), default=20, metavar="N", help="How many rows.")
@click.option("--since", metavar="TIME", help="From this time on.")
@click.option("--until", metavar="TIME", help="Before this time; a day is included whole.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.pass_context
def top(ctx: click.Context, by: str, count: int, since: str | None, until: str | None, as_json: bool) -> None:
    """Show what was shown to a model most often: files, folders, sessions, models."""
    from anchorhold.audit.query import entries

    times: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    models: dict[str, str] = {}
    kinds = ("grant", "session.start")
    for entry in entries(state_dir(ctx), kinds=kinds, since=moment(since), until=moment(until, end=True)):
        session = str(entry["session"])
        if entry["kind"] == "session.start":
            told = entry.get("model")
            models[session] = str(
                entry.get("model_path") or (told.get("sha256") if isinstance(told, dict) else "?")
            )
        elif entry.get("class") in ("data", "stdin"):
            path = str(entry.get("resolved", "(name redacted)"))
            folder = path.rpartition("/")[0] or "/"
            name = {"file": path, "folder": folder, "session": session, "model": models.get(session, "?")}[by]
            times[name] += 1
            sizes[name] += entry["size"] if isinstance(entry.get("size"), int) else 0
    if not as_json and times:
        say(fitted(f"{'TIMES':>8}  {'BYTES':>14}  {by.upper()}"))
    for name, number in times.most_common(count):
        if as_json:
            say(json.dumps({by: name, "times": number, "bytes": sizes[name]}))
        else:
            say(fitted(f"{number:>8}  {sizes[name]:>14}  {shown(name)}"))
    if not times:
        Notes().line("no file was shown")


@click.command()
@click.argument("before", required=False, metavar="[SESSION|REQUEST")
@click.argument("after", required=False, metavar="SESSION|REQUEST]")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.pass_context
def diff(ctx: click.Context, before: str | None, after: str | None, as_json: bool) -> None:
    """What did one run read that another did not? Without names: the last run against the one before it.

    + a file only the second one read, - a file only the first one read, ~ a file whose content was another.
    """
    from anchorhold.audit.query import entries

    state = state_dir(ctx)
    if (before is None) != (after is None):
        raise UsageError("two runs are needed, or none", hint="anchorhold audit diff OLDER NEWER")
    if before is None or after is None:
        names = deque((str(entry["session"]) for entry in entries(state, kinds=("session.start",))), 2)
        if len(names) < 2:
            raise UsageError("the log has not two runs")
        before, after = names
    old, new = _read_by(state, before), _read_by(state, after)
    rows = []
    for path in sorted(old.keys() | new.keys()):
        if path not in old:
            rows.append(("+", "new", path))
        elif path not in new:
            rows.append(("-", "no longer read", path))
        elif old[path] != new[path]:
            rows.append(("~", "changed", path))
    for mark, change, path in rows:
        if as_json:
            row = {
                "change": change,
                "path": path,
                "before": sorted(old.get(path, ())),
                "after": sorted(new.get(path, ())),
            }
            say(json.dumps(row))
        else:
            say(fitted(f"{mark} {shown(path)}"))
    if not rows:
        Notes().line("both read the same")


def _read_by(state: Path, which: str) -> dict[str, set[str]]:
    """The files that a session or request was shown, with the digests of their contents."""
    from anchorhold.audit.query import entries

    session, dash, _ = which.partition("-")
    found: dict[str, set[str]] = {}
    names = set()
    for entry in entries(state, session=session):
        if dash and entry.get("request") != which:
            continue
        names.add(str(entry["session"]))
        if entry["kind"] == "grant" and entry.get("class") in ("data", "stdin"):
            found.setdefault(str(entry.get("resolved", "(name redacted)")), set()).add(
                str(entry.get("sha256"))
            )
    if not session or len(names) != 1:
        what = "no run is" if not names else f"{len(names)} runs are"
        raise UsageError(
            f"{what} called {terminal.clean(ascii(which))}",
            hint="Run: anchorhold audit list --kind session.start",
        )
    return found
