"""What a terminal may be shown. Without the filter each dangerous text arrives."""

from __future__ import annotations

import itertools
import random
import unicodedata

import pytest

from anchorhold.cli.terminal import (
    MARK,
    MOST_COMBINING,
    Filter,
    clean,
    clean_lines,
    count,
    human_size,
    quote,
)

DANGEROUS = [
    *(chr(code) for code in range(0x20) if chr(code) not in "\n\t"),
    "\x7f",
    *(chr(code) for code in range(0x80, 0xA0)),
    *(chr(code) for code in range(0x202A, 0x202F)),
    *(chr(code) for code in range(0x2066, 0x206A)),
    "\u2028",
    "\u2029",
    "\ud800",
    "\udc9b",
    "\udfff",
    MARK,
]
INVISIBLE = ["\u200b", "\u200e", "\u200f", "\u061c", "\u2060", "\u2064", "\ufeff", "\u00ad", "\u034f"]
INVISIBLE += ["\u180e", "\U000e0041", "\U000e0100", "\ufe00", "\u206a", "\u2065"]


def through(*chunks: str) -> str:
    text = Filter()
    return "".join(text.feed(chunk) for chunk in chunks) + text.end()


@pytest.mark.parametrize("character", DANGEROUS, ids=lambda c: f"U+{ord(c):04X}")
def test_what_acts_is_shown_as_an_escape(character: str) -> None:
    for text in (character, f"a{character}b", f"ä{character}b", character * 3):
        shown = through(text)
        assert character not in shown
        assert f"{ord(character):02x}" in shown
        assert "\\" in shown


@pytest.mark.parametrize("character", INVISIBLE, ids=lambda c: f"U+{ord(c):04X}")
def test_what_shows_nothing_is_left_out(character: str) -> None:
    assert through(f"pass{character}word") == "password"


def test_known_attacks() -> None:
    assert through("\x1b]52;c;cm0gLXJm\x07") == "\\x1b]52;c;cm0gLXJm\\x07"  # clipboard
    assert through("\x9b2J") == "\\x9b2J"  # CSI in one C1 character
    assert through("user\u202e gpj.exe") == "user\\u202e gpj.exe"
    assert through("\u200b".join("secret")) == "secret"


def test_a_sequence_cut_between_tokens_is_caught_at_every_cut() -> None:
    text = "ok\x1b[31mred\x1b]0;title\x07\r\nnext\r\u202ex\udcc2\udc9b2Jé\u0301\u200b."
    whole = through(text)
    for cut in range(len(text) + 1):
        assert through(text[:cut], text[cut:]) == whole
    assert through(*text) == whole
    assert "\x1b" not in whole and "\udc9b" not in whole and "\r" not in whole


def test_bytes_from_two_tokens_form_no_control_character() -> None:
    shown = through("\udcc2", "\udc9b")
    assert shown == "\\udcc2\\udc9b"
    attack = ("\udcc2" + "\udc9b").encode("utf-8", "surrogateescape").decode()
    assert attack == "\x9b"  # without the filter this is what arrives: CSI


def test_line_ends() -> None:
    assert through("a\r\nb") == "a\nb"
    assert through("a\r", "\nb") == "a\nb"
    assert through("over\rwritten") == "over\\x0dwritten"
    assert through("a\r") == "a\\x0d"
    assert through("a\r\r\n") == "a\\x0d\n"
    assert through("tab\tand\nline") == "tab\tand\nline"


def test_real_scripts_and_emoji_stay_whole() -> None:
    for text in (
        "Dvořák, naïve, Straße",
        "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",  # Persian needs the zero-width non-joiner
        "\u0915\u094d\u200d\u0937",  # Hindi
        "\U0001f468\u200d\U0001f469\u200d\U0001f467",  # family
        "\u2764\ufe0f 1\ufe0f\u20e3",  # heart, keycap
        "\u05e9\u05b8\u05c1\u05dc\u05d5\u05b9\u05dd",
        "日本語 한국어 ไทย",
        "\u0600\u0661",
        "e\u0301",
    ):
        assert through(text) == text
        assert through(*text) == text


def test_joiners_and_selectors_only_where_they_mean_something() -> None:
    assert through("pass\u200dword") == "password"
    assert through("क\u200d\u200d\u200dष") == "क\u200dष"
    assert through("a\ufe0fb") == "ab"
    assert through("❤\ufe0f\ufe0f\ufe0f") == "❤\ufe0f"
    assert through("\u200d", "\ufe0f") == ""


def test_stacks_of_combining_marks_are_cut() -> None:
    shown = through("Z" + "\u0336" * 500 + "a" + "\u0336")
    assert shown == "Z" + "\u0336" * MOST_COMBINING + "a\u0336"
    assert through("é" + "\u0336" * 500) == "é" + "\u0336" * MOST_COMBINING


def test_no_dangerous_category_survives_anywhere() -> None:
    """Every character of Unicode, alone and after a letter; a table that forgot one would fail here."""
    drawn_formats = 0
    for code in range(0x110000):
        character = chr(code)
        category = unicodedata.category(character)
        if category not in ("Cc", "Cf", "Cs", "Zl", "Zp") or character in "\n\t":
            continue
        shown = through("a" + character)
        if character in shown:
            drawn_formats += 1
            assert category == "Cf" and unicodedata.bidirectional(character) in ("AN", "AL", "L")
    assert 0 < drawn_formats < 20


def test_random_streams_are_safe_and_do_not_depend_on_the_cuts() -> None:
    rng = random.Random(3)
    pool = DANGEROUS + INVISIBLE + list("abc \n\té漢❤\u0301\u200d\ufe0f\r")
    for _ in range(300):
        text = "".join(rng.choices(pool, k=rng.randrange(1, 40)))
        cuts = sorted(rng.choices(range(len(text) + 1), k=3))
        pieces = [text[a:b] for a, b in itertools.pairwise([0, *cuts, len(text)])]
        shown = through(*pieces)
        assert shown == through(text)
        assert not set(shown) & (set(DANGEROUS) | set(INVISIBLE))


def test_one_line() -> None:
    assert clean("plain") == "plain"
    assert clean("a\nseen: nothing\tb\rc\x1b") == "a\\nseen: nothing\\tb\\rc\\x1b"
    assert clean("\r") == "\\r"
    assert clean_lines("a\nb\x07") == "a\nb\\x07"


def test_names_are_quoted_where_they_could_pass_for_words() -> None:
    assert quote("/home/a/taxes-2025.pdf") == "/home/a/taxes-2025.pdf"
    assert quote("Übung.txt") == "Übung.txt"
    assert quote("a, refused: nothing") == '"a, refused: nothing"'
    assert quote('a"b') == '"a\\"b"'
    assert quote("back\\slash") == '"back\\\\slash"'
    assert quote("\x1b[2J") == '"\\x1b[2J"'
    assert quote("\\x1b[2J") == '"\\\\x1b[2J"'  # and so differs from the one above
    assert quote("new\nline") == '"new\\nline"'
    assert quote("zero\u200bwidth") == '"zerowidth"'
    assert quote("") == '""'


def test_sizes_and_counts() -> None:
    sizes = [0, 999, 1000, 9949, 9950, 41_234, 999_499, 999_500, 1_250_000, 3 * 10**9, 10**20]
    assert [human_size(size) for size in sizes] == [
        "0 B",
        "999 B",
        "1.0 kB",
        "9.9 kB",
        "10 kB",
        "41 kB",
        "999 kB",
        "1.0 MB",
        "1.2 MB",
        "3.0 GB",
        "100000 PB",
    ]
    assert [count(n, "file") for n in (0, 1, 2)] == ["0 files", "1 file", "2 files"]
    assert count(2, "entry", "entries") == "2 entries"
