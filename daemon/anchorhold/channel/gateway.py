"""The messages between supervisor and gateway, as one table by direction, strict as those of `messages`.

The gateway parses what strangers send, so what comes from it is as untrusted as what comes from a worker:
any message that is not in ``FROM_GATEWAY`` ends it. ``id`` is the gateway's number of a request, never used
twice. Texts are Unicode; paths may hold the surrogates of ``os.fsdecode``.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

from anchorhold.channel.errors import ProtocolError
from anchorhold.channel.messages import Check, Message, count, number, path, text

TO_GATEWAY_LIMIT = 16 << 20
FROM_GATEWAY_LIMIT = 64 << 20  # a body of the largest size, all of it in JSON's escapes

MOST_MESSAGES = 10_000
MOST_CALLS = 128
MOST_FILES = 1_000
MOST_INPUTS = 2_048
MOST_STOPS = 16
MOST_TOKENS = 1 << 24
MOST_TOP = 20
MOST_VALUES = 1 << 16
MOST_SHOWN = 100_000
MOST_POLICIES = 1_000

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_PRINCIPAL = re.compile(r"(uid:[0-9]{1,10}|token:[0-9a-f]{8})", re.ASCII)


def _optional(check: Check) -> Check:
    return lambda value: value is None or check(value)


def _one_of(*values: str) -> Check:
    known = frozenset(values)
    return lambda value: type(value) is str and value in known


def _list(check: Check, most: int) -> Check:
    return lambda value: type(value) is list and len(value) <= most and all(map(check, value))


def _between(low: int, high: int) -> Check:
    return lambda value: type(value) is int and low <= value <= high


def _object(**fields: Check) -> Check:
    """Exactly these keys, each right."""
    return lambda value: (
        type(value) is dict
        and value.keys() == fields.keys()
        and all(check(value[key]) for key, check in fields.items())
    )


def _boolean(value: Any) -> bool:
    return type(value) is bool


def name(value: Any) -> bool:
    """The name of a policy."""
    return type(value) is str and _NAME.fullmatch(value) is not None


def principal(value: Any) -> bool:
    """Who asks: ``uid:N`` of a socket's peer, or ``token:`` and eight digits of the token's hash."""
    return type(value) is str and _PRINCIPAL.fullmatch(value) is not None


def real(value: Any) -> bool:
    """A finite number of either sign."""
    return (type(value) is float and math.isfinite(value)) or type(value) is int and abs(value) < 2**63


def _nonempty(value: Any) -> bool:
    return text(value) and value != ""


def _absolute(value: Any) -> bool:
    return path(value) and value.startswith("/")


def _fraction(value: Any) -> bool:
    return number(value) and value <= 1


_call = _object(id=text, name=text, arguments=text)
_PLAIN = {"role", "content"}
_role = _one_of("system", "developer", "user", "assistant", "tool")


def turn(value: Any) -> bool:
    """A message of a conversation; an assistant's may hold tool calls, a tool's names the call it answers."""
    if type(value) is not dict or not _role(value.get("role")) or not text(value.get("content")):
        return False
    keys = value.keys()
    if value["role"] == "tool":
        return keys == _PLAIN | {"tool_call_id"} and text(value["tool_call_id"])
    if value["role"] == "assistant" and keys == _PLAIN | {"tool_calls"}:
        return _list(_call, MOST_CALLS)(value["tool_calls"])
    return keys == _PLAIN


_sampling = _object(
    max_tokens=_between(1, MOST_TOKENS),
    temperature=number,
    top_p=_fraction,
    seed=_optional(_between(0, 2**32 - 1)),
    stop=_list(_nonempty, MOST_STOPS),
    logprobs=_optional(_between(0, MOST_TOP)),
)


def _pair(first: Check, second: Check) -> Check:
    return lambda value: type(value) is list and len(value) == 2 and first(value[0]) and second(value[1])


def _shown(value: Any) -> bool:
    return type(value) is list and len(value) == 3 and path(value[0]) and text(value[1]) and count(value[2])


def _figures(value: Any) -> bool:
    return (
        type(value) is dict and len(value) <= 64 and all(map(text, value)) and all(map(real, value.values()))
    )


_policy = _object(
    name=name,
    state=text,
    model=path,
    model_sha256=_optional(text),
    context=count,
    created=count,
    embeddings=_boolean,
    figures=_figures,
)

TO_GATEWAY: dict[str, dict[str, Check]] = {
    "policies": {"policies": _list(_policy, MOST_POLICIES)},
    "ping": {},
    "started": {"id": count, "name": text},
    "token": {"id": count, "text": text},
    "chosen": {
        "id": count,
        "text": text,
        "logprob": real,
        "top": _list(_pair(text, real), MOST_TOP),
        "data": _list(_between(0, 255), 1 << 12),
    },
    "call": {"id": count, "index": count, "call_id": text, "name": text, "arguments": text},
    "embedding": {"id": count, "index": count, "values": _list(real, MOST_VALUES)},
    "document": {"id": count, "path": path, "outcome": text, "reason": text, "tokens": count},
    "done": {
        "id": count,
        "reason": _one_of("stop", "length", "cancelled", "tool_calls"),
        "prompt_tokens": count,
        "output_tokens": count,
        "prompt_seconds": number,
        "output_seconds": number,
        "shown": _list(_shown, MOST_SHOWN),
        "receipt": _optional(text),
    },
    # status as in HTTP; retry_after in seconds.
    "failed": {
        "id": count,
        "status": _between(400, 599),
        "code": text,
        "message": text,
        "retry_after": _optional(number),
    },
    "drain": {"reason": text},
}

FROM_GATEWAY: dict[str, dict[str, Check]] = {
    # The seal is on and connections are taken.
    "ready": {},
    "pong": {},
    "chat": {
        "id": count,
        "policy": name,
        "principal": principal,
        "messages": _list(turn, MOST_MESSAGES),
        "sampling": _sampling,
        "tools": _optional(text),
        "tool_choice": _optional(text),
        "format": _optional(text),
        "files": _list(_absolute, MOST_FILES),
        "receipt": _boolean,
    },
    "complete": {
        "id": count,
        "policy": name,
        "principal": principal,
        "prompt": text,
        "sampling": _sampling,
        "receipt": _boolean,
    },
    "embed": {
        "id": count,
        "policy": name,
        "principal": principal,
        "inputs": _list(text, MOST_INPUTS),
        "receipt": _boolean,
    },
    "cancel": {"id": count},
    # A connection over a Unix socket that was handed in has ended: its principal may be forgotten.
    "closed": {"connection": count},
}

_encode = json.JSONEncoder(ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode


def _no_duplicates(pairs: list[tuple[str, Any]]) -> Message:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ProtocolError("a key twice")
    return found


def _no_constant(word: str) -> Any:
    raise ProtocolError(f"{word} is no number")


_decode = json.JSONDecoder(object_pairs_hook=_no_duplicates, parse_constant=_no_constant).decode


def encode_to_gateway(message: Message) -> bytes:
    """The JSON text of a supervisor's message. Raises ProtocolError for what the gateway would refuse."""
    return _encode(_check(message, TO_GATEWAY)).encode("ascii")


def encode_from_gateway(message: Message) -> bytes:
    """The JSON text of a gateway's message. Raises ProtocolError for what the supervisor would refuse."""
    return _encode(_check(message, FROM_GATEWAY)).encode("ascii")


def decode_to_gateway(data: bytes) -> Message:
    """A message of the supervisor. Raises ProtocolError, nothing else."""
    return _check(_parse(data), TO_GATEWAY)


def decode_from_gateway(untrusted: bytes) -> Message:
    """A message of the gateway. Raises ProtocolError, nothing else."""
    return _check(_parse(untrusted), FROM_GATEWAY)


def _parse(data: bytes) -> Any:
    try:
        return _decode(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"not JSON: {type(error).__name__}") from None


def _check(message: Any, table: dict[str, dict[str, Check]]) -> Message:
    if type(message) is not dict:
        raise ProtocolError("not an object")
    kind = message.get("type")
    fields = table.get(kind) if type(kind) is str else None
    if fields is None:
        raise ProtocolError("unknown type of message")
    if message.keys() != fields.keys() | {"type"}:
        raise ProtocolError(f"{kind}: a key is missing or unknown")
    for key, check in fields.items():
        if not check(message[key]):
            raise ProtocolError(f"{kind}: wrong value of {key}")
    checked: Message = message
    return checked
