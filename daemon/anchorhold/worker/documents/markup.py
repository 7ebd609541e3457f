"""HTML, by lxml: text in reading order, without scripts and styles, blocks on lines of their own.

Read as a stream of events: no tree is built, so neither depth nor number of elements costs anything.
"""

from __future__ import annotations

import importlib
import re
from typing import Any

from lxml import etree

from anchorhold.worker.documents import plain
from anchorhold.worker.documents.skip import Budget, Skip

_CHUNK = 1 << 16  # characters between two looks at the budget
_DROPPED = frozenset(("script", "style", "template", "noscript", "svg", "math", "iframe", "object"))
_INLINE = frozenset((
    "a", "abbr", "acronym", "b", "bdi", "bdo", "big", "cite", "code", "data", "del", "dfn", "em", "font",
    "i", "ins", "kbd", "label", "mark", "q", "s", "samp", "small", "span", "strike", "strong", "sub", "sup",
    "time", "tt", "u", "var", "wbr",
))  # fmt: skip
_CELLS = frozenset(("td", "th"))
_CHARSET = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([A-Za-z0-9_.:-]{2,40})", re.IGNORECASE)
# The encodings that pages are written in (encoding.spec.whatwg.org), and Python's names for them; UTF-8 and
# UTF-16 are told by the bytes. No other name is looked up: Python has codecs that are no encodings of text.
_ENCODINGS = {
    "ascii": "cp1252", "us-ascii": "cp1252", "latin1": "cp1252", "iso-8859-1": "cp1252",
    "iso-8859-9": "cp1254", "macintosh": "mac_roman", "koi8-r": "koi8-r", "koi8-u": "koi8-u",
    "ibm866": "cp866", "gb2312": "gb18030", "gbk": "gb18030", "gb18030": "gb18030", "big5": "big5hkscs",
    "euc-jp": "euc-jp", "shift_jis": "cp932", "iso-2022-jp": "iso2022-jp", "euc-kr": "cp949",
    "tis-620": "cp874", "windows-874": "cp874",
    **{f"iso-8859-{number}": f"iso8859-{number}" for number in (2, 3, 4, 5, 6, 7, 8, 10, 13, 14, 15, 16)},
    **{f"windows-{number}": f"cp{number}" for number in range(1250, 1259)},
}  # fmt: skip
# Parts of Python that map a library of their own; after the seal it is too late for that.
for _library in ("multibytecodec", "codecs_cn", "codecs_hk", "codecs_iso2022", "codecs_jp", "codecs_kr"):
    importlib.import_module(f"_{_library}")
_SPACE = re.compile(r"[^\S\n]+")
_LINES = re.compile(r"\s*\n\s*")


class _Collector:
    """Target of the parser (lxml's interface): gathers text as elements come by."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self._dropping: list[str] = []
        self._exact = 0  # depth inside <pre>

    def start(self, tag: str, attributes: Any) -> None:
        if tag in _DROPPED:
            self._dropping.append(tag)
        elif tag == "pre":
            self._exact += 1
        if tag in _CELLS:
            self.parts.append(" | ")
        elif tag == "li":
            self.parts.append("\n- ")
        elif tag == "img" and attributes.get("alt"):
            self.data(attributes["alt"])
        elif tag not in _INLINE:
            self.parts.append("\n")

    def end(self, tag: str) -> None:
        if self._dropping and self._dropping[-1] == tag:
            self._dropping.pop()
        elif tag == "pre" and self._exact:
            self._exact -= 1
        if tag not in _INLINE and tag not in _CELLS:
            self.parts.append("\n")

    def data(self, text: str) -> None:
        if not self._dropping:
            self.parts.append(text if self._exact else text.replace("\n", " "))

    def comment(self, text: str) -> None:
        """Not part of what a reader sees."""

    def close(self) -> str:
        return "".join(self.parts)


def text(data: bytes, budget: Budget) -> str:
    """The text of a page. Raises Skip when it is binary or takes too long."""
    source = _decode(data)
    collector = _Collector()
    parser = etree.HTMLParser(target=collector, encoding="utf-8", huge_tree=True, remove_pis=True)
    try:
        for start in range(0, len(source), _CHUNK):
            budget.check(min(_CHUNK, len(source) - start))
            parser.feed(source[start : start + _CHUNK].encode("utf-8", "replace"))
        parser.close()
    except etree.LxmlError as error:
        raise Skip(f"broken: {str(error)[:100]}") from None
    found = _SPACE.sub(" ", collector.close())
    return _LINES.sub("\n", found).strip().replace("\n| ", "\n").removeprefix("| ")


def _decode(data: bytes) -> str:
    """By mark or UTF-8, else as the page itself says, else as any text."""
    named = _CHARSET.search(data[:4096])
    encoding = named[1].decode("ascii").lower() if named is not None else ""
    if encoding in _ENCODINGS and not data.startswith(plain.MARKS):
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError:
            return data.decode(_ENCODINGS[encoding], "replace")
    return plain.decode(data)
