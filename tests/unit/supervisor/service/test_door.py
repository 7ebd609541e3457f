"""A gateway that ended is replaced, and one that hangs while it starts keeps the main loop only so long."""

from __future__ import annotations

from pathlib import Path

import pytest

from anchorhold.errors import WorkerError
from anchorhold.policy.schema import ModelPolicy, Policy
from anchorhold.supervisor.service import service as service_module
from anchorhold.supervisor.service.service import Service

MANAGER_SECONDS = 30.0
"""WatchdogSec= of the units."""
END_SECONDS = 9.0
"""What ending a gateway may take: two seconds to go, two to be killed, five for the thread."""


class Hangs:
    """A door that does not open."""

    def __init__(self, *, alive: bool) -> None:
        self._alive = alive
        self.seconds: list[float] = []

    def start(self, seconds: float = 1e9) -> None:
        self.seconds.append(seconds)
        raise WorkerError("the gateway did not start in time")

    def alive(self) -> bool:
        return self._alive

    def policies_changed(self) -> None: ...

    def drain(self, reason: str, seconds: float) -> None: ...

    def close(self) -> None: ...


def test_a_new_gateway_that_hangs_is_waited_for_shortly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    doors = [Hangs(alive=False), Hangs(alive=False)]
    service = Service(
        [Policy(name="taxes", model=ModelPolicy("/m.gguf"))], tmp_path, say=said.append,
        make_door=lambda _service: doors[1],
    )  # fmt: skip
    service._door = doors[0]
    beats: list[str] = []
    monkeypatch.setattr(service, "_is_well", lambda: True)
    monkeypatch.setattr(service.notifier, "alive", lambda: beats.append("alive"))
    service._look_at_door(1e9)
    assert doors[1].seconds == [service_module.AGAIN_SECONDS] and beats == ["alive"]
    assert service_module.AGAIN_SECONDS + END_SECONDS < MANAGER_SECONDS
    assert said[-1] == "the gateway cannot be started: the gateway did not start in time"
