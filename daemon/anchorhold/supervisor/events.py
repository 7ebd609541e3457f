"""What a session tells its caller while it works. Texts come from the worker: untrusted, raw."""

from __future__ import annotations


class Event:
    """Base of all events."""

    __slots__ = ()


class Phase(Event):
    """The worker has reached ``name``: "boot", "sealed", "loaded"."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name


class Progress(Event):
    """``done`` of ``total`` of a stage ("load", "read", "prompt"); total 0 where it is not known."""

    __slots__ = ("done", "stage", "total")

    def __init__(self, stage: str, done: int, total: int) -> None:
        self.stage, self.done, self.total = stage, done, total


class Unused(Event):
    """Documents that were read and left out of the prompt, and why."""

    __slots__ = ("paths", "reason")

    def __init__(self, paths: list[str], reason: str) -> None:
        self.paths, self.reason = paths, reason


class Document(Event):
    """What became of one document: "used", "partial" or "skipped", and why; "unused" for those above."""

    __slots__ = ("outcome", "path", "reason", "tokens")

    def __init__(self, path: str, outcome: str, reason: str, tokens: int) -> None:
        self.path, self.outcome, self.reason, self.tokens = path, outcome, reason, tokens


class Token(Event):
    """A piece of the answer."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text


class Chosen(Event):
    """One token with the natural logarithm of its probability; only where asked for, and not before all of
    its text was given in ``Token``. data: its bytes, which may be part of a character.

    top: the likeliest tokens in its place with theirs, best first; -9999.0 stands for a probability of 0.
    """

    __slots__ = ("data", "logprob", "text", "top")

    def __init__(self, text: str, logprob: float, top: list[tuple[str, float]], data: list[int]) -> None:
        self.text, self.logprob, self.top, self.data = text, logprob, top, data


class Call(Event):
    """A tool call, or the next piece of one: ``arguments`` is to be appended to what came before under the
    same ``index``. ``id`` and ``name`` stand in every piece."""

    __slots__ = ("arguments", "id", "index", "name")

    def __init__(self, index: int, id: str, name: str, arguments: str) -> None:
        self.index, self.id, self.name, self.arguments = index, id, name, arguments


class Embedding(Event):
    """The vector of the input ``index``."""

    __slots__ = ("index", "values")

    def __init__(self, index: int, values: list[float]) -> None:
        self.index, self.values = index, values


class Done(Event):
    """The answer is complete: "stop", "length", "cancelled" or "tool_calls"; counts in tokens, times in
    seconds."""

    __slots__ = ("files", "output_seconds", "output_tokens", "prompt_seconds", "prompt_tokens", "reason")

    def __init__(
        self,
        reason: str,
        prompt_tokens: int,
        output_tokens: int,
        prompt_seconds: float,
        output_seconds: float,
        files: list[str],
    ) -> None:
        self.reason = reason
        self.prompt_tokens, self.output_tokens = prompt_tokens, output_tokens
        self.prompt_seconds, self.output_seconds = prompt_seconds, output_seconds
        self.files = files
