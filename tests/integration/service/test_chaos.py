"""A short piece of `make chaos`: always the same faults, few enough for every run of the tests."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from anchorhold.audit.log import Log
from tests.chaos import checks
from tests.daemon import Daemon, Said
from tests.support import TOP


@pytest.mark.timeout(120)
def test_a_few_faults_leave_it_as_it_must_be() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.chaos", "--seed", "7", "--faults", "15"],
        cwd=TOP, capture_output=True, text=True, timeout=110, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "seed 7: 15 faults" in done.stdout


def test_what_must_not_be_is_found(tmp_path: Path, demo_model: Path) -> None:
    """A process without a supervisor, and an answer, a grant and an end that the log knows nothing of."""
    daemon = Daemon(tmp_path, demo_model)
    Log.open(daemon.state).close()
    daemon.child = subprocess.Popen([sys.executable, "-c", "pass"])
    daemon.child.wait()
    assert checks.log(daemon, []) == [] and checks.ended(daemon) == ["nothing was ever asked"]
    told = Said(200, "00" * 8 + "-1", whole=True, shown=[("/a", "ab")])
    assert len(checks.log(daemon, [told])) == 3
    stray = subprocess.Popen(["sleep", "60"])
    try:
        assert any(f"{stray.pid} " in what for what in checks.orphans(daemon))
    finally:
        stray.kill()
        stray.wait()
