"""``anchorhold audit index``: makes the index by which ``audit list`` is quick. It comes by itself, too."""

from __future__ import annotations

import os
import time

import click

from anchorhold.cli.selection import say
from anchorhold.cli.state import state_dir
from anchorhold.errors import AnchorholdError


@click.command()
@click.option("--rebuild", is_flag=True, help="Make it anew from the log, whatever there is.")
@click.pass_context
def index(ctx: click.Context, rebuild: bool) -> None:
    """Bring the index up to date, or make it anew.

    `audit list` does so by itself, where more than a few entries are new. The index proves nothing: verify
    does not know of it.
    """
    import sqlite3

    from anchorhold.audit.index import build
    from anchorhold.audit.index.schema import Unusable, path_of

    state = state_dir(ctx)
    path = path_of(state)
    started = time.perf_counter()
    try:
        size = build.rebuild(state) if rebuild else build.update(state)
        stored = os.stat(path).st_size
    except (OSError, sqlite3.Error, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise AnchorholdError(
            f"the index cannot be written: {ascii(path)[1:-1]}: {reason}",
            hint="Nothing needs it: without it, audit list reads the log itself, with the same answers.",
        ) from error
    except Unusable as error:
        raise AnchorholdError(f"the index cannot be made now: {error}", hint="Try again.") from None
    taken = time.perf_counter() - started
    say(f"{size} entries in the index, {stored / 1e6:.1f} MB, in {taken:.1f} s")
