"""Between the gateway's messages and a session: a request made of a message, messages made of its events.

Constraint: called from keepers' threads; nothing here waits for the gateway.
"""

from __future__ import annotations

from anchorhold.channel.errors import ProtocolError
from anchorhold.errors import AnchorholdError
from anchorhold.supervisor import events
from anchorhold.supervisor.requests import ChatRequest, CompletionRequest, EmbeddingRequest, Sampling
from anchorhold.supervisor.service.refusals import code_of, status_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from anchorhold.supervisor.service.front import Front

    Message = dict[str, Any]


class Answer:
    """One request's sink: makes messages of events. After its end it says nothing more."""

    __slots__ = ("front", "number", "over", "ticket")

    def __init__(self, front: Front, number: int) -> None:
        self.front, self.number = front, number
        self.ticket: object | None = None
        self.over = False

    def _send(self, kind: str, **fields: object) -> None:
        if not self.over:
            self.front.send({"type": kind, "id": self.number, **fields})

    def started(self, name: str) -> None:
        self._send("started", name=name)

    def event(self, event: events.Event) -> None:
        if isinstance(event, events.Token):
            if event.text:
                self._send("token", text=event.text)
        elif isinstance(event, events.Chosen):
            top = [[text, logprob] for text, logprob in event.top]
            self._send("chosen", text=event.text, logprob=event.logprob, top=top, data=event.data)
        elif isinstance(event, events.Call):
            self._send(
                "call", index=event.index, call_id=event.id, name=event.name, arguments=event.arguments
            )
        elif isinstance(event, events.Embedding):
            self._send("embedding", index=event.index, values=event.values)
        elif isinstance(event, events.Document):
            self._send(
                "document", path=event.path, outcome=event.outcome, reason=event.reason, tokens=event.tokens
            )

    def done(self, done: events.Done, shown: list[tuple[str, str, int]], receipt: str | None) -> None:
        try:
            self._send(
                "done",
                reason=done.reason,
                prompt_tokens=done.prompt_tokens,
                output_tokens=done.output_tokens,
                prompt_seconds=done.prompt_seconds,
                output_seconds=done.output_seconds,
                shown=[list(one) for one in shown],
                receipt=receipt,
            )
        except ProtocolError as error:
            self.end(500, "too_large", f"the answer cannot be handed on: {error}")
        else:
            self.front.over(self)

    def failed(self, error: AnchorholdError) -> None:
        self.end(status_of(error), code_of(error), error.message)

    def end(self, status: int, code: str, message: str, retry_after: float | None = None) -> None:
        """It ends with an error."""
        clean = message.encode("utf-8", "replace").decode("utf-8")
        self._send("failed", status=status, code=code, message=clean, retry_after=retry_after)
        self.front.over(self)


def request_of(message: Message) -> ChatRequest | CompletionRequest | EmbeddingRequest:
    """What a session is asked. The message has been checked."""
    principal = message["principal"]
    if message["type"] == "embed":
        return EmbeddingRequest(message["inputs"], principal=principal)
    said = message["sampling"]
    sampling = Sampling(
        max_tokens=said["max_tokens"],
        temperature=float(said["temperature"]),
        top_p=float(said["top_p"]),
        seed=said["seed"],
        stop=tuple(said["stop"]),
        logprobs=said["logprobs"],
    )
    if message["type"] == "complete":
        return CompletionRequest(message["prompt"], sampling, principal=principal)
    return ChatRequest(
        message["messages"],
        sampling,
        tools=message["tools"],
        tool_choice=message["tool_choice"],
        format=message["format"],
        files=message["files"],
        principal=principal,
    )
