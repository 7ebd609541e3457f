"""Chats, tools, schemas and embeddings in the real cell with the real model; two callers share nothing."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from anchorhold.audit.log import Log
from anchorhold.audit.query import entries
from anchorhold.errors import WorkerError
from anchorhold.supervisor import events
from anchorhold.supervisor.requests import (
    Asked,
    ChatRequest,
    CompletionRequest,
    EmbeddingRequest,
    Sampling,
)
from anchorhold.supervisor.session import Session
from anchorhold.verify.check import verify
from tests.integration import cells

CANARY = "The canary's name is Quillon. "


@pytest.fixture
def session(state_dir: Path, demo_model: Path) -> Iterator[Session]:
    """A breach would kill it: whatever is asked here needs nothing that a sealed worker may not have."""
    log = Log.open(state_dir)
    made = Session(cells.policy(demo_model, kill=True), log, state_dir=state_dir, suffixes=(".txt",))
    try:
        made.start()
        yield made
    finally:
        made.close()
        log.close()
    assert verify(str(state_dir)).ok


def ask(session: Session, request: Asked) -> tuple[str, list[events.Event], events.Done]:
    seen = list(session.ask(request))
    text = "".join(event.text for event in seen if isinstance(event, events.Token))
    assert isinstance(seen[-1], events.Done)
    return text, seen, seen[-1]


def chat(session: Session, *contents: str, principal: str = "uid:1", most: int = 4) -> events.Done:
    turns = [
        {"role": ("user", "assistant")[number % 2], "content": content}
        for number, content in enumerate(contents)
    ]
    return ask(session, ChatRequest(turns, Sampling(most, 0.0), principal=principal))[2]


def test_every_kind_of_request_in_the_cell(session: Session, state_dir: Path) -> None:
    form = {
        "type": "json_schema",
        "json_schema": {"schema": {"type": "array", "items": {"enum": [1, 2]}, "maxItems": 3}},
    }
    turns = [{"role": "user", "content": "Count."}]
    text, _seen, done = ask(
        session, ChatRequest(turns, Sampling(40, 0.0), format=json.dumps(form), principal="uid:7")
    )
    assert set(json.loads(text)) <= {1, 2} and done.reason == "stop"
    tools = [
        {
            "type": "function",
            "function": {
                "name": "go",
                "parameters": {
                    "type": "object",
                    "properties": {"far": {"type": "boolean"}},
                    "required": ["far"],
                },
            },
        }
    ]
    request = ChatRequest(
        turns,
        Sampling(60, 0.0),
        tools=json.dumps(tools),
        tool_choice='{"type": "function", "function": {"name": "go"}}',
    )
    text, seen, done = ask(session, request)
    calls = [event for event in seen if isinstance(event, events.Call)]
    assert json.loads("".join(call.arguments for call in calls)).keys() == {"far"}
    assert (text, done.reason) == ("", "tool_calls")
    text, seen, _done = ask(session, CompletionRequest("One, two,", Sampling(3, 0.0, logprobs=2)))
    chosen = [event for event in seen if isinstance(event, events.Chosen)]
    assert "".join(one.text for one in chosen) == text and len(chosen[0].top) == 2
    _text, seen, _done = ask(session, EmbeddingRequest(["a", "b"]))
    assert [event.index for event in seen if isinstance(event, events.Embedding)] == [0, 1]
    assert session.embeddings and session.context > 0
    with pytest.raises(WorkerError) as caught:
        list(session.ask(ChatRequest([{"role": "user", "content": "word " * 60_000}], Sampling(4))))
    assert caught.value.code == "context_exceeded"
    ends = list(entries(state_dir, kinds=("request.end",)))
    assert ends[-1]["prompt_tokens"] == 0 and ends[-1]["sent_tokens"] >= 60_000
    assert not list(entries(state_dir, kinds=("breach", "denial")))
    starts = list(entries(state_dir, kinds=("request.start",)))
    assert [start["asked"] for start in starts] == ["chat", "chat", "complete", "embed", "chat"]
    assert starts[0]["principal"] == "uid:7"


def test_two_callers_share_nothing_that_was_computed(session: Session) -> None:
    """What the first sent is in no way faster for the second, who guesses it word by word. Where it may be
    used again, it is: so sharing would be seen."""
    secret = CANARY * 40
    first = chat(session, secret, principal="uid:1")
    goes_on = chat(session, secret, "Yes.", "And?", principal="uid:1")
    assert goes_on.prompt_seconds < first.prompt_seconds / 2
    for guess in (secret, secret + "Is it?"):
        chat(session, secret, principal="uid:1")
        guessed = chat(session, guess, "Yes.", "And?", principal="token:2")
        assert guessed.prompt_seconds > first.prompt_seconds / 2
    chat(session, secret, principal="uid:1")
    other_conversation = chat(session, secret + "But", principal="uid:1")
    assert other_conversation.prompt_seconds > first.prompt_seconds / 2


def test_who_leaves_in_the_prompt_stops_it_within_a_tenth_of_a_second(session: Session) -> None:
    taken = []
    for number in range(7):
        turns = [{"role": "user", "content": f"{number} " + "All work and no play. " * 600}]
        asked = session.ask(ChatRequest(turns, Sampling(100)))
        for event in asked:
            assert not isinstance(event, events.Token)
            if isinstance(event, events.Progress) and event.stage == "prompt" and event.done > 0:
                break
        start = time.monotonic()
        asked.close()
        taken.append(time.monotonic() - start)
    assert sorted(taken)[3] < 0.1, taken
    assert chat(session, "Hello.").reason in ("stop", "length")
