"""What can be asked of a session. Plain data, as it came from outside: untrusted, checked by nothing here.

Each kind knows the message of the channel that asks for it; encoding that message checks every value against
the channel's table (``anchorhold.channel.messages``), and what does not pass is refused before it is numbered
or logged. The supervisor reads no schema, no tool and no template: it hands on their text.

``principal`` says who asks ("uid:1000", "token:ab12cd34"; "" where only one person can). It is a public field
of the log, and never reaches the worker, which learns only whether it is the same as the last one's.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

MOST_LOGPROBS = 20
"""Alternatives told beside each token (OpenAI API reference, ``top_logprobs``)."""


class Sampling:
    """How an answer is drawn.

    max_tokens: of the answer. temperature: 0 takes the likeliest token each time. top_p: in (0, 1]; 1 cuts
    nothing beyond what the engine's other samplers cut. seed: None draws one. stop: texts that end the
    answer and do not appear in it. logprobs: None, or how many alternatives are told of each token, 0 to 20.
    frequency, presence: penalties of what was said, -2 to 2; 0 costs nothing.
    """

    __slots__ = (
        "frequency", "logprobs", "max_tokens", "presence", "seed", "stop", "temperature", "top_p",
    )  # fmt: skip

    def __init__(
        self,
        max_tokens: int,
        temperature: float = 0.8,
        top_p: float = 1.0,
        seed: int | None = None,
        stop: Iterable[str] = (),
        logprobs: int | None = None,
        *,
        frequency: float = 0.0,
        presence: float = 0.0,
    ) -> None:
        self.max_tokens, self.temperature, self.top_p, self.seed = max_tokens, temperature, top_p, seed
        self.stop, self.logprobs = tuple(stop), logprobs
        self.frequency, self.presence = frequency, presence

    def fields(self) -> dict[str, Any]:
        """As a message of the channel holds them."""
        return {
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "seed": self.seed,
            "stop": list(self.stop),
            "logprobs": self.logprobs,
            "frequency": self.frequency,
            "presence": self.presence,
        }


class Asked(ABC):
    """Base of all requests."""

    __slots__ = ("principal",)
    kind = ""
    """The type of its message."""

    def __init__(self, principal: str) -> None:
        self.principal = principal

    @abstractmethod
    def message(self) -> dict[str, Any]:
        """The fields of its message but ``id``, ``owner`` and the paths."""

    @abstractmethod
    def said(self) -> tuple[str, dict[str, object]]:
        """What the log commits to, as one text, and the same as the log keeps it where a policy wants it."""

    def public(self) -> dict[str, object]:
        """What of it stands open in its entry of the log: numbers and no words."""
        return {}


class Request(Asked):
    """One question about documents. files: paths that must be in the prompt whole, none: all of the policy's
    folders; material: text of standard input."""

    __slots__ = (
        "files", "history", "material", "max_tokens", "question", "seed", "system", "temperature",
    )  # fmt: skip
    kind = "ask"

    def __init__(
        self,
        question: str,
        *,
        files: Iterable[str] = (),
        max_tokens: int = 512,
        temperature: float = 0.0,
        seed: int | None = None,
        system: str | None = None,
        history: Iterable[dict[str, str]] = (),
        material: str | None = None,
        principal: str = "",
    ) -> None:
        super().__init__(principal)
        self.question = question
        self.files = list(files)
        self.max_tokens, self.temperature, self.seed = max_tokens, temperature, seed
        self.system, self.history, self.material = system, list(history), material

    def message(self) -> dict[str, Any]:
        return {
            "question": self.question,
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
            "seed": self.seed,
            "system": self.system,
            "history": self.history,
            "material": self.material,
        }

    def said(self) -> tuple[str, dict[str, object]]:
        text = "\0".join((self.question, self.system or ""))
        return text, {"text": self.question, "system": self.system}

    def public(self) -> dict[str, object]:
        return {
            "max_tokens": self.max_tokens,
            "temperature": repr(self.temperature),
            "seed": self.seed,
            "turns": len(self.history),
        }


class _Sampled(Asked):
    """A request whose answer is text."""

    __slots__ = ("sampling",)

    def __init__(self, sampling: Sampling, principal: str) -> None:
        super().__init__(principal)
        self.sampling = sampling

    def public(self) -> dict[str, object]:
        return {
            "max_tokens": self.sampling.max_tokens,
            "temperature": repr(self.sampling.temperature),
            "seed": self.sampling.seed,
        }


class ChatRequest(_Sampled):
    """A conversation to be continued.

    messages: {"role", "content"} with role system, developer, user, assistant or tool; an assistant's may
    have "tool_calls", a list of {"id", "name", "arguments"}; a tool's has "tool_call_id". All are text.
    tools, tool_choice, format: JSON text of the OpenAI API's ``tools``, ``tool_choice``, ``response_format``.
    files: documents that must be in the prompt whole.
    """

    __slots__ = ("files", "format", "messages", "tool_choice", "tools")
    kind = "chat"

    def __init__(
        self,
        messages: Iterable[dict[str, Any]],
        sampling: Sampling,
        *,
        tools: str | None = None,
        tool_choice: str | None = None,
        format: str | None = None,
        files: Iterable[str] = (),
        principal: str = "",
    ) -> None:
        super().__init__(sampling, principal)
        self.messages = list(messages)
        self.tools, self.tool_choice, self.format = tools, tool_choice, format
        self.files = list(files)

    def message(self) -> dict[str, Any]:
        return {
            "messages": self.messages,
            "tools": self.tools,
            "tool_choice": self.tool_choice,
            "format": self.format,
            **self.sampling.fields(),
        }

    def said(self) -> tuple[str, dict[str, object]]:
        text = _text({"messages": self.messages, "tools": self.tools, "format": self.format})
        return text, {"text": text}

    def public(self) -> dict[str, object]:
        return {**super().public(), "turns": len(self.messages)}


class CompletionRequest(_Sampled):
    """A text to be continued as it is, without the model's chat template. Control words count
    as such: whoever writes a raw prompt writes the template too."""

    __slots__ = ("prompt",)
    kind = "complete"

    def __init__(self, prompt: str, sampling: Sampling, *, principal: str = "") -> None:
        super().__init__(sampling, principal)
        self.prompt = prompt

    def message(self) -> dict[str, Any]:
        return {"prompt": self.prompt, **self.sampling.fields()}

    def said(self) -> tuple[str, dict[str, object]]:
        return self.prompt, {"text": self.prompt}


class EmbeddingRequest(Asked):
    """Texts, each of which becomes one vector of length 1."""

    __slots__ = ("inputs",)
    kind = "embed"

    def __init__(self, inputs: Iterable[str], *, principal: str = "") -> None:
        super().__init__(principal)
        self.inputs = list(inputs)

    def message(self) -> dict[str, Any]:
        return {"inputs": self.inputs}

    def said(self) -> tuple[str, dict[str, object]]:
        text = _text(self.inputs)
        return text, {"text": text}

    def public(self) -> dict[str, object]:
        return {"inputs": len(self.inputs)}


def _text(value: object) -> str:
    """JSON with sorted keys and no spaces, as UTF-8 would write it: the same text for the same request."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
