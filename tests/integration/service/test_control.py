"""Kill, freeze, rearm and the control socket, against a daemon that answers."""

from __future__ import annotations

import pytest

from tests.integration.service.conftest import Driven

pytestmark = pytest.mark.timeout(150)


def test_killed_by_the_control_socket(served: Driven) -> None:
    seen = served("killed_by_socket")
    told = seen["told"]["killed"]["taxes"]
    assert told["dead"] and told["ran"] and seen["told"]["latched"] and not seen["alive"], seen
    assert "control socket" in seen["error_of"] and "latched" in seen["behind"]
    assert seen["latched"] and seen["refused"] == [503, "latched"] and seen["still"] == "latched"
    assert seen["starts before"] == 1, "nothing started while it was latched"
    assert seen["rearmed"] == ["taxes"] and seen["again"] and seen["next"]
    (kill,) = seen["kills"]
    assert "uid" in kill["reason"] and kill["microseconds"] > 0 and seen["unended"] == 0


def test_killed_by_the_program_that_asks_nobody(served: Driven) -> None:
    seen = served("killed_by_program")
    assert seen["kill"]["code"] == 0 and "dead after" in seen["kill"]["out"] and not seen["alive"], seen
    assert seen["exit_code"] == 4 and seen["latched"] and seen["other"] in ("stop", "length")
    assert seen["idle"] and seen["brought back"] in ("stop", "length"), (
        "without a latch the next one starts it"
    )
    assert [kill["by"] for kill in seen["kills"]] == ["kill switch"] * 2


def test_what_is_latched_does_not_start(served: Driven) -> None:
    seen = served("latched_before")
    assert seen["exit_code"] == 7, "alone"
    assert seen["latched"] and seen["notes"] and seen["starts"] == 1, "beside another"


def test_frozen_and_thawed(served: Driven) -> None:
    seen = served("freezes")
    assert seen["frozen"] and seen["stands"] == 0 and seen["refused"] == [503, "frozen"], seen
    assert seen["goes on"] == "length" and seen["state"] == "serving"
    assert [kill["action"] for kill in seen["kills"]] == ["freeze", "thaw"]


def test_a_client_that_says_anything_disturbs_nothing(served: Driven) -> None:
    seen = served("fuzzed")
    assert seen["state"] == "serving" and seen["next"] and seen["starts"] == 1
    assert sum(seen["answers"].values()) == 300 and "ok" not in seen["answers"], seen
