"""The messages, as one table by direction: name → {key: what its value must be}. All keys are required.

A message is a JSON object with the key ``type``. Unknown type, unknown, missing or duplicate key, wrong
type, out of range, NaN, infinity, text that is no Unicode: the whole message is refused with ProtocolError,
the only error here. Paths are the one text that may hold lone surrogates, those of ``os.fsdecode`` (U+DC80
to U+DCFF); JSON's escapes carry them, so that every file name makes the round trip.

Encoding checks by the same table: what one side sends, the other accepts.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

from anchorhold.channel.errors import ProtocolError

Check = Callable[[Any], bool]
Message = dict[str, Any]

MOST_NAMES = 100_000  # files in a request or an answer
MOST_TURNS = 10_000  # messages of a conversation
MOST_PAIRS = 1_000  # entries of a detail or of the versions
MOST_CALLS = 128  # tool calls of one message
MOST_STOPS = 16  # texts that end an answer
MOST_STOP = 512  # characters of one of them
MOST_JSON = 1 << 20  # characters of tools, or of a format
MOST_INPUTS = 2_048  # texts of a request for embeddings (OpenAI API reference)
MOST_VALUES = 65_536  # numbers of one embedding
MOST_TOP = 20  # alternatives told beside a token (OpenAI API reference, top_logprobs)
MOST_BYTES = 65_536  # of one token
_INT_MAX = 2**63 - 1


def text(value: Any) -> bool:
    """Unicode text: no lone surrogates."""
    if type(value) is not str:
        return False
    if value.isascii():
        return True
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def path(value: Any) -> bool:
    """A path as os.fsdecode gives it: any bytes but NUL, surrogates only where bytes are no UTF-8."""
    if type(value) is not str or "\0" in value:
        return False
    if value.isascii():
        return True
    try:
        data = value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return data.decode("utf-8", "surrogateescape") == value


def count(value: Any) -> bool:
    return type(value) is int and 0 <= value <= _INT_MAX


def number(value: Any) -> bool:
    """Seconds or a temperature: finite, not negative."""
    return (type(value) is float and math.isfinite(value) and value >= 0) or count(value)


def _seed(value: Any) -> bool:
    return value is None or (type(value) is int and 0 <= value < 2**32)


def _optional(check: Check) -> Check:
    return lambda value: value is None or check(value)


def _one_of(*values: str) -> Check:
    known = frozenset(values)
    return lambda value: type(value) is str and value in known


def _list(check: Check, most: int) -> Check:
    return lambda value: type(value) is list and len(value) <= most and all(map(check, value))


def _turn(value: Any) -> bool:
    return (
        type(value) is dict
        and value.keys() == {"role", "content"}
        and value["role"] in ("system", "user", "assistant")
        and text(value["content"])
    )


def _short(most: int) -> Check:
    """Text of so many characters at most."""
    return lambda value: text(value) and len(value) <= most


def _stop(value: Any) -> bool:
    """What ends an answer: an empty text would end it before it begins."""
    return text(value) and 0 < len(value) <= MOST_STOP


def _share(value: Any) -> bool:
    """Of a probability: in (0, 1]."""
    return number(value) and 0 < value <= 1


def _penalty(value: Any) -> bool:
    return type(value) in (float, int) and -2 <= value <= 2  # NaN is in no range


def _logprob(value: Any) -> bool:
    """The logarithm of a probability: finite, not positive."""
    return (type(value) is float and math.isfinite(value) and value <= 0) or (
        type(value) is int and -_INT_MAX <= value <= 0
    )


def _flag(value: Any) -> bool:
    return type(value) is bool


def _up_to(most: int) -> Check:
    return lambda value: type(value) is int and 0 <= value <= most


def _finite(value: Any) -> bool:
    return (type(value) is float and math.isfinite(value)) or (
        type(value) is int and -_INT_MAX <= value <= _INT_MAX
    )


def _alternative(value: Any) -> bool:
    return type(value) is list and len(value) == 2 and text(value[0]) and _logprob(value[1])


def _call(value: Any) -> bool:
    return (
        type(value) is dict and value.keys() == {"id", "name", "arguments"} and all(map(text, value.values()))
    )


def _message(value: Any) -> bool:
    """One of a conversation by the OpenAI API's roles."""
    if type(value) is not dict or not text(value.get("content")):
        return False
    role, keys = value.get("role"), value.keys()
    if role == "assistant" and "tool_calls" in value:
        calls = value["tool_calls"]
        return keys == {"role", "content", "tool_calls"} and _calls(calls)
    if role == "tool":
        return keys == {"role", "content", "tool_call_id"} and text(value["tool_call_id"])
    return keys == {"role", "content"} and role in ("system", "developer", "user", "assistant")


def _versions(value: Any) -> bool:
    return type(value) is dict and len(value) <= MOST_PAIRS and all(map(text, [*value, *value.values()]))


def _detail(value: Any) -> bool:
    """Numbers and texts by name; names may be paths, and so may the texts."""
    return (
        type(value) is dict
        and len(value) <= MOST_PAIRS
        and all(map(path, value))
        and all(count(item) or path(item) for item in value.values())
    )


CODES = (
    "bad_model", "bad_request", "bad_template", "context_exceeded", "engine", "no_documents",
    "not_supported",
)  # fmt: skip
"""Why a request or the loading of a model can fail."""

_SAMPLING: dict[str, Check] = {
    "max_tokens": count,
    "temperature": number,
    "top_p": _share,
    "seed": _seed,
    "stop": _list(_stop, MOST_STOPS),
    "logprobs": _optional(_up_to(MOST_TOP)),
    "frequency": _penalty,
    "presence": _penalty,
}
_calls = _list(_call, MOST_CALLS)

# owner: a number that changes whenever somebody else asks than the last time. Nothing that was computed for
# one owner is used for another.
TO_WORKER: dict[str, dict[str, Check]] = {
    "load": {"path": path, "context": count, "threads": count},
    "ask": {
        "id": count,
        "owner": count,
        "question": text,
        "files": _list(path, MOST_NAMES),
        "roots": _list(path, MOST_NAMES),
        "max_tokens": count,
        "temperature": number,
        "seed": _seed,
        "system": _optional(text),
        "history": _list(_turn, MOST_TURNS),
        "material": _optional(text),
    },
    "chat": {
        "id": count,
        "owner": count,
        "messages": _list(_message, MOST_TURNS),
        "files": _list(path, MOST_NAMES),
        "tools": _optional(_short(MOST_JSON)),
        "tool_choice": _optional(_short(MOST_JSON)),
        "format": _optional(_short(MOST_JSON)),
        **_SAMPLING,
    },
    "complete": {"id": count, "owner": count, "prompt": text, **_SAMPLING},
    "embed": {"id": count, "owner": count, "inputs": _list(text, MOST_INPUTS)},
    "stop": {"id": count},
    "ping": {},
    "quit": {},
}

FROM_WORKER: dict[str, dict[str, Check]] = {
    "ready": {"versions": _versions},
    "sealed": {},
    "pong": {},
    "loaded": {
        "context": count,
        "trained_context": count,
        "threads": count,
        "description": text,
        "embeddings": _flag,
    },
    "progress": {"stage": text, "done": count, "total": count},
    "document": {
        "path": path,
        "outcome": _one_of("used", "partial", "skipped"),
        "reason": text,
        "tokens": count,
    },
    # Of a large folder nearly all documents: told together, or telling would take as long as reading.
    "unused": {"paths": _list(path, MOST_NAMES), "reason": text},
    "token": {"id": count, "text": text},
    "chosen": {
        "id": count,
        "text": text,
        "logprob": _logprob,
        "top": _list(_alternative, MOST_TOP),
        "data": _list(_up_to(255), MOST_BYTES),
    },
    "call": {"id": count, "index": _up_to(MOST_CALLS - 1), "call": text, "name": text, "arguments": text},
    "embedding": {"id": count, "index": _up_to(MOST_INPUTS - 1), "values": _list(_finite, MOST_VALUES)},
    "done": {
        "id": count,
        "reason": _one_of("stop", "length", "cancelled", "tool_calls"),
        "prompt_tokens": count,
        "output_tokens": count,
        "prompt_seconds": number,
        "output_seconds": number,
        "files": _list(path, MOST_NAMES),
    },
    # The code goes into the log in the open and for ever: it may be no text of the worker's choice.
    "failed": {"id": _optional(count), "code": _one_of(*CODES), "message": text, "detail": _detail},
}

_ALL = {**TO_WORKER, **FROM_WORKER}
_encode = json.JSONEncoder(ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode


def _no_duplicates(pairs: list[tuple[str, Any]]) -> Message:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ProtocolError("a key twice")
    return found


def _no_constant(name: str) -> Any:
    raise ProtocolError(f"{name} is no number")


_decode = json.JSONDecoder(object_pairs_hook=_no_duplicates, parse_constant=_no_constant).decode


def encode(message: Message) -> bytes:
    """The JSON text of a message, to be framed. Raises ProtocolError for what the other side would refuse."""
    _check(message, _ALL)
    return _encode(message).encode("ascii")


def decode_from_worker(untrusted: bytes) -> Message:
    """A message of the worker. Raises ProtocolError, nothing else."""
    return _check(_parse(untrusted), FROM_WORKER)


def decode_to_worker(data: bytes) -> Message:
    """A message of the supervisor. Raises ProtocolError, nothing else."""
    return _check(_parse(data), TO_WORKER)


def _parse(data: bytes) -> Any:
    # Decoded here: json would also take UTF-16 and UTF-32, and surrogates written as UTF-8.
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
    if len(message) != len(fields) + 1:
        raise ProtocolError(f"{kind}: {_difference(message, fields)}")
    for name, check in fields.items():
        if name not in message:
            raise ProtocolError(f"{kind}: {_difference(message, fields)}")
        if not check(message[name]):
            raise ProtocolError(f"{kind}: wrong value of {name}")
    checked: Message = message
    return checked


def _difference(message: Message, fields: dict[str, Check]) -> str:
    missing = [name for name in fields if name not in message]
    return f"{missing[0]} is missing" if missing else "an unknown key"
