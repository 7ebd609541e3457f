"""Values of single keys: each takes what TOML gave and returns what the schema holds, or raises Bad."""

from __future__ import annotations

import math
import re
from collections.abc import Callable

from anchorhold.policy.glob import BadPattern, parse
from anchorhold.policy.schema import LAYERS

_UNITS = {
    "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40,
    "KB": 10**3, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
}  # fmt: skip
_SIZE = re.compile(r"([0-9]{1,18})([kKMGT]i?B|B)?", re.ASCII)
_DURATION = re.compile(r"(?:([0-9]{1,5})d)?(?:([0-9]{1,5})h)?(?:([0-9]{1,6})m)?(?:([0-9]{1,8})s)?", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_HEX = re.compile(r"[0-9a-fA-F]{64}", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")

MOST = 1 << 50
"""Bytes; above any machine, below what overflows a kernel interface."""

SIZE_WORDS = 'bytes as a whole number, or with a unit: "64MiB", "4GiB", "500MB"'


class Bad(Exception):
    """A value that is wrong. The text says what is; ``allowed`` what is right; ``index`` where in a list."""

    def __init__(self, text: str, allowed: str, index: int | None = None) -> None:
        super().__init__(text)
        self.allowed = allowed
        self.index = index


Parser = Callable[[object], object]


def shown(value: object) -> str:
    """Any value on one line, short, without a character that a terminal would obey."""
    if isinstance(value, str):
        text = value if len(value) <= 200 else value[:200] + "…"
        return '"' + "".join(one if one.isprintable() else _escape(one) for one in text) + '"'
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "a table"
    return f"a list of {len(value)}" if isinstance(value, list) else ascii(value)[:200]


def _escape(letter: str) -> str:
    return letter.encode("unicode_escape", "surrogatepass").decode("ascii")


def text(value: object, allowed: str) -> str:
    """A string without control characters."""
    if not isinstance(value, str):
        raise Bad(f"{shown(value)} is no string", allowed)
    if _CONTROL.search(value):
        raise Bad(f"{shown(value)} has a control character", allowed)
    return value


def name(value: object) -> str:
    allowed = "1 to 64 letters, digits, dots, dashes and underscores, a letter or digit first"
    found = text(value, allowed)
    if not _NAME.fullmatch(found):
        raise Bad(f"{shown(value)} is no name", allowed)
    return found


def is_name(value: str) -> bool:
    return _NAME.fullmatch(value) is not None


def integer(low: int, high: int, words: str = "") -> Parser:
    allowed = f"a whole number from {low} to {high}" + (f" ({words})" if words else "")

    def parser(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise Bad(f"{shown(value)} is no whole number", allowed)
        if not low <= value <= high:
            raise Bad(f"{value if abs(value) < 10**20 else 'it'} is out of range", allowed)
        return value

    return parser


def boolean(value: object) -> bool:
    if not isinstance(value, bool):
        raise Bad(f"{shown(value)} is neither true nor false", "true, false")
    return value


def one_of(*choices: str) -> Parser:
    allowed = ", ".join(f'"{choice}"' for choice in choices)

    def parser(value: object) -> str:
        if value not in choices or not isinstance(value, str):
            raise Bad(f"{shown(value)} is unknown", allowed)
        return value

    return parser


def size(low: int, *, off: bool, most: int = MOST) -> Parser:
    """Bytes from ``low`` to ``most``. off: ``"off"`` is allowed and gives None."""
    allowed = SIZE_WORDS + (f", from {low} bytes on" if low else "") + (', or "off"' if off else "")
    allowed += f", at most {most} bytes" if most < MOST else ""

    def parser(value: object) -> int | None:
        if off and value == "off":
            return None
        number = -1
        if isinstance(value, int) and not isinstance(value, bool):
            number = value
        elif isinstance(value, str) and (match := _SIZE.fullmatch(value)):
            number = int(match[1]) * _UNITS[match[2] or "B"]
        else:
            raise Bad(f"{shown(value)} is no size", allowed)
        if not low <= number <= most:
            raise Bad(f"{shown(value)} is out of range", allowed)
        return number

    return parser


def duration(value: object) -> float | None:
    allowed = '"off", or a time with its unit: "90s", "10m", "2h", "1h30m", "1d"; at least one second'
    if value == "off":
        return None
    match = _DURATION.fullmatch(value) if isinstance(value, str) and value else None
    if match is None:
        raise Bad(f"{shown(value)} is no duration", allowed)
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    total = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    if total < 1:
        raise Bad(f"{shown(value)} is no time at all", allowed)
    return float(total)


def processors(value: object) -> float | None:
    allowed = 'a number of processors from 0.05 to 4096, as 0.5 or 2, or "off"'
    if value == "off":
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise Bad(f"{shown(value)} is no number", allowed)
    if not math.isfinite(value) or not 0.05 <= value <= 4096:
        raise Bad(f"{shown(value)} is out of range", allowed)
    return float(value)


def sha256(value: object) -> str:
    allowed = "the 64 hexadecimal digits that sha256sum prints"
    if not isinstance(value, str) or not _HEX.fullmatch(value):
        raise Bad(f"{shown(value)} is no SHA-256", allowed)
    return value.lower()


def strings(value: object, allowed: str, one: Callable[[str], str]) -> tuple[str, ...]:
    """A list of strings, each checked by ``one``, none twice."""
    if not isinstance(value, list):
        raise Bad(f"{shown(value)} is no list", allowed)
    found: list[str] = []
    for index, item in enumerate(value):
        try:
            checked = one(text(item, allowed))
        except Bad as error:
            raise Bad(str(error), error.allowed, index) from None
        if checked in found:
            raise Bad(f"{shown(item)} is there twice", "each one once", index)
        found.append(checked)
    return tuple(found)


def layers(value: object) -> tuple[str, ...]:
    allowed = "a list of: " + ", ".join(LAYERS)

    def one(layer: str) -> str:
        if layer not in LAYERS:
            raise Bad(f"{shown(layer)} is no layer", allowed)
        return layer

    return strings(value, allowed, one)


_WITNESS = re.compile(r"(folder|git|command):(/|~/).+", re.DOTALL)
_COPY = re.compile(r"(journald|syslog)(:unix:///.+)?|syslog:udp://\S+:[0-9]{1,5}")


def witnesses(value: object) -> tuple[str, ...]:
    """What gets each signed head; whether it is there is seen when it is used
    (`anchorhold.audit.witness`)."""
    return _targets(value, _WITNESS, 'a list of "folder:/path", "git:/path" or "command:/program arguments"')


def copies(value: object) -> tuple[str, ...]:
    """Where entries are copied to (`anchorhold.audit.copies`)."""
    return _targets(value, _COPY, 'a list of "journald", "syslog", "syslog:udp://127.0.0.1:514"')


def _targets(value: object, form: re.Pattern[str], allowed: str) -> tuple[str, ...]:
    def one(target: str) -> str:
        if not form.fullmatch(target):
            raise Bad(f"{shown(target)} is none of these", allowed)
        return target

    return strings(value, allowed, one)


def deny(home: str) -> Callable[[object], tuple[str, ...]]:
    def one(pattern: str) -> str:
        try:
            parse(pattern, home)
        except BadPattern as error:
            raise Bad(f"{shown(pattern)}: {error}", error.allowed) from None
        return pattern

    return lambda value: strings(value, 'a list of patterns, as ["**/*.key", "drafts"]', one)


def program(value: object) -> tuple[str, ...]:
    """A program by its absolute path, and its arguments. Whether it is there is seen when it is run."""
    allowed = 'a list of a program and its arguments, as ["/usr/bin/logger", "-t", "anchorhold"]'
    if not isinstance(value, list):
        raise Bad(f"{shown(value)} is no list", allowed)
    found = tuple(text(item, allowed) for item in value)
    if found and not (found[0].startswith("/") and all("\0" not in item for item in found)):
        raise Bad(f"{shown(found[0])} is no absolute path of a program", allowed)
    return found
