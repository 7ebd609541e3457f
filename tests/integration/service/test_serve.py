"""``anchorhold serve`` as a program, with a service manager that listens."""

from __future__ import annotations

import pytest

from tests.integration.service.conftest import Driven


@pytest.mark.timeout(150)
def test_serve_status_reload_kill_rearm_and_stop(served: Driven) -> None:
    seen = served("as_program")
    assert seen["ready"] and seen["states"] == ["serving"] and "taxes: serving since" in seen["status"], seen
    assert seen["reload"] == [0, 1], "a name that is not there is an error"
    assert seen["stopping"] and seen["term"] == 0 and seen["int"] == 130
    assert "dead after" in seen["kill"] and "latched: taxes" in seen["killed"], seen["killed"]
    assert seen["latched"][0] == 7 and "anchorhold rearm taxes" in seen["latched"][1]
    assert seen["rearm"] == 0 and seen["left"][0] == 0
    assert "taxes" not in seen["left"][1], "what was killed is not said to run"
    assert seen["after kill -9"] and "wider" in seen["loads"]
