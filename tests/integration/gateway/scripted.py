"""The supervisor's side of a request, as a script of events: what a real worker does, at will."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from anchorhold.errors import AnchorholdError
from anchorhold.policy.schema import Api, ModelPolicy, Policy
from anchorhold.supervisor.events import Done, Embedding, Event, Token
from anchorhold.supervisor.requests import Asked, ChatRequest, CompletionRequest, EmbeddingRequest
from anchorhold.supervisor.service.backend import Refused, Sink
from anchorhold.supervisor.service.front import Front

Step = Event | AnchorholdError | float
Script = Callable[[Asked], Iterator[Step]]


def done(reason: str = "stop", prompt: int = 7, output: int = 3) -> Done:
    return Done(reason, prompt, output, 0.01, 0.02, [])


def echo(request: Asked) -> Iterator[Step]:
    """The last text, word by word."""
    if isinstance(request, EmbeddingRequest):
        for index, text in enumerate(request.inputs):
            yield Embedding(index, [float(len(text)), 0.5, -0.25])
        yield done(output=0)
        return
    assert isinstance(request, (ChatRequest, CompletionRequest))
    text = str(request.messages[-1]["content"]) if isinstance(request, ChatRequest) else request.prompt
    for word in text.split(" "):
        yield Token(word + " ")
    yield done(output=len(text.split(" ")))


def endless(request: Asked) -> Iterator[Step]:
    """A token every five milliseconds."""
    while True:
        yield Token("on and ")
        yield 0.005


class Ticket:
    def __init__(self, request: Asked) -> None:
        self.request = request
        self.cancelled = threading.Event()
        self.cancelled_at = 0.0
        self.ended_at = 0.0


class Scripted:
    """A Backend. ``asked`` is what came in; ``script`` what is answered."""

    def __init__(self, *policies: str, script: Script = echo) -> None:
        self.script = script
        self.names = policies or ("test",)
        self.asked: list[Asked] = []
        self.tickets: list[Ticket] = []
        self.refusal: Refused | None = None
        self.state = "serving"
        self.shown: list[tuple[str, str, int]] = []
        self.created = int(time.time())
        self._number = 0

    def reset(self) -> None:
        """As new, for the next test."""
        self.script, self.refusal, self.state, self.shown = echo, None, "serving", []
        self.asked.clear()
        self.tickets.clear()

    def describe(self) -> list[dict[str, Any]]:
        figures = {"memory": 1 << 28, "restarts": 0, "denials": 2, "shown": 3, "requests": len(self.asked)}
        return [
            {
                "name": name, "state": self.state, "model": "m.gguf", "model_sha256": "ab" * 32,
                "context": 2048, "created": self.created, "embeddings": True, "figures": figures,
            }
            for name in self.names
        ]  # fmt: skip

    def submit(self, policy: str, request: object, sink: Sink, *, receipt: bool = False) -> Ticket:
        if self.refusal is not None:
            raise self.refusal
        assert isinstance(request, (ChatRequest, CompletionRequest, EmbeddingRequest))
        ticket = Ticket(request)
        self.asked.append(request)
        self.tickets.append(ticket)
        self._number += 1
        name = f"s{policy}-{self._number}"
        threading.Thread(target=self._serve, args=(ticket, sink, name, receipt), daemon=True).start()
        return ticket

    def cancel(self, ticket: object) -> None:
        assert isinstance(ticket, Ticket)
        ticket.cancelled_at = time.monotonic()
        ticket.cancelled.set()

    def _serve(self, ticket: Ticket, sink: Sink, name: str, receipt: bool) -> None:
        sink.started(name)
        for step in self.script(ticket.request):
            if ticket.cancelled.is_set():
                ticket.ended_at = time.monotonic()
                sink.done(done("cancelled"), [], None)
                return
            if isinstance(step, float):
                ticket.cancelled.wait(step)
            elif isinstance(step, AnchorholdError):
                sink.failed(step)
                return
            elif isinstance(step, Done):
                ticket.ended_at = time.monotonic()
                sink.done(step, self.shown, "the receipt" if receipt else None)
            else:
                sink.event(step)


def policy(name: str = "test", **api: Any) -> Policy:
    return Policy(name=name, model=ModelPolicy("/m.gguf"), api=replace(Api(), **api))


@contextmanager
def serving(tmp: Path, backend: Scripted, *policies: Policy, **more: Any) -> Iterator[Front]:
    """A real gateway in its real cell before that backend."""
    runtime, state = tmp / "run", tmp / "state"
    runtime.mkdir(exist_ok=True)
    state.mkdir(exist_ok=True)
    front = Front(list(policies) or [policy()], backend, runtime=str(runtime), state_dir=state, **more)
    front.start()
    try:
        yield front
    finally:
        front.close()
