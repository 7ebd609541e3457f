"""``anchorhold audit top``: what was shown to a model most often?"""

from __future__ import annotations

import json
import sys

import click

from anchorhold.cli.rows import columns, dim, fitted, is_coloured, said, shown
from anchorhold.cli.selection import moment, say
from anchorhold.cli.state import state_dir


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
    from anchorhold.audit.index.totals import totals

    found = totals(state_dir(ctx), by, since=moment(since), until=moment(until, end=True), note=said)
    rows = sorted(found.items(), key=lambda one: (-one[1][0], -one[1][1], one[0]))[:count]
    watched = sys.stdout.isatty()
    if not as_json and rows and watched:
        say(dim(fitted(f"{'TIMES':>8}  {'BYTES':>14}  {by.upper()}"), is_coloured()))
    for name, (times, size) in rows:
        if as_json:
            say(json.dumps({by: name, "times": times, "bytes": size}))
        elif not watched:
            say(columns(times, size, shown(name)))
        else:
            say(fitted(f"{times:>8}  {size:>14}  {shown(name)}"))
    if not rows:
        said("no file was shown")
