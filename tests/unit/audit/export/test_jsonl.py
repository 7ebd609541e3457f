"""JSON lines: the entries as they are."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest
from hypothesis import given

from anchorhold.audit.export import FORMATS, export
from anchorhold.errors import AuditError
from tests.unit.audit.export.examples import EACH_KIND, ENTRIES, HOSTILE, deep, example, hostile_entries


def lines(*entries: dict[str, Any]) -> list[str]:
    data = b"".join(export(entries, "jsonl"))
    assert data.isascii() and b"\x7f" not in data
    found = data.decode("ascii").split("\n")
    assert found.pop() == "" and len(found) == len(entries)
    return found


def strict(text: str) -> Any:
    def refuse(word: str) -> None:
        raise AssertionError(word)

    return json.loads(text, parse_constant=refuse)


def test_the_entries_own_fields() -> None:
    assert [strict(line) for line in lines(*EACH_KIND)] == EACH_KIND
    (line,) = lines(example("grant", path=HOSTILE))
    assert os.fsencode(strict(line)["path"].replace("\ud83d", "")) == os.fsencode(
        HOSTILE.replace("\ud83d", "")
    )


@given(hostile_entries)
def test_every_entry_is_one_line_of_json(entry: dict[str, Any]) -> None:
    (line,) = lines(entry)
    strict(line)


def test_what_json_does_not_have() -> None:
    (line,) = lines({"a": float("nan"), "b": [float("inf")]})
    assert strict(line) == {"a": "nan", "b": ["inf"]}


@pytest.mark.parametrize("form", FORMATS)
def test_all_formats_take_all_entries(form: str) -> None:
    made = list(export(ENTRIES, form))
    assert len(made) == len(ENTRIES) + (form == "csv")
    assert all(line.count(b"\n") == 1 and line.endswith(b"\n") for line in made)
    assert b"".join(made).decode("utf-8").isprintable() is False  # the line ends
    assert all(line.decode("utf-8").rstrip("\r\n").isprintable() for line in made)


@pytest.mark.parametrize("form", FORMATS)
def test_depth_is_an_error_with_the_entry_s_number_at_most(form: str) -> None:
    bottom: list[Any] = []
    for _ in range(100_000):
        bottom = [bottom]
    with pytest.raises(AuditError, match="entry 7 cannot be written"):
        list(export([example("limit", deep=bottom)], form))
    while bottom:  # freed level by level: C recursion frees a deep list too, but not on every version
        bottom = bottom[0]
    assert list(export([example("limit", deep=deep)], form))


def test_a_format_that_there_is_not() -> None:
    with pytest.raises(ValueError, match="no format 'xml'"):
        list(export([], "xml"))
