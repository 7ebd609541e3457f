"""``kill -9`` at many moments, as each kind of user: nothing of the cell lives on, and the log is whole."""

from __future__ import annotations

from typing import Any

import pytest

from tests.integration.lifecycle.conftest import Driven

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("unmeasured")]
PROBE_MOMENTS = 32
ENGINE_MOMENTS = 20
"""Together more than fifty for each kind of user."""


def judge(seen: dict[str, Any], moments: int, *stages: str) -> None:
    assert seen["outlived"] == [], seen["outlived"]
    assert seen["late"] == 0, f"alive 100 ms after the supervisor: {seen}"
    assert seen["wrong"] == [], seen["wrong"]
    assert sum(seen["stages"].values()) == moments
    assert seen["cells"] > moments // 2
    assert set(stages) <= set(seen["stages"]), f"the moments are not spread: {seen}"


@pytest.mark.parametrize(
    ("engine", "moments"), [(False, PROBE_MOMENTS), (True, ENGINE_MOMENTS)], ids=["probe", "engine"]
)
def test_nothing_outlives_a_killed_supervisor(driven: Driven, engine: bool, moments: int) -> None:
    judge(
        driven("moments", what="supervisors", engine=engine, moments=moments, stop=[], seed=1),
        moments,
        "before",
        "answering",
    )


@pytest.mark.parametrize("stop", [["worker"], ["launcher"], ["worker", "launcher"]], ids="-".join)
def test_nor_do_stopped_processes(driven: Driven, stop: list[str]) -> None:
    seen = driven("moments", what="supervisors", engine=False, moments=8, stop=stop, seed=2)
    judge(seen, 8, "answering")
    assert seen["stopped"] >= 4


@pytest.mark.parametrize("part", ["launcher", "worker"])
def test_the_death_of_a_part_ends_the_session(driven: Driven, part: str) -> None:
    ends = driven("moments", what="parts", part=part, moments=12)["ends"]
    assert len(ends) == 12
    for end in ends:
        assert end["exit"] == 1 and end["kind"] == "WorkerError", end
        assert "SIGKILL" in end["error"] or "cannot be started" in end["error"], end
        assert end["hint"] or "cannot be started" in end["error"], end
        assert end["seconds"] < 5 and end["left"] == [], end
        assert end["ok"] is True, end
        assert "session.start" not in end["kinds"] or end["kinds"][-1] == "session.end", end
    assert any("request.start" in end["kinds"] for end in ends)
