"""The messages between supervisor and gateway: what is not in the table is refused, whole."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from anchorhold.channel import gateway
from anchorhold.channel.errors import ProtocolError

SAMPLING: dict[str, Any] = {
    "max_tokens": 5, "temperature": 0.5, "top_p": 1.0, "seed": None, "stop": ["x"], "logprobs": 3,
}  # fmt: skip
CHAT: dict[str, Any] = {
    "type": "chat", "id": 1, "policy": "taxes", "principal": "uid:1000",
    "messages": [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "\u00e9"},
        {"role": "assistant", "content": "", "tool_calls": [{"id": "1", "name": "f", "arguments": "{}"}]},
        {"role": "tool", "content": "r", "tool_call_id": "1"},
    ],
    "sampling": SAMPLING, "tools": "[]", "tool_choice": None, "format": None, "files": ["/a\udcff"],
    "receipt": True,
}  # fmt: skip
FROM: list[dict[str, Any]] = [
    {"type": "ready"},
    {"type": "pong"},
    CHAT,
    {"type": "complete", "id": 2, "policy": "p", "principal": "token:0123abcd", "prompt": "x",
     "sampling": {**SAMPLING, "logprobs": None, "seed": 2**32 - 1}, "receipt": False},
    {"type": "embed", "id": 3, "policy": "p", "principal": "uid:0", "inputs": ["a", ""], "receipt": False},
    {"type": "cancel", "id": 1},
    {"type": "closed", "connection": 5},
]  # fmt: skip
WRONG: tuple[Any, ...] = (object, [[]])
DONE: dict[str, Any] = {
    "type": "done", "id": 1, "reason": "tool_calls", "prompt_tokens": 1, "output_tokens": 2,
    "prompt_seconds": 0.5,
    "output_seconds": 1, "shown": [["/a\udcff", "ab", 5]], "receipt": None,
}  # fmt: skip
POLICY: dict[str, Any] = {
    "name": "p", "state": "serving", "model": "m.gguf", "model_sha256": None, "context": 5, "created": 0,
    "embeddings": False, "figures": {"memory": 5, "x": 0.5},
}  # fmt: skip
TO: list[dict[str, Any]] = [
    {"type": "policies", "policies": [POLICY]},
    {"type": "started", "id": 1, "name": "s-1"},
    {"type": "token", "id": 1, "text": "\u00e9"},
    {"type": "chosen", "id": 1, "text": "x", "logprob": -0.5, "top": [["y", -1.5]], "data": [255]},
    {"type": "call", "id": 1, "index": 0, "call_id": "c", "name": "f", "arguments": "{"},
    {"type": "embedding", "id": 1, "index": 0, "values": [-0.5, 1]},
    {"type": "document", "id": 1, "path": "/a\udcff", "outcome": "used", "reason": "", "tokens": 1},
    DONE,
    {"type": "failed", "id": 1, "status": 429, "code": "c", "message": "m", "retry_after": 1.5},
    {"type": "drain", "reason": "r"},
    {"type": "ping"},
]


def test_every_message_makes_the_round_trip() -> None:
    assert {one["type"] for one in FROM} == gateway.FROM_GATEWAY.keys()
    assert {one["type"] for one in TO} == gateway.TO_GATEWAY.keys()
    for one in FROM:
        assert gateway.decode_from_gateway(gateway.encode_from_gateway(one)) == one
    for one in TO:
        assert gateway.decode_to_gateway(gateway.encode_to_gateway(one)) == one


def test_each_side_says_only_its_own() -> None:
    for one in FROM:
        with pytest.raises(ProtocolError):
            gateway.encode_to_gateway(one)
    for one in TO:
        with pytest.raises(ProtocolError):
            gateway.decode_from_gateway(json.dumps(one).encode())


@pytest.mark.parametrize("message", [*FROM, *TO], ids=lambda one: str(one["type"]))
def test_every_key_is_needed_and_no_other_taken(message: dict[str, Any]) -> None:
    decode = gateway.decode_from_gateway if message in FROM else gateway.decode_to_gateway
    decode(json.dumps(message).encode())
    for changed in (
        *({key: value for key, value in message.items() if key != left} for left in message),
        {**message, "more": 1},
        *({**message, key: wrong} for key in message if key != "type" for wrong in WRONG),
    ):
        text = json.dumps(changed, default=lambda _value: {"un": "expected"})
        with pytest.raises(ProtocolError):
            decode(text.encode())


WRONG_PARTS: list[dict[str, Any]] = [
    {"policy": "../x"}, {"policy": ""}, {"policy": "a" * 65}, {"principal": "uid:"}, {"principal": "root"},
    {"principal": "token:0123ABCD"}, {"principal": "uid:1\n"}, {"files": ["a"]}, {"files": ["/a\0"]},
    {"files": ["/\ud800"]}, {"id": True}, {"id": 2**63}, {"receipt": 1}, {"tools": []},
    {"messages": [{"role": "user"}]}, {"messages": [{"role": "user", "content": "x", "name": "n"}]},
    {"messages": [{"role": "user", "content": "\ud800"}]}, {"messages": [{"role": [], "content": ""}]},
    {"messages": [{"role": "user", "content": "", "tool_calls": []}]},
    {"messages": [{"role": "tool", "content": ""}]},
    {"messages": [{"role": "assistant", "content": "", "tool_calls": [{"id": "1"}]}]},
    *({"sampling": {**SAMPLING, key: value}} for key, value in (
        ("max_tokens", 0), ("max_tokens", 1.0), ("temperature", -1), ("top_p", 1.5), ("seed", 2**32),
        ("seed", -1), ("stop", [""]), ("stop", ["x"] * 17), ("logprobs", 21), ("logprobs", True), ("n", 1),
    )),
]  # fmt: skip


@pytest.mark.parametrize("part", WRONG_PARTS, ids=lambda one: str(one)[:60])
def test_wrong_parts(part: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError):
        gateway.decode_from_gateway(json.dumps({**CHAT, **part}).encode())


@pytest.mark.parametrize(
    "data",
    [b"", b"[]", b"null", b'{"type":"cancel","id":1,"id":1}', b'{"type":"cancel","id":NaN}', b"\xff",
     b"[" * 9999,
     b'{"type":["cancel"],"id":1}', b'{"type":"cancel","id":1e400}'],
)  # fmt: skip
def test_what_is_no_message(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        gateway.decode_from_gateway(data)


@given(some.binary(max_size=60))
def test_no_bytes_raise_anything_else(data: bytes) -> None:
    for decode in (gateway.decode_from_gateway, gateway.decode_to_gateway):
        with pytest.raises(ProtocolError):
            decode(data)
