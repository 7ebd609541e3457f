"""A group whose commands are imported when they are asked for by name: start-up time counts.

So the table holds each command's one-line help too; a test compares the two.
"""

from __future__ import annotations

import importlib
from typing import Any

import click
from click.shell_completion import CompletionItem


class LazyGroup(click.Group):
    """``table``: name → (module, one line of help). The module's attribute is the name with ``_`` for ``-``,
    and one more at its end where Python has the name already."""

    def __init__(self, *arguments: Any, table: dict[str, tuple[str, str]], **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.table = table

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*self.table, *self.commands]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.table:
            return super().get_command(ctx, cmd_name)
        module = importlib.import_module(self.table[cmd_name][0])
        name = cmd_name.replace("-", "_")
        command = getattr(module, name + "_", None) or getattr(module, name)
        assert isinstance(command, click.Command)
        return command

    def _lines(self) -> list[tuple[str, str]]:
        own = [(name, command.get_short_help_str(200)) for name, command in self.commands.items()]
        return [(name, words) for name, (_module, words) in self.table.items()] + own

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(self._lines())

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        names = [
            CompletionItem(name, help=words) for name, words in self._lines() if name.startswith(incomplete)
        ]
        return names + click.Command.shell_complete(self, ctx, incomplete)
