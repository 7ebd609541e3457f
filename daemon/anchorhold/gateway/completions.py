"""POST /v1/completions. Source: OpenAI API reference, "Completions" (legacy)."""

from __future__ import annotations

from typing import Any

from anchorhold.gateway import asking
from anchorhold.gateway.answer import DONE, Answer, OpenAiErrors, data
from anchorhold.gateway.asking import Asking, Limits
from anchorhold.gateway.errors import invalid, unsupported
from anchorhold.gateway.fields import Fields, clean


def read(fields: Fields, policy: str, limits: Limits) -> Asking:
    """Raises ApiError."""
    prompt = _prompt(fields.take("prompt"))
    logprobs = fields.integer("logprobs", 0, asking.MOST_TOP)
    stream, usage = asking.stream(fields)
    files, receipt, extended = asking.extension(fields)
    asking.no_files(files)
    wanted = {
        "prompt": prompt,
        "sampling": asking.sampling(fields, limits.tokens(fields, "max_tokens"), logprobs=logprobs),
        "receipt": receipt,
    }
    asking.neutral(fields)
    fields.only("best_of", 1, why="one answer is made for one request")
    fields.only("echo", False)
    fields.only("suffix", "")
    fields.end()
    answer = Answer(policy, extended=extended, receipt=receipt)
    return Asking(
        "complete", policy, wanted, Completion(usage=usage, logprobs=logprobs), answer, stream=stream
    )


def _prompt(value: Any) -> str:
    if type(value) is list and len(value) == 1:
        value = value[0]
    if type(value) is list:
        raise unsupported("prompt", "one text is wanted, neither several nor token numbers")
    if type(value) is not str or not clean(value):
        raise invalid("prompt", "a string is wanted")
    return value


class Completion(OpenAiErrors):
    """text_completion, whole or in pieces of the same form."""

    def __init__(self, *, usage: bool, logprobs: int | None) -> None:
        self._usage, self._logprobs = usage, logprobs
        self._held: list[str] = []
        self._offset = 0

    def _object(self, answer: Answer, text: str, finish: str | None, logprobs: Any) -> dict[str, Any]:
        return {
            "id": f"cmpl-{answer.name}",
            "object": "text_completion",
            "created": answer.created,
            "model": answer.model,
            "choices": [{"index": 0, "text": text, "logprobs": logprobs, "finish_reason": finish}],
        }

    def _reason(self, answer: Answer) -> str:
        return "length" if answer.done["reason"] == "length" else "stop"

    def whole(self, answer: Answer) -> dict[str, Any]:
        logprobs = None if self._logprobs is None else self._list(answer.chosen)
        whole = self._object(answer, answer.text, self._reason(answer), logprobs)
        return {**whole, "usage": answer.usage(), **answer.extension()}

    def _list(self, chosen: list[dict[str, Any]]) -> dict[str, Any]:
        offsets = []
        for one in chosen:
            offsets.append(self._offset)
            self._offset += len(one["text"])
        return {
            "tokens": [one["text"] for one in chosen],
            "token_logprobs": [one["logprob"] for one in chosen],
            "top_logprobs": [dict(map(tuple, one["top"])) for one in chosen] if self._logprobs else None,
            "text_offset": offsets,
        }

    def opening(self, answer: Answer) -> bytes:
        return b""

    def _piece(self, answer: Answer, text: str, finish: str | None = None, logprobs: Any = None) -> bytes:
        chunk = self._object(answer, text, finish, logprobs)
        if self._usage:
            chunk["usage"] = None
        if finish is not None:
            chunk.update(answer.extension())
        return data(chunk)

    def piece(self, answer: Answer, message: dict[str, Any]) -> bytes:
        if message["type"] == "token":
            if self._logprobs is None:
                return self._piece(answer, message["text"])
            self._held.append(message["text"])
        elif message["type"] == "chosen":
            text, self._held = "".join(self._held), []
            return self._piece(answer, text, logprobs=self._list([message]))
        return b""

    def closing(self, answer: Answer) -> bytes:
        out = self._piece(answer, "".join(self._held), self._reason(answer))
        if self._usage:
            out += data({**self._object(answer, "", None, None), "choices": [], "usage": answer.usage()})
        return out + DONE
