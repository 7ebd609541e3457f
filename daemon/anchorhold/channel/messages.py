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


CODES = ("bad_model", "bad_request", "bad_template", "context_exceeded", "engine", "no_documents")
"""Why a request or the loading of a model can fail."""

TO_WORKER: dict[str, dict[str, Check]] = {
    "load": {"path": path, "context": count, "threads": count},
    "ask": {
        "id": count,
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
    "stop": {"id": count},
    "quit": {},
}

FROM_WORKER: dict[str, dict[str, Check]] = {
    "ready": {"versions": _versions},
    "sealed": {},
    "loaded": {"context": count, "trained_context": count, "threads": count, "description": text},
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
    "done": {
        "id": count,
        "reason": _one_of("stop", "length", "cancelled"),
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
