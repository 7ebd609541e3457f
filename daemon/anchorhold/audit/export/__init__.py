"""The log's entries in the forms that other people's programs read (docs/export.md).

Constraint: everything in an entry but numbers is hostile text. No entry can make a second line, a second
field, or bytes that are no UTF-8 or no JSON; each format's module says how it holds that.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

FORMATS = ("jsonl", "csv", "ocsf", "cef")


def export(entries: Iterable[dict[str, Any]], form: str) -> Iterator[bytes]:
    """The export's lines, each with its end. ``form`` is one of `FORMATS`. Raises AuditError where an entry
    cannot be written, and what reading ``entries`` raises: before the first line where there is no log."""
    from itertools import chain, islice

    from anchorhold.errors import AuditError

    head, line = _writer(form)
    entries = iter(entries)
    first = list(islice(entries, 1))  # a heading alone would look like a log without entries
    if head:
        yield head
    for entry in chain(first, entries):
        try:
            yield line(entry)
        except (RecursionError, ValueError) as error:
            raise AuditError(
                f"entry {ascii(entry.get('seq'))} cannot be written as {form}: {error}",
                hint="Run: anchorhold audit verify",
            ) from error


def _writer(form: str) -> tuple[bytes, Callable[[dict[str, Any]], bytes]]:
    """What stands first, and the function that makes a line."""
    if form == "jsonl":
        from anchorhold.audit.export import jsonl

        return b"", jsonl.line
    if form == "csv":
        from anchorhold.audit.export import table

        return table.HEADING, table.line
    if form == "ocsf":
        from anchorhold.audit.export.ocsf import Ocsf

        return b"", Ocsf().line
    if form == "cef":
        from anchorhold.audit.export.cef import Cef

        return b"", Cef().line
    raise ValueError(f"there is no format {ascii(form)}")
