"""What the documents name is there: tests, files, links. A promise whose test is gone is none."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.support import TOP

DOCUMENTS = sorted([*TOP.glob("*.md"), *(TOP / "docs").glob("*.md")])
BASES = (TOP, TOP / "tests", TOP / "tests/unit", TOP / "tests/unit/policy", TOP / "daemon/anchorhold")
"""A document may leave the first folders of a path out, in this order."""

_SPAN = re.compile(r"`([^`\n]+)`")
_FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_TEST = re.compile(r"([\w./-]*test_\w+\.py)?::(test_\w+)")
_PATH = re.compile(
    r"(?:(?:docs|daemon|tests|policies|tools|requirements|\.ci)/[\w./-]*|[\w/-]+/\w+\.(?:py|tbl)|test_\w+\.py)"
)
_HOST = re.compile(r"https?://([^/\s)>`\"]+)")

HOSTS = {"www.rfc-editor.org", "c2sp.org", "github.com", "man7.org", "docs.kernel.org", "www.kernel.org"}
"""Where a document may send its reader. The machine itself is allowed as well."""
UNWANTED = re.compile(
    r"\b(?:TODO|TBD|FIXME|XXX|agents?|helpers?|trivially|blazing\w*|seamless\w*)\b|/work/|/root/"
)


def named_tests(text: str) -> Iterator[tuple[str, str]]:
    """Each (file, test). ``::test_x`` alone means the file that was named before it in the same line."""
    for line in text.splitlines():
        last = ""
        for span in _SPAN.findall(line):
            found = _TEST.fullmatch(span)
            if found:
                last = found[1] or last
                yield last, found[2]
            elif re.fullmatch(r"[\w./-]*test_\w+\.py", span):
                last = span


def named_paths(text: str) -> Iterator[str]:
    """What stands between backticks, outside blocks of code, and is a path of the repository."""
    for span in _SPAN.findall(_FENCE.sub("", text)):
        path = span.partition("::")[0]
        if _PATH.fullmatch(path):
            yield path


def links(text: str) -> Iterator[str]:
    for target in _LINK.findall(_FENCE.sub("", text)):
        if "://" not in target and not target.startswith("#"):
            yield target.partition("#")[0]


def find(name: str) -> Path | None:
    return next((base / name for base in BASES if (base / name).exists()), None)


@cache
def functions(path: Path) -> frozenset[str]:
    tree = ast.parse(path.read_text())
    return frozenset(
        node.name for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    )


def problems(text: str, folder: Path) -> list[str]:
    """What ``text``, a document in ``folder``, names and is not there; and what it should not say."""
    wrong = []
    for file, test in named_tests(text):
        path = find(file) if file else None
        if path is None or test not in functions(path):
            wrong.append(f"no test {file}::{test}")
    wrong += [f"no file {path}" for path in named_paths(text) if find(path) is None]
    wrong += [f"no link target {target}" for target in links(text) if not (folder / target).exists()]
    wrong += [
        f"host {host}"
        for host in _HOST.findall(text)
        if host not in HOSTS and not re.match(r"(127\.0\.0\.1|localhost|\[::1\]|example\.)", host)
    ]
    wrong += [f"unwanted: {found}" for found in UNWANTED.findall(text)]
    return wrong


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_what_a_document_names_is_there(path: Path) -> None:
    assert problems(path.read_text(), path.parent) == []


def test_each_guarantee_has_its_number_once_and_a_test() -> None:
    rows = re.findall(
        r"^\| (G\d+) \| .* \| (.*) \|$", (TOP / "docs" / "threat-model.md").read_text(), re.MULTILINE
    )
    assert [number for number, _held in rows] == [f"G{number}" for number in range(1, len(rows) + 1)]
    assert len(rows) > 10
    bare = [number for number, held in rows if "test_" not in held]
    assert bare == []


def test_the_tables_of_the_architecture_are_those_of_the_code() -> None:
    from anchorhold.broker.table import TABLE

    text = (TOP / "docs" / "architecture.md").read_text()
    section = text.partition("## The broker's table")[2].partition("\n## ")[0]
    named = {
        name for row in re.findall(r"^\| (`.*?) \|", section, re.MULTILINE) for name in _SPAN.findall(row)
    }
    assert named == set(TABLE)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (
            "| G1 | x | `test_docs.py::test_that_is_not_there` |",
            "no test test_docs.py::test_that_is_not_there",
        ),
        (
            "`test_docs.py::test_what_a_document_names_is_there`, `::test_gone`",
            "no test test_docs.py::test_gone",
        ),
        ("`::test_of_no_file`", "no test ::test_of_no_file"),
        ("see `daemon/anchorhold/cell/gone.py`", "no file daemon/anchorhold/cell/gone.py"),
        ("see `cell/gone.py`", "no file cell/gone.py"),
        ("[x](gone.md#part)", "no link target gone.md"),
        ("https://registry.invalid/simple", "host registry.invalid"),
        ("TODO", "unwanted: TODO"),
    ],
)
def test_what_is_wrong_is_found(text: str, wanted: str) -> None:
    assert problems(text, TOP / "docs") == [wanted]


@pytest.mark.parametrize(
    "text",
    [
        "`tests/test_docs.py::test_what_is_wrong_is_found` and `cell/launcher.py`, `docs/`",
        "```\n`docs/gone.md` [x](gone.md)\n```",
        "[x](audit-log.md#files), `http://127.0.0.1:8765/v1`, `a/b` of another place",
    ],
)
def test_what_is_right_is_left_alone(text: str) -> None:
    assert problems(text, TOP / "docs") == []
