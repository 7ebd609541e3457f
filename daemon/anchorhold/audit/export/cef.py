"""CEF, ArcSight's Common Event Format, version 0: one line an entry.

``CEF:0|anchorhold|anchorhold|<version>|<kind>|<title>|<severity>|<key=value key=value ...>``. All text is
first in `text.escape`'s form, so that nothing ends a line; then ``\\`` and, in the header, ``|``, in the
extension ``=`` get a backslash, as CEF has it. A space at either end of a value, which readers cut off, is
written by its number. Custom fields (``cs1`` ...) carry their label. ``cs6`` is JSON of all that has no key.
"""

from __future__ import annotations

import os
import re

from anchorhold import __version__
from anchorhold.audit.export.kinds import grade, kind_of, title
from anchorhold.audit.export.text import code, compact, escape, milliseconds, number, word

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

VENDOR = PRODUCT = "anchorhold"
MOST_CODE = 1_023
"""Characters of a signature ID; a kind is far shorter."""

OUTCOMES = {
    "grant": ("allowed", "success"),
    "list": ("allowed", "success"),
    "denial": ("denied", "failure"),
    "breach": ("denied", "failure"),
    "limit": ("killed", "failure"),
    "kill": ("killed", "success"),
}
"""``act`` and ``outcome`` by kind."""

_DONE = frozenset(
    {"v", "seq", "time", "session", "kind", "epoch", "n", "path", "resolved", "sha256", "size", "mode",
     "class", "request", "reason", "count", "call", "phase"}
)  # fmt: skip

_ENDS = re.compile(r"^\s+|\s+$")


class Cef:
    """Makes lines; knows the host's name."""

    def __init__(self, hostname: str = "") -> None:
        self._host = escape(hostname or os.uname().nodename) or "localhost"

    def line(self, entry: dict[str, Any]) -> bytes:
        kind = kind_of(entry)
        code, name = (_header(text[:MOST_CODE]) for text in (kind, title(entry)))
        head = ["CEF:0", VENDOR, PRODUCT, __version__, code, name, str(grade(entry).cef)]
        extension = " ".join(f"{key}={_value(value)}" for key, value in self._pairs(kind, entry))
        return ("|".join([*head, extension]) + "\n").encode("utf-8")

    def _pairs(self, kind: str, entry: dict[str, Any]) -> list[tuple[str, str]]:
        """Keys and safe texts, in this order; what is not there has no key."""
        pairs: list[tuple[str, str]] = []

        def put(key: str, text: str, label: str = "") -> None:
            if text:
                pairs.append((key, text))
                if label:
                    pairs.append((f"{key}Label", label))

        put("rt", _number(milliseconds(entry.get("time"))))
        put("dvchost", self._host)
        put("externalId", f"{word(entry.get('epoch', 0))}/{word(entry.get('seq', '?'))}")
        put("cat", kind)
        act, outcome = OUTCOMES.get(kind, ("", ""))
        put("act", act)
        put("outcome", outcome)
        path = entry.get("resolved") or entry.get("path")
        if isinstance(path, str):
            put("fname", escape(path.rstrip("/").rpartition("/")[2] or path and "/"))
            put("filePath", escape(path))
        put("fsize", _text(entry, "size"))
        put("fileHash", _text(entry, "sha256"))
        put("fileType", _text(entry, "class"))
        put("reason", _text(entry, "reason"))
        put("cnt", _text(entry, "count"))
        put("cs1", _text(entry, "session"), "session")
        put("cs2", _text(entry, "request"), "request")
        put("cs3", _text(entry, "call"), "systemCall")
        put("cs4", "" if entry.get("path") == path else _text(entry, "path"), "pathAsAsked")
        put("cs5", " ".join(filter(None, (_text(entry, "mode"), _text(entry, "phase")))), "modeAndPhase")
        rest = {name: value for name, value in entry.items() if name not in _DONE}
        put("cs6", compact(rest) if rest else "", "details")
        put("cn1", _number(number(entry.get("seq"))), "seq")
        put("cn2", _number(number(entry.get("epoch"))), "epoch")
        put("cn3", _number(number(entry.get("n"))), "n")
        return pairs


def _text(entry: dict[str, Any], name: str) -> str:
    value = entry.get(name)
    return "" if value is None else word(value)


def _number(value: int | None) -> str:
    return "" if value is None else str(value)


def _header(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|")


def _value(text: str) -> str:
    """A value, safe already, as CEF's extension has it."""
    if text[:1].isspace() or text[-1:].isspace():
        text = _ENDS.sub(lambda ends: "".join(map(code, ends[0])), text)
    return text.replace("\\", "\\\\").replace("=", "\\=")
