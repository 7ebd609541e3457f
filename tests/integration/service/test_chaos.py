"""A short piece of `make chaos`: always the same faults, few enough for every run of the tests."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support import TOP


@pytest.mark.timeout(120)
def test_a_few_faults_leave_it_as_it_must_be() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.chaos", "--seed", "7", "--faults", "15"],
        cwd=TOP, capture_output=True, text=True, timeout=110, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "seed 7: 15 faults" in done.stdout
