"""The ``anchorhold`` command itself: root options, and the table of commands.

A command's module is imported only when that command runs: `ask` is measured from process start to
first token. So the table holds each command's one-line help too; a test compares the two.
"""

from __future__ import annotations

import click

import anchorhold
from anchorhold.cli.lazy import LazyGroup
from anchorhold.cli.options import Unchecked

COMPLETE_VARIABLE = "_ANCHORHOLD_COMPLETE"

COMMANDS = {
    "ask": ("anchorhold.cli.ask", "Ask a sealed model one question about your files."),
    "chat": ("anchorhold.cli.chat", "Talk with a sealed model about your files."),
    "serve": ("anchorhold.cli.serve", "Keep models running, each in its cell."),
    "status": ("anchorhold.cli.status", "Show what runs, and what it has been shown."),
    "reload": ("anchorhold.cli.status", "Let the service read its policies again."),
    "kill": ("anchorhold.cli.kill", "Kill models at once, and keep them from starting again."),
    "rearm": (
        "anchorhold.cli.kill",
        "Let what a kill latched start again.",
    ),
    "audit": ("anchorhold.cli.audit", "Read and check the log of all that was handed out."),
    "policy": ("anchorhold.cli.policy", "Write, check and explain policies."),
    "service": ("anchorhold.cli.service", "Keep a policy's model running by systemd."),
}

EPILOG = """\
\b
Exit codes: 0 done, 1 failed, 2 wrong usage or policy, 3 breach, 4 killed
by the kill switch, 5 the log does not verify, 6 a required layer is
missing, 7 latched, 130 interrupted.

\b
Environment:
  ANCHORHOLD_STATE_DIR  where the log is (next: STATE_DIRECTORY, then
                        XDG_STATE_HOME/anchorhold, then
                        ~/.local/state/anchorhold)
  ANCHORHOLD_DEBUG=1    show the traceback of an unexpected error
  NO_COLOR              no colour on the terminal

\b
Completion, for bash (zsh and fish likewise):
  eval "$(_ANCHORHOLD_COMPLETE=bash_source anchorhold)"
"""


@click.group(
    cls=LazyGroup,
    table=COMMANDS,
    name="anchorhold",
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--state-dir",
    type=Unchecked(file_okay=False),
    metavar="DIR",
    help="Where the log and its key are kept.",
)
@click.version_option(anchorhold.__version__, prog_name="anchorhold")
def root(state_dir: str | None) -> None:
    """Run a local language model in a cell.

    It sees only the files that it is handed, and each of them is on record before it is handed.
    """
