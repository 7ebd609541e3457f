"""Grammars in GBNF, the engine's own language (llama.cpp, grammars/README.md): rules with a bound.

What a client sends becomes a grammar here and nowhere else, so its size is held here: each rule costs its
length, and past ``MOST_TEXT`` the request fails. Nothing of a client's text enters a rule unless it went
through ``literal`` or ``chars``, which escape it; no client can write a rule of its own.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from anchorhold.worker.failure import Failure

MOST_TEXT = 200_000  # characters of all rules
MOST_REPEATED = 100_000  # times that something may be repeated
_BLOCK = 200  # the engine makes a rule for each optional repetition; beyond, blocks of so many
_ESCAPED = frozenset('"\\[]^-')

# Space is bounded, or a small model would go on with it for ever.
_BASE = {
    "ws": r'| " " | "\n" [ \t]{0,20}',
    # The last two digits of a \\u escape stand outside the brackets, the first two inside: no half of a pair.
    "char": r'[^"\\\x00-\x1F\x7F] | "\\" (["\\/bfnrt] | "u" ([0-9a-cA-CefEF] hex | [dD] [0-7]) hex hex)',
    "hex": "[0-9a-fA-F]",
    "string": r'"\"" char* "\""',
    "int": '"-"? ("0" | [1-9] [0-9]{0,15})',
    "number": 'int ("." [0-9]{1,16})? ([eE] [-+]? [0-9]{1,3})?',
    "bool": '"true" | "false"',
    "null": '"null"',
    "value": "object | array | string | number | bool | null",
    "pair": 'string ":" ws value',
    "object": '"{" ws (pair ("," ws pair)* ws)? "}"',
    "array": '"[" ws (value ("," ws value)* ws)? "]"',
}
_NEEDS = {
    "char": ("hex",),
    "string": ("char",),
    "number": ("int",),
    "value": ("object", "array", "string", "number", "bool", "null"),
    "pair": ("string", "value", "ws"),
    "object": ("pair", "ws"),
    "array": ("value", "ws"),
}


class Rules:
    """The rules of one grammar."""

    def __init__(self) -> None:
        self._rules: dict[str, str] = {}
        self._names: dict[str, str] = {}
        self._size = 0

    def base(self, name: str) -> str:
        """One of the rules that JSON is made of; returns its name."""
        if name not in self._rules:
            self.set(name, _BASE[name])
            for needed in _NEEDS.get(name, ()):
                self.base(needed)
        return name

    def reserve(self) -> str:
        """A name for a rule to come: it can be referred to before it is known."""
        name = f"r{len(self._rules)}"
        self._rules[name] = ""
        return name

    def set(self, name: str, body: str) -> None:
        """Raises Failure bad_request when the grammar becomes too large."""
        self._size += len(name) + len(body)
        if self._size > MOST_TEXT:
            raise too_large()
        self._rules[name] = body

    def add(self, body: str) -> str:
        """A rule of its own for this; the same text has one rule."""
        name = self._names.get(body)
        if name is None:
            name = self._names[body] = self.reserve()
            self.set(name, body)
        return name

    def one_of(self, texts: Iterable[str]) -> str:
        """Exactly one of these texts. Those with the same beginning share it: the engine follows one way
        only."""
        return self._branch(sorted(set(texts)))

    def _branch(self, texts: list[str]) -> str:
        """texts: sorted, no two the same. Each group by its first character is a rule of its own, without
        recursion here: there may be as many beginnings within beginnings as there are texts."""
        top = self.reserve()
        waiting = [(top, texts, 0)]
        while waiting:
            name, group, at = waiting.pop()
            options: list[str] = []
            begin = 0
            while begin < len(group):
                if len(group[begin]) == at:
                    options.append('""')
                    begin += 1
                    continue
                end = begin
                while end < len(group) and group[end][at] == group[begin][at]:
                    end += 1
                first, last = group[begin], group[end - 1]
                same = at + 1
                while same < min(len(first), len(last)) and first[same] == last[same]:
                    same += 1
                option = literal(first[at:same])
                if end - begin > 1:
                    rest = self.reserve()
                    waiting.append((rest, group[begin:end], same))
                    option += f" {rest}"
                elif same < len(first):
                    option = literal(first[at:])
                options.append(option)
                begin = end
            self.set(name, " | ".join(options))
        return top

    def repeat(self, item: str, least: int, most: int | None) -> str:
        """``item`` (any expression) so many times. Raises Failure bad_request for what is beyond all
        bounds."""
        if least > MOST_REPEATED or (most or 0) > MOST_REPEATED:
            raise Failure("bad_request", f"nothing can be repeated more than {MOST_REPEATED:,} times")
        if most is not None and most < least:
            raise Failure("bad_request", "a least number that is above the most")
        if most == 0:
            return '""'
        name = self.add(item)
        fixed = self._times(name, least)
        if most is None:
            return f"{fixed} {name}*".strip()
        return f"{fixed} {self._up_to(name, most - least)}".strip()

    def _times(self, name: str, number: int) -> str:
        if number == 0:
            return ""
        if number <= _BLOCK:
            return f"{name}{{{number}}}"
        block = self.add(f"{name}{{{_BLOCK}}}")
        return f"{self._times(block, number // _BLOCK)} {self._times(name, number % _BLOCK)}".strip()

    def _up_to(self, name: str, number: int) -> str:
        """0 to number. In blocks there is one way only to read each length: full ones, then one that is
        not."""
        if number == 0:
            return ""
        if number <= _BLOCK:
            return f"{name}{{0,{number}}}"
        block = self.add(f"{name}{{{_BLOCK}}}")
        blocks, rest = divmod(number, _BLOCK)
        below = f"{name}{{0,{_BLOCK - 1}}}"
        some = f"{self._up_to(block, blocks - 1)} {below}".strip()
        full = f"{self._times(block, blocks)} {self._up_to(name, rest)}".strip()
        return f"({some} | {full})"

    def text(self, root: str) -> str:
        """The whole grammar, which begins with the expression ``root``."""
        return "\n".join([f"root ::= {root}", *(f"{name} ::= {body}" for name, body in self._rules.items())])


def any_object() -> str:
    """JSON mode: any JSON object, and nothing after it."""
    rules = Rules()
    return rules.text(rules.base("object"))


def literal(text: str) -> str:
    """Exactly this text."""
    return '"' + "".join(map(_char, text)) + '"'


def json_literal(value: object) -> str:
    """Exactly this value as JSON. Raises Failure for what is no JSON."""
    return literal(json.dumps(value, ensure_ascii=False, allow_nan=False))


def chars(ranges: Iterable[tuple[int, int]], *, negated: bool = False) -> str:
    """One character out of these ranges of code points, both ends included."""
    inside = "".join(
        _char(chr(first)) if first == last else f"{_char(chr(first))}-{_char(chr(last))}"
        for first, last in ranges
    )
    return f"[{'^' if negated else ''}{inside}]"


def _char(char: str) -> str:
    code = ord(char)
    if char.isascii() and char.isalnum():
        return char
    if char in _ESCAPED or code < 0x20 or code > 0x7E:
        return f"\\U{code:08X}" if code > 0xFF else f"\\x{code:02X}"
    return char


def too_large() -> Failure:
    return Failure(
        "bad_request", f"the schema, or the tools, make a grammar of more than {MOST_TEXT:,} characters"
    )
