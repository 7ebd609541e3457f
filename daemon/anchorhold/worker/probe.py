"""A worker that runs a given piece of Python in place of the engine: how the cell is attacked from inside.

``config["source"]`` is the text of a module. It runs in boot, so it may import; ``boot()`` in it, if there is
one, is called there too. ``attempt()`` is called sealed, once for each request; what it returns, as text, is
the answer. It has the rights of any worker, and none besides.
"""

from __future__ import annotations

import time
from typing import Any

from anchorhold.channel import frames, messages

_namespace: dict[str, Any] = {}


def prepare(config: dict[str, Any]) -> dict[str, str]:
    """Run the module's text, then its ``boot()``."""
    _namespace.update({"__name__": "probe", "__file__": config.get("name", "probe.py")})
    exec(compile(config["source"], _namespace["__file__"], "exec"), _namespace)
    if "boot" in _namespace:
        _namespace["boot"]()
    return {}


def _question(message: messages.Message) -> str:
    """What was asked last, whatever kind of request it is."""
    if message["type"] == "chat":
        return "".join(turn["content"] for turn in message["messages"][-1:])
    if message["type"] == "embed":
        return "".join(message["inputs"][-1:])
    return str(message["prompt"] if message["type"] == "complete" else message["question"])


def serve(read_fd: int, write_fd: int, config: dict[str, Any]) -> int:
    """Answer each request with what ``attempt()`` returns; an exception is an answer as well."""

    def send(message: messages.Message) -> None:
        frames.write_frame(write_fd, messages.encode(message))

    while (data := frames.read_frame(read_fd)) is not None:
        message = messages.decode_to_worker(data)
        if message["type"] == "quit":
            break
        if message["type"] not in ("ask", "chat", "complete", "embed"):
            continue
        _namespace["QUESTION"], _namespace["MESSAGE"] = _question(message), message
        started = time.monotonic()
        try:
            answer = _namespace["attempt"]()
        except Exception as error:
            answer = f"{type(error).__name__}: {error}"
        if answer is not None:
            text = answer if isinstance(answer, str) else repr(answer)
            text = text.encode("utf-8", "replace").decode()
            for start in range(0, len(text), 100_000):
                send({"type": "token", "id": message["id"], "text": text[start : start + 100_000]})
        send(
            {
                "type": "done",
                "id": message["id"],
                "reason": "stop",
                "prompt_tokens": 0,
                "output_tokens": 0,
                "prompt_seconds": 0.0,
                "output_seconds": time.monotonic() - started,
                "files": [],
            }
        )
    return 0
