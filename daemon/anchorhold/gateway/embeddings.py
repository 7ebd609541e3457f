"""POST /v1/embeddings. Source: OpenAI API reference, "Embeddings"."""

from __future__ import annotations

import base64
import struct
from typing import Any

from anchorhold.gateway import asking
from anchorhold.gateway.answer import Answer, OpenAiErrors
from anchorhold.gateway.asking import Asking
from anchorhold.gateway.errors import invalid, unsupported
from anchorhold.gateway.fields import Fields, clean

MOST_INPUTS = 2048


def read(fields: Fields, policy: str) -> Asking:
    """Raises ApiError."""
    value = fields.take("input")
    inputs = [value] if type(value) is str else value
    if type(inputs) is not list or not inputs or len(inputs) > MOST_INPUTS:
        raise invalid("input", f"a string, or a list of 1 to {MOST_INPUTS}")
    if any(type(one) in (int, list) for one in inputs):
        raise unsupported("input", "texts are wanted, not token numbers")
    if not all(type(one) is str and one and clean(one) for one in inputs):
        raise invalid("input", "texts are wanted, none empty")
    packed = fields.choice("encoding_format", "float", "base64", default="float") == "base64"
    files, receipt, extended = asking.extension(fields)
    asking.no_files(files)
    fields.only("dimensions", why="vectors have the model's own length")
    fields.harmless("user")
    fields.end()
    answer = Answer(policy, extended=extended, receipt=receipt)
    wanted = {"inputs": inputs, "receipt": receipt}
    return Asking("embed", policy, wanted, Embeddings(packed=packed), answer, stream=False)


class Embeddings(OpenAiErrors):
    """A list of embedding objects; packed: little-endian floats in base64."""

    def __init__(self, *, packed: bool) -> None:
        self._packed = packed

    def whole(self, answer: Answer) -> dict[str, Any]:
        prompt = answer.done["prompt_tokens"]
        return {
            "object": "list",
            "model": answer.model,
            "data": [
                {"object": "embedding", "index": index, "embedding": self._vector(answer.vectors[index])}
                for index in sorted(answer.vectors)
            ],
            "usage": {"prompt_tokens": prompt, "total_tokens": prompt},
            **answer.extension(),
        }

    def _vector(self, values: list[float]) -> Any:
        if not self._packed:
            return values
        return base64.b64encode(struct.pack(f"<{len(values)}f", *values)).decode("ascii")

    def opening(self, answer: Answer) -> bytes:
        return b""

    def piece(self, answer: Answer, message: dict[str, Any]) -> bytes:
        return b""

    def closing(self, answer: Answer) -> bytes:
        return b""
