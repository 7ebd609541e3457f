"""A request as it was understood, and what all endpoints that generate text have in common.

Source: OpenAI API reference. What would change the answer and is not done here is refused.
"""

from __future__ import annotations

from typing import Any

from anchorhold.gateway.answer import Answer, Shape
from anchorhold.gateway.errors import invalid, unsupported
from anchorhold.gateway.fields import Fields, clean, compact

MOST_STOPS = 4
MOST_STOP = 256
MOST_TOP = 20
MOST_FILES = 1000
INT64 = 2**63

# They say who pays, who asks, what is kept elsewhere: nothing that the answer depends on.
HARMLESS = (
    "user",
    "metadata",
    "service_tier",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_retention",
)


class Asking:
    """kind and fields: a message of the channel; shape: how its answer is told."""

    __slots__ = ("answer", "fields", "kind", "policy", "shape", "stream")

    def __init__(
        self, kind: str, policy: str, fields: dict[str, Any], shape: Shape, answer: Answer, *, stream: bool
    ) -> None:
        self.kind, self.policy, self.fields = kind, policy, fields
        self.shape, self.answer, self.stream = shape, answer, stream


class Limits:
    """What the listener sets. max_tokens: also the default where a request does not say."""

    __slots__ = ("context", "max_tokens")

    def __init__(self, max_tokens: int, context: int) -> None:
        self.max_tokens, self.context = max_tokens, context

    def tokens(self, fields: Fields, *keys: str) -> int:
        """The first of the keys that is there, within the listener's limit."""
        found: int | None = None
        for key in keys:
            value = fields.integer(key, 1, INT64)
            if value is not None and value > self.max_tokens:
                raise invalid(fields.name(key), f"more than {self.max_tokens} (api.max_tokens)")
            found = value if found is None else found
        return min(self.max_tokens, self.context) if found is None else found


def sampling(
    fields: Fields, max_tokens: int, *, logprobs: int | None, stop: str = "stop", hottest: float = 2.0
) -> dict[str, Any]:
    """The common keys. Reads temperature, top_p, seed and the stop key."""
    seed = fields.integer("seed", -INT64, INT64 - 1)
    top_p = fields.number("top_p", 0.0, 1.0, 1.0)
    return {
        "max_tokens": max_tokens,
        "temperature": fields.number("temperature", 0.0, hottest, 1.0),
        "top_p": top_p,
        "seed": None if seed is None else seed % 2**32,
        "stop": stops(fields, stop),
        "logprobs": logprobs,
    }


def stops(fields: Fields, key: str) -> list[str]:
    value = fields.take(key)
    found = [value] if type(value) is str else value
    if found is None:
        return []
    if type(found) is not list or not all(
        type(one) is str and 0 < len(one) <= MOST_STOP and clean(one) for one in found
    ):
        raise invalid(fields.name(key), f"a string, or a list of up to {MOST_STOPS}, none empty")
    if len(found) > MOST_STOPS:
        raise invalid(fields.name(key), f"more than {MOST_STOPS} strings")
    return list(found)


def neutral(fields: Fields) -> None:
    """Keys of both kinds of completion that are taken only where they say what is done anyway."""
    fields.harmless(*HARMLESS)
    fields.only("n", 1, why="one answer is made for one request")
    fields.only("frequency_penalty", 0)
    fields.only("presence_penalty", 0)
    fields.only("logit_bias", {})


def extension(fields: Fields) -> tuple[list[str], bool, bool]:
    """``anchorhold: {files, receipt}``: the files, whether a receipt is wanted, whether it is there."""
    found = fields.object("anchorhold")
    if found is None:
        return [], False, False
    files = found.items("files", MOST_FILES)
    for index, path in enumerate(files):
        if type(path) is not str or not path.startswith("/") or "\0" in path or not clean(path):
            raise invalid(f"anchorhold.files[{index}]", "an absolute path is wanted")
    receipt = found.boolean("receipt")
    found.end()
    return files, receipt, True


def no_files(files: list[str]) -> None:
    if files:
        raise unsupported("anchorhold.files", "only chat endpoints take documents")


def stream(fields: Fields) -> tuple[bool, bool]:
    """Whether to stream, and whether to tell the usage at its end."""
    wanted = fields.boolean("stream")
    options = fields.object("stream_options")
    if options is None:
        return wanted, False
    if not wanted:
        raise invalid("stream_options", "it is for stream: true only")
    usage = options.boolean("include_usage")
    options.harmless("include_obfuscation")
    options.end()
    return wanted, usage


def function(fields: Fields) -> dict[str, Any]:
    """name, description, parameters and strict of one tool, as OpenAI's nested form has them."""
    name = fields.text("name", required=True, most=64)
    if not name or not all(letter.isascii() and (letter.isalnum() or letter in "_-.") for letter in name):
        raise invalid(fields.name("name"), "1 to 64 of a-z, A-Z, 0-9, _ and -")
    found: dict[str, Any] = {"name": name}
    if fields.has("description"):
        found["description"] = fields.text("description")
    parameters = fields.take("parameters")
    if parameters is not None and type(parameters) is not dict:
        raise invalid(fields.name("parameters"), "a JSON schema is wanted")
    found["parameters"] = parameters if parameters is not None else {"type": "object", "properties": {}}
    if fields.has("strict"):
        found["strict"] = fields.boolean("strict")
    fields.take("strict")
    return found


def json_text(value: Any, where: str) -> str:
    text = compact(value)
    if len(text) > 1 << 20:
        raise invalid(where, "it is longer than 1 MiB")
    return text


def text_of(value: Any, where: str, *kinds: str) -> str:
    """A content: a string, or a list of parts of these kinds, which hold text."""
    if type(value) is str:
        if not clean(value):
            raise invalid(where, "it is no Unicode text")
        return value
    if type(value) is not list:
        raise invalid(where, "a string or a list of parts is wanted")
    found = []
    for index, item in enumerate(value):
        part = Fields(item, f"{where}[{index}]")
        kind = part.text("type", required=True)
        if kind not in kinds:
            raise unsupported(part.name("type"), f"only text is taken ({', '.join(kinds)})")
        found.append(part.text("text", required=True))
        part.harmless("annotations", "cache_control", "citations", "logprobs")
        part.end()
    return "".join(found)


def check_choice(wanted: dict[str, Any]) -> None:
    """Without tools there is nothing to choose: then only what says as much is taken."""
    if wanted["tools"] is None and wanted["tool_choice"] is not None:
        if wanted["tool_choice"] not in ('"none"', '"auto"'):
            raise invalid("tool_choice", "there are no tools to choose from")
        wanted["tool_choice"] = None


def one_call(wanted: dict[str, Any]) -> None:
    """At most one call in the answer: ``tool_choice`` then says so, in a form that only the worker reads.

    A function that was named is called once anyway, and none at all is less than one.
    """
    kinds = {None: "auto", '"auto"': "auto", '"required"': "required"}
    if wanted["tools"] is not None and wanted["tool_choice"] in kinds:
        choice = {"type": kinds[wanted["tool_choice"]], "most": 1}
        wanted["tool_choice"] = json_text(choice, "tool_choice")
