"""Regular expressions of JSON Schema's ``pattern``: read into a tree, made into an automaton (automaton.py).

The subset that an automaton can hold: characters, classes, ``.``, groups, ``|``, ``? * + {n} {n,m}``, ``^``
at the beginning and ``$`` at the end. Look-around, back references and word boundaries fail with
not_supported. A pattern is read once, left to right, with a bounded depth. Source: ECMA-262, 22.2 (JSON
Schema's dialect).
"""

from __future__ import annotations

from anchorhold.worker.failure import Failure

MOST_PATTERN = 2_000  # characters
MOST_DEPTH = 30  # groups in groups
_LAST = 0x10FFFF
_DIGITS = [(0x30, 0x39)]
_WORD = [(0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A)]
_SPACE = [(9, 13), (0x20, 0x20), (0xA0, 0xA0), (0x1680, 0x1680), (0x2000, 0x200A), (0x2028, 0x2029),
          (0x202F, 0x202F), (0x205F, 0x205F), (0x3000, 0x3000), (0xFEFF, 0xFEFF)]  # fmt: skip
_SETS = {"d": _DIGITS, "w": _WORD, "s": _SPACE}
_CONTROLS = {"t": 9, "n": 10, "v": 11, "f": 12, "r": 13, "0": 0}

Ranges = list[tuple[int, int]]
"""Code points, both ends included."""


class Node:
    """One part of a pattern: one character of ``ranges``, or ``parts`` in a row, or one of ``parts``; so
    many times."""

    __slots__ = ("least", "most", "parts", "ranges", "row")

    def __init__(
        self, *, ranges: Ranges | None = None, parts: list[Node] | None = None, row: bool = True
    ) -> None:
        self.ranges, self.parts, self.row = ranges, parts or [], row
        self.least: int = 1
        self.most: int | None = 1


def read(pattern: str) -> Node:
    """The whole pattern, with "anything" where it has no anchor. Raises Failure bad_request,
    not_supported."""
    if len(pattern) > MOST_PATTERN:
        raise Failure("bad_request", f"a pattern of more than {MOST_PATTERN:,} characters")
    return _Reader(pattern).whole()


def _anything() -> Node:
    node = Node(ranges=complement([]))
    node.least, node.most = 0, None
    return node


class _Reader:
    def __init__(self, pattern: str) -> None:
        self.pattern, self.at, self.depth = pattern, 0, 0

    def whole(self) -> Node:
        pattern = self.pattern
        begin = pattern.startswith("^")
        # An escaped dollar sign is no end.
        stripped = pattern[:-1].rstrip("\\")
        end = pattern.endswith("$") and (len(pattern) - 1 - len(stripped)) % 2 == 0
        if (begin or end) and _has_choice(pattern):
            # ^a|b$ means (^a)|(b$): each anchor belongs to one side. With a group it is what people mean.
            raise self._unsupported("an anchor beside | without a group")
        self.at = int(begin)
        self.pattern = pattern[:-1] if end else pattern
        found = self._choice()
        if self.at < len(self.pattern):
            raise self._wrong("a ) without its (")
        return Node(parts=[*([] if begin else [_anything()]), found, *([] if end else [_anything()])])

    def _choice(self) -> Node:
        self.depth += 1
        if self.depth > MOST_DEPTH:
            raise Failure("bad_request", f"a pattern with more than {MOST_DEPTH} groups in each other")
        options = [self._sequence()]
        while self._take("|"):
            options.append(self._sequence())
        self.depth -= 1
        return Node(parts=options, row=False)

    def _sequence(self) -> Node:
        items: list[Node] = []
        while self.at < len(self.pattern) and self.pattern[self.at] not in "|)":
            items.append(self._repeated(self._item()))
        return Node(parts=items)

    def _repeated(self, item: Node) -> Node:
        """The item as often as the quantifier behind it says."""
        bounds = self._quantifier()
        if bounds is not None:
            self._take("?")  # lazy: for what matches it makes no difference
            if self.at < len(self.pattern) and self.pattern[self.at] in "*+?{":
                raise self._wrong("two quantifiers in a row")
            item.least, item.most = bounds
            if item.most is not None and item.most < item.least:
                raise self._wrong("a quantifier whose least is above its most")
        return item

    def _quantifier(self) -> tuple[int, int | None] | None:
        for sign, bounds in (("*", (0, None)), ("+", (1, None)), ("?", (0, 1))):
            if self._take(sign):
                return bounds
        if self.at < len(self.pattern) and self.pattern[self.at] == "{":
            end = self.pattern.find("}", self.at)
            words = self.pattern[self.at + 1 : end].split(",") if end > 0 else []
            if not (1 <= len(words) <= 2 and all(word.isascii() and len(word) < 9 for word in words)):
                raise self._wrong("a { that is no quantifier")
            if not words[0].isdigit() or not (len(words) == 1 or words[1].isdigit() or not words[1]):
                raise self._wrong("a { that is no quantifier")
            self.at = end + 1
            least = int(words[0])
            if len(words) == 1:
                return least, least
            return least, int(words[1]) if words[1] else None
        return None

    def _item(self) -> Node:
        """One character, class or group."""
        char = self.pattern[self.at]
        self.at += 1
        if char == "(":
            return self._group()
        if char == "[":
            return Node(ranges=self._class())
        if char == ".":
            return Node(ranges=complement([(10, 10), (13, 13), (0x2028, 0x2029)]))
        if char == "\\":
            return Node(ranges=self._escape())
        if char in "*+?{":
            raise self._wrong(f"a {char} with nothing before it")
        if char in "^$":
            raise self._unsupported(f"{char} inside a pattern")
        return Node(ranges=[(ord(char), ord(char))])

    def _group(self) -> Node:
        if self._take("?") and not self._take(":"):
            raise self._unsupported("a group that begins with (?")
        found = self._choice()
        if not self._take(")"):
            raise self._wrong("a ( without its )")
        return Node(parts=[found])

    def _class(self) -> Ranges:
        negated = self._take("^")
        ranges: Ranges = []
        while not self._take("]"):
            first = self._member()
            if self.pattern[self.at : self.at + 1] == "-" and self.pattern[self.at + 1 : self.at + 2] not in (
                "]",
                "",
            ):
                self.at += 1
                last = self._member()
                if len(first) != 1 or len(last) != 1 or first[0][0] > last[0][1]:
                    raise self._wrong("a range that goes nowhere")
                first = [(first[0][0], last[0][1])]
            ranges += first
        return complement(ranges) if negated else ranges

    def _member(self) -> Ranges:
        if self.at >= len(self.pattern):
            raise self._wrong("a [ without its ]")
        char = self.pattern[self.at]
        self.at += 1
        if char != "\\":
            return [(ord(char), ord(char))]
        if self.pattern[self.at : self.at + 1] == "b":
            self.at += 1
            return [(8, 8)]
        return self._escape()

    def _escape(self) -> Ranges:
        char = self.pattern[self.at : self.at + 1]
        self.at += 1
        if not char:
            raise self._wrong("a \\ at its end")
        if char.lower() in _SETS:
            found = _SETS[char.lower()]
            return complement(found) if char.isupper() else found
        if char in _CONTROLS:
            return [(_CONTROLS[char], _CONTROLS[char])]
        if char in "xu":
            size = 2 if char == "x" else 4
            digits = self.pattern[self.at : self.at + size]
            if len(digits) != size or not all(digit in "0123456789abcdefABCDEF" for digit in digits):
                raise self._wrong(f"a \\{char} without its digits")
            self.at += size
            return [(int(digits, 16), int(digits, 16))]
        if char.isascii() and char.isalnum():
            raise self._unsupported(f"\\{char}")
        return [(ord(char), ord(char))]

    def _take(self, sign: str) -> bool:
        if self.pattern[self.at : self.at + 1] == sign:
            self.at += 1
            return True
        return False

    def _wrong(self, what: str) -> Failure:
        return Failure("bad_request", f"a pattern cannot be read: {what} (at character {self.at})")

    def _unsupported(self, what: str) -> Failure:
        return Failure("not_supported", f"a pattern cannot be held: {what}")


def _has_choice(pattern: str) -> bool:
    """Whether a | stands outside all groups and classes."""
    depth, inside, skip = 0, False, False
    for char in pattern:
        if skip:
            skip = False
        elif char == "\\":
            skip = True
        elif inside:
            inside = char != "]"
        elif char == "[":
            inside = True
        elif char in "()":
            depth += 1 if char == "(" else -1
        elif char == "|" and depth == 0:
            return True
    return False


def complement(ranges: Ranges) -> Ranges:
    """All other code points, surrogates left out."""
    found: Ranges = []
    at = 0
    for first, last in [*sorted([*ranges, (0xD800, 0xDFFF)]), (_LAST + 1, _LAST + 1)]:
        if first > at:
            found.append((at, first - 1))
        at = max(at, last + 1)
    return found
