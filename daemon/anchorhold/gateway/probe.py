"""An entry that runs a given piece of Python in place of the gateway: how its cell is attacked from inside.

``config["source"]`` is the text of a module; ``attempt()`` in it is called confined, once, and what it
returns is written to descriptor 2. It has the rights of any gateway, and none besides.
"""

from __future__ import annotations

import os
from typing import Any

_namespace: dict[str, Any] = {}


def prepare(config: dict[str, Any]) -> None:
    """Run the module's text."""
    _namespace.update({"__name__": "probe"})
    exec(compile(config["source"], "probe", "exec"), _namespace)


def begin() -> None:
    """What there is to open before the last layer: ``begin()`` of the module, if it has one."""
    if "begin" in _namespace:
        _namespace["begin"]()


def serve(handover: int, channel: int, first: int) -> int:
    """Attempt, and tell."""
    _namespace.update({"HANDOVER": handover, "CHANNEL": channel, "FIRST": first})
    try:
        told = _namespace["attempt"]()
    except Exception as error:
        told = f"{type(error).__name__}: {error}"
    os.write(2, f"told: {told}\n".encode("utf-8", "replace"))
    return 0
