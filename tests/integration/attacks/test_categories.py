"""Each category of attacks: all of it works outside, none of it in the cell, and the log has the attempts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.integration.attacks.conftest import Caged, outside, text_of

CATEGORIES = ("files", "processes", "network", "memory", "ipc", "surface", "terminal")


@pytest.mark.parametrize("category", CATEGORIES)
def test_it_works_outside(category: str, place: Path) -> None:
    found = outside(category, place)
    module = _trials(category, place)
    assert {title: said for title, (worked, said) in found.items() if not worked and not module[title]} == {}


@pytest.mark.parametrize("category", CATEGORIES)
def test_it_fails_in_the_cell_and_is_on_record(category: str, mode: str, place: Path, caged: Caged) -> None:
    out = caged(text_of(category, place) + ATTEMPT)
    assert "error" not in out, out
    assert ("userns" in out["missing"]) == (mode == "no_userns")
    report = json.loads(out["answer"])
    assert {title: said for title, (worked, said) in report["results"].items() if worked} == {}
    calls = {entry["call"] for entry in out["log"] if entry["kind"] == "denial"}
    paths = {entry.get("path") for entry in out["log"] if entry["kind"] == "denial"}
    assert set(report["calls"].values()) - calls - {""} == set()
    assert set(report["paths"].values()) - paths - {""} == set()


ATTEMPT = """
import json
def attempt():
    results = run_trials(list(TRIALS))
    calls = {title: trial.call for title, trial in TRIALS.items()}
    paths = {title: trial.path for title, trial in TRIALS.items()}
    return json.dumps({"results": results, "calls": calls, "paths": paths})
"""


def _trials(category: str, place: Path) -> dict[str, str]:
    """Title → why it need not work outside; "" where it must."""
    namespace: dict[str, object] = {"__name__": category}
    exec(compile(text_of(category, place), category, "exec"), namespace)
    trials = namespace["TRIALS"]
    assert isinstance(trials, dict)
    return {title: trial.not_shown for title, trial in trials.items()}
