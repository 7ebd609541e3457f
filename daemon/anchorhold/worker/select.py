"""What of the documents goes into the prompt: all, if it fits, else the passages that fit the question best.

Nothing is cut in silence: a document is whole, or marked in the prompt and reported as given in part, or
reported as not used.
"""

from __future__ import annotations

from collections.abc import Callable

from anchorhold.worker import prompt
from anchorhold.worker.material import Document
from anchorhold.worker.retrieve import Index, Passage

_HARDLY = 16  # characters a token: no text has so many, so more than that cannot fit
_SMALLEST = 40  # tokens: with less room left, no further passage is tried
_MOST_MISFITS = 30
_MOST_HEAD = 300  # characters of a table's first line
_TABLES = (".csv", ".tsv")

Count = Callable[[str], int]


class Part:
    """What the prompt holds of one document. spans: (begin, end) in its text, in order."""

    __slots__ = ("document", "head", "spans", "tokens")

    def __init__(self, document: Document, spans: list[tuple[int, int]], tokens: int, head: str = "") -> None:
        self.document, self.spans, self.tokens, self.head = document, spans, tokens, head

    @property
    def whole(self) -> bool:
        return self.spans == [(0, len(self.document.text))]

    def block(self, mark: str) -> str:
        """The document as it stands in the prompt, between its marks."""
        text = self.document.text
        if self.whole:
            body = text
        else:
            body = self.head if self.spans[0][0] > 0 else ""
            last = len(body)
            for start, end in self.spans:
                body += (prompt.GAP if body and start != last else "") + text[start:end]
                last = end
        return prompt.begin(mark, self.document.name, part=not self.whole) + body + prompt.end(mark)


def may_fit(documents: list[Document], room: int) -> bool:
    """Whether it is worth counting the tokens of all."""
    return sum(len(document.text) for document in documents) <= room * _HARDLY


def whole(document: Document, mark: str, count: Count) -> Part:
    part = Part(document, [(0, len(document.text))], 0)
    part.tokens = count(part.block(mark))
    return part


def by_worth(documents: list[Document], question: str) -> list[Document]:
    """All of them, those that go best with the question last."""
    index = Index([item.name for item in documents], [item.text for item in documents])
    try:
        ranked = list(dict.fromkeys(number for number, _start, _end in index.best(question)))
    finally:
        index.close()
    others = [number for number in range(len(documents)) if number not in ranked]
    return [documents[number] for number in [*others, *reversed(ranked)]]


class Chosen:
    """Passages in the order of their worth; the least can be given back when the whole turns out too long."""

    def __init__(self, documents: list[Document], mark: str, count: Count) -> None:
        self._documents = documents
        self._mark = mark
        self._count = count
        self._taken: list[tuple[Passage, int]] = []
        self.matched = True

    def choose(self, question: str, room: int) -> None:
        """Take the best passages for which there is room (tokens)."""
        index = Index([item.name for item in self._documents], [item.text for item in self._documents])
        try:
            ranked = index.best(question)
            if not ranked:
                self.matched = False
                ranked = sorted(index.passages, key=lambda passage: (passage[1], passage[0]))
        finally:
            index.close()
        begun: set[int] = set()
        misfits = 0
        for passage in ranked:
            number, start, end = passage
            tokens = self._count(self._documents[number].text[start:end]) + self._count(prompt.GAP)
            if number not in begun:
                tokens += self._count(
                    Part(self._documents[number], [(0, 0)], 0, self._head(number)).block(self._mark)
                )
            if tokens > room:
                misfits += 1
                if misfits > _MOST_MISFITS or room < _SMALLEST:
                    break
                continue
            room -= tokens
            begun.add(number)
            self._taken.append((passage, tokens))

    def drop(self) -> bool:
        """Give back the least; False when there is none."""
        if self._taken:
            self._taken.pop()
            return True
        return False

    def parts(self) -> list[Part]:
        """By document, the one with the best passage last: a model remembers best what it read last."""
        spans: dict[int, list[tuple[int, int]]] = {}
        tokens: dict[int, int] = {}
        for (number, start, end), cost in self._taken:
            spans.setdefault(number, []).append((start, end))
            tokens[number] = tokens.get(number, 0) + cost
        return [
            Part(self._documents[number], _joined(sorted(found)), tokens[number], self._head(number))
            for number, found in reversed(spans.items())
        ]

    def _head(self, number: int) -> str:
        """The first line of a table, which says what its columns are."""
        document = self._documents[number]
        if not document.name.lower().endswith(_TABLES):
            return ""
        end = document.text.find("\n") + 1
        return document.text[:end] if 0 < end <= _MOST_HEAD else ""


def _joined(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Passages that follow each other become one."""
    joined = [spans[0]]
    for start, end in spans[1:]:
        if start == joined[-1][1]:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    return joined
