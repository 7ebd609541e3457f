"""An answer while it comes: gathered, and told by a shape, whole or in pieces (Server-Sent Events).

Source: WHATWG HTML, "Server-sent events".
"""

from __future__ import annotations

import json
import time
from typing import Any, Protocol

from anchorhold.gateway.errors import ApiError

Message = dict[str, Any]
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


def dump(value: Any) -> bytes:
    return _encode(value).encode("utf-8")


def data(value: Any) -> bytes:
    """One event without a name."""
    return b"data: " + dump(value) + b"\n\n"


def event(name: str, value: Any) -> bytes:
    return f"event: {name}\n".encode() + data(value)


DONE = b"data: [DONE]\n\n"


def printable(path: str) -> str:
    """A path as text: bytes that are no UTF-8 as ``\\xNN``."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


class Answer:
    """What has come by now. ``name`` is the request's name in the log."""

    def __init__(self, model: str, *, extended: bool = False, receipt: bool = False) -> None:
        """extended: the request had an ``anchorhold`` field, so the answer has one."""
        self.model, self.extended, self.wants_receipt = model, extended, receipt
        self.created = int(time.time())
        self.name = ""
        self.texts: list[str] = []
        self.calls: dict[int, Message] = {}
        self.chosen: list[Message] = []
        self.vectors: dict[int, list[float]] = {}
        self.documents: list[Message] = []
        self.done: Message = {}

    def take(self, message: Message) -> None:
        kind = message["type"]
        if kind == "token":
            self.texts.append(message["text"])
        elif kind == "call":
            call = self.calls.setdefault(message["index"], {"id": "", "name": "", "arguments": ""})
            call["id"] = call["id"] or message["call_id"]
            call["name"] = call["name"] or message["name"]
            call["arguments"] += message["arguments"]
        elif kind == "chosen":
            self.chosen.append(message)
        elif kind == "embedding":
            self.vectors[message["index"]] = message["values"]
        elif kind == "document":
            self.documents.append(message)
        elif kind == "done":
            self.done = message

    @property
    def text(self) -> str:
        return "".join(self.texts)

    def ordered_calls(self) -> list[Message]:
        return [self.calls[index] for index in sorted(self.calls)]

    def usage(self) -> Message:
        prompt, output = self.done["prompt_tokens"], self.done["output_tokens"]
        return {"prompt_tokens": prompt, "completion_tokens": output, "total_tokens": prompt + output}

    def extension(self) -> Message:
        """``{"anchorhold": …}``, or nothing where it was not asked for."""
        if not self.extended:
            return {}
        found: Message = {
            "request": self.name,
            "shown": [
                {"path": printable(path), "sha256": digest, "size": size}
                for path, digest, size in self.done["shown"]
            ],
            "documents": [
                {
                    "path": printable(one["path"]),
                    "outcome": one["outcome"],
                    "reason": one["reason"],
                    "tokens": one["tokens"],
                }
                for one in self.documents
            ],
        }
        if self.wants_receipt:
            found["receipt"] = self.done["receipt"]
        return {"anchorhold": found}


class Shape(Protocol):
    """One endpoint's way to tell an answer. Pieces are whole Server-Sent Events."""

    def whole(self, answer: Answer) -> Message:
        """All of it, when it is complete."""

    def opening(self, answer: Answer) -> bytes: ...

    def piece(self, answer: Answer, message: Message) -> bytes:
        """What one message adds; the answer has taken it already."""

    def closing(self, answer: Answer) -> bytes: ...

    def broken(self, error: ApiError) -> bytes:
        """It ends here, because of that."""

    def refusal(self, error: ApiError) -> Message:
        """The body of an answer that is an error."""


class OpenAiErrors:
    """How the endpoints of OpenAI's API say that something went wrong."""

    def broken(self, error: ApiError) -> bytes:
        return data(error.body())

    def refusal(self, error: ApiError) -> Message:
        return error.body()
