"""Tools: what the client offers, the grammar that makes the model answer or call, and the calls read from it.

A call is written as models that know tools write it most (Hermes, Qwen and others)::

    <tool_call>
    {"name": "weather", "arguments": {"city": "Paris"}}
    </tool_call>

The grammar fixes all of it but the arguments, which follow the tool's schema, so reading it back needs no
guess. Source: OpenAI API reference, ``tools``, ``tool_choice``, ``response_format``.
"""

from __future__ import annotations

import json
import re
import secrets
from typing import Any

from anchorhold.worker.failure import Failure
from anchorhold.worker.grammar import Rules, any_object, chars, literal
from anchorhold.worker.outbox import Outbox
from anchorhold.worker.schema import SchemaRules, grammar_of

BEGIN, END = "<tool_call>", "</tool_call>"
MOST_TOOLS = 128
MOST_CALLS = 16  # in one answer
_NAME = re.compile(r"[a-zA-Z0-9_.-]{1,64}", re.ASCII)

_EXPLAINED = "You can call these functions, each described as JSON on a line of its own:"
_HOW = (
    "To call one, write a JSON object with its name and its arguments between these two words, and wait:\n"
    f'{BEGIN}\n{{"name": "the name of the function", "arguments": {{}}}}\n{END}'
)


class Wanted:
    """What a request wants beside text: its tools, whether they must be called, the form of its answer."""

    __slots__ = ("grammar", "names", "tools")

    def __init__(self, tools: list[dict[str, Any]], names: list[str], grammar: str | None) -> None:
        """tools: as the client describes them; names: those that may be called; grammar: GBNF or None."""
        self.tools, self.names, self.grammar = tools, names, grammar

    def explained(self) -> str:
        """For a model whose template knows no tools."""
        return "\n".join(
            [_EXPLAINED, *(json.dumps(tool["function"], ensure_ascii=False) for tool in self.tools), _HOW]
        )


def wanted(tools: str | None, choice: str | None, form: str | None) -> Wanted:
    """From the request's JSON texts. Raises Failure bad_request, not_supported."""
    offered = _offered(_parsed("tools", tools)) if tools is not None else []
    chosen = _parsed("tool_choice", choice) if choice is not None else None
    rules = Rules()
    answer = _answer(_parsed("response_format", form) if form is not None else None)
    names = [tool["function"]["name"] for tool in offered]
    most = MOST_CALLS
    must = False
    if type(chosen) is dict and chosen.get("most") == 1:  # the gateway's form of parallel_tool_calls: false
        chosen, most = chosen.get("type"), 1
    if chosen == "none":
        offered, names = [], []
    elif type(chosen) is dict:
        name = _named(chosen)
        if name not in names:
            raise _bad("tool_choice names a function that is not among the tools")
        names, must, most = [name], True, 1
    elif chosen == "required":
        if not names:
            raise _bad("tool_choice requires a call, and there are no tools")
        must = True
    elif chosen not in (None, "auto"):
        raise _bad("tool_choice is auto, none, required or a function")
    if not names:
        return Wanted([], [], _format_grammar(answer))
    calls = _calls(rules, [tool for tool in offered if tool["function"]["name"] in names], most)
    if must:
        return Wanted(offered, names, rules.text(f"{literal(BEGIN)} {calls}"))
    if answer is None:
        return Wanted(offered, names, rules.text(_text_or(rules, calls)))
    schema, strict = answer
    other = rules.base("object") if schema is None else SchemaRules(rules, schema, strict=strict).root()
    return Wanted(offered, names, rules.text(f"{literal(BEGIN)} {calls} | {other}"))


def _parsed(what: str, text: str) -> Any:
    def refuse(name: str) -> Any:
        raise ValueError(name)

    try:
        return json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError):
        raise _bad(f"{what} cannot be read as JSON") from None


def _offered(tools: object) -> list[dict[str, Any]]:
    if type(tools) is not list or len(tools) > MOST_TOOLS:
        raise _bad(f"tools is a list of {MOST_TOOLS} at most")
    found: list[dict[str, Any]] = []
    for tool in tools:
        function = tool.get("function") if type(tool) is dict and tool.get("type") == "function" else None
        if type(function) is not dict:
            raise _bad('a tool is {"type": "function", "function": {…}}')
        name, told = function.get("name"), function.get("description", "")
        parameters = function.get("parameters") or {"type": "object", "properties": {}}
        if type(name) is not str or not _NAME.fullmatch(name):
            raise _bad("a function's name has 1 to 64 letters, digits, _ . or -")
        if any(one["function"]["name"] == name for one in found):
            raise _bad("two functions have the same name")
        if type(told) is not str or type(parameters) is not dict:
            raise _bad("a function's description is a text and its parameters are a schema")
        strict = function.get("strict") is True
        found.append(
            {
                "type": "function",
                "function": {"name": name, "description": told, "parameters": parameters},
                "strict": strict,
            }
        )
    return found


def _named(choice: dict[str, Any]) -> object:
    function = choice.get("function")
    return function.get("name") if choice.get("type") == "function" and type(function) is dict else None


def _answer(form: object) -> tuple[object, bool] | None:
    """None for text; else the schema (None: any object) and whether it is meant strictly."""
    kind = form.get("type") if type(form) is dict else None
    if form is None or kind == "text":
        return None
    if kind == "json_object":
        return None, False
    described = form.get("json_schema") if type(form) is dict and kind == "json_schema" else None
    if type(described) is not dict or "schema" not in described:
        raise _bad('response_format is {"type": "text"}, json_object, or json_schema with its schema')
    return described["schema"], described.get("strict") is True


def _format_grammar(answer: tuple[object, bool] | None) -> str | None:
    if answer is None:
        return None
    schema, strict = answer
    return any_object() if schema is None else grammar_of(schema, strict=strict)


def _calls(rules: Rules, tools: list[dict[str, Any]], most: int) -> str:
    """One call after the other, without the word that begins the first."""
    options: list[str] = []
    for tool in tools:
        function = tool["function"]
        schema = function["parameters"]
        if "type" not in schema and "$ref" not in schema:
            schema = {"type": "object", **schema}
        if schema.get("type", "object") != "object":
            raise _bad("the parameters of a function are an object")
        arguments = SchemaRules(rules, schema, strict=tool["strict"]).root()
        options.append(f"{literal(_head(function['name']))} {arguments}")
    rest = rules.add(f"({' | '.join(options)}) {literal('}' + chr(10) + END)}")
    if most == 1:
        return rest
    return rules.add(f"{rest} {rules.repeat(literal(chr(10) + BEGIN) + ' ' + rest, 0, most - 1)}")


def _head(name: str) -> str:
    """From the first word of a call to its arguments."""
    return f'\n{{"name": {json.dumps(name)}, "arguments": '


def _text_or(rules: Rules, calls: str) -> str:
    """Any text, and from the first word of a call on nothing but calls. One rule for each part of that word
    that has been seen: there is one way to read each text."""
    names = [rules.reserve() for _char in BEGIN]
    for at, (name, char) in enumerate(zip(names, BEGIN, strict=True)):
        following = names[at + 1] if at + 1 < len(BEGIN) else calls
        options = ['""', f"{literal(char)} {following}"]
        again = [ord(char)]
        if at:  # the word's first character may begin it anew
            options.append(f"{literal(BEGIN[0])} {names[1]}")
            again.append(ord(BEGIN[0]))
        options.append(f"{_others(again)} {names[0]}")
        rules.set(name, " | ".join(options))
    return names[0]


def _others(codes: list[int]) -> str:
    return chars([(code, code) for code in sorted(codes)], negated=True)


def _bad(what: str) -> Failure:
    return Failure("bad_request", what)


class Calls:
    """Reads text and calls apart, and sends both. See ``output.Reader``."""

    def __init__(self, outbox: Outbox, number: int, names: list[str]) -> None:
        self._outbox, self._number = outbox, number
        self._heads = {_head(name): name for name in names}
        self._state = self._text
        self._held = ""
        self._name = self._id = ""
        self._depth = 0
        self._quoted = self._escaped = False
        self.passed = 0
        self.index = -1

    @property
    def called(self) -> bool:
        return self.index >= 0

    def feed(self, text: str) -> None:
        self._held += text
        while self._state():
            pass

    def finish(self) -> None:
        """What looked like the beginning of a call and ended was text."""
        if self._state == self._text:
            self._say(self._held)
        self._held = ""

    def _say(self, text: str) -> None:
        if text:
            self.passed += len(text)
            self._outbox.send("token", id=self._number, text=text)

    def _text(self) -> bool:
        held = self._held
        at = held.find(BEGIN)
        if at >= 0:
            self._say(held[:at])
            self._held = held[at + len(BEGIN) :]
            self._state = self._call
            return True
        keep = next(
            (n for n in range(min(len(BEGIN) - 1, len(held)), 0, -1) if BEGIN.startswith(held[-n:])), 0
        )
        self._say(held[: len(held) - keep])
        self._held = held[len(held) - keep :]
        return False

    def _call(self) -> bool:
        for head, name in self._heads.items():
            if self._held.startswith(head):
                self._held = self._held[len(head) :]
                self._name, self._id = name, f"call_{secrets.token_hex(12)}"
                self.index += 1
                self._depth, self._quoted, self._escaped = 0, False, False
                self._state = self._arguments
                return True
        return False

    def _arguments(self) -> bool:
        """The arguments are one JSON object: their end is where its last brace closes."""
        for at, char in enumerate(self._held):
            if self._escaped:
                self._escaped = False
            elif self._quoted:
                self._escaped, self._quoted = char == "\\", char != '"'
            elif char == '"':
                self._quoted = True
            elif char in "{[":
                self._depth += 1
            elif char in "}]":
                self._depth -= 1
                if self._depth == 0:
                    self._send(self._held[: at + 1])
                    self._held = self._held[at + 1 :]
                    self._state = self._tail
                    return True
        self._send(self._held)
        self._held = ""
        return False

    def _send(self, arguments: str) -> None:
        if arguments:
            self._outbox.send(
                "call",
                id=self._number,
                index=self.index,
                call=self._id,
                name=self._name,
                arguments=arguments,
            )

    def _tail(self) -> bool:
        at = self._held.find(END)
        if at < 0:
            return False
        self._held = self._held[at + len(END) :].lstrip("\n")
        self._state = self._between
        return True

    def _between(self) -> bool:
        self._held = self._held.lstrip("\n")
        if not self._held.startswith(BEGIN):
            return False
        self._held = self._held[len(BEGIN) :]
        self._state = self._call
        return True
