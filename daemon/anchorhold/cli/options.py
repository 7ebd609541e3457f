"""Options that `ask` and `chat` share, and the policy they make."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from pathlib import Path

    from anchorhold.policy.schema import Policy
    from anchorhold.supervisor.session import Request

F = TypeVar("F", bound=Callable[..., Any])

STDIN_NAME = "-"


class Unchecked(click.Path):
    """A path that the shell completes. The policy looks at it, and its errors say what to do."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return value


def _a_number(_context: click.Context, _parameter: click.Parameter, value: float) -> float:
    """click's range lets nan through, which is in no range."""
    if math.isnan(value):
        raise click.BadParameter("nan is no number")
    return value


def shared_options(function: F) -> F:
    """Add them, in the order in which help shows them."""
    options = [
        click.option(
            "--policy",
            metavar="FILE",
            type=Unchecked(),
            help="Policy file; other options narrow or extend it.",
        ),
        click.option("--model", metavar="FILE", type=Unchecked(), help="Model file (GGUF), or demo."),
        click.option(
            "--data",
            metavar="DIR",
            multiple=True,
            type=Unchecked(file_okay=False),
            help="Folder the model may read. Repeatable.",
        ),
        click.option(
            "--file",
            "files",
            metavar="FILE",
            multiple=True,
            type=Unchecked(),
            help="File to show whole. Repeatable.",
        ),
        click.option(
            "--require",
            metavar="LAYERS",
            multiple=True,
            help="Start only with these layers, as in seccomp,landlock.",
        ),
        click.option(
            "--max-tokens",
            metavar="N",
            type=click.IntRange(1, 1_000_000),
            default=512,
            show_default=True,
            help="Longest answer.",
        ),
        click.option(
            "--temperature",
            metavar="T",
            type=click.FloatRange(0.0, 2.0),
            callback=_a_number,
            default=0.2,
            show_default=True,
            help="0: always the likeliest word.",
        ),
        click.option(
            "--seed",
            metavar="N",
            type=click.IntRange(0, 2**32 - 1),
            help="The same seed gives the same answer.",
        ),
        click.option(
            "--system", metavar="TEXT", help="Instructions to the model, instead of the built-in ones."
        ),
    ]
    for option in reversed(options):
        function = option(function)
    return function


class Choices:
    """The values of `shared_options`, with ``--file -`` taken out of the files."""

    def __init__(
        self,
        *,
        policy: str | None,
        model: str | None,
        data: tuple[str, ...],
        files: tuple[str, ...],
        require: tuple[str, ...],
        max_tokens: int,
        temperature: float,
        seed: int | None,
        system: str | None,
    ) -> None:
        self.policy_file = policy
        self.model = model
        self.data = data
        self.files = tuple(file for file in files if file != STDIN_NAME)
        self.stdin_asked = STDIN_NAME in files
        self.require = tuple(layer.strip() for text in require for layer in text.split(",") if layer.strip())
        self.max_tokens = max_tokens
        self.temperature = temperature
        self.seed = seed
        self.system = system

    def policy(self, state: Path | None = None) -> Policy:
        """Build the policy. PolicyError or UsageError where it cannot be: nothing has started then."""
        from anchorhold.policy import load

        base = load.load(self.policy_file, state) if self.policy_file is not None else None
        return load.from_options(
            model=self.model,
            data=self.data,
            files=self.files,
            require=self.require,
            base=base,
            state_dir=state,
        )

    def named_files(self) -> list[str]:
        """The files of ``--file``, absolute, each once."""
        return list(dict.fromkeys(os.path.abspath(os.path.expanduser(file)) for file in self.files))

    def request(
        self, question: str, *, material: str | None = None, history: Sequence[dict[str, str]] = ()
    ) -> Request:
        from anchorhold.supervisor.session import Request

        return Request(
            question=question,
            files=self.named_files(),
            max_tokens=self.max_tokens,
            temperature=self.temperature,
            seed=self.seed,
            system=self.system,
            history=list(history),
            material=material,
        )
