"""A request of the channel as the worker works on it: one shape for a question, a chat and a plain text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from anchorhold.channel.messages import Message
from anchorhold.worker.failure import Failure
from anchorhold.worker.sampling import Settings
from anchorhold.worker.template import Turn
from anchorhold.worker.tools import Wanted, wanted

_ASK_TOP_P = 0.95


class Task:
    """turns: the conversation without its system text; text: what is to be continued, where there are
    none."""

    __slots__ = (
        "files", "key", "material", "number", "owner", "roots", "settings", "stops", "system", "text",
        "turns", "wanted",
    )  # fmt: skip

    def __init__(self, request: Message, settings: Settings) -> None:
        self.number: int = request["id"]
        self.owner: int = request["owner"]
        self.files: list[str] = request.get("files", [])
        self.roots: list[str] = request.get("roots", [])
        self.material: str | None = request.get("material")
        self.settings = settings
        self.stops: list[str] = request.get("stop", [])
        self.system: str | None = None
        self.turns: list[Turn] = []
        self.text: str | None = None
        self.wanted: Wanted | None = None
        self.key: tuple[
            Any, ...
        ] = ()  # what must be the same, besides the turns, for a conversation to go on

    def question(self) -> int:
        """Where the first turn of the user is. Raises Failure bad_request when there is none."""
        for number, turn in enumerate(self.turns):
            if turn["role"] == "user":
                return number
        raise Failure("bad_request", "documents belong to a message of the user, and there is none")

    def words(self) -> str:
        """What passages are ranked by: the last question, and the one before it, which it may refer to."""
        asked = [turn["content"] for turn in self.turns if turn["role"] == "user"]
        return " ".join(asked[:-3:-1])


def _ask(request: Message) -> Task:
    task = Task(request, Settings(request["max_tokens"], request["temperature"], _ASK_TOP_P, request["seed"]))
    task.system = request["system"]
    task.turns = [*request["history"], {"role": "user", "content": request["question"]}]
    task.key = (task.owner, "ask")
    return task


def _sampled(request: Message) -> Task:
    settings = Settings(
        request["max_tokens"],
        request["temperature"],
        request["top_p"],
        request["seed"],
        request["logprobs"],
        request["frequency"],
        request["presence"],
    )
    return Task(request, settings)


def _chat(request: Message) -> Task:
    task = _sampled(request)
    turns: list[Turn] = [
        {**turn, "role": "system"} if turn["role"] == "developer" else turn for turn in request["messages"]
    ]
    if not turns:
        raise Failure("bad_request", "a chat has at least one message")
    system: list[str] = []
    while turns and turns[0]["role"] == "system":
        system.append(turns.pop(0)["content"])
    task.system = "\n\n".join(system) if system else None
    task.turns = turns
    task.wanted = wanted(request["tools"], request["tool_choice"], request["format"])
    task.key = (task.owner, "chat", task.system, request["tools"], request["tool_choice"] == '"none"')
    return task


def _complete(request: Message) -> Task:
    task = _sampled(request)
    task.text = request["prompt"]
    return task


TASKS: dict[str, Callable[[Message], Task]] = {"ask": _ask, "chat": _chat, "complete": _complete}
