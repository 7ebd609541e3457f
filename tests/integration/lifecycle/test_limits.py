"""A worker over a limit is killed, the log says by what, and the user hears which limit it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from anchorhold.audit.query import entries
from anchorhold.errors import LimitError
from anchorhold.policy.schema import Limits
from tests.integration import cells

THREADS = """
    import threading, time
    def attempt():
        for _ in range(60):
            threading.Thread(target=time.sleep, args=(20,), daemon=True).start()
        time.sleep(10)
"""
SLEEP = """
    import time
    def attempt():
        time.sleep(20)
"""
MEMORY = """
    import time
    def attempt():
        held = b"x" * (400 << 20)
        time.sleep(20)
"""


@pytest.mark.parametrize(
    ("limit", "limits", "source"),
    [
        ("wall_clock", Limits(wall_clock=1.5), SLEEP),
        ("memory", Limits(memory=200 << 20), MEMORY),
    ],
)
def test_over_a_limit(state_dir: Path, demo_model: Path, limit: str, limits: Limits, source: str) -> None:
    with pytest.raises(LimitError) as caught:
        cells.run(state_dir, cells.policy(demo_model, limits=limits), source)
    assert caught.value.exit_code == 1
    assert f"limits.{limit}" in str(caught.value)
    log = list(entries(state_dir))
    assert limit in log[0]["limits"]
    assert [entry["limit"] for entry in log if entry["kind"] == "limit"] == [limit]
    assert log[-1]["kind"] == "session.end"


def test_no_more_threads_than_allowed(state_dir: Path, demo_model: Path) -> None:
    rules = cells.policy(demo_model, limits=Limits(tasks=20))
    try:
        answer = cells.run(state_dir, rules, THREADS).answer
    except LimitError as error:
        answer = str(error)
    assert "can't start new thread" in answer or "limits.tasks = 20" in answer
    free = cells.policy(demo_model, limits=Limits(tasks=100))
    assert cells.run(state_dir, free, THREADS.replace("sleep(10)", "sleep(0)")).answer == ""
