"""``anchorhold audit export``: the log in the forms that other programs read (docs/export.md).

A file is written beside its name and put there when it is whole: a program that picks exports up never meets
half of one, and an entry that cannot be read leaves the last good export where it was. It is readable by its
owner alone, since it names what the log names.
"""

from __future__ import annotations

import os
import stat
import sys

import click

from anchorhold.errors import AuditError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

FORMATS = ("jsonl", "csv", "ocsf", "cef")
CHUNK = 1 << 16


@click.command()
@click.option("--format", "form", type=click.Choice(FORMATS), required=True, help="What to write.")
@click.option("--session", metavar="ID", help="Only this session; the beginning of its name will do.")
@click.option(
    "--kind",
    "kinds",
    multiple=True,
    metavar="KIND",
    help="Only this kind, as grant or denial. May be repeated.",
)
@click.option("--path", metavar="PATTERN", help="Only paths like this: ~/taxes, '~/taxes/**', '*.pdf'.")
@click.option("--since", metavar="TIME", help="From this time on: 2026-01-31, 2026-01-31T18:30, -30d, -2h.")
@click.option("--until", metavar="TIME", help="Before this time; a day is included whole.")
@click.option("-o", "--output", metavar="FILE", help="Write to this file, replacing it, once all is there.")
@click.pass_context
def export(
    ctx: click.Context,
    form: str,
    session: str | None,
    kinds: tuple[str, ...],
    path: str | None,
    since: str | None,
    until: str | None,
    output: str | None,
) -> None:
    """Write the log as JSON lines, CSV, OCSF or CEF, one line an entry, oldest first."""
    from anchorhold.audit.export import export as lines
    from anchorhold.audit.query import KINDS, entries
    from anchorhold.cli.selection import moment, pattern
    from anchorhold.cli.state import state_dir

    unknown = sorted(set(kinds) - set(KINDS))
    if unknown:
        raise UsageError(f"no kind of entry is called {ascii(unknown[0])}", hint=f"Kinds: {', '.join(KINDS)}")
    found = entries(
        state_dir(ctx),
        session=session,
        kinds=kinds,
        path=pattern(path),
        since=moment(since),
        until=moment(until, end=True),
    )
    if output is None or output == "-":
        _to_standard_output(lines(found, form))
    else:
        _to_file(lines(found, form), output)


def _to_standard_output(lines: Iterable[bytes]) -> None:
    """As bytes: the format's encoding is UTF-8 whatever the locale's is. A terminal gets what it can show."""
    from anchorhold.cli.output import STDOUT, locale_encoding, write_all

    sys.stdout.flush()
    terminal = os.isatty(STDOUT)
    encoding = locale_encoding()
    for chunk in _chunks(lines):
        if terminal:
            chunk = chunk.decode("utf-8").encode(encoding, "backslashreplace")
        write_all(STDOUT, chunk)


def _chunks(lines: Iterable[bytes]) -> Iterable[bytes]:
    waiting: list[bytes] = []
    size = 0
    try:
        for line in lines:
            waiting.append(line)
            size += len(line)
            if size >= CHUNK:
                yield b"".join(waiting)
                waiting.clear()
                size = 0
    except AuditError:  # what came before the entry that cannot be read is shown
        yield b"".join(waiting)
        raise
    yield b"".join(waiting)


def _to_file(lines: Iterable[bytes], output: str) -> None:
    target = os.path.realpath(output)
    try:
        try:
            regular = stat.S_ISREG(os.stat(target).st_mode)
        except FileNotFoundError:
            regular = True
        if regular:
            _replace(lines, target)
        else:  # a pipe or a device
            with open(target, "wb", buffering=0) as file:
                for chunk in _chunks(lines):
                    file.write(chunk)
    except OSError as error:
        if error.filename is None:
            raise
        raise AuditError(f"{ascii(output)} cannot be written: {error.strerror}") from error


def _replace(lines: Iterable[bytes], target: str) -> None:
    import tempfile

    folder, name = os.path.split(target)
    with tempfile.NamedTemporaryFile("wb", dir=folder, prefix=f".{name[:100]}-", delete=False) as file:
        try:
            for chunk in _chunks(lines):
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
            os.replace(file.name, target)
        except BaseException:
            os.unlink(file.name)
            raise
