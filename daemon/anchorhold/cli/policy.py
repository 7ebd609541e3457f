"""``anchorhold policy``: check, show, explain and write policies.

Constraint: file names and whatever stands in a policy file are hostile text; all of it is shown cleaned.
"""

from __future__ import annotations

import contextlib
import json
import os
from typing import TYPE_CHECKING, Any

import click

from anchorhold.cli import terminal
from anchorhold.cli.state import state_dir
from anchorhold.errors import PolicyError, UsageError

if TYPE_CHECKING:
    from anchorhold.policy.explain import Explanation
    from anchorhold.policy.load import Problem
    from anchorhold.policy.schema import Policy

WORDS = {
    "snapshot": "gets a snapshot",
    "direct": "gets the file",
    "listing": "gets a listing",
    "nothing": "is told that nothing is there",
    "refusal": "is refused",
}


@click.group()
def policy() -> None:
    """Write, check and explain policies."""


@policy.command()
@click.argument("policies", nargs=-1, required=True, metavar="POLICY...")
@click.option(
    "--user", metavar="NAME", help="Also whether this user, a service's, can get at all that is named."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, one for each policy.")
@click.pass_context
def check(ctx: click.Context, policies: tuple[str, ...], user: str | None, as_json: bool) -> None:
    """Check policies, by path or name: one line for each that is right, all errors of the others.

    Exit code 2 if one is wrong.
    """
    from anchorhold.policy import load, reach

    state = state_dir(ctx)
    who = None if user is None else reach.Someone.named(user)
    wrong = 0
    for one in policies:
        found, problems = load.check(one, state)
        if found is not None and who is not None:
            problems = [_out_of_reach(found, who.name, *stop) for stop in reach.hindrances(found, who)]
            found = None if problems else found
        wrong += found is None
        if as_json:
            _print_json(
                {
                    "policy": one,
                    "ok": found is not None,
                    "name": found and found.name,
                    "source": found and found.source,
                    "digest": found and found.digest,
                    "errors": [problem.as_dict() for problem in problems],
                }
            )
        elif found is not None:
            click.echo(f"{terminal.quote(one)}: ok")
        for problem in () if as_json else problems:
            click.echo(terminal.clean(str(problem)), err=True)
    if wrong:
        raise PolicyError(f"{terminal.count(wrong, 'policy is', 'policies are')} wrong")


def _out_of_reach(found: Policy, user: str, path: str, where: str, right: str) -> Problem:
    from anchorhold.policy.load import Problem

    what = terminal.quote(where)
    text = f"{terminal.quote(path)}: user {user} may not {right} {what}"
    rights = {"enter": "x", "read": "rX"}.get(right)
    way = f"setfacl -m u:{user}:{rights} {what}" if rights else f"look as root: you may not look at {what}"
    return Problem(found.source or "", None, "", text, way)


@policy.command()
@click.argument("which", required=False, metavar="[POLICY]")
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
@click.pass_context
def show(ctx: click.Context, which: str | None, as_json: bool) -> None:
    """Show what a policy says, defaults included and marked. Without POLICY: what holds without one."""
    found = _policy(ctx, which)
    if as_json:
        keys = {"name"} | {
            f"{one}.{key}" for one, part in found.as_dict().items() if isinstance(part, dict) for key in part
        }
        _print_json(
            {
                "source": found.source,
                "digest": found.digest,
                "defaults": sorted(keys - found.given),
                "policy": found.as_dict(),
            }
        )
        return
    from anchorhold.policy.render import effective

    click.echo(f"# {terminal.clean(found.source or 'no policy file: the defaults')}")
    click.echo(f"# digest {found.digest}")
    click.echo(effective(found), nl=False)


@policy.command()
@click.option("--policy", "which", metavar="POLICY", help="A policy, by path or name.")
@click.option("--data", multiple=True, metavar="DIR", help="As with ask. Repeatable.")
@click.option("--file", "files", multiple=True, metavar="FILE", help="As with ask. Repeatable.")
@click.option("--model", metavar="FILE", help="As with ask.")
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
@click.argument("path")
@click.pass_context
def explain(
    ctx: click.Context,
    which: str | None,
    data: tuple[str, ...],
    files: tuple[str, ...],
    model: str | None,
    as_json: bool,
    path: str,
) -> None:
    """Say which rule decides on PATH, and what a worker would get that asks for it.

    Looks at the file system as it is now, the way the supervisor would. Nothing is granted.
    """
    from anchorhold.policy.explain import explain as look

    if not path:
        raise UsageError("PATH is empty")
    if which is None and not data and not files:
        raise UsageError(
            "nothing says what is allowed", hint="Give --policy POLICY, --data DIR or --file FILE."
        )
    found = _policy(ctx, which, data=data, files=files, model=model)
    answer = look(found, os.fsencode(os.path.abspath(os.path.expanduser(path))))
    if as_json:
        _print_json(answer.as_dict())
        return
    for line in _lines(answer):
        click.echo(terminal.clean(line))


def _lines(answer: Explanation) -> list[str]:
    out = [f"path      {terminal.quote(os.fsdecode(answer.path))}", f"rule      {answer.rule}"]
    out += [f"link      {step}" for step in answer.steps]
    if answer.resolved is not None and answer.resolved != answer.path:
        out.append(f"resolved  {terminal.quote(os.fsdecode(answer.resolved))}")
    out.append(f"worker    {WORDS[answer.outcome]}: {answer.reason}")
    if answer.outcome == "refusal":
        words = "no: an error is all it gets"
        if answer.breach and answer.answer == "kill":
            words = 'yes: the worker is killed (breach.on_denied_open = "kill")'
        elif answer.breach:
            words = 'yes, answered with an error (breach.on_denied_open = "deny")'
        out.append(f"breach    {words}")
    if answer.hint:
        out.append(f"note      {answer.hint}")
    return out


@policy.command()
@click.argument("folders", nargs=-1, metavar="[DIR]...")
@click.option("--name", metavar="NAME", help="Name of the policy.  [default: that of the first DIR]")
@click.option("--model", default="demo", metavar="FILE", help="Model file, or demo.", show_default=True)
@click.option(
    "--output", metavar="FILE", help="Where to; - is standard output.  [default: your own policies]"
)
@click.pass_context
def init(
    ctx: click.Context, folders: tuple[str, ...], name: str | None, model: str, output: str | None
) -> None:
    """Write a policy for these folders, each key explained. Nothing is ever overwritten.

    It goes to your own policies ($XDG_CONFIG_HOME/anchorhold/NAME.toml), where --policy NAME finds it.
    """
    from anchorhold.policy import find, load
    from anchorhold.policy.render import template
    from anchorhold.policy.values import is_name

    roots = list(dict.fromkeys(os.path.abspath(os.path.expanduser(folder)) for folder in folders))
    name = name if name is not None else _name_of(roots)
    if not is_name(name):
        raise UsageError(
            f"{terminal.quote(name)} is no name", hint="Letters, digits, dots, dashes, underscores."
        )
    if model != "demo":
        model = os.path.abspath(os.path.expanduser(model))
    text = template(name, roots, model)
    if output is None:
        if not find.user_folder():
            raise PolicyError(
                "no place for it is known: $HOME is not set", hint="Name one with --output FILE."
            )
        output = os.path.join(find.user_folder(), f"{name}.toml")
    checked, problems = load.check_text("(the new policy)", text, state_dir(ctx))
    if checked is None:
        raise PolicyError("\n".join(map(str, problems)))
    if output == "-":
        click.echo(text, nl=False)
        return
    _write(output, text)
    click.echo(f"wrote {terminal.quote(output)}")


def _name_of(roots: list[str]) -> str:
    from anchorhold.policy.values import is_name

    name = os.path.basename(roots[0]).lower().replace(" ", "-") if roots else "mine"
    return name if is_name(name) else "mine"


def _write(path: str, text: str) -> None:
    """A new file, whole or not at all, never over another or through a link."""
    try:
        os.makedirs(os.path.dirname(os.path.abspath(path)), 0o700, exist_ok=True)
    except (OSError, ValueError) as error:
        raise _cannot_write(path, error) from None
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise PolicyError(
            f"{terminal.quote(path)} is there already",
            hint="It stays as it is. Take another --name or --output, or edit it.",
        ) from None
    except (OSError, ValueError) as error:
        raise _cannot_write(path, error) from None
    try:
        with open(fd, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(path)
        raise _cannot_write(path, error) from None


def _cannot_write(path: str, error: Exception) -> PolicyError:
    why = error.strerror if isinstance(error, OSError) else "the name has a NUL"
    return PolicyError(
        f"{terminal.quote(path)}: cannot be written: {why}", hint="Name another --output FILE."
    )


def _policy(ctx: click.Context, which: str | None, **options: Any) -> Policy:
    from anchorhold.policy import load

    state = state_dir(ctx)
    base = load.load(which, state) if which is not None else None
    return load.from_options(base=base, state_dir=state, **options)


def _print_json(value: dict[str, Any]) -> None:
    click.echo(json.dumps(value, ensure_ascii=True).replace("\x7f", "\\u007f"))
