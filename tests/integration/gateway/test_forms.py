"""Each endpoint's ways to say the same: what reaches the session is one form."""

from __future__ import annotations

import json
from typing import Any

import httpx2 as httpx
import pytest

from anchorhold.errors import KilledError
from anchorhold.supervisor.events import Call, Chosen, Token
from anchorhold.supervisor.requests import Asked, ChatRequest, CompletionRequest
from tests.integration.gateway.scripted import Scripted, done

USER = [{"role": "user", "content": "x"}]
NAMED = {"type": "function", "function": {"name": "f"}}
NESTED = [{"type": "function", "function": {"name": "f", "description": "d", "strict": True}}]
FLAT = [{"type": "function", "name": "f", "description": "d"}]
OTHER = [{"name": "f", "description": "d", "input_schema": {"type": "object"}}]
CHAT = {"model": "test", "messages": USER, "tools": NESTED}
RESPONSES = {"model": "test", "input": "x", "tools": FLAT}
MESSAGES = {"model": "test", "messages": USER, "max_tokens": 5, "tools": OTHER}
PATHS = {id(CHAT): "/v1/chat/completions", id(RESPONSES): "/v1/responses", id(MESSAGES): "/v1/messages"}


def asked(http: httpx.Client, backend: Scripted, base: dict[str, Any], **more: Any) -> ChatRequest:
    answer = http.post(PATHS[id(base)], json={**base, **more})
    assert answer.status_code == 200, answer.text
    found = backend.asked[-1]
    assert isinstance(found, ChatRequest)
    return found


def refused(http: httpx.Client, base: dict[str, Any], **more: Any) -> str:
    answer = http.post(PATHS[id(base)], json={**base, **more})
    assert answer.status_code == 400, answer.text
    return str(answer.json()["error"]["param"])


@pytest.mark.parametrize(
    ("base", "choice", "wanted"),
    [
        (CHAT, "auto", "auto"), (CHAT, "none", "none"), (CHAT, NAMED, NAMED),
        (RESPONSES, "required", "required"), (RESPONSES, {"type": "function", "name": "f"}, NAMED),
        (MESSAGES, {"type": "auto"}, "auto"), (MESSAGES, {"type": "any"}, "required"),
        (MESSAGES, {"type": "none"}, "none"), (MESSAGES, {"type": "tool", "name": "f"}, NAMED),
    ],
)  # fmt: skip
def test_choosing_a_tool(
    http: httpx.Client, backend: Scripted, base: dict[str, Any], choice: Any, wanted: Any
) -> None:
    found = asked(http, backend, base, tool_choice=choice)
    assert found.tool_choice is not None and json.loads(found.tool_choice) == wanted
    assert found.tools is not None and json.loads(found.tools)[0]["function"]["description"] == "d"


@pytest.mark.parametrize("base", [CHAT, RESPONSES])
def test_nothing_to_choose_from(http: httpx.Client, backend: Scripted, base: dict[str, Any]) -> None:
    assert asked(http, backend, base, tools=[], tool_choice="auto").tool_choice is None
    assert refused(http, base, tools=[], tool_choice="required") == "tool_choice"


def test_one_call_at_a_time(http: httpx.Client, backend: Scripted) -> None:
    """As some clients want it: the worker's grammar then ends with the first call."""
    for base in (CHAT, RESPONSES):
        for choice, kind in ((None, "auto"), ("auto", "auto"), ("required", "required")):
            found = asked(http, backend, base, tool_choice=choice, parallel_tool_calls=False).tool_choice
            assert json.loads(found or "") == {"type": kind, "most": 1}
        assert (
            asked(http, backend, base, tool_choice="none", parallel_tool_calls=False).tool_choice == '"none"'
        )
        assert asked(http, backend, base, tools=[], parallel_tool_calls=False).tool_choice is None
        assert asked(http, backend, base, parallel_tool_calls=True).tool_choice is None
    single = {"type": "any", "disable_parallel_tool_use": True}
    found = asked(http, backend, MESSAGES, tool_choice=single).tool_choice
    assert json.loads(found or "") == {"type": "required", "most": 1}
    single = {"type": "tool", "name": "f", "disable_parallel_tool_use": True}
    assert "most" not in (asked(http, backend, MESSAGES, tool_choice=single).tool_choice or "")
    told = http.post("/v1/responses", json={**RESPONSES, "parallel_tool_calls": False}).json()
    assert told["parallel_tool_calls"] is False


def test_wrong_choices_and_tools(http: httpx.Client) -> None:
    for base in (CHAT, RESPONSES, MESSAGES):
        assert refused(http, base, tool_choice={"type": "magic"}) == "tool_choice.type"
    assert refused(http, CHAT, tool_choice={"type": "function"}) == "tool_choice.function"
    assert refused(http, CHAT, tools=[{"type": "function"}]) == "tools[0].function"
    assert refused(http, RESPONSES, tools=[{"type": "web_search"}]) == "tools[0].type"
    assert refused(http, MESSAGES, tools=[{"type": "bash_20250124", "name": "bash"}]) == "tools[0].type"
    assert refused(http, MESSAGES, tools=[{"name": "f"}]) == "tools[0].input_schema"
    wrong = [{"type": "function", "function": {"name": "f", "parameters": []}}]
    assert refused(http, CHAT, tools=wrong) == "tools[0].function.parameters"
    huge = [{"type": "function", "function": {"name": "f", "description": "x" * (1 << 20)}}]
    assert refused(http, CHAT, tools=huge) == "tools"


def test_formats_of_responses(http: httpx.Client, backend: Scripted) -> None:
    schema = {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": True}
    found = asked(http, backend, RESPONSES, text={"format": schema}).format
    assert found is not None and json.loads(found) == {
        "type": "json_schema",
        "json_schema": {"name": "n", "schema": {"type": "object"}, "strict": True},
    }
    assert asked(http, backend, RESPONSES, text={"format": {"type": "text"}}).format is None
    assert asked(http, backend, RESPONSES, text={}).format is None
    assert refused(http, RESPONSES, text={"format": {"type": "xml"}}) == "text.format.type"
    assert refused(http, RESPONSES, text={"format": {"type": "json_schema"}}) == "text.format.schema"


def test_blocks_of_messages(http: httpx.Client, backend: Scripted) -> None:
    content = [
        {
            "type": "tool_result",
            "tool_use_id": "t",
            "content": [{"type": "text", "text": "r"}],
            "is_error": True,
        },
        {"type": "text", "text": "go on", "cache_control": {"type": "ephemeral"}},
    ]
    messages = [{"role": "user", "content": content}, {"role": "assistant", "content": "so"}]
    found = asked(http, backend, MESSAGES, messages=messages, system=[{"type": "text", "text": "s"}])
    assert found.messages == [
        {"role": "system", "content": "s"},
        {"role": "tool", "content": "Error: r", "tool_call_id": "t"},
        {"role": "user", "content": "go on"},
        {"role": "assistant", "content": "so"},
    ]
    for block, param in (
        ({"type": "image", "source": {}}, "type"),
        ({"type": "tool_use", "id": "1", "name": "f", "input": {}}, "type"),
    ):
        wrong = [{"role": "user", "content": [block]}]
        assert refused(http, MESSAGES, messages=wrong) == f"messages[0].content[0].{param}"
    wrong_use = [
        {"role": "assistant", "content": [{"type": "tool_use", "id": "1", "name": "f", "input": "x"}]}
    ]
    assert refused(http, MESSAGES, messages=wrong_use) == "messages[0].content[0].input"
    assert refused(http, MESSAGES, messages=[]) == "messages"
    assert refused(http, MESSAGES, messages=[{"role": "system", "content": "x"}]) == "messages[0].role"
    assert refused(http, MESSAGES, messages=[{"role": "user", "content": 5}]) == "messages[0].content"


def test_streams_of_text_then_calls(http: httpx.Client, backend: Scripted) -> None:
    def script(_request: Asked) -> Any:
        yield Token("let me see")
        yield Call(0, "c", "f", "no object")
        yield done("tool_calls")

    backend.script = script
    streamed = http.post("/v1/messages", json={**MESSAGES, "stream": True}).text
    events = [json.loads(line[6:]) for line in streamed.split("\n") if line.startswith("data: ")]
    starts = [one["content_block"]["type"] for one in events if one["type"] == "content_block_start"]
    assert starts == ["text", "tool_use"] and events[-2]["delta"]["stop_reason"] == "tool_use"
    whole = http.post("/v1/messages", json=MESSAGES).json()
    assert [one["type"] for one in whole["content"]] == ["text", "tool_use"]
    assert whole["content"][1]["input"] == {}  # what is no object cannot be told as one
    streamed = http.post("/v1/responses", json={**RESPONSES, "stream": True}).text
    events = [json.loads(line[6:]) for line in streamed.split("\n") if line.startswith("data: ")]
    assert [one["sequence_number"] for one in events] == list(range(len(events)))
    output = events[-1]["response"]["output"]
    assert [one["type"] for one in output] == ["message", "function_call"]
    places = [one["output_index"] for one in events if one["type"] == "response.output_item.done"]
    assert places == [0, 1]


def test_an_answer_that_is_cut(http: httpx.Client, backend: Scripted) -> None:
    def script(_request: Asked) -> Any:
        yield done("length", output=0)

    backend.script = script
    assert http.post("/v1/chat/completions", json=CHAT).json()["choices"][0]["finish_reason"] == "length"
    whole = http.post("/v1/responses", json=RESPONSES).json()
    assert whole["status"] == "incomplete"
    assert whole["incomplete_details"] == {"reason": "max_output_tokens"}
    assert "response.incomplete" in http.post("/v1/responses", json={**RESPONSES, "stream": True}).text
    assert http.post("/v1/messages", json=MESSAGES).json()["stop_reason"] == "max_tokens"
    assert "message_stop" in http.post("/v1/messages", json={**MESSAGES, "stream": True}).text


def test_streams_that_break(http: httpx.Client, backend: Scripted) -> None:
    def script(_request: Asked) -> Any:
        yield Token("x")
        yield KilledError("killed")

    backend.script = script
    for base in (CHAT, RESPONSES, MESSAGES):
        text = http.post(PATHS[id(base)], json={**base, "stream": True}).text
        assert '"killed"' in text and "[DONE]" not in text and "completed" not in text
        assert "message_stop" not in text


def test_a_completion_in_one_list_and_streamed_log_probabilities(
    http: httpx.Client, backend: Scripted
) -> None:
    def script(_request: Asked) -> Any:
        for word in ("ab", "c"):
            yield Token(word)
            yield Chosen(word, -1.0, [], [1])
        yield Token("!")
        yield done("length")

    backend.script = script
    body = {"model": "test", "prompt": ["one"], "logprobs": 0, "stream": True}
    lines = http.post("/v1/completions", json=body).text.split("\n")
    chunks = [json.loads(line[6:])["choices"][0] for line in lines if line.startswith("data: {")]
    assert [one["text"] for one in chunks] == ["ab", "c", "!"] and chunks[-1]["finish_reason"] == "length"
    assert [one["logprobs"]["text_offset"] for one in chunks[:2]] == [[0], [2]]
    found = backend.asked[-1]
    assert isinstance(found, CompletionRequest) and found.prompt == "one" and found.sampling.logprobs == 0
    chat = {**CHAT, "logprobs": True, "stream": True}
    lines = http.post("/v1/chat/completions", json=chat).text.split("\n")
    pieces = [json.loads(line[6:])["choices"][0]["delta"] for line in lines if line.startswith("data: {")]
    assert "".join(one.get("content", "") for one in pieces) == "abc!"


def test_only_chats_take_documents(http: httpx.Client) -> None:
    for path, body in (("/v1/completions", {"prompt": "x"}), ("/v1/embeddings", {"input": "x"})):
        more = {"model": "test", "anchorhold": {"files": ["/a"]}, **body}
        answer = http.post(path, json=more)
        assert answer.status_code == 400 and answer.json()["error"]["param"] == "anchorhold.files"
        receipt = http.post(path, json={**more, "anchorhold": {"receipt": True}}).json()
        assert receipt["anchorhold"]["receipt"] == "the receipt"
