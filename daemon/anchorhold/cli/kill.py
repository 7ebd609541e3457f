"""``anchorhold kill`` and ``anchorhold rearm``: the kill switch for people who type commands.

The work is done by `anchorhold.switch.kill`, as in the program ``anchorhold-kill``, which starts faster.
"""

from __future__ import annotations

import os

import click

from anchorhold.cli.output import Notes
from anchorhold.cli.selection import say
from anchorhold.cli.state import state_dir
from anchorhold.errors import AnchorholdError, UsageError

EPILOG = """\
Works without the supervisor: also while it hangs, is stopped, or is dead, and while the disk is full. It says
"dead" only of what the kernel says is gone. A kill is in the log, with who did it and how long it took.

Without NAME it is about every model of yours, for root about everybody's, and everything is latched. What is
latched does not start, by no command, not after a reboot either, until `anchorhold rearm`.
"""


@click.command(epilog=EPILOG)
@click.option("--all", "every", is_flag=True, help="Every policy: what no NAME means too.")
@click.option("--no-latch", is_flag=True, help="Only kill: it may start again.")
@click.option("--freeze", is_flag=True, help="Stop all of it without killing, to look at it.")
@click.option("--thaw", is_flag=True, help="Let a frozen one go on.")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.pass_context
def kill(
    ctx: click.Context, every: bool, no_latch: bool, freeze: bool, thaw: bool, names: tuple[str, ...]
) -> None:
    """Kill models at once, and keep them from starting again."""
    from anchorhold.switch.kill import Plan, is_name, run

    if (freeze and thaw) or (every and names):
        raise UsageError("--freeze and --thaw exclude each other; so do --all and a NAME")
    for name in names:
        if not is_name(name):
            raise UsageError(f"{name!a} is no name of a policy")
    given = ctx.find_root().params.get("state_dir")
    plan = Plan(
        names,
        state_dir=None if given is None else str(given),
        default_state_dir=str(state_dir(ctx)),
        action="freeze" if freeze else "thaw" if thaw else "kill",
        latches=not no_latch,
    )
    notes = Notes()
    code = run(plan, lambda line, failed: notes.line(f"anchorhold: {line}") if failed else say(line))
    ctx.exit(code)


@click.command()
@click.argument("name", required=False, metavar="[NAME]")
@click.pass_context
def rearm(ctx: click.Context, name: str | None) -> None:
    """Let what a kill latched start again.

    Without NAME that is everything.
    """
    from anchorhold.switch import latch

    state = os.fspath(state_dir(ctx))
    try:
        taken = latch.rearm(state, name)
        held = latch.held(state)
    except OSError as error:
        raise AnchorholdError(f"the latch cannot be taken away: {error}") from None
    for one in taken:
        say("rearmed: everything" if one == latch.ALL else f"rearmed: {one}")
    if not taken:
        say("nothing was latched" if name is None else f"{name} was not latched")
    if latch.ALL in held:
        raise AnchorholdError(
            "everything is still latched", hint="`anchorhold rearm` without a name takes that away."
        )
