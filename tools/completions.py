"""Writes the completion of each shell, as click makes it, under the name that the shell looks for.

    completions.py FOLDER

They ask the program itself at every tab, so that they never disagree with it.
"""

from __future__ import annotations

import sys
from pathlib import Path

from click.shell_completion import BashComplete, FishComplete, ShellComplete, ZshComplete

from anchorhold.cli.root import COMPLETE_VARIABLE, root


class Bash(ShellComplete):
    """click's own looks at the bash of the machine that builds; another runs it."""

    name = "bash"
    source_template = BashComplete.source_template


FILES: dict[str, type[ShellComplete]] = {
    "anchorhold": Bash,
    "_anchorhold": ZshComplete,
    "anchorhold.fish": FishComplete,
}


def texts() -> dict[str, str]:
    """File name → text."""
    return {
        name: kind(root, {}, "anchorhold", COMPLETE_VARIABLE).source() + "\n" for name, kind in FILES.items()
    }


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts().items():
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
