"""The table of distinct paths: writing it, looking one up, and finding those that a pattern matches.

Constraint: a pattern must be answered over a million paths in a twentieth of a second. So paths lie together
in rows of a page each, and a row is searched as a whole for the pattern's plain parts, with the speed of
memchr; only what has them is put to the pattern itself.
"""

from __future__ import annotations

import re

from anchorhold.audit.index.schema import CHUNK, decoded

TYPE_CHECKING = False
if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterator

END = b"\0"
REMEMBERED = 1_000_000
"""Paths whose ids are kept in memory while an index is made. Of a log with more, some get a second id."""

REREAD = 64
"""Rows of paths that are read again when new entries come."""

_PIECES = 3
_FEW = 24


class PathWriter:
    """Gives ids to paths. `flush` must follow.

    A path that comes again much later may get a second id: looking for it would cost more than the bytes.
    """

    def __init__(self, base: sqlite3.Connection) -> None:
        self._base = base
        self.ids: dict[bytes, int] = {}
        self._first = 1
        self._names: list[bytes] = []
        self._bytes = 1
        newest = "SELECT first, names FROM paths ORDER BY first DESC LIMIT ?"
        for first, names in reversed(base.execute(newest, (REREAD,)).fetchall()):
            self._first, self._names, self._bytes = first, [], 1
            for name in names.split(END)[1:-1]:
                self.ids[name] = first + self._bytes
                self._names.append(name)
                self._bytes += len(name) + 1

    def id(self, path: bytes) -> int:
        return self.ids.get(path) or self.new(path)

    def new(self, path: bytes) -> int:
        """The id of a path that has none in `ids`."""
        length = len(path) + 1
        at = self._bytes
        if at + length > CHUNK + 1 and self._names:
            self._put()
            self._first += at
            self._names, at = [], 1
        if len(self.ids) >= REMEMBERED:
            self.ids.clear()
        found = self.ids[path] = self._first + at
        self._names.append(path)
        self._bytes = at + length
        return found

    @property
    def end(self) -> int:
        """Above all ids that there are; after `flush`."""
        return self._first + self._bytes

    def _put(self) -> None:
        names = END + END.join(self._names) + END
        self._base.execute("INSERT OR REPLACE INTO paths VALUES (?, ?)", (self._first, names))

    def flush(self) -> None:
        if self._names:
            self._put()


class PathReader:
    """Paths by their ids."""

    def __init__(self, base: sqlite3.Connection) -> None:
        self._base = base
        self._first, self._names = 0, b""

    def path(self, number: int) -> str:
        """Raises ValueError where the index is damaged."""
        at = number - self._first
        if not 0 < at < len(self._names):
            found = self._base.execute(
                "SELECT first, names FROM paths WHERE first <= ? ORDER BY first DESC LIMIT 1", (number,)
            ).fetchone()
            if found is None:
                raise ValueError("a path is missing")
            self._first, self._names = found
            at = number - self._first
        return decoded(self._names[at : self._names.index(END, at)])


def matching(base: sqlite3.Connection, pattern: str, matches: Callable[[str], bool]) -> Iterator[int]:
    """The ids of the paths that match, ascending. ``matches`` decides, ``pattern`` only says where to
    look."""
    pieces, whole = plain_parts(pattern)
    for first, names in base.execute("SELECT first, names FROM paths ORDER BY first"):
        for start, end in _candidates(names, pieces, whole):
            if matches(decoded(names[start:end])):
                yield first + start


def _candidates(
    names: bytes, pieces: list[bytes], whole: re.Pattern[bytes] | None
) -> Iterator[tuple[int, int]]:
    """Where the paths stand that can match."""
    best, least = b"", len(names)
    for piece in pieces:
        count = names.count(piece)
        if count == 0:
            return
        if count < least:
            best, least = piece, count
    if whole is not None and (least > _FEW or not best):
        for match in whole.finditer(names):
            yield match.span(1)
        return
    at = 0
    while (at := names.find(best, at) if best else at) >= 0:
        # A piece can begin with the zero byte before its path, or end with the one after it.
        start = names.rfind(END, 0, at) + 1 if best and best[:1] != END else at + 1
        end = names.find(END, max(start, at))
        if end < 0:
            return
        yield start, end
        at = end


def plain_parts(pattern: str) -> tuple[list[bytes], re.Pattern[bytes] | None]:
    """Texts that stand in each path that matches, as it lies between two zero bytes, the longest first; and
    an expression for the whole of it, where it begins with plain text. Both may fit more than the pattern
    does, never less."""
    named = "/" not in pattern
    if not named:
        pattern = pattern.rstrip("/") or "/"
    parts: list[str] = []
    text = ""
    at = 0
    while at < len(pattern):
        if pattern.startswith("/**/", at):
            parts.append(text + "/")
            text, at = "", at + 4
            continue
        character = pattern[at]
        end = pattern.find("]", at + 2) if character == "[" else -1
        if character in "*?" or end > 0:
            parts.append(text)
            text, at = "", max(at, end) + 1
            continue
        text += character
        at += 1
    encoded = [part.encode("utf-8", "surrogatepass") for part in (*parts, text)]
    ends = named or any(character in pattern for character in "*?[")
    if not named:
        encoded[0] = END + encoded[0]
    whole = None
    if encoded[0].startswith(END + b"/"):
        middle = b"[^\\0]*".join(map(re.escape, [encoded[0][1:], *encoded[1:]]))
        whole = re.compile(b"\\0(" + middle + (b"" if ends else b"[^\\0]*") + b")(?=\\0)")
    if ends:
        encoded[-1] += END
    found = sorted({part for part in encoded if part.strip(b"\0/")}, key=len, reverse=True)
    return found[:_PIECES], whole
