"""Where the state is: the log, its keys, the cache of digests.

Order: ``--state-dir``, ``$ANCHORHOLD_STATE_DIR``, systemd's ``$STATE_DIRECTORY`` (its first entry),
``$XDG_STATE_HOME/anchorhold``, ``~/.local/state/anchorhold``. The XDG specification says that a
relative ``$XDG_STATE_HOME`` is invalid and must be ignored.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from anchorhold.errors import UsageError

if TYPE_CHECKING:
    import click


def state_dir(ctx: click.Context) -> Path:
    """The state directory of this run. Nothing is created here."""
    option = ctx.find_root().params.get("state_dir")
    return resolve(str(option) if option else None, os.environ)


def resolve(option: str | None, environ: Mapping[str, str]) -> Path:
    """Pick the directory, as an absolute path. UsageError where nothing says where home is."""
    for given in (
        option,
        environ.get("ANCHORHOLD_STATE_DIR"),
        environ.get("STATE_DIRECTORY", "").split(":")[0],
    ):
        if given:
            return Path(given).absolute()
    base = environ.get("XDG_STATE_HOME", "")
    if os.path.isabs(base):
        return Path(base) / "anchorhold"
    home = environ.get("HOME", "")
    if not os.path.isabs(home):
        raise UsageError(
            "no place for the log is known: $HOME is not set",
            hint="name one with --state-dir DIR or $ANCHORHOLD_STATE_DIR",
        )
    return Path(home) / ".local" / "state" / "anchorhold"
