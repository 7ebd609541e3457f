"""Text of the log as HTML: it neither acts, nor hides, nor fills the page."""

from __future__ import annotations

import re
import sys
import unicodedata
from html import escape, unescape

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anchorhold.audit.report.text import LONGEST, count, moment, name, size, visible, when, words
from tests.unit.audit.report.entries import HOSTILE

ANY_TEXT = st.text(st.characters(codec=None), max_size=60)  # lone surrogates as well


def without_tags(html: str) -> str:
    return unescape(re.sub(r"</?(?:b|bdi|em)>", "", html))


def test_plain_names_are_as_they_are() -> None:
    for text in ("roof.pdf", "Steuerbescheid für Müller – 2024.pdf", "日本語.txt", "a b", "naïve e\u0301"):
        assert visible(text) == text
    assert visible("a&b <c> \"d\" 'e'") == escape("a&b <c> \"d\" 'e'")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\u202egpj.exe", "<b>\\u202e</b>gpj.exe"),
        ("\x1b[2J", "<b>\\x1b</b>[2J"),
        ("a\nb\tc", "a<b>\\x0a</b>b<b>\\x09</b>c"),
        ("byte\udcff", "byte<b>\\xff</b>"),
        ("\ud83d", "<b>\\ud83d</b>"),
        ("a\u200bb\u00adc\ufeff", "a<b>\\u200b</b>b<b>\\xad</b>c<b>\\ufeff</b>"),
        ("\U000e0041", "<b>\\U000e0041</b>"),
        ("x\u3164\u115f\u2800", "x<b>\\u3164</b><b>\\u115f</b><b>\\u2800</b>"),
        (" a ", "<b>\\x20</b>a<b>\\x20</b>"),
        ("\x85\x9b", "<b>\\x85</b><b>\\x9b</b>"),
        ("a\u00a0b\u2028c", "a<b>\\xa0</b>b<b>\\u2028</b>c"),
    ],
)
def test_what_cannot_be_seen_is_an_escape(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_marks_do_not_pile_up() -> None:
    assert visible("z" + "\u0301" * 60).count("\u0301") == 8
    assert "\u0301" not in visible("\u0301a")[:3]


def test_every_character_alone() -> None:
    for code in range(sys.maxunicode + 1):
        character = chr(code)
        shown = visible(f"a{character}b")
        shown.encode("utf-8")
        category = unicodedata.category(character)
        if category in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"):
            assert character not in shown, hex(code)
            assert "<b>" in shown, hex(code)
        elif character in "<>&\"'":
            assert escape(character) in shown


@given(ANY_TEXT)
def test_any_text_is_bounded_and_stays_within(text: str) -> None:
    html = name(text)
    html.encode("utf-8")
    assert html.startswith("<bdi>") and html.endswith("</bdi>")
    inside = html[5:-6]
    assert re.fullmatch(r"(?:[^<>&]|&(?:amp|lt|gt|quot|#x27);|</?b>|<em>|</em>)*", inside)
    assert len(html) <= 2 * LONGEST + 20
    if "<b>" not in html and "<em>" not in html:
        assert without_tags(html) == text


@pytest.mark.parametrize("text", [*HOSTILE, "&" * 4000, "a" * 401, "\x00" * 85, "\x00" * 5000, "x" * 10**6])
def test_long_and_hostile_names_are_bounded(text: str) -> None:
    html = name(text)
    assert len(html) <= 2 * LONGEST + 60
    if len(visible(text)) > 2 * LONGEST:
        left_out = re.search(r"… ([\d,]+) more characters …", html)
        assert left_out
        kept = html.replace(left_out[0], "")
        shown = re.sub(r"<b>\\[xuU][0-9a-f]+</b>", "?", kept)
        assert len(without_tags(shown)) + int(left_out[1].replace(",", "")) == len(text)


def test_words_and_other_values() -> None:
    assert words("it <is>") == "<bdi class=w>it &lt;is&gt;</bdi>"
    assert name(7) == "<bdi>7</bdi>"
    assert name(["<", None]) == "<bdi>[&#x27;&lt;&#x27;, None]</bdi>"


def test_numbers_and_times() -> None:
    assert (count(1, "file"), count(2000, "file")) == ("1 file", "2,000 files")
    assert count(2, "breach", "breaches") == "2 breaches"
    assert [size(value) for value in (0, 999, 1000, 9_949, 41_000, 10**7, 10**15)] == [
        "0 B", "999 B", "1.0 kB", "9.9 kB", "41 kB", "10 MB", "1.0 PB",
    ]  # fmt: skip
    assert when("2026-01-31T18:30:59.123456Z") == "2026-01-31 18:30"
    assert when("") == "unknown"
    assert when("<b>") == "<bdi>&lt;b&gt;</bdi>"
    assert moment("2026-02-30T00:00:00") is None
