"""POST /v1/chat/completions. Source: OpenAI API reference, "Chat Completions"."""

from __future__ import annotations

from typing import Any

from anchorhold.gateway import asking
from anchorhold.gateway.answer import DONE, Answer, OpenAiErrors, data
from anchorhold.gateway.asking import Asking, Limits
from anchorhold.gateway.errors import invalid, unsupported
from anchorhold.gateway.fields import Fields

MOST_MESSAGES = 10_000
MOST_TOOLS = 128
MOST_CALLS = 128
REASONS = {"stop": "stop", "length": "length", "tool_calls": "tool_calls", "cancelled": "stop"}


def read(fields: Fields, policy: str, limits: Limits) -> Asking:
    """Raises ApiError."""
    messages = turns(fields.items("messages", MOST_MESSAGES, required=True), "messages")
    if not messages:
        raise invalid("messages", "at least one is wanted")
    wants_logprobs = fields.boolean("logprobs")
    top = fields.integer("top_logprobs", 0, asking.MOST_TOP)
    if top is not None and not wants_logprobs:
        raise invalid("top_logprobs", "it is for logprobs: true only")
    stream, usage = asking.stream(fields)
    files, receipt, extended = asking.extension(fields)
    logprobs = (top or 0) if wants_logprobs else None
    wanted = {
        "messages": messages,
        "sampling": asking.sampling(
            fields, limits.tokens(fields, "max_completion_tokens", "max_tokens"), logprobs=logprobs
        ),
        "tools": tools(fields),
        "tool_choice": tool_choice(fields),
        "format": response_format(fields, "response_format"),
        "files": files,
        "receipt": receipt,
    }
    asking.check_choice(wanted)
    if not fields.boolean("parallel_tool_calls", True):
        asking.one_call(wanted)
    asking.neutral(fields)
    fields.only("store", False, why="nothing is stored")
    fields.only("modalities", ["text"])
    for key in ("audio", "functions", "function_call", "prediction", "web_search_options"):
        fields.only(key)
    fields.only("reasoning_effort", "none")
    fields.only("verbosity", "medium")
    fields.end()
    answer = Answer(policy, extended=extended, receipt=receipt)
    return Asking("chat", policy, wanted, Chat(usage=usage, logprobs=wants_logprobs), answer, stream=stream)


def turns(items: list[Any], where: str) -> list[dict[str, Any]]:
    return [_turn(Fields(item, f"{where}[{index}]")) for index, item in enumerate(items)]


def _turn(fields: Fields) -> dict[str, Any]:
    role = fields.text("role", required=True)
    where = fields.name("content")
    if role in ("system", "developer", "user"):
        fields.only("name", why="the model's template has no names")
        found: dict[str, Any] = {
            "role": role,
            "content": asking.text_of(fields.take("content"), where, "text"),
        }
    elif role == "tool":
        fields.harmless("name")
        found = {
            "role": role,
            "content": asking.text_of(fields.take("content"), where, "text"),
            "tool_call_id": fields.text("tool_call_id", required=True),
        }
    elif role == "assistant":
        found = _assistant(fields, where)
    else:
        raise invalid(fields.name("role"), "system, developer, user, assistant or tool")
    fields.end()
    return found


def _assistant(fields: Fields, where: str) -> dict[str, Any]:
    content = fields.take("content")
    found: dict[str, Any] = {
        "role": "assistant",
        "content": "" if content is None else asking.text_of(content, where, "text"),
    }
    calls = [
        _call(Fields(item, f"{fields.name('tool_calls')}[{index}]"))
        for index, item in enumerate(fields.items("tool_calls", MOST_CALLS))
    ]
    if calls:
        found["tool_calls"] = calls
    elif content is None:
        raise invalid(where, "a string, or tool_calls beside it")
    fields.only("name", why="the model's template has no names")
    fields.only("refusal")
    fields.only("audio")
    fields.only("function_call")
    # What clients keep of an answer and send back with it.
    fields.harmless("annotations", "reasoning_content")
    return found


def _call(fields: Fields) -> dict[str, str]:
    fields.harmless("index")
    fields.choice("type", "function", default="function")
    inner = fields.object("function")
    if inner is None:
        raise invalid(fields.name("function"), "an object is wanted")
    found = {
        "id": fields.text("id", required=True),
        "name": inner.text("name", required=True),
        "arguments": inner.text("arguments", "{}"),
    }
    inner.end()
    fields.end()
    return found


def tools(fields: Fields) -> str | None:
    """The tools as JSON text of OpenAI's form, or None."""
    found = []
    for index, item in enumerate(fields.items("tools", MOST_TOOLS)):
        tool = Fields(item, f"tools[{index}]")
        if tool.text("type", required=True) != "function":
            raise unsupported(tool.name("type"), "only functions are tools here")
        inner = tool.object("function")
        if inner is None:
            raise invalid(tool.name("function"), "an object is wanted")
        found.append({"type": "function", "function": asking.function(inner)})
        inner.end()
        tool.end()
    return asking.json_text(found, "tools") if found else None


def tool_choice(fields: Fields) -> str | None:
    value = fields.take("tool_choice")
    if value is None:
        return None
    if value in ("none", "auto", "required") and type(value) is str:
        return asking.json_text(value, "tool_choice")
    choice = Fields(value, "tool_choice")
    if choice.text("type", required=True) != "function":
        raise unsupported("tool_choice.type", "none, auto, required or a function")
    inner = choice.object("function")
    if inner is None:
        raise invalid("tool_choice.function", "an object is wanted")
    name = inner.text("name", required=True)
    inner.end()
    choice.end()
    return asking.json_text({"type": "function", "function": {"name": name}}, "tool_choice")


def response_format(fields: Fields, key: str) -> str | None:
    """The format as JSON text of OpenAI's response_format; None for plain text."""
    inner = fields.object(key)
    if inner is None:
        return None
    kind = inner.text("type", required=True)
    found: dict[str, Any] = {"type": kind}
    if kind == "json_schema":
        schema = inner.object("json_schema")
        if schema is None:
            raise invalid(inner.name("json_schema"), "an object is wanted")
        found["json_schema"] = read_schema(schema)
        schema.end()
    elif kind not in ("text", "json_object"):
        raise unsupported(inner.name("type"), "text, json_object or json_schema")
    inner.end()
    return None if kind == "text" else asking.json_text(found, key)


def read_schema(fields: Fields) -> dict[str, Any]:
    """name, schema, strict, description of a JSON schema to answer in."""
    found: dict[str, Any] = {"name": fields.text("name", "answer")}
    schema = fields.take("schema")
    if type(schema) is not dict:
        raise invalid(fields.name("schema"), "a JSON schema is wanted")
    found["schema"] = schema
    found["strict"] = fields.boolean("strict")
    fields.harmless("description")
    return found


class Chat(OpenAiErrors):
    """chat.completion, and chat.completion.chunk where it is streamed."""

    def __init__(self, *, usage: bool, logprobs: bool) -> None:
        self._usage = usage
        self._logprobs = logprobs
        self._held: list[str] = []
        """Text whose log probabilities have not come yet."""
        self._named: set[int] = set()

    def whole(self, answer: Answer) -> dict[str, Any]:
        calls = [
            {
                "id": call["id"],
                "type": "function",
                "function": {"name": call["name"], "arguments": call["arguments"]},
            }
            for call in answer.ordered_calls()
        ]
        text = answer.text
        message: dict[str, Any] = {
            "role": "assistant",
            "content": text if text or not calls else None,
            "refusal": None,
        }
        if calls:
            message["tool_calls"] = calls
        return {
            "id": f"chatcmpl-{answer.name}",
            "object": "chat.completion",
            "created": answer.created,
            "model": answer.model,
            "choices": [
                {
                    "index": 0,
                    "message": message,
                    "logprobs": {"content": [_logprob(one) for one in answer.chosen], "refusal": None}
                    if self._logprobs
                    else None,
                    "finish_reason": REASONS[answer.done["reason"]],
                }
            ],
            "usage": answer.usage(),
            **answer.extension(),
        }

    def _chunk(
        self,
        answer: Answer,
        delta: dict[str, Any],
        finish: str | None = None,
        logprobs: list[Any] | None = None,
    ) -> dict[str, Any]:
        chunk: dict[str, Any] = {
            "id": f"chatcmpl-{answer.name}",
            "object": "chat.completion.chunk",
            "created": answer.created,
            "model": answer.model,
            "choices": [
                {
                    "index": 0,
                    "delta": delta,
                    "logprobs": None if logprobs is None else {"content": logprobs, "refusal": None},
                    "finish_reason": finish,
                }
            ],
        }
        if self._usage:
            chunk["usage"] = None
        return chunk

    def opening(self, answer: Answer) -> bytes:
        return data(self._chunk(answer, {"role": "assistant", "content": ""}))

    def piece(self, answer: Answer, message: dict[str, Any]) -> bytes:
        kind = message["type"]
        if kind == "token":
            if self._logprobs:
                self._held.append(message["text"])
                return b""
            return data(self._chunk(answer, {"content": message["text"]}))
        if kind == "chosen":
            text, self._held = "".join(self._held), []
            return data(self._chunk(answer, {"content": text}, logprobs=[_logprob(message)]))
        if kind == "call":
            function: dict[str, Any] = {"arguments": message["arguments"]}
            call: dict[str, Any] = {"index": message["index"], "function": function}
            if message["index"] not in self._named:  # clients put names together as they do arguments
                self._named.add(message["index"])
                function["name"] = message["name"]
                call.update({"id": message["call_id"], "type": "function"})
            return data(self._chunk(answer, {"tool_calls": [call]}))
        return b""

    def closing(self, answer: Answer) -> bytes:
        out = b""
        if self._held:
            out += data(self._chunk(answer, {"content": "".join(self._held)}))
        last = self._chunk(answer, {}, REASONS[answer.done["reason"]])
        last.update(answer.extension())
        out += data(last)
        if self._usage:
            out += data({**self._chunk(answer, {}), "choices": [], "usage": answer.usage()})
        return out + DONE


def _logprob(chosen: dict[str, Any]) -> dict[str, Any]:
    return {
        "token": chosen["text"],
        "logprob": chosen["logprob"],
        "bytes": chosen["data"],
        "top_logprobs": [
            {"token": text, "logprob": logprob, "bytes": list(text.encode())}
            for text, logprob in chosen["top"]
        ],
    }
