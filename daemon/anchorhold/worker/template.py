"""The model's own chat template, with what others wrote kept apart from what the template writes.

A template is Jinja, and comes from the model file: it runs in Jinja's sandbox, inside the cell. It never
sees the contents of a conversation, nor any text of a tool, only a placeholder for each. So its control
words become control tokens, and the same words in a question or a document stay plain text: no document can
end its turn and begin another.
"""

from __future__ import annotations

import json
import re
import secrets
from datetime import datetime
from typing import Any

import jinja2
import jinja2.ext
from jinja2.nodes import Node
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from anchorhold.worker.engine import Segment
from anchorhold.worker.failure import Failure
from anchorhold.worker.tools import Wanted

Turn = dict[str, Any]
"""role and content; an assistant's may have tool_calls (id, name, arguments: texts), a tool's has
tool_call_id."""

# What a template says whose model writes calls as tools.py has them.
_KNOWS_TOOLS = ("<tool_call>", '"name"', '"arguments"', "tools")

# For a model that brings none: what a text-completion model continues sensibly.
PLAIN = (
    "{% for message in messages %}{{ message.role }}: {{ message.content }}\n\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)


class _GenerationTag(jinja2.ext.Extension):
    """``{% generation %}`` marks text for training (Hugging Face); here its body passes through."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> Node | list[Node]:
        parser.stream.skip(1)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Whole(str):
    """A text that is JSON already: ``tojson`` leaves it as it is."""

    __slots__ = ()


class _Places:
    """Placeholders for texts, in one rendering. x: the text itself; j: as it stands between a JSON string's
    quotes, where the template wrote it by ``tojson``."""

    def __init__(self) -> None:
        self.key = secrets.token_hex(8)
        self.texts: list[str] = []

    def hold(self, text: str) -> str:
        """The placeholder for a text; none is needed for an empty one, and templates ask whether there is
        any."""
        if not text:
            return ""
        self.texts.append(text)
        return f"{self.key}x{len(self.texts) - 1}x"

    def hold_all(self, value: Any, keys: bool = False) -> Any:
        """A value of JSON with placeholders for its texts, and for the names in its objects below
        ``keys``."""
        if type(value) is str:
            return self.hold(value)
        if type(value) is list:
            return [self.hold_all(one, keys) for one in value]
        if type(value) is dict:
            return {self.hold(key) if keys else key: self.hold_all(one, keys) for key, one in value.items()}
        return value

    def segments(self, text: str) -> tuple[list[Segment], set[int]]:
        """The rendered text with all texts in their places, and which of them it holds."""
        parts = re.split(self.key + r"([xj])(\d+)[xj]", text)
        segments: list[Segment] = [(parts[0], True)]
        seen: set[int] = set()
        for form, number, after in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
            seen.add(int(number))
            held = self.texts[int(number)]
            segments += [
                (held if form == "x" else json.dumps(held, ensure_ascii=False)[1:-1], False),
                (after, True),
            ]
        return [segment for segment in segments if segment[0]], seen


_PLACE = re.compile(r"([0-9a-f]{16})x(\d+)x")


def _json(value: Any, indent: int | None = None, **_options: Any) -> str:
    if isinstance(value, _Whole):
        return str(value)
    return _PLACE.sub(r"\1j\2j", json.dumps(value, ensure_ascii=False, indent=indent, default=str))


def _refuse(message: object) -> str:
    raise jinja2.TemplateError(str(message))


def environment() -> ImmutableSandboxedEnvironment:
    """The environment that templates are written for (transformers, utils/chat_template_utils.py)."""
    made = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationTag, jinja2.ext.loopcontrols]
    )
    made.filters["tojson"] = _json
    made.globals["raise_exception"] = _refuse
    made.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return made


def warm_up() -> None:
    """Compile and run one template, so that whatever Jinja imports late is imported before the seal."""
    ChatTemplate(PLAIN, "", "").render([{"role": "user", "content": "x"}])


class ChatTemplate:
    """Renders conversations for one model."""

    def __init__(self, source: str | None, bos: str, eos: str) -> None:
        """bos, eos: the model's own words for begin and end of a text. Raises Failure bad_template."""
        self._words = {"bos_token": bos, "eos_token": eos}
        self._knows_tools = all(word in (source or "") for word in _KNOWS_TOOLS)
        try:
            self._template = environment().from_string(source or PLAIN)
        except (jinja2.TemplateError, RecursionError, MemoryError) as error:
            raise _bad_template(error) from None

    def render(self, turns: list[Turn], tools: Wanted | None = None) -> list[Segment]:
        """The prompt that asks for the assistant's next turn.

        A template that refuses or drops a system turn gets its text at the head of the next turn
        instead: it is never lost. The same holds for tools, whose description and calls are then written as
        text. Raises Failure bad_template.
        """
        if tools is not None and tools.tools and self._knows_tools:
            try:
                return self._render(turns, tools.tools)
            except Failure:
                pass
        offered = tools is not None and bool(tools.tools)
        if offered or any("tool_calls" in turn or turn["role"] == "tool" for turn in turns):
            turns = _as_text(turns, tools.explained() if tools is not None and offered else "")
        try:
            return self._render(turns)
        except Failure:
            if not turns or turns[0]["role"] != "system" or len(turns) < 2:
                raise
        head = turns[0]["content"] + "\n\n" + turns[1]["content"]
        return self._render([{"role": turns[1]["role"], "content": head}, *turns[2:]])

    def _render(self, turns: list[Turn], tools: list[dict[str, Any]] | None = None) -> list[Segment]:
        places = _Places()
        shown = [_shown(turn, places) for turn in turns]
        needed = set(range(len(places.texts)))
        offered: list[dict[str, Any]] = []
        if tools is not None:
            for tool in tools:
                needed.add(len(places.texts))  # the name, which comes first
                shown_tool = places.hold_all(tool["function"] | {"parameters": None})
                shown_tool["parameters"] = places.hold_all(tool["function"]["parameters"], keys=True)
                offered.append({"type": "function", "function": shown_tool})
        try:
            more = {} if tools is None else {"tools": offered}
            text = self._template.render(messages=shown, add_generation_prompt=True, **more, **self._words)
        except Exception as error:  # whatever the model's own program raises, it is a defect of the model
            raise _bad_template(error) from None
        segments, seen = places.segments(text)
        if not needed <= seen:
            raise Failure("bad_template", "the model's chat template leaves out a part of the conversation")
        return segments


def _shown(turn: Turn, places: _Places) -> Turn:
    """What the template sees of one turn."""
    shown: Turn = {"role": turn["role"], "content": places.hold(turn["content"])}
    if "tool_calls" in turn:
        shown["tool_calls"] = [
            {
                "id": call["id"] and "call",
                "type": "function",
                "function": {
                    "name": places.hold(call["name"]),
                    "arguments": _Whole(places.hold(call["arguments"] or "{}")),
                },
            }
            for call in turn["tool_calls"]
        ]
    return shown


def _as_text(turns: list[Turn], explained: str) -> list[Turn]:
    """Calls and their results as plain text, for a template that knows neither."""
    found: list[Turn] = []
    from_tool = False
    for turn in turns:
        text = turn["content"]
        if turn["role"] == "tool":
            text = f"<tool_response>\n{text}\n</tool_response>"
            if from_tool:
                found[-1] = {"role": "user", "content": f"{found[-1]['content']}\n{text}"}
            else:
                found.append({"role": "user", "content": text})
            from_tool = True
            continue
        for call in turn.get("tool_calls", ()):
            name = json.dumps(call["name"], ensure_ascii=False)
            body = f'{{"name": {name}, "arguments": {call["arguments"] or "{}"}}}'
            text += f"{chr(10) if text else ''}<tool_call>\n{body}\n</tool_call>"
        if from_tool and turn["role"] == "user":  # templates want the two to take turns
            found[-1] = {"role": "user", "content": f"{found[-1]['content']}\n{text}"}
        else:
            found.append({"role": turn["role"], "content": text})
        from_tool = False
    if explained:
        if found and found[0]["role"] == "system":
            found[0] = {"role": "system", "content": f"{found[0]['content']}\n\n{explained}"}
        else:
            found.insert(0, {"role": "system", "content": explained})
    return found


def _bad_template(error: BaseException) -> Failure:
    return Failure(
        "bad_template",
        "the model's chat template cannot be used",
        {"error": f"{type(error).__name__}: {error}"[:500]},
    )
