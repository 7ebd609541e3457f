"""Messages: exactly those of the table pass, in their own direction."""

from __future__ import annotations

import copy
import json
import os
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anchorhold.channel import messages
from anchorhold.channel.errors import ProtocolError

ASK: dict[str, Any] = {
    "type": "ask",
    "id": 1,
    "owner": 0,
    "question": "Wie spät?",
    "files": ["/a/b\udcff"],
    "roots": [],
    "max_tokens": 10,
    "temperature": 0.7,
    "seed": None,
    "system": None,
    "history": [{"role": "user", "content": "x"}],
    "material": None,
}
SAMPLING: dict[str, Any] = {
    "max_tokens": 10,
    "temperature": 0.7,
    "top_p": 0.9,
    "seed": 7,
    "stop": ["\n\n"],
    "logprobs": 2,
    "frequency": 0.5,
    "presence": -2,
}
CHAT: dict[str, Any] = {
    "type": "chat",
    "id": 1,
    "owner": 2,
    "messages": [
        {"role": "developer", "content": "be brief"},
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": "", "tool_calls": [{"id": "a", "name": "f", "arguments": "{}"}]},
        {"role": "tool", "content": "4", "tool_call_id": "a"},
    ],
    "files": [],
    "tools": "[]",
    "tool_choice": '"auto"',
    "format": None,
    **SAMPLING,
}
TO_WORKER: list[dict[str, Any]] = [
    {"type": "load", "path": "/m.gguf", "context": 0, "threads": 0},
    ASK,
    CHAT,
    {"type": "complete", "id": 1, "owner": 2, "prompt": "Once", **SAMPLING},
    {"type": "embed", "id": 1, "owner": 2, "inputs": ["a", ""]},
    {"type": "stop", "id": 1},
    {"type": "quit"},
    {"type": "ping"},
]
FROM_WORKER: list[dict[str, Any]] = [
    {"type": "ready", "versions": {"llama.cpp": "0.5"}},
    {"type": "sealed"},
    {"type": "pong"},
    {
        "type": "loaded",
        "context": 1,
        "trained_context": 2,
        "threads": 3,
        "description": "d",
        "embeddings": True,
    },
    {"type": "progress", "stage": "read", "done": 1, "total": 2},
    {"type": "document", "path": "/a\udc80", "outcome": "skipped", "reason": "empty", "tokens": 0},
    {"type": "unused", "paths": ["/a\udc80", "/b"], "reason": "others go better"},
    {"type": "token", "id": 1, "text": "\x1b[31m€"},
    {
        "type": "chosen",
        "id": 1,
        "text": "€",
        "logprob": -0.5,
        "top": [["€", -0.5], ["x", -9999.0]],
        "data": [226],
    },
    {"type": "call", "id": 1, "index": 0, "call": "call-1", "name": "f", "arguments": '{"a":'},
    {"type": "embedding", "id": 1, "index": 0, "values": [0.5, -1]},
    {
        "type": "done",
        "id": 1,
        "reason": "stop",
        "prompt_tokens": 1,
        "output_tokens": 1,
        "prompt_seconds": 0.5,
        "output_seconds": 1,
        "files": ["/a"],
    },
    {"type": "failed", "id": None, "code": "bad_model", "message": "no", "detail": {"/a\udcff": 1, "b": "c"}},
]
EVERY = [(message, messages.decode_to_worker) for message in TO_WORKER] + [
    (message, messages.decode_from_worker) for message in FROM_WORKER
]
NAMES = [message["type"] for message, _decode in EVERY]
WRONG: list[Any] = [
    True,
    -1,
    2**63,
    1.5,
    "x\udfff",
    "x",
    ["x"],
    [1],
    {"x": []},
    {"x": -1},
    float("nan"),
    "x\0",
]


def test_the_samples_cover_the_table() -> None:
    assert {message["type"] for message in TO_WORKER} == messages.TO_WORKER.keys()
    assert {message["type"] for message in FROM_WORKER} == messages.FROM_WORKER.keys()


@pytest.mark.parametrize(("message", "decode"), EVERY, ids=NAMES)
def test_a_message_makes_the_round_trip_as_ascii(message: dict[str, Any], decode: Any) -> None:
    data = messages.encode(message)
    assert data.isascii()
    assert decode(data) == message
    other = messages.decode_from_worker if decode is messages.decode_to_worker else messages.decode_to_worker
    with pytest.raises(ProtocolError, match="unknown type"):
        other(data)


@pytest.mark.parametrize(("message", "decode"), EVERY, ids=NAMES)
def test_each_field_is_required_and_no_other_is_taken(message: dict[str, Any], decode: Any) -> None:
    for key in message.keys() - {"type"}:
        less = {name: value for name, value in message.items() if name != key}
        with pytest.raises(ProtocolError, match=f"{key} is missing"):
            decode(json.dumps(less).encode())
        with pytest.raises(ProtocolError, match="is missing"):
            decode(json.dumps({**less, "other": 1}).encode())
        twice = messages.encode(message)[:-1] + b',"' + key.encode() + b'":0}'
        with pytest.raises(ProtocolError, match="twice"):
            decode(twice)
    with pytest.raises(ProtocolError, match="unknown key"):
        decode(json.dumps({**message, "other": 1}).encode())


@pytest.mark.parametrize(("message", "decode"), EVERY, ids=NAMES)
def test_each_field_refuses_values_of_other_types(message: dict[str, Any], decode: Any) -> None:
    table = {**messages.TO_WORKER, **messages.FROM_WORKER}
    for key, check in table[message["type"]].items():
        refused = [value for value in [*WRONG, None] if not check(value)]
        assert len(refused) > 5, f"{key} takes nearly everything"
        for value in refused:
            with pytest.raises(ProtocolError):
                decode(json.dumps({**message, key: value}).encode())
            with pytest.raises(ProtocolError, match=key):
                messages.encode({**message, key: value})


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"null",
        b"{}",
        b'{"type":1}',
        b'{"type":["stop"]}',
        b'{"type":"nothing"}',
        b'{"type":"stop","id":NaN}',
        b'{"type":"stop","id":Infinity}',
        b'{"type":"stop","id":1e999}',
        b'{"type":"stop","id":1' + b"0" * 5000 + b"}",
        b'{"type":"stop","id":1}x',
        b'\xef\xbb\xbf{"type":"quit"}',
        '{"type":"quit"}'.encode("utf-16"),
        b'{"type":"qu\xff"}',
        b'{"type":"qu\xed\xa0\x80"}',
        b"[" * 100_000,
        b'{"type":' + b'{"a":' * 100_000,
    ],
)
def test_malformed_json_is_a_protocol_error(data: bytes) -> None:
    for decode in (messages.decode_to_worker, messages.decode_from_worker):
        with pytest.raises(ProtocolError):
            decode(data)


def test_an_infinite_temperature_is_refused() -> None:
    data = messages.encode(ASK).replace(b"0.7", b"1e999")
    assert b"1e999" in data
    with pytest.raises(ProtocolError, match="temperature"):
        messages.decode_to_worker(data)


@pytest.mark.parametrize("value", ["\ud800", "a\udc7f", "\udcc3\udca9", "a\0b"])
def test_a_path_is_only_what_a_file_name_can_be(value: str) -> None:
    """U+DCC3 U+DCA9 would be the bytes of "é": a second name for one file."""
    with pytest.raises(ProtocolError, match="path"):
        messages.encode({"type": "load", "path": value, "context": 0, "threads": 0})


@given(st.binary(max_size=60).filter(lambda name: b"\0" not in name))
def test_every_file_name_makes_the_round_trip(name: bytes) -> None:
    message = {"type": "load", "path": os.fsdecode(name), "context": 0, "threads": 0}
    assert os.fsencode(messages.decode_to_worker(messages.encode(message))["path"]) == name


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(st.sampled_from(EVERY), st.data())
def test_any_change_is_refused_or_still_a_message(
    case: tuple[dict[str, Any], Any], data: st.DataObject
) -> None:
    message, decode = copy.deepcopy(case[0]), case[1]
    key = data.draw(st.sampled_from(sorted(message)))
    message[key] = data.draw(JSON)
    try:
        found = decode(json.dumps(message).encode())
    except ProtocolError:
        return
    assert messages.encode(found)


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_with_a_protocol_error_only(data: bytes) -> None:
    for decode in (messages.decode_to_worker, messages.decode_from_worker):
        with pytest.raises(ProtocolError):
            decode(data)


def test_a_token_costs_little() -> None:
    """Some 3 µs each way where it was measured; far more would be felt at each token."""
    message = {"type": "token", "id": 1, "text": " hello"}
    best = 1.0
    for _ in range(5):
        start = time.perf_counter()
        for _ in range(1000):
            messages.decode_from_worker(messages.encode(message))
        best = min(best, time.perf_counter() - start)
    assert best < 1000 * 100e-6


def test_a_reason_to_fail_is_none_of_the_workers_own_words() -> None:
    """It stands in the log in the open, where no redaction reaches it."""
    message = {"type": "failed", "id": 1, "code": "/home/a/divorce.txt", "message": "no", "detail": {}}
    with pytest.raises(ProtocolError):
        messages.decode_from_worker(messages.encode(message))
