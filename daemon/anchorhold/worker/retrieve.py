"""The passages of many documents that go best with a question: BM25, by SQLite's FTS5, in memory.

A passage is about a paragraph: some 200 tokens, so that a context of 4,096 holds a dozen of them. Small
files stay whole. Words are compared without case and accents, English ones by their stem; scripts that are
written without spaces are compared by single characters.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable, Iterator, Sequence

PASSAGE = 1000  # characters: where a passage ends, at the next better place before it
_LEAST = 400  # characters: a passage is not ended before this for the sake of a better place
_MOST_WORDS = 100  # of a question; FTS5 refuses expressions of more than 256 terms
_MOST_FOUND = 1000  # passages ranked
_WORTH = 0.2  # of the best passage's rank: what matches nothing but words like "the" has far less
_ENDS = ("\n\n", "\n", ". ", " ")
_WORDS = re.compile(r"\w+")
# Thai, Lao, Burmese, Khmer, kana, Han, and their extensions: no spaces between words.
_UNSPACED = re.compile(
    "([\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff])"
)

Passage = tuple[int, int, int]
"""Which document, where it begins and where it ends in that document's text (characters)."""


def passages_of(number: int, text: str) -> Iterator[Passage]:
    """Cut one text, leaving nothing out."""
    start, length = 0, len(text)
    while length - start > PASSAGE:
        end = start + PASSAGE
        for mark in _ENDS:
            at = text.rfind(mark, start + _LEAST, end)
            if at >= 0:
                end = at + len(mark)
                break
        yield number, start, end
        start = end
    if start < length:
        yield number, start, length


class Index:
    """The passages of one request."""

    def __init__(self, names: Sequence[str], texts: Sequence[str | None]) -> None:
        """names: what the files are called, searched as well; texts: None for a file that is left out."""
        self.passages: list[Passage] = []
        for number, text in enumerate(texts):
            if text is not None:
                self.passages += passages_of(number, text)
        self._database = sqlite3.connect(":memory:", isolation_level=None)
        run = self._database.execute
        run("PRAGMA temp_store = MEMORY")  # there is no file system to spill to
        run("PRAGMA journal_mode = OFF")
        run(
            "CREATE VIRTUAL TABLE passages USING fts5(name, body, content='', "
            "tokenize = 'porter unicode61 remove_diacritics 2')"
        )
        run("BEGIN")
        self._database.executemany(
            "INSERT INTO passages(rowid, name, body) VALUES (?, ?, ?)",
            (
                (row, _spaced(names[number]), _spaced(texts[number] or "", start, end))
                for row, (number, start, end) in enumerate(self.passages)
            ),
        )
        run("COMMIT")

    def best(self, question: str) -> list[Passage]:
        """The passages that match, best first; those that match by trifles alone are left out."""
        query = query_of(question)
        if not query:
            return []
        rows = self._database.execute(
            f"SELECT rowid, bm25(passages, 2.0, 1.0) AS worth FROM passages WHERE passages MATCH ? "
            f"ORDER BY worth LIMIT {_MOST_FOUND}",
            (query,),
        ).fetchall()
        return [self.passages[row] for row, worth in rows if worth <= rows[0][1] * _WORTH]  # less is better

    def close(self) -> None:
        self._database.close()


def query_of(question: str) -> str:
    """Any of the question's words, each as an FTS5 string: whatever is in a question, it is no syntax."""
    words = _words(_spaced(question))
    return " OR ".join(f'"{word}"' for word in words)


def _words(text: str) -> Iterable[str]:
    words: dict[str, None] = {}
    for found in _WORDS.finditer(text):
        words[found[0].lower()] = None
        if len(words) == _MOST_WORDS:
            break
    return words


def _spaced(text: str, start: int = 0, end: int | None = None) -> str:
    """The same text, with spaces around the characters of scripts that have none."""
    part = text[start:end]
    return part if part.isascii() else _UNSPACED.sub(r" \1 ", part).encode("utf-8", "replace").decode()
