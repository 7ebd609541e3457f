"""The kill switch, as each kind of user: dead by the kernel's word, latched, and in the log."""

from __future__ import annotations

from typing import Any

import pytest

from tests.integration.lifecycle.conftest import Driven

LATCHED, KILLED = 7, 4


def judge(seen: dict[str, Any], *, kills: int = 1) -> None:
    """Nothing of the cell lives, the kill program knows it, and the log tells of it."""
    assert seen["kill"]["code"] == 0 and "dead after" in seen["kill"]["out"], seen["kill"]
    assert seen["alive"] == []
    assert [entry["action"] for entry in seen["kills"]].count("kill") == kills
    assert all(entry["by"] == "kill switch" and "uid" in entry for entry in seen["kills"])
    assert seen["verifies"]


def test_it_kills_latches_and_is_in_the_log(driven: Driven) -> None:
    seen = driven("switching", what="running")
    judge(seen)
    assert seen["ended"][0] == KILLED and "kill switch" in seen["ended"][1]
    assert 0 < seen["kills"][0]["microseconds"] < 5_000_000 and seen["kills"][0]["session"]
    assert seen["latched"] == ["taxes"] and "anchorhold rearm taxes" in seen["kill"]["out"]
    assert seen["again"][0] == LATCHED and "latched" in seen["again"][1]
    assert seen["other"] == 0 and seen["rearmed"] == 0 and seen["records"] == 0


def test_while_the_supervisor_is_stopped(driven: Driven) -> None:
    seen = driven("switching", what="stopped")
    judge(seen)
    assert seen["ended"][0] == KILLED


def test_after_the_supervisor_has_died(driven: Driven) -> None:
    """The cell died with it: that is said, no kill is claimed, and no record stays."""
    seen = driven("switching", what="dead")
    assert seen["kill"]["code"] == 0 and "was dead already" in seen["kill"]["out"], seen["kill"]
    assert seen["records after kill"] == 0 and seen["records after start"] == 0 and seen["next"] == 0
    assert seen["kills"] == [] and seen["verifies"]


def test_a_kill_that_nobody_is_left_to_record(driven: Driven) -> None:
    """The next supervisor does."""
    seen = driven("switching", what="orphan")
    judge(seen)
    assert seen["records"] == 0 and seen["next"] == 0
    assert seen["kills"][0]["session"] == "" and seen["kills"][0]["killed"] == "00000000000000aa"
    assert seen["kills"][0]["name"] == "taxes" and seen["kills"][0]["killed_at"] > 0


def test_only_the_one_that_is_named(driven: Driven) -> None:
    seen = driven("switching", what="one_of_two")
    assert seen["alive"]["notes"] == [] and len(seen["alive"]["taxes"]) == 2 and seen["still"]
    assert seen["ended"][0] == KILLED and seen["kill"]["code"] == 0


def test_frozen_and_thawed(driven: Driven) -> None:
    seen = driven("switching", what="frozen")
    assert seen["freeze"]["code"] == 0 and "frozen" in seen["freeze"]["out"], seen["freeze"]
    assert seen["running"] and seen["worker"], "it stands still and is there"
    assert seen["thaw"]["code"] == 0 and seen["ended"][0] == 0
    assert [entry["action"] for entry in seen["kills"]] == ["freeze", "thaw"]
    assert seen["latched"] == [] and seen["verifies"]


def test_frozen_and_killed(driven: Driven) -> None:
    seen = driven("switching", what="frozen_then_killed")
    judge(seen)
    assert seen["ended"][0] == KILLED


def test_processes_that_the_record_does_not_know(driven: Driven) -> None:
    seen = driven("switching", what="unknown_processes")
    assert seen["kill"]["code"] == 0 and "dead after" in seen["kill"]["out"] and seen["alive"] == []


def test_a_number_that_is_anothers_by_now(driven: Driven) -> None:
    seen = driven("switching", what="innocent")
    assert seen["innocent"] and seen["kill"]["code"] == 0 and seen["records"] == 0


def test_eight_at_once(driven: Driven) -> None:
    seen = driven("switching", what="many_at_once")
    assert seen["codes"] == [0] * 8 and seen["alive"] == [] and seen["ended"][0] == KILLED
    assert len(seen["kills"]) >= 1 and seen["verifies"]


@pytest.mark.slow
def test_at_any_moment_of_a_start(driven: Driven) -> None:
    seen = driven("switching", what="at_any_moment")
    assert seen["codes"] == [0] * 20 and seen["alive"] == []
    assert set(seen["ends"]) <= {KILLED, LATCHED, 1} and {KILLED, LATCHED} <= set(seen["ends"]), seen["ends"]
    assert seen["verifies"]
