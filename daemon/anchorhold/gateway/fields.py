"""Strict reading of a request's JSON: each key is known, checked, and read once, or the request is refused.

null counts as absent, as in OpenAI's API. Keys that change nothing about the answer are named and let pass;
those that would change it and are not done here are refused with a message that says so.
"""

from __future__ import annotations

import json
import math
from typing import Any

from anchorhold.gateway.errors import ApiError, invalid, unsupported

MOST_DEPTH = 64
"""Levels of lists and objects in a request."""


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key twice")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


_decode = json.JSONDecoder(object_pairs_hook=_no_duplicates, parse_constant=_no_constant).decode
compact = json.JSONEncoder(ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode


def parse(body: bytes) -> Fields:
    """The object that a request's body is. Raises ApiError 400."""
    try:
        value = _decode(body.decode("utf-8"))
        compact(value).encode("ascii")
    except (ValueError, RecursionError) as error:
        kind = "nested too deep" if isinstance(error, RecursionError) else "no valid JSON in UTF-8"
        raise ApiError(400, f"The body is {kind}.", code="invalid_json") from None
    if type(value) is not dict:
        raise ApiError(400, "The body is no JSON object.", code="invalid_json")
    if _deep(value):
        raise ApiError(400, "The body is nested too deep.", code="invalid_json")
    return Fields(value)


def _deep(value: Any) -> bool:
    """Whether it has more levels than allowed."""
    level = [value]
    for _depth in range(MOST_DEPTH):
        level = [
            item
            for one in level
            for item in (one.values() if type(one) is dict else one)
            if type(item) in (dict, list)
        ]
        if not level:
            return False
    return True


def clean(value: Any) -> bool:
    """Text without lone surrogates, which JSON's escapes can carry and UTF-8 cannot."""
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


class Fields:
    """One JSON object while it is read. where: its own name in messages, "" for the body."""

    def __init__(self, value: Any, where: str = "") -> None:
        if type(value) is not dict:
            raise invalid(where, "an object is wanted")
        self._value: dict[str, Any] = value
        self._where = where
        self._left = set(value)

    def name(self, key: str) -> str:
        return f"{self._where}.{key}" if self._where else key

    def take(self, key: str) -> Any:
        """The value as it is; None when absent."""
        self._left.discard(key)
        return self._value.get(key)

    def has(self, key: str) -> bool:
        return self._value.get(key) is not None

    def _typed(self, key: str, kind: type, words: str, *, required: bool) -> Any:
        value = self.take(key)
        if value is None:
            if required:
                raise ApiError(
                    400,
                    f"{self.name(key)} is missing.",
                    code="missing_required_parameter",
                    param=self.name(key),
                )
            return None
        if type(value) is not kind:
            raise invalid(self.name(key), f"{words} is wanted")
        return value

    def text(self, key: str, default: str = "", *, required: bool = False, most: int = 1 << 26) -> str:
        value = self._typed(key, str, "a string", required=required)
        if value is None:
            return default
        if not clean(value):
            raise invalid(self.name(key), "it is no Unicode text")
        if len(value) > most:
            raise invalid(self.name(key), f"it is longer than {most} characters")
        found: str = value
        return found

    def optional_text(self, key: str) -> str | None:
        return self.text(key) if self.has(key) else self.take(key)

    def integer(self, key: str, low: int, high: int) -> int | None:
        value = self._typed(key, int, "a whole number", required=False)
        if value is not None and not low <= value <= high:
            raise invalid(self.name(key), f"a whole number from {low} to {high} is wanted")
        found: int | None = value
        return found

    def number(self, key: str, low: float, high: float, default: float) -> float:
        value = self.take(key)
        if value is None:
            return default
        if type(value) not in (int, float) or not math.isfinite(value) or not low <= value <= high:
            raise invalid(self.name(key), f"a number from {low:g} to {high:g} is wanted")
        return float(value)

    def boolean(self, key: str, default: bool = False) -> bool:
        value = self._typed(key, bool, "true or false", required=False)
        return default if value is None else bool(value)

    def items(self, key: str, most: int, *, required: bool = False) -> list[Any]:
        value = self._typed(key, list, "a list", required=required)
        if value is not None and len(value) > most:
            raise invalid(self.name(key), f"more than {most} items")
        return [] if value is None else list(value)

    def object(self, key: str) -> Fields | None:
        value = self.take(key)
        return None if value is None else Fields(value, self.name(key))

    def choice(self, key: str, *allowed: str, default: str = "") -> str:
        value = self.text(key, default)
        if value not in allowed and value != default:
            raise invalid(self.name(key), f"one of {', '.join(allowed)} is wanted")
        return value

    def only(self, key: str, *neutral: Any, why: str = "this is not done here") -> None:
        """Absent, null, or one of these values, which are as good as absent."""
        value = self.take(key)
        if value is None or any(type(one) is type(value) and one == value for one in neutral):
            return
        if type(value) in (int, float) and any(
            type(one) in (int, float) and float(one) == float(value) for one in neutral
        ):
            return
        raise unsupported(self.name(key), why)

    def harmless(self, *keys: str) -> None:
        """Whatever they say, the answer is the same."""
        self._left.difference_update(keys)

    def end(self) -> None:
        """Nothing may be left that nobody has read."""
        for key in sorted(self._left):
            shown = self.name(key) if key.isascii() and key.isprintable() and len(key) <= 64 else "a key"
            raise ApiError(400, f"{shown} is not known here.", code="unknown_parameter", param=shown)
