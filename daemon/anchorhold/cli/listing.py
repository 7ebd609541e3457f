"""``anchorhold audit list``: which data did the model see?

Constraint: from process start to the last line in a fifth of a second at a million entries. So nothing is
imported that this one answer does not need.
"""

from __future__ import annotations

from typing import Any

import click

from anchorhold.cli.named import request_asked, session_asked
from anchorhold.cli.rows import Rows, said
from anchorhold.cli.selection import content_asked, moment, pattern
from anchorhold.cli.state import state_dir
from anchorhold.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from anchorhold.audit.index.filters import Filter


@click.command("list")
@click.option("--session", metavar="ID", help="Only this session; the beginning of its name will do.")
@click.option("--request", metavar="ID", help="Only this request: a session's name and a number, as 7f3a-2.")
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
@click.option("--refused", is_flag=True, help="Only what was refused, and listings that left names out.")
@click.option("--since", metavar="TIME", help="From this time on: 2026-01-31, 2026-01-31T18:30, -30d, -2h.")
@click.option("--until", metavar="TIME", help="Before this time; a day is included whole.")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Only the first N of them.")
@click.option("--last", type=click.IntRange(1), metavar="N", help="Only the last N of them.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line: the entry's own fields.")
@click.option("--csv", "as_csv", is_flag=True, help="CSV with stable columns: docs/export.md.")
@click.option("--no-index", is_flag=True, help="Read the log itself, all of it.")
@click.pass_context
def list_(
    ctx: click.Context,
    /,
    as_json: bool,
    as_csv: bool,
    limit: int | None,
    last: int | None,
    no_index: bool,
    **chosen: Any,
) -> None:
    """List what was granted, refused and done, oldest first."""
    if as_json and as_csv:
        raise UsageError("--json and --csv exclude each other")
    if limit is not None and last is not None:
        raise UsageError("--limit and --last exclude each other")
    wanted = _filter(state_dir(ctx), **chosen)
    with Rows("json" if as_json else "csv" if as_csv else "table") as rows:
        if wanted is not None:
            for entry in _found(state_dir(ctx), wanted, limit, last, no_index):
                rows.write(entry)
    if rows.none:
        said("no entry matches")


def _found(
    state: Path, wanted: Filter, limit: int | None, last: int | None, no_index: bool
) -> Iterable[dict[str, Any]]:
    if not no_index:
        from anchorhold.audit.index.find import find

        return find(state, wanted, limit=limit, last=last, note=said)
    from collections import deque
    from itertools import islice

    from anchorhold.audit.index.filters import scan

    found = scan(state, wanted)
    return islice(found, limit) if last is None else deque(found, last)


def _filter(
    state: Path,
    *,
    cls: str | None,
    request: str | None,
    session: str | None,
    kinds: tuple[str, ...],
    file: str | None,
    digest: str | None,
    model: str | None,
    path: str | None,
    refused: bool,
    since: str | None,
    until: str | None,
) -> Filter | None:
    """What is asked for; None where nothing can match."""
    from anchorhold.audit.index.filters import Filter
    from anchorhold.audit.query import CLASSES, KINDS

    unknown = sorted(set(kinds) - set(KINDS))
    if cls is not None and cls not in CLASSES:
        raise UsageError(f"no class is called {ascii(cls)}", hint=f"Classes: {', '.join(CLASSES)}")
    if unknown:
        raise UsageError(f"no kind of entry is called {ascii(unknown[0])}", hint=f"Kinds: {', '.join(KINDS)}")
    content = content_asked(file, None) or content_asked(None, digest)
    if file is not None and not str(content).startswith(content_asked(None, digest) or ""):
        return None
    return Filter(
        kinds=frozenset(kinds),
        cls=cls,
        session=session_asked(session),
        request=request_asked(state, request),
        refused=refused,
        digest=content,
        model=pattern(model),
        path=pattern(path),
        since=moment(since),
        until=moment(until, end=True),
    )
