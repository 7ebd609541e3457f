"""POST /v1/messages in Anthropic's shape. Source: Anthropic API reference, "Messages" and its streaming.

Errors have Anthropic's frame around what OpenAI's shape has, so that clients of either read them.
"""

from __future__ import annotations

import json
from typing import Any

from anchorhold.gateway import asking, chat
from anchorhold.gateway.answer import Answer, event
from anchorhold.gateway.asking import Asking, Limits
from anchorhold.gateway.errors import ApiError, invalid, unsupported
from anchorhold.gateway.fields import Fields, compact

REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use", "cancelled": "end_turn"}
TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}


def read(fields: Fields, policy: str, limits: Limits) -> Asking:
    """Raises ApiError."""
    if not fields.has("max_tokens"):
        raise ApiError(400, "max_tokens is missing.", code="missing_required_parameter", param="max_tokens")
    messages = _messages(fields)
    stream = fields.boolean("stream")
    files, receipt, extended = asking.extension(fields)
    fields.only("seed", why="this shape has no such key")
    choice, parallel = _tool_choice(fields)
    wanted = {
        "messages": messages,
        "sampling": asking.sampling(
            fields, limits.tokens(fields, "max_tokens"), logprobs=None, stop="stop_sequences", hottest=1.0
        ),
        "tools": _tools(fields),
        "tool_choice": choice,
        "format": None,
        "files": files,
        "receipt": receipt,
    }
    asking.check_choice(wanted)
    if not parallel:
        asking.one_call(wanted)
    thinking = fields.object("thinking")
    if thinking is not None and thinking.text("type", required=True) != "disabled":
        raise unsupported("thinking", "this is not done here")
    for key in ("top_k", "container", "mcp_servers", "context_management", "output_config", "output_format"):
        fields.only(key)
    fields.harmless("metadata", "service_tier", "inference_geo")
    fields.end()
    answer = Answer(policy, extended=extended, receipt=receipt)
    return Asking("chat", policy, wanted, Messages(), answer, stream=stream)


def _messages(fields: Fields) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    if fields.has("system"):
        found.append({"role": "system", "content": asking.text_of(fields.take("system"), "system", "text")})
    else:
        fields.take("system")
    items = fields.items("messages", chat.MOST_MESSAGES, required=True)
    if not items:
        raise invalid("messages", "at least one is wanted")
    for index, item in enumerate(items):
        one = Fields(item, f"messages[{index}]")
        role = one.text("role", required=True)
        if role not in ("user", "assistant"):
            raise invalid(one.name("role"), "user or assistant")
        found += _blocks(role, one.take("content"), one.name("content"))
        one.end()
    return found


def _blocks(role: str, content: Any, where: str) -> list[dict[str, Any]]:
    """One message as those of the channel: results of tools come apart from the text around them."""
    if type(content) is str:
        return [{"role": role, "content": asking.text_of(content, where)}]
    if type(content) is not list:
        raise invalid(where, "a string or a list of blocks is wanted")
    texts: list[str] = []
    calls: list[dict[str, str]] = []
    results: list[dict[str, Any]] = []
    for index, item in enumerate(content):
        block = Fields(item, f"{where}[{index}]")
        kind = block.text("type", required=True)
        block.harmless("cache_control", "citations")
        if kind == "text":
            texts.append(block.text("text", required=True))
        elif kind == "tool_use" and role == "assistant":
            value = block.take("input")
            if type(value) is not dict:
                raise invalid(block.name("input"), "an object is wanted")
            calls.append(
                {
                    "id": block.text("id", required=True),
                    "name": block.text("name", required=True),
                    "arguments": compact(value),
                }
            )
        elif kind == "tool_result" and role == "user":
            inner = block.take("content")
            text = "" if inner is None else asking.text_of(inner, block.name("content"), "text")
            if block.boolean("is_error"):
                text = f"Error: {text}"
            results.append(
                {
                    "role": "tool",
                    "content": text,
                    "tool_call_id": block.text("tool_use_id", required=True),
                }
            )
        else:
            raise unsupported(block.name("type"), "text, tool_use and tool_result are taken")
        block.end()
    if role == "assistant":
        turn: dict[str, Any] = {"role": role, "content": "".join(texts)}
        if calls:
            turn["tool_calls"] = calls
        return [turn]
    return results + ([{"role": role, "content": "".join(texts)}] if texts or not results else [])


def _tools(fields: Fields) -> str | None:
    found = []
    for index, item in enumerate(fields.items("tools", chat.MOST_TOOLS)):
        tool = Fields(item, f"tools[{index}]")
        if tool.text("type", "custom") != "custom":
            raise unsupported(tool.name("type"), "only tools of your own are taken")
        tool.harmless("cache_control")
        schema = tool.take("input_schema")
        if type(schema) is not dict:
            raise invalid(tool.name("input_schema"), "a JSON schema is wanted")
        function = {"name": tool.text("name", required=True, most=128), "parameters": schema}
        if tool.has("description"):
            function["description"] = tool.text("description")
        tool.take("description")
        tool.end()
        found.append({"type": "function", "function": function})
    return asking.json_text(found, "tools") if found else None


def _tool_choice(fields: Fields) -> tuple[str | None, bool]:
    """The choice as JSON text of OpenAI's form, and whether there may be several calls."""
    choice = fields.object("tool_choice")
    if choice is None:
        return None, True
    kind = choice.text("type", required=True)
    parallel = not choice.boolean("disable_parallel_tool_use")
    found: Any = {"auto": "auto", "any": "required", "none": "none"}.get(kind)
    if kind == "tool":
        found = {"type": "function", "function": {"name": choice.text("name", required=True)}}
    if found is None:
        raise invalid("tool_choice.type", "auto, any, none or tool")
    choice.end()
    return asking.json_text(found, "tool_choice"), parallel


class Messages:
    """A message object, and the events that build it up."""

    def __init__(self) -> None:
        self._open = -1
        """The index of the block that is open, −1 for none."""
        self._blocks = 0
        self._call = -1

    def refusal(self, error: ApiError) -> dict[str, Any]:
        return refusal(error)

    def broken(self, error: ApiError) -> bytes:
        return event("error", refusal(error))

    def _frame(self, answer: Answer) -> dict[str, Any]:
        return {
            "id": f"msg_{answer.name}",
            "type": "message",
            "role": "assistant",
            "model": answer.model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {"input_tokens": 0, "output_tokens": 0},
        }

    def whole(self, answer: Answer) -> dict[str, Any]:
        content: list[dict[str, Any]] = []
        if answer.text or not answer.calls:
            content.append({"type": "text", "text": answer.text})
        content += [
            {"type": "tool_use", "id": call["id"], "name": call["name"], "input": _object(call["arguments"])}
            for call in answer.ordered_calls()
        ]
        return {
            **self._frame(answer),
            "content": content,
            "stop_reason": REASONS[answer.done["reason"]],
            "usage": _usage(answer),
            **answer.extension(),
        }

    def opening(self, answer: Answer) -> bytes:
        return event("message_start", {"type": "message_start", "message": self._frame(answer)})

    def _begin(self, block: dict[str, Any]) -> bytes:
        out = self._end()
        self._open, self._blocks = self._blocks, self._blocks + 1
        return out + event(
            "content_block_start",
            {"type": "content_block_start", "index": self._open, "content_block": block},
        )

    def _end(self) -> bytes:
        if self._open < 0:
            return b""
        index, self._open = self._open, -1
        return event("content_block_stop", {"type": "content_block_stop", "index": index})

    def _delta(self, delta: dict[str, Any]) -> bytes:
        return event(
            "content_block_delta", {"type": "content_block_delta", "index": self._open, "delta": delta}
        )

    def piece(self, answer: Answer, message: dict[str, Any]) -> bytes:
        out = b""
        if message["type"] == "token":
            if self._open < 0 or self._call >= 0:
                out += self._begin({"type": "text", "text": ""})
                self._call = -1
            out += self._delta({"type": "text_delta", "text": message["text"]})
        elif message["type"] == "call":
            if self._call != message["index"]:
                call = answer.calls[message["index"]]
                block = {"type": "tool_use", "id": call["id"], "name": call["name"], "input": {}}
                out += self._begin(block)
                self._call = message["index"]
            out += self._delta({"type": "input_json_delta", "partial_json": message["arguments"]})
        return out

    def closing(self, answer: Answer) -> bytes:
        out = b""
        if not self._blocks:
            out += self._begin({"type": "text", "text": ""})
        out += self._end()
        delta = {"stop_reason": REASONS[answer.done["reason"]], "stop_sequence": None}
        out += event(
            "message_delta",
            {"type": "message_delta", "delta": delta, "usage": _usage(answer), **answer.extension()},
        )
        return out + event("message_stop", {"type": "message_stop"})


def refusal(error: ApiError) -> dict[str, Any]:
    kind = TYPES.get(error.status, "api_error")
    return {"type": "error", "error": {**error.body()["error"], "type": kind}}


def _usage(answer: Answer) -> dict[str, int]:
    return {"input_tokens": answer.done["prompt_tokens"], "output_tokens": answer.done["output_tokens"]}


def _object(text: str) -> Any:
    """The arguments of a call as an object; a model may have written something else."""
    try:
        value = json.loads(text or "{}")
    except (ValueError, RecursionError):
        return {}
    return value if type(value) is dict else {}
