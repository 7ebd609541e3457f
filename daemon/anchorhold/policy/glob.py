r"""Deny patterns: what they may say, and the regular expression of each.

=========  ==================================================================================
``name``   no slash: this name, at any depth below a folder
``a/b``    a slash: from the folder downwards; ``./a`` for a single name right there
``/a/b``   absolute; ``~/a`` likewise
``*``      any characters of one name, none included; hidden files too
``?``      one character
``[a-z]``  one character of the set, ``[!a-z]`` one that is not in it
``**``     as a whole component: any number of folders, none included
=========  ==================================================================================

What a pattern names is denied with everything below it, so ``a``, ``a/`` and ``a/**`` differ in nothing but
that a slash inside anchors. Case counts. There is no escape: write ``[*]`` for a star.

The worker chooses the paths that are matched, so matching may not be slow for any of them: every part
between two stars is matched where it first fits and never again (an atomic group), which for globs is as good
as trying all and takes no exponential time. ``re`` is used on text; bytes that are no UTF-8 are one character
each (surrogateescape).
"""

from __future__ import annotations

import re

_END = r"(?=/|\Z)"
_ONE = "[^/]"
_WILD = re.compile(r"[*?]|\[[!^]?.[^]]*\]", re.DOTALL)


class BadPattern(ValueError):
    """A pattern that is wrong. The text says what is, ``allowed`` what is right."""

    def __init__(self, text: str, allowed: str) -> None:
        super().__init__(text)
        self.allowed = allowed


class Pattern:
    """One pattern, taken apart.

    ``absolute``: ``parts`` begin at ``/``, else at the folder. ``parts`` never end in ``**``; a lone name
    begins with ``**``.
    """

    __slots__ = ("absolute", "parts", "text")

    def __init__(self, text: str, absolute: bool, parts: tuple[str, ...]) -> None:
        self.text = text
        self.absolute = absolute
        self.parts = parts

    @property
    def fixed(self) -> tuple[str, ...]:
        """The components before the first that has a wildcard."""
        for index, part in enumerate(self.parts):
            if is_wild(part):
                return self.parts[:index]
        return self.parts

    @property
    def literal(self) -> str:
        """The longest text without wildcards: a path that lacks it cannot match. May be empty."""
        return max((text for part in self.parts for text in _WILD.split(part)), key=len)

    def regex(self) -> str:
        """Matches, at the beginning of a path without its leading slash, what the pattern denies."""
        out: list[str] = []
        group: list[str] = []
        floating = False
        for part in (*self.parts, "**"):
            if part != "**":
                group.append(part)
                continue
            if group:
                text = "/".join(component(one) for one in group) + _END
                out.append(f"(?>(?:{_ONE}+/)*?{text})" if floating else text)
                group = []
            if out:
                out.append("/")
            floating = True
        # The end of the last group is the end of a component; all below is denied with it.
        return "".join(out[:-1])


def is_wild(part: str) -> bool:
    return any(letter in part for letter in "*?[")


def escape(path: str) -> str:
    """The pattern that matches exactly this path."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in path)


def parse(text: str, home: str = "") -> Pattern:
    """Take a pattern apart. Raises BadPattern. home: what ``~`` stands for."""
    if not text:
        raise BadPattern("it is empty", "a name, or a path with *, ?, [...] and **")
    body = text
    if body == "~" or body.startswith("~/"):
        body = escape(home) + body[1:]
    elif body.startswith("~"):
        raise BadPattern("~ stands for your own home only", '"~/…", or an absolute path')
    absolute = body.startswith("/")
    anchored = absolute or "/" in body.rstrip("/")
    parts = _split(body.lstrip("/") if absolute else body)
    while parts and parts[-1] == "**":
        parts.pop()
    if not parts:
        raise BadPattern("it denies everything", "leave the folder out of data.read instead")
    for part in parts:
        if part != "**":
            re.compile(component(part))
    if not anchored:
        parts = ["**", *parts]
    return Pattern(text, absolute, tuple(parts))


def _split(body: str) -> list[str]:
    parts: list[str] = []
    pieces = body.split("/")
    if len(pieces) > 1 and pieces[-1] == "":
        pieces.pop()
    if pieces and pieces[0] == ".":
        pieces.pop(0)
    for piece in pieces:
        if piece in ("", ".", ".."):
            raise BadPattern(
                f"it has {'an empty component' if piece == '' else f'the component {piece!r}'}",
                "names and wildcards between single slashes; ./NAME for a name right below the folder",
            )
        if "**" in piece and piece != "**":
            raise BadPattern("** stands beside other characters", "** as a whole component, as in a/**/b")
        if piece == "**" and parts and parts[-1] == "**":
            continue
        parts.append(piece)
    return parts


def component(part: str) -> str:
    """The expression of one component. Raises BadPattern."""
    pieces: list[list[str]] = [[]]
    at = 0
    while at < len(part):
        letter = part[at]
        at += 1
        if letter == "*":
            pieces.append([])
        elif letter == "?":
            pieces[-1].append(_ONE)
        elif letter == "[":
            text, at = _set(part, at)
            pieces[-1].append(text)
        elif letter == "\\":
            raise BadPattern("it has a backslash", "[*], [?] and [[] for these characters themselves")
        else:
            pieces[-1].append(re.escape(letter))
    texts = ["".join(piece) for piece in pieces]
    if len(texts) == 1:
        return texts[0]
    # A star may be empty, but a component never is.
    nothing = not any(texts)
    middle = "".join(f"(?>{_ONE}*?{text})" for text in texts[1:-1])
    return texts[0] + middle + (f"{_ONE}+" if nothing else f"{_ONE}*") + texts[-1]


def _set(part: str, at: int) -> tuple[str, int]:
    """``[…]`` from behind its bracket: the expression, and where it ends."""
    allowed = "[abc], [a-z] or [!a-z]"
    negated = part[at : at + 1] in ("!", "^")
    at += negated
    end = part.find("]", at + 1)
    if end < 0:
        raise BadPattern("[ has no ]", allowed)
    out = []
    while at < end:
        if at + 2 < end and part[at + 1] == "-":
            if part[at] > part[at + 2]:
                raise BadPattern(f"the range {part[at : at + 3]} goes backwards", allowed)
            out.append(f"{re.escape(part[at])}-{re.escape(part[at + 2])}")
            at += 3
        else:
            out.append(re.escape(part[at]))
            at += 1
    inside = "".join(out)
    return (f"[^/{inside}]" if negated else f"(?!/)[{inside}]"), end + 1
