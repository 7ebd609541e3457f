"""On which line of a TOML file each key and each element of a list stands; ``tomllib`` does not say.

Only ever run on text that ``tomllib`` has accepted, and only for messages: a line that is not found costs a
number in a message, nothing else. Inline tables are one line: that of their key.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping

Key = tuple[str | int, ...]

_TOKEN = re.compile(
    r'"""(?:[^\\]|\\.)*?"{3,5}|'
    + r"'''.*?'{3,5}|"
    + r'"(?:[^"\\\n]|\\.)*"|'
    + r"'[^'\n]*'|#[^\n]*|\n|[\[\]{},=]|[^\s\[\]{},=\"'#]+",
    re.DOTALL,
)


def lines(text: str) -> Mapping[Key, int]:
    """(table, key) and (table, key, index) → line, from 1 on. A table itself: (table,)."""
    found: dict[Key, int] = {}
    table: Key = ()
    for line, tokens in _statements(text):
        words = [word for word, _line in tokens]
        if words[0] == "[":
            table = _key("".join(word for word in words if word not in "[]"))
            found.setdefault(table, line)
            continue
        equals = words.index("=") if "=" in words else len(words)
        key = (*table, *_key("".join(words[:equals])))
        for end in range(len(table) + 1, len(key) + 1):
            found.setdefault(key[:end], line)
        if words[equals + 1 : equals + 2] == ["["]:
            depth, index, fresh = 0, 0, True
            for word, at in tokens[equals + 1 :]:
                if depth == 1 and fresh and word not in "],":
                    found[(*key, index)] = at
                    fresh = False
                depth += (word in "[{") - (word in "]}")
                if depth == 1 and word == ",":
                    index, fresh = index + 1, True
    return found


def _statements(text: str) -> list[tuple[int, list[tuple[str, int]]]]:
    """Each statement with the line it begins on: its tokens, comments and line ends left out."""
    found: list[tuple[int, list[tuple[str, int]]]] = []
    current: list[tuple[str, int]] = []
    depth, line = 0, 1
    for match in _TOKEN.finditer(text):
        word = match[0]
        if word == "\n" and depth <= 0 and current:
            found.append((current[0][1], current))
            current, depth = [], 0
        elif word != "\n" and not word.startswith("#"):
            current.append((word, line))
            depth += (word in "[{") - (word in "]}")
        line += word.count("\n")
    if current:
        found.append((current[0][1], current))
    return found


def _key(words: str) -> Key:
    """``a."b.c"`` → ("a", "b.c"). tomllib itself reads it; () if it is no key."""
    try:
        node: object = tomllib.loads(f"{words} = 1")
    except tomllib.TOMLDecodeError:
        return ()
    key: list[str] = []
    while isinstance(node, dict):
        name, node = next(iter(node.items()))
        key.append(name)
    return tuple(key)


def line_of(found: Mapping[Key, int], key: Key) -> int | None:
    """The line of the key, or of what it stands in."""
    while key:
        if key in found:
            return found[key]
        key = key[:-1]
    return None
