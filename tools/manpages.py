"""Writes a man page for each command, from the same click commands that --help is made from.

    manpages.py FOLDER

Constraint: the same sources make the same bytes; the date is that of $SOURCE_DATE_EPOCH.
Source: man(7), man-pages(7).
"""

from __future__ import annotations

import inspect
import os
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click

import anchorhold
from anchorhold.cli.root import root
from anchorhold.switch import kill

SECTION = "1"
EXIT_CODES = (
    "0 done, 1 failed, 2 wrong usage or policy, 3 breach, 4 killed by the kill switch, "
    "5 the log does not verify, 6 a required layer is missing, 7 latched, 130 interrupted."
)


def escaped(text: str) -> str:
    """Text that roff shows as it is. A line may not begin with a request."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq").replace("`", "\\(ga")
    text = text.replace("^", "\\(ha").replace("~", "\\(ti")
    text = "".join(letter if letter < "\x80" else f"\\[u{ord(letter):04X}]" for letter in text)
    return re.sub(r"(?m)^([.])", r"\\&\1", text)


def marked(text: str) -> str:
    """The same, with what stands between backticks in bold."""
    parts = re.split(r"`([^`\n]+)`", text)
    return "".join(
        escaped(part) if at % 2 == 0 else f"\\fB{escaped(part)}\\fR" for at, part in enumerate(parts)
    )


def paragraphs(text: str) -> Iterator[str]:
    """click's help text as requests: a paragraph that begins with a line of \\b alone keeps its lines."""
    for number, part in enumerate(inspect.cleandoc(text).split("\n\n")):
        if number:
            yield ".PP"
        if part.startswith("\b"):
            yield from (".nf", marked(part.partition("\n")[2].rstrip()), ".fi")
        elif all(line.startswith("  ") for line in part.split("\n")):
            yield from (".RS 4", ".nf", marked(inspect.cleandoc(part)), ".fi", ".RE")
        else:
            yield marked(" ".join(part.split()))


def header(title: str) -> str:
    when = time.gmtime(int(os.environ.get("SOURCE_DATE_EPOCH", "0")))
    date = time.strftime("%Y-%m-%d", when)
    program = f"anchorhold {anchorhold.__version__}"
    return f'.TH "{title.upper()}" "{SECTION}" "{date}" "{program}" "anchorhold manual"'


def page(command: click.Command, words: tuple[str, ...], short: str) -> str:
    """The page of one command. words: as typed, ``("anchorhold", "audit", "list")``."""
    context = click.Context(
        command, info_name=" ".join(words), help_option_names=root.context_settings["help_option_names"]
    )
    title = "-".join(words)
    out = [header(title), ".SH NAME", f"{escaped(title)} \\- {escaped(short.rstrip('.'))}", ".SH SYNOPSIS"]
    pieces = " ".join(command.collect_usage_pieces(context))
    out.append(f"\\fB{escaped(' '.join(words))}\\fR {escaped(pieces)}".rstrip())
    out += [".SH DESCRIPTION", *paragraphs(command.help or short)]
    records = [record for one in command.get_params(context) if (record := one.get_help_record(context))]
    records = [record for record in records if record[1]]  # an argument that says all by its name
    if records:
        out.append(".SH OPTIONS")
        for names, meaning in records:
            out += [".TP", f"\\fB{escaped(names)}\\fR", marked(" ".join(meaning.split())) or "\\&"]
    if isinstance(command, click.Group):
        out.append(".SH COMMANDS")
        for name, below in children(command, context):
            help_text = marked(short_help(command, name, below))
            out += [".TP", f"\\fB{escaped('-'.join((*words, name)))}\\fR({SECTION})", help_text]
    if command.epilog:
        out += [".SH NOTES", *paragraphs(command.epilog)]
    if len(words) > 1:
        out += [".SH EXIT STATUS", escaped(EXIT_CODES), ".SH SEE ALSO"]
        out.append(f"\\fB{escaped('-'.join(words[:-1]))}\\fR({SECTION})")
    return "\n".join(out) + "\n"


def children(group: click.Group, context: click.Context) -> Iterator[tuple[str, click.Command]]:
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command is not None and not command.hidden:
            yield name, command


def short_help(group: click.Group, name: str, command: click.Command) -> str:
    """The line of the group's own list: a lazy group has it in its table."""
    table: dict[str, tuple[str, str]] = getattr(group, "table", {})
    return table[name][1] if name in table else command.get_short_help_str(200)


def pages() -> Iterator[tuple[str, str]]:
    """(file name, text) of every page."""
    yield f"anchorhold.{SECTION}", page(root, ("anchorhold",), "run a local language model in a sealed cell")
    yield from _below(root, ("anchorhold",))
    yield f"anchorhold-kill.{SECTION}", kill_page()


def _below(group: click.Group, words: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    for name, command in children(group, click.Context(group, info_name=" ".join(words))):
        own = (*words, name)
        # `anchorhold kill` and the program anchorhold-kill would have one name: one page is for both.
        if own != ("anchorhold", "kill"):
            yield f"{'-'.join(own)}.{SECTION}", page(command, own, short_help(group, name, command))
        if isinstance(command, click.Group):
            yield from _below(command, own)


def kill_page() -> str:
    """Of the program, from its usage text, and of the command, which takes the same words."""
    command = root.get_command(click.Context(root), "kill")
    assert command is not None
    lines = page(
        command, ("anchorhold", "kill"), "kill models at once, and keep them from starting again"
    ).split("\n")
    at = lines.index(".SH SYNOPSIS") + 1
    synopsis = kill.USAGE.partition("\n")[0].removeprefix("Usage: ").partition(" ")
    lines[at:at] = [f"\\fB{escaped(synopsis[0])}\\fR {escaped(synopsis[2])}", ".br"]
    at = lines.index(".SH EXIT STATUS")
    words = escaped("anchorhold-kill imports next to nothing and starts fastest:")
    lines[at:at] = [".SH THE PROGRAM", words, ".PP", ".nf", escaped(kill.USAGE), ".fi"]
    return "\n".join(lines)


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages():
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
