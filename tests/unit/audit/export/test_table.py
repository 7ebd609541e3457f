"""CSV: what a reader of CSV gets, and what a spreadsheet would."""

from __future__ import annotations

import csv
import io
import json
import re
from typing import Any

import pytest
from hypothesis import given

from anchorhold.audit.export import export
from anchorhold.audit.export.table import COLUMNS, defuse
from anchorhold.audit.export.text import unescape
from tests.support import TOP
from tests.unit.audit.export.examples import ENTRIES, HOSTILE, example, hostile_entries


def rows(*entries: dict[str, Any]) -> list[dict[str, str]]:
    """What Python's csv module reads, from exactly one line an entry."""
    data = b"".join(export(entries, "csv"))
    lines = data.decode("utf-8").split("\r\n")
    assert lines.pop() == "" and len(lines) == len(entries) + 1
    assert not any(character in line for line in lines for character in "\r\n\x00\x85\u2028")
    read = list(csv.DictReader(io.StringIO(data.decode(), newline=""), strict=True))
    assert len(read) == len(entries)
    assert all(tuple(row) == COLUMNS and None not in row.values() for row in read)
    return read


def test_an_entry() -> None:
    (row,) = rows(example("grant"))
    assert row["seq"] == "7" and row["epoch"] == "3" and row["n"] == "4" and row["size"] == "12345"
    assert (row["path"], row["resolved"]) == ("/home/a/link", "/home/a/taxes/roof.pdf")
    assert json.loads(row["details"]) == {"v": 2, "mono": 5_000_000}


def test_nothing_of_an_entry_is_lost() -> None:
    for entry in ENTRIES[:-6]:
        (row,) = rows(entry)
        details = json.loads(row["details"])
        for name, value in entry.items():
            if name in COLUMNS and isinstance(value, str):
                assert unescape(row[name]) == value
            elif name in COLUMNS:
                assert row[name] or value is None
            else:
                assert name in details or unescape(name) != name


@given(hostile_entries)
def test_no_text_leaves_its_cell(entry: dict[str, Any]) -> None:
    (row,) = rows(entry)
    for name in COLUMNS[:-1]:
        value = entry.get(name)
        if isinstance(value, str):
            assert unescape(row[name]) == value
    json.loads(row["details"])


@given(hostile_entries)
def test_no_cell_is_a_formula_whatever_the_separator_is(entry: dict[str, Any]) -> None:
    data = b"".join(export([entry], "csv")).decode()
    for separator in ",;|\t":
        for cell in next(iter(csv.reader(data.split("\r\n")[1:2], delimiter=separator))):
            first = cell.strip(" \"'")[:1]
            assert first not in ("=", "+", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20"), cell
            if first == "-":
                assert re.match(r"""["' ]*-(["]*$|["]*,|\d)""", cell), cell


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("=1+1", "\\u003d1+1"),
        ("+1", "\\u002b1"),
        ("-1", "\\u002d1"),
        ("@SUM(A1)", "\\u0040SUM(A1)"),
        (" =1", " \\u003d1"),
        ('"=1', '"\\u003d1'),
        ("a;=1", "a;\\u003d1"),
        ("a|-1", "a|\\u002d1"),
        ("\uff1d1", "\\uff1d1"),
        ("-", "-"),
        ("/home/a/Artist - Title=1@2.pdf", "/home/a/Artist - Title=1@2.pdf"),
    ],
)
def test_formulas(text: str, cell: str) -> None:
    assert defuse(text) == cell
    assert unescape(cell) == text


def test_formulas_in_details() -> None:
    (row,) = rows(example("limit", text="=1", more=[-5, "x,-1", HOSTILE]))
    assert "=" not in row["details"].replace("\\u003d", "") or '"=' not in row["details"]
    details = json.loads(row["details"])
    assert details["text"] == "=1" and details["more"][:2] == [-5, "x,-1"]
    assert unescape(details["more"][2]) == HOSTILE


def test_the_columns_are_those_of_the_documentation() -> None:
    section = (TOP / "docs/export.md").read_text().partition("## CSV")[2].partition("\n## ")[0]
    named = re.findall(r"^\| `(\w+)`", section, re.MULTILINE)
    assert tuple(named) == COLUMNS
