"""What a worker says, as the events that its session gives and the bytes that its output commits to.

Constraint: what comes in here has been checked to be of the protocol (`anchorhold.channel.messages`), and is
untrusted all the same.
"""

from __future__ import annotations

from anchorhold.errors import WorkerError
from anchorhold.supervisor import events

TYPE_CHECKING = False
if TYPE_CHECKING:
    from anchorhold.channel.messages import Message


def event_of(message: Message) -> events.Event | None:
    """The event that a message becomes; None for one that only the session itself has a use for."""
    kind = message["type"]
    if kind == "token":
        return events.Token(message["text"])
    if kind == "progress":
        return events.Progress(message["stage"], message["done"], message["total"])
    if kind == "document":
        return events.Document(message["path"], message["outcome"], message["reason"], message["tokens"])
    if kind == "unused":
        return events.Unused(message["paths"], message["reason"])
    if kind == "chosen":
        top = [(text, logprob) for text, logprob in message["top"]]
        return events.Chosen(message["text"], message["logprob"], top, message["data"])
    if kind == "call":
        return events.Call(message["index"], message["call"], message["name"], message["arguments"])
    if kind == "embedding":
        return events.Embedding(message["index"], message["values"])
    if kind == "done":
        return events.Done(
            message["reason"],
            message["prompt_tokens"],
            message["output_tokens"],
            message["prompt_seconds"],
            message["output_seconds"],
            message["files"],
        )
    if kind == "loaded":
        return events.Phase("loaded")
    return None


def error_of(message: Message, model: str) -> WorkerError:
    """The error that a message of the kind ``failed`` becomes. ``model``: its path, named if it is bad."""
    details = ", ".join(f"{key}: {value}" for key, value in message["detail"].items())
    hint = f"The model is {model!a}." if message["code"] == "bad_model" else ""
    return WorkerError(message["message"], hint=hint, detail=details, code=message["code"])


def output_of(message: Message) -> bytes:
    """What a message adds to the output whose digest the log gets (docs/audit-log.md)."""
    kind = message["type"]
    if kind == "token":
        said = message["text"]
    elif kind == "call":
        said = message["name"] + message["arguments"]
    elif kind == "embedding":
        said = repr(message["values"])
    else:
        return b""
    data: bytes = said.encode("utf-8", "surrogatepass")
    return data
