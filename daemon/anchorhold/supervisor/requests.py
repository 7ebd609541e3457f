"""What a session can be asked. All text in a request is untrusted; the tables of `channel` check it.

Constraint: plain frozen objects, made in one thread and served in another.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are chosen. logprobs: None, or how many alternatives to tell beside each token, 0 to 20."""

    max_tokens: int = 512
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    logprobs: int | None = None


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A conversation. tools, tool_choice, format: JSON text as OpenAI's API has it, or None.

    files: paths that must be in the prompt whole. principal: who asks, as "uid:1000" or "token:ab12cd34".
    """

    messages: list[dict[str, object]]
    sampling: Sampling
    tools: str | None = None
    tool_choice: str | None = None
    format: str | None = None
    files: list[str] = field(default_factory=list)
    principal: str = ""


@dataclass(frozen=True, slots=True)
class CompletionRequest:
    """A text to go on with."""

    prompt: str
    sampling: Sampling
    principal: str = ""


@dataclass(frozen=True, slots=True)
class EmbeddingRequest:
    """Texts to make vectors of."""

    inputs: list[str]
    principal: str = ""


Asked = ChatRequest | CompletionRequest | EmbeddingRequest
