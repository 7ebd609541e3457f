"""A second matcher, written from docs/policy.md alone: recursive, slow, without regular expressions."""

from __future__ import annotations

from collections.abc import Sequence


def allowed(path: bytes, roots: Sequence[str], files: Sequence[str], deny: Sequence[str]) -> bool:
    parts = _names(path.decode("utf-8", "surrogateescape"))
    if parts is None:
        return False
    folders = [_must(root) for root in roots]
    around = [root for root in folders if parts[: len(root)] == root]
    if parts in folders:
        # Named by a person: what hides it is a rule about where it lies.
        around.remove(parts)
        return not any(_denies(text, parts, root, True) for text in deny for root in [*around, None])
    if path.decode("utf-8", "surrogateescape") in files:
        around.append(parts[:-1])
    if not around:
        return False
    return not any(_denies(text, parts, root, False) for text in deny for root in around)


def _names(path: str) -> list[str] | None:
    parts = path[1:].split("/")
    bad = not path.startswith("/") or "\0" in path or any(part in ("", ".", "..") for part in parts)
    return None if bad else parts


def _must(path: str) -> list[str]:
    parts = _names(path)
    assert parts is not None
    return parts


def _denies(pattern: str, parts: list[str], root: list[str] | None, itself: bool) -> bool:
    """Whether the pattern names the path or a folder that it lies in. root None: absolute patterns only."""
    words = [word for word in pattern.split("/") if word]
    if pattern.startswith("/"):
        below = parts
    elif root is None:
        return False
    else:
        below = parts[len(root) :]
        if "/" not in pattern.rstrip("/"):
            words = ["**", *words]
        if words[0] == ".":
            words = words[1:]
    while words[-1] == "**":
        words = words[:-1]
    return any(_match(words, below[:end]) for end in range(1, len(below) + 1))


def _match(words: list[str], names: list[str]) -> bool:
    if not words:
        return not names
    if words[0] == "**":
        return _match(words[1:], names) or bool(names) and _match(words, names[1:])
    return bool(names) and _one(words[0], names[0]) and _match(words[1:], names[1:])


def _one(word: str, name: str) -> bool:
    if not word:
        return not name
    if word[0] == "*":
        return _one(word[1:], name) or bool(name) and _one(word, name[1:])
    if not name:
        return False
    if word[0] == "?":
        return _one(word[1:], name[1:])
    if word[0] == "[":
        end = word.index("]", 3 if word[1] == "!" else 2)
        inside = word[1:end]
        return _in_set(inside, name[0]) and _one(word[end + 1 :], name[1:])
    return word[0] == name[0] and _one(word[1:], name[1:])


def _in_set(inside: str, letter: str) -> bool:
    if inside[0] == "!":
        return not _in_set(inside[1:], letter)
    while inside:
        if inside[1:2] == "-" and len(inside) > 2:
            if inside[0] <= letter <= inside[2]:
                return True
            inside = inside[3:]
        else:
            if letter == inside[0]:
                return True
            inside = inside[1:]
    return False
