"""The same place and the same driver as for the lifecycle of one cell, for modules of this folder."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support import TOP, Runner

Driven = Callable[..., dict[str, Any]]


@pytest.fixture
def place(open_tmp: Path) -> Path:
    """``papers`` is granted and holds paper.txt; the log goes to ``state``."""
    papers = open_tmp / "papers"
    papers.mkdir()
    (papers / "paper.txt").write_text("The harbour of Wick froze in January. The boats stayed out.\n")
    found = os.stat(open_tmp)
    for path in (papers, papers / "paper.txt"):
        os.chown(path, found.st_uid, found.st_gid)
    return open_tmp


@pytest.fixture
def served(started_by: Runner, place: Path, demo_model: Path) -> Driven:
    """Runs a scene of `driving` as ``mode`` says; what it saw comes back."""

    def run(what: str) -> dict[str, Any]:
        given = {
            "state": str(place / "state"),
            "model": str(demo_model),
            "papers": str(place / "papers"),
            "what": what,
        }
        done = started_by(
            sys.executable, "-m", "tests.integration.service.driving",
            stdin=json.dumps(given), cwd=TOP, timeout=100,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        assert found["verifies"], found
        return found

    return run
