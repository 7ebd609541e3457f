"""Hostile text in one line, and back."""

from __future__ import annotations

import json
import os
import unicodedata
from datetime import UTC, datetime

import pytest
from hypothesis import given

from anchorhold.audit.export.text import compact, escape, milliseconds, number, plain, unescape, word
from tests.unit.audit.export.examples import HOSTILE, deep, nasty


@given(nasty)
def test_any_text_comes_back(text: str) -> None:
    safe = escape(text)
    assert unescape(safe) == text
    safe.encode("utf-8")
    assert len(safe.splitlines()) <= 1
    assert not any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in safe)


def test_every_character() -> None:
    for number_ in range(0x110000):
        text = chr(number_)
        safe = escape(text)
        assert unescape(safe) == text
        if safe == text:
            assert unicodedata.category(text) not in ("Cc", "Cs", "Zl", "Zp"), hex(number_)
            assert unicodedata.bidirectional(text) not in (
                "LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI",
            )  # fmt: skip


def test_any_bytes_of_a_name_come_back() -> None:
    name = bytes(range(256)) + b"\\xff\\u0041"
    assert os.fsencode(unescape(escape(os.fsdecode(name)))) == name


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("/home/a/Müller – 2025 (2).pdf", "/home/a/Müller – 2025 (2).pdf"),
        ("a\\b", "a\\\\b"),
        ("a\nb", "a\\u000ab"),
        ("a\udcffb", "a\\xffb"),
        ("\u0085", "\\u0085"),
        ("\udc85", "\\x85"),
        ("\u202e", "\\u202e"),
        ("\U000e0001", "\\U000e0001"),
        ("\\u000a", "\\\\u000a"),
    ],
)
def test_how_it_is_written(text: str, safe: str) -> None:
    assert escape(text) == safe


def test_values_of_any_kind() -> None:
    assert word("a\n") == "a\\u000a" and word(3) == "3" and word([1, "x"]) == '[1,"x"]'
    assert json.loads(compact({"a": [HOSTILE]})) == {"a": [escape(HOSTILE)]}
    assert compact("\x7f").isprintable() and compact("\x7f").isascii()
    assert plain([float("inf"), 0.5, None, True]) == ["inf", 0.5, None, True]
    assert plain({1: object}) == {"1": escape(str(object))}


def test_what_is_nested_deep_becomes_text() -> None:
    flat = plain(deep)
    for _ in range(32):
        flat = flat[0]
    assert isinstance(flat, str)
    inside = json.loads(unescape(flat))
    assert inside[1] == HOSTILE


def test_numbers_and_times() -> None:
    assert [number(value) for value in (0, 5, -1, True, "5", 2**63, 2.0, None)] == [
        0, 5, None, None, None, None, None, None,
    ]  # fmt: skip
    assert number(2**31, 2**31 - 1) is None
    at = milliseconds("2026-01-31T18:30:00.123456Z")
    assert at is not None
    assert datetime.fromtimestamp(at / 1000, UTC).isoformat() == "2026-01-31T18:30:00.123000+00:00"
    for none in (None, 5, "", "yesterday", "2026-01-31T18:30:00", "2026-13-01T00:00:00Z", HOSTILE):
        assert milliseconds(none) is None
