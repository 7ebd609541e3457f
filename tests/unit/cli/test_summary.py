"""The lines after an answer."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from anchorhold.cli.summary import from_line, seen_line, short_names, weaker_line


def test_names_lose_the_folders_they_share() -> None:
    assert short_names([]) == []
    assert short_names(["/a/b/c.md"]) == ["c.md"]
    assert short_names(["/"]) == ["/"]
    assert short_names(["/a/b/c.md", "/a/b/d.md"]) == ["c.md", "d.md"]
    assert short_names(["/a/b/c.md", "/a/x/c.md"]) == ["b/c.md", "x/c.md"]
    assert short_names(["/a.md", "stdin"]) == ["/a.md", "stdin"]
    assert short_names(["a", "b"]) == ["a", "b"]
    assert short_names(["/a/\udcff.md", "/a/b"]) == ["\udcff.md", "b"]


def test_from_line() -> None:
    assert from_line([]) == "from: no file"
    assert from_line(["/n/a.md", "/n/b, c.md"]) == 'from: a.md, "b, c.md"'
    assert from_line(["/n/a.md"], typed=True) == "from: standard input, a.md"
    many = from_line([f"/n/{number}" for number in range(23)])
    assert many.startswith("from: 0, 1, 2,") and many.endswith("19, … and 3 more")


def test_a_weaker_cell_is_said_by_name() -> None:
    def line(**missing: str) -> str | None:
        summary: Any = SimpleNamespace(missing=missing)
        return weaker_line(summary)

    assert line() is None
    assert line(cgroup="not delegated") is None
    assert "no netns, userns;" in (line(userns="refused", netns="needs it", cgroup="none") or "")


def test_the_seen_line_has_standard_input_and_what_was_hidden() -> None:
    def line(shown: list[tuple[str, str, int]], hidden: int = 0) -> str:
        summary: Any = SimpleNamespace(
            shown=shown, hidden=hidden, left_out=0, refused_total=0, refused=[], session="5"
        )
        return seen_line(summary, [])

    assert line([]).startswith("seen: nothing · refused: nothing · session 5")
    assert line([("-", "d", 26)]).startswith("seen: standard input, 26 B ·")
    assert line([("/a", "d", 4), ("-", "d", 26)]).startswith("seen: 1 file, 4 B and standard input, 26 B ·")
    assert "· hidden by data.deny: 2 names ·" in line([], 2)
