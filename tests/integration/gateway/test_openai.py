"""The `openai` package against the real gateway: what people's programs do."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import httpx2 as httpx
import pytest
from openai import BadRequestError, OpenAI

from anchorhold.errors import KilledError, WorkerError
from anchorhold.supervisor.events import Call, Chosen, Document, Token
from anchorhold.supervisor.requests import Asked, ChatRequest, CompletionRequest, EmbeddingRequest, Sampling
from tests.integration.gateway.scripted import Scripted, Step, done, endless

HELLO: list[Any] = [{"role": "user", "content": "hello there"}]
WEATHER: list[Any] = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "The weather.",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
        },
    }
]


def chat_of(backend: Scripted) -> ChatRequest:
    asked = backend.asked[-1]
    assert isinstance(asked, ChatRequest)
    return asked


def calls(_request: Asked) -> Iterator[Step]:
    yield Call(0, "call_1", "weather", "")
    yield Call(0, "call_1", "weather", '{"city":')
    yield Call(0, "call_1", "weather", '"Ulm"}')
    yield Call(1, "call_2", "weather", '{"city":"Bern"}')
    yield done("tool_calls")


def probable(_request: Asked) -> Iterator[Step]:
    for text, logprob in (("he", -0.5), ("\u00e9", -0.25)):
        yield Token(text)
        yield Chosen(text, logprob, [(text, logprob), ("x", -3.0)], list(text.encode()))
    yield done()


def test_models(openai: OpenAI) -> None:
    models = openai.models.list().data
    assert [one.id for one in models] == ["test"] and models[0].owned_by == "anchorhold"
    assert openai.models.retrieve("test").id == "test"


def test_a_chat(openai: OpenAI, backend: Scripted) -> None:
    raw = openai.chat.completions.with_raw_response.create(
        model="test", messages=HELLO, temperature=0.5, top_p=0.9, seed=-1, stop=["END"], max_tokens=99, n=1,
        user="someone", presence_penalty=0, frequency_penalty=0.0,
    )  # fmt: skip
    found = raw.parse()
    assert found.choices[0].message.content == "hello there " and found.choices[0].finish_reason == "stop"
    assert found.usage is not None and found.usage.total_tokens == 9
    assert found.id == "chatcmpl-" + raw.headers["x-request-id"] and found.model == "test"
    asked = chat_of(backend)
    assert asked.messages == [{"role": "user", "content": "hello there"}]
    assert asked.sampling.fields() == Sampling(99, 0.5, 0.9, 2**32 - 1, ("END",), None).fields()
    assert asked.principal.startswith("uid:") and asked.tools is asked.format is asked.tool_choice is None


def test_a_streamed_chat(openai: OpenAI) -> None:
    chunks = list(
        openai.chat.completions.create(
            model="test", messages=HELLO, stream=True, stream_options={"include_usage": True}
        )
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == "hello there " and chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.usage is None for chunk in chunks[:-1]] == [True] * (len(chunks) - 1)
    assert chunks[-1].choices == [] and chunks[-1].usage is not None and chunks[-1].usage.prompt_tokens == 7
    assert chunks[-2].choices[0].finish_reason == "stop" and len({chunk.id for chunk in chunks}) == 1


def test_a_conversation_with_tools(openai: OpenAI, backend: Scripted) -> None:
    backend.script = calls
    first = openai.chat.completions.create(
        model="test", messages=HELLO, tools=WEATHER, tool_choice="required"
    )
    message = first.choices[0].message
    assert first.choices[0].finish_reason == "tool_calls" and message.content is None
    assert message.tool_calls is not None and len(message.tool_calls) == 2
    call = message.tool_calls[0]
    assert call.type == "function" and json.loads(call.function.arguments) == {"city": "Ulm"}
    asked = chat_of(backend)
    assert asked.tools is not None and json.loads(asked.tools)[0]["function"]["name"] == "weather"
    assert asked.tool_choice == '"required"'
    again: list[Any] = [
        *HELLO,
        message.model_dump(),  # with all its nulls, as programs do
        {"role": "tool", "tool_call_id": call.id, "content": "rain"},
    ]
    openai.chat.completions.create(model="test", messages=again, tools=WEATHER)
    assert chat_of(backend).messages[1:] == [
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {"id": "call_1", "name": "weather", "arguments": '{"city":"Ulm"}'},
                {"id": "call_2", "name": "weather", "arguments": '{"city":"Bern"}'},
            ],
        },
        {"role": "tool", "content": "rain", "tool_call_id": "call_1"},
    ]


def test_streamed_tool_calls(openai: OpenAI, backend: Scripted) -> None:
    backend.script = calls
    with openai.chat.completions.stream(model="test", messages=HELLO, tools=WEATHER) as stream:
        stream.until_done()
        message = stream.get_final_completion().choices[0].message
    assert message.tool_calls is not None
    assert [(one.id, one.function.arguments) for one in message.tool_calls] == [
        ("call_1", '{"city":"Ulm"}'),
        ("call_2", '{"city":"Bern"}'),
    ]


@pytest.mark.parametrize("stream", [False, True])
def test_log_probabilities(openai: OpenAI, backend: Scripted, stream: bool) -> None:
    backend.script = probable
    if stream:
        with openai.chat.completions.stream(
            model="test", messages=HELLO, logprobs=True, top_logprobs=2
        ) as streamed:
            streamed.until_done()
            choice: Any = streamed.get_final_completion().choices[0]
    else:
        choice = openai.chat.completions.create(
            model="test", messages=HELLO, logprobs=True, top_logprobs=2
        ).choices[0]
    assert choice.message.content == "he\u00e9" and choice.logprobs is not None
    content = choice.logprobs.content
    assert [one.token for one in content] == ["he", "\u00e9"] and content[1].bytes == [0xC3, 0xA9]
    assert [one.logprob for one in content[0].top_logprobs] == [-0.5, -3.0]
    assert chat_of(backend).sampling.logprobs == 2


def test_a_json_schema(openai: OpenAI, backend: Scripted) -> None:
    schema: dict[str, Any] = {"type": "object", "properties": {"a": {"type": "integer"}}}
    openai.chat.completions.create(
        model="test",
        messages=HELLO,
        response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema}},
    )
    wanted = chat_of(backend).format
    assert wanted is not None and json.loads(wanted)["json_schema"]["schema"] == schema
    openai.chat.completions.create(model="test", messages=HELLO, response_format={"type": "json_object"})
    assert chat_of(backend).format == '{"type":"json_object"}'
    openai.chat.completions.create(model="test", messages=HELLO, response_format={"type": "text"})
    assert chat_of(backend).format is None


def test_documents_and_a_receipt(openai: OpenAI, backend: Scripted) -> None:
    def script(_request: Asked) -> Iterator[Step]:
        yield Document("/papers/b\udcff.txt", "used", "", 12)
        yield Token("x")
        yield done()

    backend.script = script
    backend.shown = [("/papers/b\udcff.txt", "cd" * 32, 99)]
    for stream in (False, True):
        found: Any = openai.chat.completions.create(
            model="test",
            messages=HELLO,
            stream=stream,
            extra_body={"anchorhold": {"files": ["/papers/b.txt"], "receipt": True}},
        )
        answer = [chunk for chunk in found if chunk.choices[0].finish_reason][0] if stream else found
        more = answer.model_extra["anchorhold"]
        assert more["shown"] == [{"path": "/papers/b\\xff.txt", "sha256": "cd" * 32, "size": 99}]
        assert more["receipt"] == "the receipt" and more["request"].startswith("stest-")
        assert more["documents"] == [
            {"path": "/papers/b\\xff.txt", "outcome": "used", "reason": "", "tokens": 12}
        ]
        assert chat_of(backend).files == ["/papers/b.txt"]
    assert "anchorhold" not in (
        openai.chat.completions.create(model="test", messages=HELLO).model_extra or {}
    )


def test_a_completion(openai: OpenAI, backend: Scripted) -> None:
    found = openai.completions.create(model="test", prompt="once upon", max_tokens=5)
    assert found.choices[0].text == "once upon " and found.usage is not None
    asked = backend.asked[-1]
    assert isinstance(asked, CompletionRequest) and asked.prompt == "once upon"
    streamed = openai.completions.create(
        model="test", prompt="once upon", stream=True, stream_options={"include_usage": True}
    )
    chunks = list(streamed)
    assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices) == "once upon "
    assert chunks[-1].usage is not None
    backend.script = probable
    logprobs = openai.completions.create(model="test", prompt="x", logprobs=1).choices[0].logprobs
    assert logprobs is not None and logprobs.tokens == ["he", "\u00e9"] and logprobs.text_offset == [0, 2]
    assert logprobs.top_logprobs is not None and logprobs.top_logprobs[0]["x"] == -3.0


@pytest.mark.parametrize("form", ["float", "base64"])
def test_embeddings(openai: OpenAI, backend: Scripted, form: Any) -> None:
    found = openai.embeddings.create(model="test", input=["a", "bc"], encoding_format=form)
    default = openai.embeddings.create(model="test", input="bc").data[0].embedding
    assert default == [2.0, 0.5, -0.25]
    if form == "float":
        assert [one.embedding for one in found.data] == [[1.0, 0.5, -0.25], [2.0, 0.5, -0.25]]
    asked = backend.asked[0]
    assert isinstance(asked, EmbeddingRequest) and asked.inputs == ["a", "bc"]


def test_responses(openai: OpenAI, backend: Scripted) -> None:
    found = openai.responses.create(model="test", input="hello there", instructions="be brief")
    assert found.output_text == "hello there " and found.status == "completed" and found.usage is not None
    assert chat_of(backend).messages[0] == {"role": "system", "content": "be brief"}
    with openai.responses.stream(model="test", input="hello there") as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_response()
    assert final.output_text == "hello there " and kinds[0] == "response.created"
    assert kinds[-1] == "response.completed" and "response.output_text.delta" in kinds
    backend.script = calls
    tool: Any = {"type": "function", "name": "weather", "parameters": {"type": "object"}, "strict": False}
    called = openai.responses.create(model="test", input="x", tools=[tool])
    items = [one for one in called.output if one.type == "function_call"]
    assert [one.arguments for one in items] == ['{"city":"Ulm"}', '{"city":"Bern"}']
    with openai.responses.stream(model="test", input="x", tools=[tool]) as stream:
        for _event in stream:
            pass
        assert [one.type for one in stream.get_final_response().output] == ["function_call"] * 2
    followed: list[Any] = [
        {"role": "user", "content": "x"},
        *[item.model_dump(exclude_none=True) for item in items],
        {"type": "function_call_output", "call_id": "call_1", "output": "rain"},
    ]
    openai.responses.create(model="test", input=followed)
    assert [one["role"] for one in chat_of(backend).messages] == ["user", "assistant", "tool"]


def test_messages_in_the_other_shape(http: httpx.Client, backend: Scripted) -> None:
    body: dict[str, Any] = {
        "model": "test",
        "max_tokens": 50,
        "system": "be brief",
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "hello there"}]},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "w", "input": {}}]},
            {
                "role": "user",
                "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "so it is"}],
            },
        ],
    }
    found = http.post("/v1/messages", json=body).json()
    assert found["content"] == [{"type": "text", "text": "so it is "}] and found["stop_reason"] == "end_turn"
    assert found["usage"] == {"input_tokens": 7, "output_tokens": 3}
    assert [one["role"] for one in chat_of(backend).messages] == ["system", "user", "assistant", "tool"]
    backend.script = calls
    body["tools"] = [{"name": "w", "input_schema": {"type": "object"}}]
    streamed = http.post("/v1/messages", json={**body, "stream": True})
    events = [json.loads(line[6:]) for line in streamed.text.split("\n") if line.startswith("data: ")]
    kinds = [event["type"] for event in events]
    assert (
        kinds[0] == "message_start" and kinds[-1] == "message_stop" and kinds.count("content_block_stop") == 2
    )
    pieces = [one["delta"]["partial_json"] for one in events if one["type"] == "content_block_delta"]
    assert "".join(pieces) == '{"city":"Ulm"}{"city":"Bern"}'
    assert http.post("/v1/messages", json=body).json()["content"][0]["input"] == {"city": "Ulm"}
    wrong = http.post("/v1/messages", json={**body, "top_k": 5})
    assert wrong.status_code == 400 and wrong.json()["type"] == "error"
    assert wrong.json()["error"]["code"] == "unsupported_parameter"


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (WorkerError("it does not fit"), 500, "worker_failed"),
        (KilledError("killed"), 503, "killed"),
    ],
)
def test_what_fails_says_why(
    openai: OpenAI, backend: Scripted, error: Exception, status: int, code: str
) -> None:
    def script(_request: Asked) -> Iterator[Step]:
        yield error  # type: ignore[misc]  # one of ours

    backend.script = script
    with pytest.raises(Exception) as caught:
        openai.chat.completions.create(model="test", messages=HELLO)
    assert getattr(caught.value, "status_code", 0) == status and getattr(caught.value, "code", "") == code


def test_a_prompt_that_does_not_fit(openai: OpenAI, backend: Scripted) -> None:
    def script(_request: Asked) -> Iterator[Step]:
        yield WorkerError("the prompt has 5000 tokens, the context 2048", code="context_exceeded")

    backend.script = script
    with pytest.raises(BadRequestError) as caught:
        openai.chat.completions.create(model="test", messages=HELLO)
    assert caught.value.code == "context_length_exceeded" and caught.value.type == "invalid_request_error"


def test_an_error_in_the_middle_of_a_stream(openai: OpenAI, backend: Scripted) -> None:
    def script(_request: Asked) -> Iterator[Step]:
        yield Token("half")
        yield 0.1
        yield KilledError("killed by the kill switch")

    backend.script = script
    stream = openai.chat.completions.create(model="test", messages=HELLO, stream=True)
    with pytest.raises(Exception, match="killed by the kill switch"):
        for _chunk in stream:
            pass


def test_a_client_that_leaves_stops_the_answer(openai: OpenAI, backend: Scripted) -> None:
    backend.script = endless
    times = []
    for _round in range(10):
        stream = openai.chat.completions.create(model="test", messages=HELLO, stream=True)
        for _number, _chunk in zip(range(3), stream, strict=False):
            pass
        left = time.monotonic()
        stream.close()
        ticket = backend.tickets[-1]
        assert ticket.cancelled.wait(2)
        times.append(ticket.cancelled_at - left)
    assert sorted(times)[8] < 0.1, times
