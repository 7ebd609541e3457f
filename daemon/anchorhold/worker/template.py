"""The model's own chat template, with what others wrote kept apart from what the template writes.

A template is Jinja, and comes from the model file: it runs in Jinja's sandbox, inside the cell. It never
sees the contents of a conversation, only a placeholder for each. So its control words become control
tokens, and the same words in a question or a document stay plain text: no document can end its turn and
begin another.
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

Turn = dict[str, str]

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


def _json(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


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
        try:
            self._template = environment().from_string(source or PLAIN)
        except (jinja2.TemplateError, RecursionError, MemoryError) as error:
            raise _bad_template(error) from None

    def render(self, turns: list[Turn]) -> list[Segment]:
        """The prompt that asks for the assistant's next turn.

        A template that refuses or drops a system turn gets its text at the head of the next turn
        instead: it is never lost. Raises Failure bad_template.
        """
        try:
            return self._render(turns)
        except Failure:
            if not turns or turns[0]["role"] != "system" or len(turns) < 2:
                raise
        head = turns[0]["content"] + "\n\n" + turns[1]["content"]
        return self._render([{"role": turns[1]["role"], "content": head}, *turns[2:]])

    def _render(self, turns: list[Turn]) -> list[Segment]:
        key = secrets.token_hex(8)
        shown = [{"role": turn["role"], "content": f"{key}x{number}x"} for number, turn in enumerate(turns)]
        try:
            text = self._template.render(messages=shown, add_generation_prompt=True, **self._words)
        except Exception as error:  # whatever the model's own program raises, it is a defect of the model
            raise _bad_template(error) from None
        parts = re.split(key + r"x(\d+)x", text)
        if {*map(int, parts[1::2])} != {*range(len(turns))}:
            raise Failure("bad_template", "the model's chat template leaves out a part of the conversation")
        segments: list[Segment] = []
        for number, part in enumerate(parts):
            segments.append((turns[int(part)]["content"], False) if number % 2 else (part, True))
        return [segment for segment in segments if segment[0]]


def _bad_template(error: BaseException) -> Failure:
    return Failure(
        "bad_template",
        "the model's chat template cannot be used",
        {"error": f"{type(error).__name__}: {error}"[:500]},
    )
