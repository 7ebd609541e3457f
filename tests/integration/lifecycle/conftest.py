"""A folder that any user may use, with one granted paper; test programs run as each kind of user."""

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
def driven(started_by: Runner, place: Path, demo_model: Path) -> Driven:
    """Runs a module of this folder with what it wants as JSON, as ``mode`` says; what it saw comes back."""

    def run(module: str, **wanted: Any) -> dict[str, Any]:
        given = {
            "state": str(place / "state"),
            "model": str(demo_model),
            "papers": str(place / "papers"),
            **wanted,
        }
        name = f"tests.integration.lifecycle.{module}"
        done = started_by(sys.executable, "-m", name, stdin=json.dumps(given), cwd=TOP)
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    return run
