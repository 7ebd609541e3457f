"""What becomes of the tokens of an answer: text, held back where it may be the beginning of a text that ends
the answer; probabilities, told once all of their token's text was; tool calls.

Constraint: without any of these a token's text goes out as it comes.
"""

from __future__ import annotations

import codecs
from collections import deque
from typing import Any, Protocol

from anchorhold.worker.outbox import Outbox


class Reader(Protocol):
    """Takes the text of an answer and sends what it is made of."""

    passed: int
    """Characters that were sent as text."""

    def feed(self, text: str) -> None: ...

    def finish(self) -> None: ...


class Plain:
    """Sends all text as text."""

    def __init__(self, outbox: Outbox, number: int) -> None:
        self._outbox, self._number = outbox, number
        self.passed = 0

    def feed(self, text: str) -> None:
        self.passed += len(text)
        self._outbox.send("token", id=self._number, text=text)

    def finish(self) -> None:
        pass


class Output:
    """The tokens of one answer."""

    def __init__(self, outbox: Outbox, number: int, stops: list[str], reader: Reader) -> None:
        """stops: texts that end the answer."""
        self._outbox, self._number, self._reader = outbox, number, reader
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._stops = stops
        self._begins = {stop[0] for stop in stops}
        self._longest = max(map(len, stops), default=0)
        self._held = ""  # perhaps the beginning of one of them
        self._seen = 0  # characters so far
        self._chosen: deque[tuple[int, dict[str, Any]]] = deque()
        self.stopped = False

    def feed(self, data: bytes, chosen: dict[str, Any] | None = None) -> bool:
        """One token's bytes. True when the answer ends here. chosen: the fields of its message, without
        id."""
        text = self._decode(data)
        self._seen += len(text)
        if chosen is not None:
            self._chosen.append((self._seen, chosen))
        if self._stops:
            text = self._until_stop(text)
        if text:
            self._reader.feed(text)
        if self._chosen:
            self._tell()
        return self.stopped

    def _until_stop(self, text: str) -> str:
        """What of the text is sure to belong to the answer."""
        text = self._held + text
        ends = [at for stop in self._stops if (at := text.find(stop)) >= 0]
        if ends:
            self.stopped = True
            self._held = ""
            return text[: min(ends)]
        for at in range(max(0, len(text) - self._longest + 1), len(text)):
            if text[at] in self._begins and any(stop.startswith(text[at:]) for stop in self._stops):
                self._held = text[at:]
                return text[:at]
        self._held = ""
        return text

    def _tell(self) -> None:
        while self._chosen and self._chosen[0][0] <= self._reader.passed:
            self._outbox.send("chosen", id=self._number, **self._chosen.popleft()[1])

    def finish(self) -> None:
        """The answer is at its end: what was held back belongs to it after all."""
        if not self.stopped:
            rest = self._held + self._decode(b"", True)
            self._seen += len(rest)
            if rest:
                self._reader.feed(rest)
        self._reader.finish()
        self._tell()
