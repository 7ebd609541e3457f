"""A signal to ``ask``, or nobody reading its answer: the worker dies, the log is signed, exit 130."""

from __future__ import annotations

import pytest

from tests.integration.lifecycle.conftest import Driven

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("unmeasured")]
STAGES = ("starting", "loading", "answering")
SAID = {"SIGINT": "interrupted", "SIGTERM": "SIGTERM", "SIGHUP": "SIGHUP", "pipe": ""}
CASES: list[tuple[str, str, tuple[str, ...]]] = [("root", name, STAGES) for name in SAID]
CASES += [(mode, name, STAGES[2:]) for mode in ("unprivileged", "no_userns") for name in SAID]


@pytest.mark.parametrize(("mode", "name", "stages"), CASES)
def test_all_ends_at_once_and_in_order(driven: Driven, name: str, stages: tuple[str, ...]) -> None:
    for stage, seen in driven("signalling", signal=name, stages=stages).items():
        assert seen["code"] == 130, (stage, seen)
        assert seen["seconds"] < 3, (stage, seen)
        assert seen["cell"] and seen["left"] == [], (stage, seen)
        assert seen["verified"] is True, (stage, seen)
        assert SAID[name] in seen["stderr"] and "Traceback" not in seen["stderr"], (stage, seen)
        if "session.start" in seen["kinds"]:
            assert seen["kinds"][-1] == "session.end" and "kill" in seen["kinds"], (stage, seen)
        assert stage == "starting" or "session.start" in seen["kinds"], (stage, seen)
