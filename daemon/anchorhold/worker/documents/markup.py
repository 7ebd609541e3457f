"""HTML, by lxml: text in reading order, without scripts and styles, blocks on lines of their own.

Read as a stream of events: no tree is built, so neither depth nor number of elements costs anything.
"""

from __future__ import annotations

import re
from typing import Any

from lxml import etree

from anchorhold.worker.documents import plain
from anchorhold.worker.documents.skip import Budget, Skip

_CHUNK = 1 << 16  # characters between two looks at the budget
_DROPPED = frozenset(("script", "style", "template", "noscript", "svg", "math", "iframe", "object"))
_INLINE = frozenset(
    "a abbr acronym b bdi bdo big cite code data del dfn em font i ins kbd label mark q s samp small span strike"
    " strong sub sup time tt u var wbr".split()
)
_CELLS = frozenset(("td", "th"))
_CHARSET = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([A-Za-z0-9_.:-]{2,40})", re.IGNORECASE)
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
    if named is not None and not data.startswith(tuple(mark for mark, _name in plain._MARKS)):
        try:
            data.decode("utf-8")
        except UnicodeDecodeError:
            try:
                return data.decode(named[1].decode("ascii"), "replace")
            except LookupError:
                pass
    return plain.decode(data)
