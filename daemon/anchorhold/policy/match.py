"""Decides on a path from its text alone: no look at the file system, so nothing can be learnt by asking.

`Matcher.decide` runs for every path that the worker names and takes about a microsecond. Patterns that are
a plain name are looked up in a set, those like ``*.suffix`` are one search; the rest is one expression, run
only for a path that holds some text which one of them needs. Which rule it was is worked out only for a path
that is denied. The paths are hostile; see `glob` on time.
"""

from __future__ import annotations

import os
import re

from anchorhold.errors import PolicyError
from anchorhold.policy.glob import BadPattern, Pattern, is_wild, parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from anchorhold.policy.schema import DataPolicy

OUTSIDE = "outside every root"
UNCLEAN = "not a clean path"

# No name has these; they stand among the denied names so that one look finds them too.
_NEVER = frozenset((b"", b".", b".."))


class Root:
    """A folder, or a single file, that the policy grants."""

    __slots__ = ("is_file", "path", "rule")

    def __init__(self, path: bytes, is_file: bool) -> None:
        self.path = path
        self.is_file = is_file
        self.rule = f'data.{"files" if is_file else "read"} "{os.fsdecode(path)}"'


class Decision:
    """``root``: index into ``Matcher.roots``, -1 outside. ``relative``: below the root, b"" for itself."""

    __slots__ = ("allowed", "relative", "root", "rule")

    def __init__(self, allowed: bool, root: int, relative: bytes, rule: str) -> None:
        self.allowed = allowed
        self.root = root
        self.relative = relative
        self.rule = rule

    def __repr__(self) -> str:
        return f"Decision({self.allowed}, {self.root}, {self.relative!r}, {self.rule!r})"


class _Below:
    """A folder as `decide` looks for it. ``above``: each folder that it lies in, and its path from there."""

    __slots__ = ("above", "index", "length", "prefix", "rule")

    def __init__(self, index: int, root: Root) -> None:
        self.index = index
        self.prefix = root.path.rstrip(b"/") + b"/"
        self.length = len(self.prefix)
        self.rule = root.rule
        self.above: tuple[bytes, ...] = ()


class Matcher:
    """The text rules of a policy's data section, compiled once. Raises PolicyError for a wrong pattern."""

    __slots__ = (
        "_above",
        "_absolute",
        "_exact",
        "_folders",
        "_literals",
        "_names",
        "_patterns",
        "_suffixes",
        "_wild",
        "roots",
    )

    def __init__(self, data: DataPolicy) -> None:
        self.roots = tuple(
            [Root(os.fsencode(path), False) for path in data.read]
            + [Root(os.fsencode(path), True) for path in data.files]
        )
        self._patterns: list[tuple[Pattern, re.Pattern[str], str]] = []
        names: set[bytes] = set(_NEVER)
        suffixes: set[bytes] = set()
        wild: list[str] = []
        literals: list[bytes] = []
        absolute: list[str] = []
        for text in data.deny:
            try:
                pattern = parse(text, os.path.expanduser("~"))
                compiled = re.compile(pattern.regex())
            except BadPattern as error:
                raise PolicyError(
                    f'data.deny: "{text}": {error}', hint=f"Allowed: {error.allowed}."
                ) from None
            self._patterns.append((pattern, compiled, f'data.deny "{text}"'))
            if pattern.absolute:
                absolute.append(compiled.pattern)
            elif plain := _plain_name(pattern):
                (suffixes if plain[0] == "*" else names).add(os.fsencode(plain.lstrip("*")))
            else:
                wild.append(compiled.pattern)
                literals.append(os.fsencode(pattern.literal))
        self._names = frozenset(names)
        ends = b"|".join(re.escape(suffix) for suffix in sorted(suffixes))
        self._suffixes = re.compile(rb"(?:%b)(?:/|\Z)" % ends).search if ends else None
        self._literals = tuple(dict.fromkeys(literals))
        self._wild = re.compile("|".join(wild)).match if wild else None
        self._absolute = re.compile("|".join(absolute)).match if absolute else None
        folders = [_Below(index, root) for index, root in enumerate(self.roots) if not root.is_file]
        for one in folders:
            one.above = tuple(
                one.prefix[other.length :]
                for other in folders
                if other is not one and one.prefix.startswith(other.prefix) and one.prefix != other.prefix
            )
        self._folders = tuple(sorted(folders, key=lambda one: -one.length))
        self._above = {one.index: one.above for one in folders}
        # A root was named by a person: only an absolute pattern, or one of a folder around it, hides it.
        self._exact: dict[bytes, Decision] = {}
        for index, root in reversed(tuple(enumerate(self.roots))):
            rule = self._rule_of_root(index, root)
            self._exact[root.path] = Decision(rule is None, index, b"", rule or root.rule)

    def decide(self, path: bytes) -> Decision:
        """path: absolute and clean (no empty, ``.`` or ``..`` component, no slash at its end)."""
        exact = self._exact.get(path)
        if exact is not None:
            return exact
        for folder in self._folders:
            if path.startswith(folder.prefix):
                relative = path[folder.length :]
                rule = self._denied(relative, path)
                if rule is None:
                    for above in folder.above:
                        rule = self._denied(above + relative, path)
                        if rule is not None:
                            break
                    else:
                        return Decision(True, folder.index, relative, folder.rule)
                return Decision(False, folder.index, relative, rule)
        return Decision(False, -1, b"", OUTSIDE)

    def hidden(self, root: int, relative: bytes) -> str | None:
        """The rule that hides a resolved path, for listings and behind links. A root itself is not hidden."""
        if not relative:
            return None
        path = self.roots[root].path.rstrip(b"/") + b"/" + relative
        rule = self._denied(relative, path)
        for above in self._above.get(root, ()):
            rule = rule or self._denied(above + relative, path)
        return rule

    def _denied(self, relative: bytes, path: bytes) -> str | None:
        parts = relative.split(b"/")
        if not self._names.isdisjoint(parts) or b"\0" in relative:
            return self._which(relative, path)
        if self._suffixes is not None and self._suffixes(relative):
            return self._which(relative, path)
        for literal in self._literals:
            if literal in relative:
                if self._wild is not None and self._wild(relative.decode("utf-8", "surrogateescape")):
                    return self._which(relative, path)
                break
        if self._absolute is not None and self._absolute(path[1:].decode("utf-8", "surrogateescape")):
            return self._which(relative, path)
        return None

    def _which(self, relative: bytes, path: bytes) -> str:
        if b"\0" in relative or not _NEVER.isdisjoint(relative.split(b"/")):
            return UNCLEAN
        below, whole = (os.fsdecode(one) for one in (relative, path[1:]))
        for pattern, compiled, rule in self._patterns:
            if compiled.match(whole if pattern.absolute else below):
                return rule
        raise AssertionError("a path was denied by no rule")  # would be a defect; it refuses all the same

    def _rule_of_root(self, index: int, root: Root) -> str | None:
        """The rule that denies a root: by its name for a single file, else by what lies around it."""
        if root.is_file:
            rule = self._denied(os.path.basename(root.path), root.path)
            for folder in self._folders:
                if root.path.startswith(folder.prefix):
                    rule = rule or self._denied(root.path[folder.length :], root.path)
            return rule
        path = root.path.rstrip(b"/")
        for above in self._above[index]:
            rule = self._denied(above.rstrip(b"/"), path)
            if rule is not None:
                return rule
        if self._absolute is not None and self._absolute(os.fsdecode(path[1:])):
            return self._which(os.path.basename(path), path)
        return None


def _plain_name(pattern: Pattern) -> str:
    """The pattern if it is a lone name without wildcards, or ``*.suffix`` with one dot; else nothing."""
    if len(pattern.parts) != 2 or pattern.parts[0] != "**":
        return ""
    name = pattern.parts[1]
    if not is_wild(name):
        return name
    suffix = name[1:]
    one_dot = suffix.startswith(".") and suffix.count(".") == 1 and len(suffix) > 1
    return name if name[0] == "*" and one_dot and not is_wild(suffix) else ""
