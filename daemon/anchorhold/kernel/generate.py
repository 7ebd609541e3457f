"""Writes the system-call tables ``_x86_64.py`` and ``_aarch64.py`` from ``syscalls.tbl``.

Run by hand after the table changed: ``python -m anchorhold.kernel.generate``. A test holds that the
generated modules are in step. They exist because parsing the table at start-up would take a
millisecond that a compiled module does not.
"""

from __future__ import annotations

import os
import sys

ARCHITECTURES = ("x86_64", "aarch64")

_HERE = os.path.dirname(os.path.abspath(__file__))


def parse(text: str) -> dict[str, dict[str, int]]:
    """Architecture → name → number. Raises ValueError naming the line that is wrong."""
    tables: dict[str, dict[str, int]] = {arch: {} for arch in ARCHITECTURES}
    seen: dict[str, set[int]] = {arch: set() for arch in ARCHITECTURES}
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split("#", 1)[0].split()
        if not words:
            continue
        if len(words) != 1 + len(ARCHITECTURES) or not words[0].isidentifier():
            raise ValueError(f"syscalls.tbl line {number}: expected NAME X86_64 AARCH64, got {line!r}")
        for arch, word in zip(ARCHITECTURES, words[1:], strict=True):
            if word == "-":
                continue
            if not word.isdecimal():
                raise ValueError(f"syscalls.tbl line {number}: {word!r} is neither a number nor '-'")
            value = int(word)
            if words[0] in tables[arch] or value in seen[arch]:
                raise ValueError(f"syscalls.tbl line {number}: {words[0]} or number {value} is there twice")
            tables[arch][words[0]] = value
            seen[arch].add(value)
    return tables


def render(arch: str, table: dict[str, int]) -> str:
    """The text of one generated module, ordered by number."""
    rows = "".join(
        f'    "{name}": {number},\n' for name, number in sorted(table.items(), key=lambda row: row[1])
    )
    return (
        f'"""System-call numbers of {arch}. Generated from syscalls.tbl; do not edit."""\n\n'
        f"from __future__ import annotations\n\nNR: dict[str, int] = {{\n{rows}}}\n"
    )


def main(directory: str = _HERE) -> int:
    """Reads ``directory``/syscalls.tbl and writes the modules beside it."""
    with open(os.path.join(directory, "syscalls.tbl"), encoding="ascii") as source:
        tables = parse(source.read())
    for arch, table in tables.items():
        with open(os.path.join(directory, f"_{arch}.py"), "w", encoding="ascii") as target:
            target.write(render(arch, table))
    return 0


if __name__ == "__main__":
    sys.exit(main())
