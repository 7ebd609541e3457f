"""Chats, completions, embeddings and tools with the real model, in a plain process over pipes."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from anchorhold.worker.watch import STATUS
from tests.unit.worker.serving import Worker

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "maxLength": 20},
                "days": {"type": "integer", "minimum": 1, "maximum": 9},
            },
            "required": ["city", "days"],
        },
    },
}
CLOCK = {"type": "function", "function": {"name": "clock", "description": "The time."}}
STORY = "Write a long story about a lighthouse."


@pytest.fixture(scope="module")
def worker(demo_model: Path) -> Iterator[Worker]:
    made = Worker({"suffixes": [".txt"]})
    assert made.load(str(demo_model), threads=1)["type"] == "loaded"
    yield made
    report = made.close()
    # Nothing of all this does what the cell would refuse, or imports anything after the seal.
    assert report["status"] == 0
    assert report["executable"] == report["writable code"] == report["late"] == report["seen"] == []


def test_a_chat_is_answered_and_goes_on(worker: Worker) -> None:
    first = worker.chat(
        {"role": "developer", "content": "You are brief."}, {"role": "user", "content": "Say hello."}
    )
    assert first.text and first.end["reason"] in ("stop", "length")
    again = worker.chat("Say hello.", first.text, "Again, please.")
    assert again.text and again.end["prompt_tokens"] > first.end["prompt_tokens"]
    assert worker.chat().end["code"] == "bad_request"


def test_a_chat_with_a_named_document(worker: Worker, tmp_path: Path) -> None:
    (tmp_path / "roof.txt").write_text("What you paid for the roof: 4,860 pounds, by bank transfer.\n")
    answer = worker.chat("How much did the roof cost?", files=[str(tmp_path / "roof.txt")])
    assert answer.text and answer.outcomes() == {"roof.txt": "used"}
    assert answer.end["files"] == [str(tmp_path / "roof.txt")]
    alone = worker.chat({"role": "system", "content": "x"}, files=[str(tmp_path / "roof.txt")])
    assert alone.end["code"] == "bad_request"


def test_a_completion_has_no_template(worker: Worker) -> None:
    answer = worker.complete("The capital of France is", max_tokens=8)
    assert "Paris" in answer.text
    assert answer.end["prompt_tokens"] == 5
    assert worker.complete("", max_tokens=2).end["code"] == "bad_request"
    assert worker.complete("word " * 3000).end["code"] == "context_exceeded"


def test_a_text_that_ends_the_answer_is_not_in_it(worker: Worker) -> None:
    whole = worker.complete("One, two, three, four,", max_tokens=24)
    for start in range(4, 12):  # whatever tokens it is made of
        stop = whole.text[start : start + 5]
        cut = worker.complete("One, two, three, four,", max_tokens=24, stop=["never there", stop])
        assert cut.text == whole.text[: whole.text.index(stop)]
        assert cut.end["reason"] == "stop"
    # One that never comes changes nothing, nor does what looks like its beginning at the end.
    other = worker.complete("One, two, three, four,", max_tokens=24, stop=[whole.text[-3:] + "\0"])
    assert (other.text, other.end["reason"]) == (whole.text, whole.end["reason"])


def test_each_token_with_its_probability(worker: Worker) -> None:
    answer = worker.complete("The capital of France is", max_tokens=8, logprobs=3)
    assert len(answer.chosen) == answer.end["output_tokens"]
    assert "".join(chosen["text"] for chosen in answer.chosen) == answer.text
    for chosen in answer.chosen:
        assert bytes(chosen["data"]).decode() == chosen["text"]
        assert len(chosen["top"]) == 3
        logprobs = [logprob for _text, logprob in chosen["top"]]
        assert logprobs == sorted(logprobs, reverse=True)
        assert chosen["top"][0] == [
            chosen["text"],
            chosen["logprob"],
        ]  # at temperature 0 the likeliest is taken
        assert sum(map(math.exp, logprobs)) <= 1.0001
    assert math.exp(answer.chosen[0]["logprob"]) > 0.1
    plain = worker.complete("The capital of France is", max_tokens=8)
    assert plain.text == answer.text and plain.chosen == []
    drawn = worker.complete("Once", max_tokens=8, logprobs=0, temperature=1.5, seed=3)
    assert [chosen["top"] for chosen in drawn.chosen] == [[]] * drawn.end["output_tokens"]


def test_probabilities_of_all_tokens_sum_to_one(worker: Worker) -> None:
    """Twenty of the likeliest, where the model is sure, leave next to nothing."""
    answer = worker.complete("1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16", max_tokens=4, logprobs=20)
    assert sum(math.exp(logprob) for _text, logprob in answer.chosen[1]["top"]) == pytest.approx(1, abs=0.1)


def test_penalties_keep_it_from_repeating(worker: Worker) -> None:
    plain = worker.complete("a a a a a a a a", max_tokens=20)
    other = worker.complete("a a a a a a a a", max_tokens=20, frequency=2.0, presence=2.0)
    assert len(set(other.text.split())) > len(set(plain.text.split()))


def test_top_p_and_seed(worker: Worker) -> None:
    first, second, other, narrow = (
        worker.chat(STORY, temperature=1.5, **fields)
        for fields in ({"seed": 3}, {"seed": 3}, {"seed": 4}, {"seed": 5, "top_p": 0.0001})
    )
    assert first.text == second.text != other.text
    assert narrow.text == worker.chat(STORY).text  # nothing but the likeliest is left


def test_json_mode_gives_an_object(worker: Worker) -> None:
    for seed in range(3):
        answer = worker.chat(
            "Describe a cat as JSON.",
            max_tokens=300,
            format={"type": "json_object"},
            temperature=1.2,
            seed=seed,
        )
        if answer.end["reason"] == "stop":
            assert type(json.loads(answer.text)) is dict
        assert answer.text.startswith("{")
    # Without the grammar this model does no such thing.
    assert not worker.chat("Describe a cat as JSON.", max_tokens=30).text.startswith("{")


def test_a_schema_is_held(worker: Worker) -> None:
    schema = {
        "type": "object",
        "properties": {
            "name": {"type": "string", "pattern": "^[A-Z][a-z]{2,8}$"},
            "age": {"type": "integer", "minimum": 3, "maximum": 12},
            "kind": {"enum": ["cat", "dog"]},
            "tags": {
                "type": "array",
                "items": {"type": "string", "maxLength": 6},
                "minItems": 1,
                "maxItems": 2,
            },
        },
        "required": ["name", "age", "kind", "tags"],
    }
    form = {"type": "json_schema", "json_schema": {"name": "pet", "schema": schema, "strict": True}}
    for temperature, frequency in ((0.0, 0.0), (1.5, 0.0), (1.5, 1.0)):
        answer = worker.chat(
            "Invent a pet.", format=form, max_tokens=200, temperature=temperature, frequency=frequency
        )
        assert answer.end["reason"] == "stop"
        pet = json.loads(answer.text)
        assert list(pet) == ["name", "age", "kind", "tags"]
        assert 3 <= pet["age"] <= 12 and pet["kind"] in ("cat", "dog") and 1 <= len(pet["tags"]) <= 2


def test_a_call_that_is_required_is_made(worker: Worker) -> None:
    question = "What is the weather in Paris in the next 3 days?"
    answer = worker.chat(
        question, tools=[WEATHER, CLOCK], tool_choice="required" and '"required"', max_tokens=200
    )
    assert answer.end["reason"] == "tool_calls"
    assert answer.text == ""
    for name, arguments in answer.calls():
        assert name in ("weather", "clock")
        assert type(json.loads(arguments)) is dict
    single = {"type": "required", "most": 1}  # as the gateway says parallel_tool_calls: false
    answer = worker.chat(question, tools=[WEATHER, CLOCK], tool_choice=single, max_tokens=200)
    assert answer.end["reason"] == "tool_calls" and len(answer.calls()) == 1
    named = {"type": "function", "function": {"name": "weather"}}
    answer = worker.chat(question, tools=[WEATHER, CLOCK], tool_choice=named, max_tokens=200)
    ((name, arguments),) = answer.calls()
    assert name == "weather" and json.loads(arguments).keys() == {"city", "days"}
    pieces = [message for message in answer.messages if message["type"] == "call"]
    assert len(pieces) > 3 and len({piece["call"] for piece in pieces}) == 1


def test_with_tools_it_may_still_answer_and_none_means_none(worker: Worker) -> None:
    for choice in ('"auto"', '"none"', None):
        answer = worker.chat("Say hello.", tools=[WEATHER], tool_choice=choice, max_tokens=10)
        assert answer.text or answer.calls()
        assert choice != '"none"' or not answer.calls()
    without = worker.chat("Say hello.", max_tokens=10)
    assert (
        worker.chat("Say hello.", tools=[WEATHER], tool_choice='"none"', max_tokens=10).text == without.text
    )


def test_a_conversation_with_calls_in_it(worker: Worker) -> None:
    answer = worker.chat(
        {"role": "user", "content": "What is the weather in Paris?"},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"id": "a", "name": "weather", "arguments": '{"city": "Paris"}'}],
        },
        {"role": "tool", "content": "Rain, 11 degrees.", "tool_call_id": "a"},
        tools=[WEATHER],
        tool_choice='"none"',
        max_tokens=40,
    )
    assert answer.text and answer.end["type"] == "done"


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"format": "{"}, "bad_request"),
        ({"format": "[" * 100_000}, "bad_request"),
        ({"format": '{"type": "json_object", "x": NaN}'}, "bad_request"),
        ({"format": {"type": "xml"}}, "bad_request"),
        ({"format": {"type": "json_schema"}}, "bad_request"),
        ({"format": {"type": "json_schema", "json_schema": {"schema": 5}}}, "bad_request"),
        (
            {"format": {"type": "json_schema", "json_schema": {"schema": {"$ref": "http://x/y"}}}},
            "not_supported",
        ),
        (
            {"format": {"type": "json_schema", "json_schema": {"schema": {"anyOf": [{"$ref": "#"}]}}}},
            "bad_request",
        ),
        (
            {
                "format": {
                    "type": "json_schema",
                    "json_schema": {"schema": {"not": {}, "type": "string"}, "strict": True},
                }
            },
            "not_supported",
        ),
        ({"tools": "{}"}, "bad_request"),
        ({"tools": [{"type": "function"}]}, "bad_request"),
        ({"tools": [WEATHER, WEATHER]}, "bad_request"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "bad_request"),
        (
            {"tools": [{"type": "function", "function": {"name": "a", "parameters": {"type": "string"}}}]},
            "bad_request",
        ),
        (
            {"tools": [WEATHER], "tool_choice": {"type": "function", "function": {"name": "other"}}},
            "bad_request",
        ),
        ({"tool_choice": '"required"'}, "bad_request"),
        ({"tool_choice": '"perhaps"'}, "bad_request"),
    ],
)
def test_what_cannot_be_wanted_is_said(worker: Worker, fields: dict[str, Any], code: str) -> None:
    answer = worker.chat("x", **fields)
    assert (answer.end["type"], answer.end["code"]) == ("failed", code), answer.end
    assert answer.end["message"]


def test_embeddings(worker: Worker) -> None:
    answer = worker.embed("The cat sleeps.", "A kitten is asleep.", "Quarterly revenue fell by nine percent.")
    cat, kitten, money = answer.vectors
    assert answer.end["reason"] == "stop" and answer.end["prompt_tokens"] > 10
    for vector in answer.vectors:
        assert math.fsum(value * value for value in vector) == pytest.approx(1)

    def alike(a: list[float], b: list[float]) -> float:
        return math.fsum(x * y for x, y in zip(a, b, strict=True))

    assert alike(cat, kitten) > alike(cat, money)
    # One at a time gives the same: nothing of one text is left when the next is computed.
    assert alike(worker.embed("A kitten is asleep.").vectors[0], kitten) == pytest.approx(1, abs=1e-4)
    assert worker.embed("x" * 9000).end["code"] == "context_exceeded"
    assert worker.embed("x", "").end["code"] == worker.embed().end["code"] == "bad_request"
    assert worker.chat("Say hello.").text


def test_nothing_computed_for_one_caller_serves_another(worker: Worker) -> None:
    """The same turns: who asked before is quick, anybody else is as slow as the first time."""
    long = "The tide is high at noon. " * 60
    first = worker.chat(long, owner=5)
    turns = (long, first.text, "And when is it low?")
    same = worker.chat(*turns, owner=5)
    assert same.end["prompt_seconds"] < first.end["prompt_seconds"] / 2  # sharing can be seen
    other = worker.chat(*turns, owner=6)
    assert other.end["prompt_seconds"] > first.end["prompt_seconds"] / 2
    # The same caller, another conversation that begins with the same words.
    worker.chat(long, owner=6)
    begun_anew = worker.chat(long, owner=6)
    assert begun_anew.end["prompt_seconds"] > first.end["prompt_seconds"] / 2
    completed = worker.complete(long, owner=6)
    assert worker.complete(long, owner=6).end["prompt_seconds"] > completed.end["prompt_seconds"] / 2


def test_a_chat_is_stopped_in_its_prompt_within_a_tenth_of_a_second(worker: Worker) -> None:
    taken = []
    for _time in range(5):
        number = worker.send_sampled(
            "chat", messages=[{"role": "user", "content": "All work, no play. " * 150}]
        )
        while worker.receive()["type"] != "progress":
            pass
        time.sleep(0.1)
        start = time.monotonic()
        worker.send("stop", id=number)
        end = worker.rest().end
        taken.append(time.monotonic() - start)
        assert (end["reason"], end["output_tokens"]) == ("cancelled", 0)
    assert sorted(taken)[2] < 0.1


def test_a_very_long_prompt_is_refused_soon_and_can_be_stopped(worker: Worker) -> None:
    start = time.monotonic()
    end = worker.chat("word " * 1_000_000).end
    assert end["code"] == "context_exceeded" and end["detail"]["needed"] > 500_000
    assert time.monotonic() - start < 3
    turns = [{"role": ("user", "assistant")[n % 2], "content": "x"} for n in range(9_999)]
    worker.send_sampled("chat", messages=turns)
    assert worker.rest().end["code"] == "context_exceeded"


def test_a_schema_that_nobody_can_follow_ends_with_an_error_and_the_worker(demo_model: Path) -> None:
    """Alternatives within alternatives: 12 ways to read each bracket, so millions to read some. The engine
    follows them all and cannot be stopped; it takes gigabytes in a second, where nothing holds it."""
    made = Worker({"suffixes": []}, memory="8000000")
    made.load(str(demo_model), threads=1)
    rules: dict[str, object] = {f"d{number}": {"type": "string"} for number in range(14, 26)}
    for number in range(14):
        inner = [{"type": "array", "items": {"$ref": f"#/$defs/d{number + way}"}} for way in range(1, 13)]
        rules[f"d{number}"] = {"anyOf": inner}
    form = {"type": "json_schema", "json_schema": {"schema": {"$ref": "#/$defs/d0", "$defs": rules}}}
    start = time.monotonic()
    end = made.chat("[[[[[[[[", format=form, max_tokens=200).end
    assert time.monotonic() - start < 10
    assert (end["type"], end["code"]) == ("failed", "bad_request")
    assert "too long" in end["message"]
    assert made.process.wait(10) == STATUS
    made.process.communicate()
