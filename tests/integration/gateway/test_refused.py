"""What the API does not do is refused by name, in OpenAI's shape; nothing of it reaches a worker."""

from __future__ import annotations

import json
from typing import Any

import httpx2 as httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from anchorhold.supervisor.service.backend import Refused
from tests.integration.gateway.scripted import Scripted

HELLO = [{"role": "user", "content": "hello"}]
CHAT: dict[str, Any] = {"model": "test", "messages": HELLO}
TEXT = "/v1/completions"
VECTORS = "/v1/embeddings"
RESPONSES = "/v1/responses"
MESSAGES = "/v1/messages"
UNSUPPORTED, UNKNOWN = "unsupported_parameter", "unknown_parameter"
MISSING, INVALID = "missing_required_parameter", "invalid_value"
FUNCTION = {"type": "function", "function": {"name": "f"}}


def chat(**more: Any) -> tuple[str, dict[str, Any]]:
    return "/v1/chat/completions", {**CHAT, **more}


def turn(**more: Any) -> tuple[str, dict[str, Any]]:
    return chat(messages=[{"role": "user", "content": "x", **more}])


WRONG: list[tuple[tuple[str, dict[str, Any]], str, str]] = [
    (chat(model=None), "model", MISSING),
    (chat(model=1), "model", INVALID),
    (chat(messages=None), "messages", MISSING),
    (chat(messages=[]), "messages", INVALID),
    (chat(messages="x"), "messages", INVALID),
    (chat(messages=["x"]), "messages[0]", INVALID),
    (turn(role="wizard"), "messages[0].role", INVALID),
    (turn(name="eve"), "messages[0].name", UNSUPPORTED),
    (turn(content=None), "messages[0].content", INVALID),
    (turn(content="\ud800"), "messages[0].content", INVALID),
    (turn(content=[{"type": "image_url"}]), "messages[0].content[0].type", UNSUPPORTED),
    (turn(what=1), "messages[0].what", UNKNOWN),
    (chat(messages=[{"role": "assistant"}]), "messages[0].content", INVALID),
    (chat(messages=[{"role": "tool", "content": "x"}]), "messages[0].tool_call_id", MISSING),
    (chat(n=2), "n", UNSUPPORTED),
    (chat(n=True), "n", UNSUPPORTED),
    (chat(frequency_penalty=0.5), "frequency_penalty", UNSUPPORTED),
    (chat(presence_penalty=1), "presence_penalty", UNSUPPORTED),
    (chat(logit_bias={"5": 1}), "logit_bias", UNSUPPORTED),
    (chat(temperature=2.5), "temperature", INVALID),
    (chat(temperature="hot"), "temperature", INVALID),
    (chat(temperature=True), "temperature", INVALID),
    (chat(top_p=1.5), "top_p", INVALID),
    (chat(seed=0.5), "seed", INVALID),
    (chat(seed=2**64), "seed", INVALID),
    (chat(max_tokens=0), "max_tokens", INVALID),
    (chat(max_tokens=5000), "max_tokens", INVALID),
    (chat(max_completion_tokens=10**30), "max_completion_tokens", INVALID),
    (chat(stop=["a"] * 5), "stop", INVALID),
    (chat(stop=""), "stop", INVALID),
    (chat(stream="yes"), "stream", INVALID),
    (chat(stream_options={"include_usage": True}), "stream_options", INVALID),
    (chat(stream=True, stream_options={"x": True}), "stream_options.x", UNKNOWN),
    (chat(top_logprobs=3), "top_logprobs", INVALID),
    (chat(logprobs=True, top_logprobs=21), "top_logprobs", INVALID),
    (chat(tools=[{"type": "web_search"}]), "tools[0].type", UNSUPPORTED),
    (chat(tools=[{"type": "function", "function": {"name": "a b"}}]), "tools[0].function.name", INVALID),
    (chat(tool_choice="required"), "tool_choice", INVALID),
    (chat(tools=[FUNCTION], parallel_tool_calls=1), "parallel_tool_calls", INVALID),
    (chat(response_format={"type": "xml"}), "response_format.type", UNSUPPORTED),
    (chat(response_format={"type": "json_schema"}), "response_format.json_schema", INVALID),
    (chat(functions=[]), "functions", UNSUPPORTED),
    (chat(store=True), "store", UNSUPPORTED),
    (chat(modalities=["text", "audio"]), "modalities", UNSUPPORTED),
    (chat(reasoning_effort="high"), "reasoning_effort", UNSUPPORTED),
    (chat(top_k=5), "top_k", UNKNOWN),
    (chat(anchorhold={"files": ["a"]}), "anchorhold.files[0]", INVALID),
    (chat(anchorhold={"file": []}), "anchorhold.file", UNKNOWN),
    ((TEXT, {"model": "test", "prompt": ["a", "b"]}), "prompt", UNSUPPORTED),
    ((TEXT, {"model": "test", "prompt": [1, 2]}), "prompt", UNSUPPORTED),
    ((TEXT, {"model": "test", "prompt": "x", "echo": True}), "echo", UNSUPPORTED),
    ((TEXT, {"model": "test", "prompt": "x", "suffix": "y"}), "suffix", UNSUPPORTED),
    ((TEXT, {"model": "test", "prompt": "x", "best_of": 2}), "best_of", UNSUPPORTED),
    ((VECTORS, {"model": "test", "input": [[1, 2]]}), "input", UNSUPPORTED),
    ((VECTORS, {"model": "test", "input": []}), "input", INVALID),
    ((VECTORS, {"model": "test", "input": "x", "dimensions": 5}), "dimensions", UNSUPPORTED),
    ((RESPONSES, {"model": "test", "input": "x", "previous_response_id": "r"}),
     "previous_response_id", UNSUPPORTED),
    ((RESPONSES, {"model": "test", "input": "x", "store": True}), "store", UNSUPPORTED),
    ((RESPONSES, {"model": "test", "input": "x", "truncation": "auto"}), "truncation", UNSUPPORTED),
    ((RESPONSES, {"model": "test", "input": [{"type": "reasoning"}]}), "input[0].type", UNSUPPORTED),
    ((MESSAGES, {"model": "test", "messages": HELLO}), "max_tokens", MISSING),
    ((MESSAGES, {"model": "test", "messages": HELLO, "max_tokens": 5, "temperature": 1.5}),
     "temperature", INVALID),
    ((MESSAGES, {"model": "test", "messages": HELLO, "max_tokens": 5, "thinking": {"type": "enabled"}}),
     "thinking", UNSUPPORTED),
]  # fmt: skip


@pytest.mark.parametrize(("request_", "param", "code"), WRONG, ids=lambda value: str(value)[:60])
def test_it_is_named(
    http: httpx.Client, backend: Scripted, request_: tuple[str, dict[str, Any]], param: str, code: str
) -> None:
    path, body = request_
    answer = http.post(path, content=json.dumps(body), headers={"content-type": "application/json"})
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["code"]) == (400, param, code), error
    assert error["type"] == "invalid_request_error" and param.split("[")[0].split(".")[0] in error["message"]
    assert backend.asked == []


@pytest.mark.parametrize(
    "body",
    [b"", b"x", b"[]", b'"x"', b'{"model":"test","model":"test"}', b'{"model":NaN}', b"\xff", b"[" * 5000,
     b'{"a":' * 100 + b"1" + b"}" * 100, b'{"model":' + b"9" * 5000 + b"}"],
)  # fmt: skip
def test_what_is_no_request(http: httpx.Client, backend: Scripted, body: bytes) -> None:
    answer = http.post("/v1/chat/completions", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400 and answer.json()["error"]["code"] == "invalid_json"
    assert backend.asked == []


def test_what_is_not_there(http: httpx.Client) -> None:
    for method, path, status in (
        ("GET", "/", 404), ("GET", "/v1/chat/completions", 405), ("DELETE", "/v1/models", 405),
        ("GET", "/v1/models/other", 404), ("GET", "/v1/models/../../etc/passwd", 404),
        ("GET", "/v1/models/", 404),
    ):  # fmt: skip
        answer = http.request(method, path)
        assert answer.status_code == status and answer.json()["error"]["message"], path
    answer = http.post("/v1/chat/completions", json={**CHAT, "model": "gpt-4o"})
    assert answer.status_code == 404 and answer.json()["error"]["code"] == "model_not_found"


def test_what_the_service_refuses_is_handed_on(http: httpx.Client, backend: Scripted) -> None:
    backend.refusal = Refused(429, "queue_full", "64 requests are waiting", 1.5)
    answer = http.post("/v1/chat/completions", json=CHAT)
    assert answer.status_code == 429 and answer.headers["retry-after"] == "2"
    assert answer.json()["error"]["code"] == "queue_full"
    backend.refusal = Refused(503, "latched", "killed")
    assert http.post("/v1/chat/completions", json={**CHAT, "stream": True}).status_code == 503


def test_a_body_that_is_too_large(http: httpx.Client, backend: Scripted) -> None:
    big = json.dumps({**CHAT, "messages": [{"role": "user", "content": "x" * (4 << 20)}]})
    answer = http.post("/v1/chat/completions", content=big, headers={"content-type": "application/json"})
    assert answer.status_code == 413 and answer.json()["error"]["code"] == "body_too_large"
    just = json.dumps(
        {**CHAT, "messages": [{"role": "user", "content": "\u00e9" * (1 << 20)}]}, ensure_ascii=False
    ).encode()
    answer = http.post("/v1/chat/completions", content=just, headers={"content-type": "application/json"})
    assert answer.status_code == 200 and len(backend.asked) == 1


JSON = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats() | some.text(max_size=20),
    lambda inner: (
        some.lists(inner, max_size=4) | some.dictionaries(some.text(max_size=10), inner, max_size=4)
    ),
    max_leaves=12,
)
KEYS = some.sampled_from(
    ["messages", "temperature", "top_p", "max_tokens", "stop", "stream", "tools", "tool_choice", "n", "seed",
     "response_format", "anchorhold", "logprobs", "input", "prompt", "system", "text", "stream_options"]
)  # fmt: skip
PATHS = some.sampled_from(["/v1/chat/completions", TEXT, VECTORS, RESPONSES, MESSAGES])


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=PATHS, more=some.dictionaries(KEYS, JSON, max_size=4), keep=some.booleans())
def test_no_json_breaks_it(
    http: httpx.Client, backend: Scripted, path: str, more: dict[str, Any], keep: bool
) -> None:
    base = (
        {"model": "test", "messages": HELLO, "prompt": "x", "input": "x", "max_tokens": 5} if keep else CHAT
    )
    body = json.dumps({**base, **more})
    answer = http.post(path, content=body, headers={"content-type": "application/json"})
    assert answer.status_code in (200, 400), answer.text
    if answer.status_code == 400:
        assert answer.json()["error"]["message"]
