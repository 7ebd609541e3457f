"""Imports go one way (docs/architecture.md): what is trusted stays small, what is untrusted stays apart.

Read from the syntax tree, so that an import inside a function or under ``if TYPE_CHECKING`` counts as well.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import TOP

SOURCE = TOP / "daemon"
PACKAGE = SOURCE / "anchorhold"

# What each part may import of the others. `errors` (no imports of its own) is free to the trusted side.
MAY_IMPORT: dict[str, set[str]] = {
    "kernel": set(),
    "channel": set(),
    "verify": set(),
    "worker": {"channel"},
    "gateway": {"channel"},
    "policy": {"kernel", "errors"},
    "audit": {"kernel", "errors"},
    "cell": {"kernel", "errors"},
    # Runs without a supervisor, and before one.
    "switch": set(),
    "broker": {"kernel", "policy", "audit", "errors"},
    "supervisor": {"kernel", "policy", "audit", "cell", "broker", "channel", "switch", "errors"},
    # The commands reach the kernel through the supervisor only.
    "cli": {"supervisor", "switch", "audit", "policy", "verify", "errors"},
    "errors": set(),
    "__init__": set(),
    "__main__": {"cli"},
}
# The launcher ends as the worker, in the same process: it imports the worker's entry module by the name that
# its configuration gives, never by an import statement, so the table needs no exception for it.

# Between fork and seal each millisecond counts, and everything imported there is code in the cell.
LIGHT = {"kernel", "cell"}
LIGHT_MODULES = {
    "__future__", "_socket", "anchorhold", "ctypes", "errno", "fcntl", "marshal", "os", "resource", "select",
    "signal", "socket", "stat", "struct", "sys", "time",
}  # fmt: skip
# A program of its own, run by hand to write the tables that are checked in.
NOT_LOADED = {"kernel/generate.py"}


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(source: str, module: str, is_package: bool = False) -> Iterator[str]:
    """The absolute names that ``source``, the text of ``module``, imports anywhere."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = module.split(".")[
                    : None if is_package and node.level == 1 else -node.level + is_package
                ]
                base = ".".join([*parents, base] if base else parents)
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def parts_imported(source: str, module: str, is_package: bool = False) -> set[str]:
    names = (name.split(".") for name in imports(source, module, is_package))
    return {name[1] for name in names if name[0] == "anchorhold" and len(name) > 1 and is_part(name[1])}


def is_part(name: str) -> bool:
    return (PACKAGE / name).is_dir() or (PACKAGE / f"{name}.py").is_file()


def loaded_at_import(tree: ast.Module) -> Iterator[ast.Import | ast.ImportFrom]:
    """Import statements that run when the module is loaded; a `TYPE_CHECKING` block is none of these."""
    for node in tree.body:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield node


MODULES = sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> tuple[str, bool]:
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return (".".join(parts[:-1]), True) if parts[-1] == "__init__" else (".".join(parts), False)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_one_way(path: Path) -> None:
    part = part_of(path)
    assert part in MAY_IMPORT, f"{part} is new: say in MAY_IMPORT what it may import"
    found = parts_imported(path.read_text(), *name_of(path)) - {part, "__init__"}
    assert found <= MAY_IMPORT[part], f"{part} may not import {', '.join(sorted(found - MAY_IMPORT[part]))}"


@pytest.mark.parametrize(
    "path",
    [path for path in MODULES if part_of(path) in LIGHT],
    ids=lambda path: str(path.relative_to(PACKAGE)),
)
def test_what_runs_before_the_seal_imports_next_to_nothing(path: Path) -> None:
    if str(path.relative_to(PACKAGE)) in NOT_LOADED:
        return
    for node in loaded_at_import(ast.parse(path.read_text())):
        names = (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or "anchorhold"]
        )
        for name in names:
            assert name.split(".")[0] in LIGHT_MODULES, f"line {node.lineno}: {name} is loaded at import"


SILENCED = re.compile(r"# (?:noqa|type: ignore)\b(?!.*  (?:# (?!noqa|type: )|\()\w)")
"""A check of the linter's or of the types that is silenced without a reason behind it, on the same line."""


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("x = 1  # noqa: E402", True),
        ("x = 1  # type: ignore[operator]", True),
        ("x = 1  # type: ignore[operator]  # noqa", True),
        ("x = 1  # noqa: E402  # it has to come first", False),
        ("x = 1  # noqa: E402  (it has to come first)", False),
        ("x = 1  # why not", False),
    ],
)
def test_a_silenced_check_is_found(line: str, found: bool) -> None:
    assert bool(SILENCED.search(line)) == found


@pytest.mark.parametrize(
    "path", [one for one in MODULES if part_of(one) == "verify"], ids=lambda path: path.stem
)
def test_the_verifier_silences_no_check_without_a_reason(path: Path) -> None:
    """Strangers are to read it, and to believe it."""
    lines = enumerate(path.read_text().splitlines(), 1)
    assert [number for number, line in lines if SILENCED.search(line)] == []


def test_there_are_modules_to_look_at() -> None:
    assert {"kernel", "cell", "cli"} <= {part_of(path) for path in MODULES}


@pytest.mark.parametrize(
    ("source", "module", "wanted"),
    [
        ("import anchorhold.audit.log", "anchorhold.kernel.x", {"audit"}),
        ("from anchorhold import audit, kernel", "anchorhold.kernel.x", {"audit", "kernel"}),
        ("from anchorhold.audit import log", "anchorhold.kernel.x", {"audit"}),
        ("def f():\n    from ..audit.log import Log", "anchorhold.kernel.x", {"audit"}),
        ("from .. import audit", "anchorhold.kernel.x", {"audit"}),
        ("from . import bpf", "anchorhold.kernel.x", {"kernel"}),
        ("if TYPE_CHECKING:\n    from anchorhold.errors import E", "anchorhold.kernel.x", {"errors"}),
        ("from anchorhold import __version__", "anchorhold.cli.x", set()),
        ("import json", "anchorhold.cli.x", set()),
    ],
)
def test_an_import_is_found_however_it_is_written(source: str, module: str, wanted: set[str]) -> None:
    assert parts_imported(source, module) == wanted


def test_a_relative_import_of_a_package_counts_from_itself() -> None:
    assert set(imports("from .bpf import x", "anchorhold.kernel", is_package=True)) == {
        "anchorhold.kernel.bpf",
        "anchorhold.kernel.bpf.x",
    }
    assert parts_imported("from ..audit import x", "anchorhold.kernel", is_package=True) == {"audit"}


def test_the_package_itself_imports_nothing() -> None:
    code = "import sys; a = set(sys.modules); import anchorhold; print(sorted(set(sys.modules) - a))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout == "['anchorhold']\n"
