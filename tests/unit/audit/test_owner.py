"""Root writes into another user's log: whoever has it goes on with it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from anchorhold.audit.files import give, replace
from anchorhold.audit.log import Log
from anchorhold.verify.check import verify
from tests.unit.audit.logs import session

OTHER = 1500
GO_ON = (
    "import sys; from anchorhold.audit.log import Log; from tests.unit.audit.logs import session;"
    "log = Log.open(sys.argv[1]); session(log, sys.argv[2]); log.close()"
)

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root writes where another user's files are")


@pytest.fixture
def state(tmp_path: Path) -> Path:
    made = tmp_path / "state"
    made.mkdir(mode=0o700)
    os.chown(made, OTHER, OTHER)
    return made


def append(state: Path, name: str, epoch_seconds: float | None = None) -> None:
    log = Log.open(state, epoch_seconds=epoch_seconds)
    session(log, name)
    log.close()


def strangers(state: Path) -> list[str]:
    return [str(path) for path in [state, *state.rglob("*")] if os.lstat(path).st_uid != OTHER]


def test_everything_in_the_log_is_its_owners(state: Path) -> None:
    append(state, "1" * 16)
    append(state, "2" * 16, epoch_seconds=0.0)  # a new epoch, with its key
    assert strangers(state) == []
    assert verify(str(state)).ok


def test_the_owner_goes_on_after_root(state: Path) -> None:
    for folder in reversed(state.parents):
        if os.stat(folder).st_uid == 0 and not os.stat(folder).st_mode & 0o001:
            folder.chmod(folder.stat().st_mode | 0o011)
    append(state, "1" * 16)
    python = "/usr/bin/python3" if sys.prefix == sys.base_prefix else sys.executable
    for number in "24":
        done = subprocess.run(
            [python, "-c", GO_ON, str(state), number * 16], user=OTHER, group=OTHER, extra_groups=[],
            env={"PYTHONPATH": os.pathsep.join(sys.path)}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        append(state, str(int(number) + 1) * 16)
    assert verify(str(state)).ok


def test_what_is_no_part_of_a_log_stays_its_makers(state: Path) -> None:
    """A receipt that root saves in somebody's folder is root's."""
    replace(str(state / "receipt"), b"{}", sync=False)
    assert os.stat(state / "receipt").st_uid == 0


def test_a_file_with_a_second_name_is_not_given(state: Path) -> None:
    """It may be one of root's own, that the folder's owner gave a name there."""
    own = state.parent / "own"
    own.write_text("root's")
    os.link(own, state / "name")
    with (state / "name").open() as file:
        give(file.fileno(), str(state))
    assert os.stat(own).st_uid == 0
