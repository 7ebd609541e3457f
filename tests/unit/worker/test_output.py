"""Texts that end an answer, probabilities in their order, calls among text: fed in pieces of every size."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anchorhold.channel import frames, messages
from anchorhold.worker.failure import Failure
from anchorhold.worker.outbox import Outbox
from anchorhold.worker.output import Output, Plain
from anchorhold.worker.tools import BEGIN, END, Calls, wanted
from tests.unit.worker.grammars import Vocabulary


class Sent:
    """An outbox, and what came out of it."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        self.outbox = Outbox(self._write)
        self._frames = frames.FrameReader()
        self._got: list[dict[str, Any]] = []

    def messages(self) -> list[dict[str, Any]]:
        while True:
            try:
                data = os.read(self._read, 65536)
            except BlockingIOError:
                return self._got
            self._got += map(messages.decode_from_worker, self._frames.feed(data))

    def text(self) -> str:
        return "".join(message["text"] for message in self.messages() if message["type"] == "token")

    def close(self) -> None:
        os.close(self._read)
        os.close(self._write)


@pytest.fixture
def sent() -> Iterator[Sent]:
    made = Sent()
    yield made
    made.close()


def run(text: str, size: int, stops: list[str]) -> tuple[str, bool]:
    made = Sent()
    try:
        output = Output(made.outbox, 1, stops, Plain(made.outbox, 1))
        data = text.encode()
        for at in range(0, len(data), size):
            if output.feed(data[at : at + size]):
                break
        output.finish()
        return made.text(), output.stopped
    finally:
        made.close()


@given(
    st.text("abé€", max_size=30),
    st.integers(1, 7),
    st.lists(st.text("abé€", min_size=1, max_size=4), max_size=4),
)
def test_the_answer_ends_before_the_first_stop_however_it_is_cut(
    text: str, size: int, stops: list[str]
) -> None:
    found = [text.index(stop) for stop in stops if stop in text]
    got, stopped = run(text, size, stops)
    assert stopped == bool(found)
    if stopped and size == 1:
        # By bytes, the stop that is complete first counts, as for whoever generates one token after the
        # other.
        ends = min(text.index(stop) + len(stop) for stop in stops if stop in text)
        assert got == text[: min(text.index(stop) for stop in stops if stop in text[:ends])]
    elif stopped:
        assert any(got == text[:at] for at in found)
    else:
        assert got == text


def test_what_may_be_a_stop_is_held_back_and_nothing_else(sent: Sent) -> None:
    output = Output(sent.outbox, 1, ["STOP"], Plain(sent.outbox, 1))
    output.feed(b"one ST")
    assert sent.text() == "one "
    output.feed(b"A")
    assert sent.text() == "one STA"
    output.feed(b"S")
    output.finish()
    assert sent.text() == "one STAS"


def test_a_probability_follows_the_text_it_belongs_to(sent: Sent) -> None:
    output = Output(sent.outbox, 1, ["xyz"], Plain(sent.outbox, 1))

    def feed(data: bytes) -> bool:
        chosen = {"text": data.decode("utf-8", "replace"), "logprob": -1.0, "top": [], "data": list(data)}
        return output.feed(data, chosen)

    euro = "€".encode()
    for data in (b"a", euro[:1], euro[1:], b"x", b"y", b"b", b"x", b"yz"):
        feed(data)
    output.finish()
    got = sent.messages()
    assert sent.text() == "a€xyb"
    assert [bytes(one["data"]) for one in got if one["type"] == "chosen"] == [
        b"a",
        euro[:1],
        euro[1:],
        b"x",
        b"y",
        b"b",
    ]
    said, needed = "", b""
    for message in got:
        if message["type"] == "token":
            said += message["text"]
        else:
            needed += bytes(message["data"])
            assert said.startswith(needed.decode("utf-8", "ignore"))


def test_hostile_stops_cost_little() -> None:
    text = "a" * 20_000
    got, stopped = run(text, 16, ["a" * 511 + chr(98 + number) for number in range(16)])
    assert (got, stopped) == (text, False)


def call(name: str, arguments: object) -> str:
    return f'{BEGIN}\n{{"name": {json.dumps(name)}, "arguments": {json.dumps(arguments)}}}\n{END}'


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_calls_are_read_apart_from_text(sent: Sent, size: int) -> None:
    arguments = {"a": '}] "\\ </tool_call> <tool_call>', "b": [{"c": {}}]}
    text = "Let me see <tool_x> <" + call("f", arguments) + "\n" + call("g.h", {})
    reader = Calls(sent.outbox, 1, ["f", "g.h"])
    for at in range(0, len(text), size):
        reader.feed(text[at : at + size])
    reader.finish()
    assert sent.text() == "Let me see <tool_x> <"
    found: dict[int, list[str]] = {}
    for message in sent.messages():
        if message["type"] == "call":
            found.setdefault(message["index"], [message["name"], ""])[1] += message["arguments"]
    assert [name for name, _text in found.values()] == ["f", "g.h"]
    assert [json.loads(text) for _name, text in found.values()] == [arguments, {}]


def test_what_only_begins_like_a_call_is_text(sent: Sent) -> None:
    reader = Calls(sent.outbox, 1, ["f"])
    for char in "a <tool_cal":
        reader.feed(char)
    reader.finish()
    assert sent.text() == "a <tool_cal" and not reader.called


def test_nothing_is_wanted_without_tools_and_format() -> None:
    assert wanted(None, None, None).grammar is None
    assert wanted("[]", '"auto"', '{"type": "text"}').grammar is None


def test_one_call_at_most(demo_model: Path) -> None:
    vocabulary = Vocabulary(demo_model)
    tools = json.dumps([{"type": "function", "function": {"name": "f"}}])
    one = call("f", {})
    for kind, before in (("auto", "Let me see. "), ("required", "")):
        several = wanted(tools, json.dumps(kind), None).grammar
        single = wanted(tools, json.dumps({"type": kind, "most": 1}), None).grammar
        assert several is not None and single is not None
        for grammar in (several, single):
            assert vocabulary.takes(grammar, before + one), grammar
        assert vocabulary.takes(several, f"{before}{one}\n{one}")
        assert not vocabulary.takes(single, f"{before}{one}\n{one}")
    assert wanted(tools, '{"type": "none", "most": 1}', None).names == []
    with pytest.raises(Failure):
        wanted(tools, '{"type": "function", "most": 1}', None)
