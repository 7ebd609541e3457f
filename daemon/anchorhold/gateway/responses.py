"""POST /v1/responses without state: nothing is stored, so nothing earlier can be named.

Source: OpenAI API reference, "Responses" and "Streaming events".
"""

from __future__ import annotations

from typing import Any

from anchorhold.gateway import asking, chat
from anchorhold.gateway.answer import Answer, event
from anchorhold.gateway.asking import Asking, Limits
from anchorhold.gateway.errors import ApiError, invalid, unsupported
from anchorhold.gateway.fields import Fields

MOST_ITEMS = 10_000
TEXTS = ("input_text", "output_text", "text")


def read(fields: Fields, policy: str, limits: Limits) -> Asking:
    """Raises ApiError."""
    messages = _messages(fields)
    stream = fields.boolean("stream")
    options = fields.object("stream_options")
    if options is not None:
        options.harmless("include_obfuscation")
        options.end()
    files, receipt, extended = asking.extension(fields)
    wanted = {
        "messages": messages,
        "sampling": asking.sampling(fields, limits.tokens(fields, "max_output_tokens"), logprobs=None),
        "tools": _tools(fields),
        "tool_choice": _tool_choice(fields),
        "format": _format(fields),
        "files": files,
        "receipt": receipt,
    }
    asking.check_choice(wanted)
    parallel = fields.boolean("parallel_tool_calls", True)
    if not parallel:
        asking.one_call(wanted)
    fields.harmless(*asking.HARMLESS)
    fields.only("store", False, why="nothing is stored")
    fields.only("background", False)
    fields.only("truncation", "disabled", why="a prompt that does not fit is an error")
    fields.only("include", [])
    fields.only("top_logprobs", 0)
    fields.only("reasoning", {})
    for key in ("previous_response_id", "conversation", "prompt"):
        fields.only(key, why="nothing is stored here; send the whole conversation")
    fields.only("max_tool_calls")
    fields.end()
    answer = Answer(policy, extended=extended, receipt=receipt)
    return Asking("chat", policy, wanted, Response(parallel=parallel), answer, stream=stream)


def _messages(fields: Fields) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    instructions = fields.text("instructions")
    if instructions:
        found.append({"role": "system", "content": instructions})
    value = fields.take("input")
    if type(value) is str:
        found.append({"role": "user", "content": asking.text_of(value, "input")})
        return found
    if type(value) is not list or not value or len(value) > MOST_ITEMS:
        raise invalid("input", "a string, or a list of items")
    for index, item in enumerate(value):
        _item(Fields(item, f"input[{index}]"), found)
    return found


def _item(fields: Fields, found: list[dict[str, Any]]) -> None:
    kind = fields.text("type", "message")
    fields.harmless("id", "status")
    if kind == "message":
        role = fields.text("role", required=True)
        if role not in ("system", "developer", "user", "assistant"):
            raise invalid(fields.name("role"), "system, developer, user or assistant")
        content = asking.text_of(fields.take("content"), fields.name("content"), *TEXTS)
        fields.harmless("phase")
        found.append({"role": role, "content": content})
    elif kind == "function_call":
        call = {
            "id": fields.text("call_id", required=True),
            "name": fields.text("name", required=True),
            "arguments": fields.text("arguments", "{}"),
        }
        if found and found[-1]["role"] == "assistant":
            found[-1].setdefault("tool_calls", []).append(call)
        else:
            found.append({"role": "assistant", "content": "", "tool_calls": [call]})
    elif kind == "function_call_output":
        content = asking.text_of(fields.take("output"), fields.name("output"), *TEXTS)
        found.append(
            {"role": "tool", "content": content, "tool_call_id": fields.text("call_id", required=True)}
        )
    else:
        raise unsupported(fields.name("type"), "messages, function calls and their outputs are taken")
    fields.end()


def _tools(fields: Fields) -> str | None:
    found = []
    for index, item in enumerate(fields.items("tools", chat.MOST_TOOLS)):
        tool = Fields(item, f"tools[{index}]")
        if tool.text("type", required=True) != "function":
            raise unsupported(tool.name("type"), "only functions are tools here")
        found.append({"type": "function", "function": asking.function(tool)})
        tool.end()
    return asking.json_text(found, "tools") if found else None


def _tool_choice(fields: Fields) -> str | None:
    value = fields.take("tool_choice")
    if value is None:
        return None
    if type(value) is str and value in ("none", "auto", "required"):
        return asking.json_text(value, "tool_choice")
    choice = Fields(value, "tool_choice")
    if choice.text("type", required=True) != "function":
        raise unsupported("tool_choice.type", "none, auto, required or a function")
    name = choice.text("name", required=True)
    choice.end()
    return asking.json_text({"type": "function", "function": {"name": name}}, "tool_choice")


def _format(fields: Fields) -> str | None:
    text = fields.object("text")
    if text is None:
        return None
    text.only("verbosity", "medium")
    inner = text.object("format")
    text.end()
    if inner is None:
        return None
    kind = inner.text("type", required=True)
    found: dict[str, Any] = {"type": kind}
    if kind == "json_schema":
        found["json_schema"] = chat.read_schema(inner)
    elif kind not in ("text", "json_object"):
        raise unsupported(inner.name("type"), "text, json_object or json_schema")
    inner.end()
    return None if kind == "text" else asking.json_text(found, "text.format")


class Response:
    """A response object, and the events that build it up."""

    def __init__(self, *, parallel: bool) -> None:
        self._parallel = parallel
        self._number = 0
        self._text_open = False
        self._calls: dict[int, int] = {}
        """A call's index → its place in the output."""

    def refusal(self, error: ApiError) -> dict[str, Any]:
        return error.body()

    def broken(self, error: ApiError) -> bytes:
        return self._event("error", {"message": error.message, "code": error.code, "param": error.param})

    def _event(self, kind: str, fields: dict[str, Any]) -> bytes:
        number, self._number = self._number, self._number + 1
        return event(kind, {"type": kind, "sequence_number": number, **fields})

    def whole(self, answer: Answer) -> dict[str, Any]:
        short = answer.done["reason"] == "length"
        output = []
        if answer.text or not answer.calls:
            output.append(self._message(answer, answer.text, "incomplete" if short else "completed"))
        output += [_function_call(answer, index, call) for index, call in sorted(answer.calls.items())]
        found = self._frame(answer, "incomplete" if short else "completed", output)
        found["incomplete_details"] = {"reason": "max_output_tokens"} if short else None
        usage = answer.usage()
        found["usage"] = {
            "input_tokens": usage["prompt_tokens"],
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": usage["completion_tokens"],
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": usage["total_tokens"],
        }
        return {**found, **answer.extension()}

    def _frame(self, answer: Answer, status: str, output: list[Any]) -> dict[str, Any]:
        return {
            "id": f"resp_{answer.name}",
            "object": "response",
            "created_at": answer.created,
            "status": status,
            "error": None,
            "incomplete_details": None,
            "model": answer.model,
            "output": output,
            "parallel_tool_calls": self._parallel,
            "store": False,
            "tool_choice": "auto",
            "tools": [],
            "usage": None,
        }

    def _message(self, answer: Answer, text: str | None, status: str) -> dict[str, Any]:
        content = [] if text is None else [_part(text)]
        return {
            "id": f"msg_{answer.name}",
            "type": "message",
            "role": "assistant",
            "status": status,
            "content": content,
        }

    def opening(self, answer: Answer) -> bytes:
        frame = self._frame(answer, "in_progress", [])
        return self._event("response.created", {"response": frame}) + self._event(
            "response.in_progress", {"response": frame}
        )

    def _open_text(self, answer: Answer) -> bytes:
        self._text_open = True
        return self._event(
            "response.output_item.added",
            {"output_index": 0, "item": self._message(answer, None, "in_progress")},
        ) + self._event("response.content_part.added", {**self._place(answer), "part": _part("")})

    def _place(self, answer: Answer) -> dict[str, Any]:
        return {"item_id": f"msg_{answer.name}", "output_index": 0, "content_index": 0}

    def piece(self, answer: Answer, message: dict[str, Any]) -> bytes:
        out = b""
        if message["type"] == "token":
            if not self._text_open:
                out += self._open_text(answer)
            out += self._event(
                "response.output_text.delta",
                {**self._place(answer), "delta": message["text"], "logprobs": []},
            )
        elif message["type"] == "call":
            index = message["index"]
            call = answer.calls[index]
            if index not in self._calls:
                self._calls[index] = len(self._calls) + int(self._text_open)
                item = {**_function_call(answer, index, {**call, "arguments": ""}), "status": "in_progress"}
                out += self._event(
                    "response.output_item.added", {"output_index": self._calls[index], "item": item}
                )
            out += self._event(
                "response.function_call_arguments.delta",
                {
                    "item_id": f"fc_{answer.name}_{index}",
                    "output_index": self._calls[index],
                    "delta": message["arguments"],
                },
            )
        return out

    def closing(self, answer: Answer) -> bytes:
        out = b""
        whole = self.whole(answer)
        if not self._text_open and not self._calls:
            out += self._open_text(answer)
        if self._text_open:
            text = answer.text
            place = self._place(answer)
            out += self._event("response.output_text.done", {**place, "text": text, "logprobs": []})
            out += self._event("response.content_part.done", {**place, "part": _part(text)})
            out += self._event("response.output_item.done", {"output_index": 0, "item": whole["output"][0]})
        for index, place_of in self._calls.items():
            item = _function_call(answer, index, answer.calls[index])
            out += self._event(
                "response.function_call_arguments.done",
                {
                    "item_id": item["id"],
                    "output_index": place_of,
                    "name": item["name"],
                    "arguments": item["arguments"],
                },
            )
            out += self._event("response.output_item.done", {"output_index": place_of, "item": item})
        return out + self._event(f"response.{whole['status']}", {"response": whole})


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _function_call(answer: Answer, index: int, call: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": f"fc_{answer.name}_{index}",
        "type": "function_call",
        "status": "completed",
        "call_id": call["id"],
        "name": call["name"],
        "arguments": call["arguments"],
    }
