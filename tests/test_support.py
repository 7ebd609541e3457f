"""The fixtures that other tests stand on do what they say."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import UID, Runner, first_closed, reopened, runner

TRY_NAMESPACE = "import ctypes; l = ctypes.CDLL(None, use_errno=True); print(l.unshare(0x10000000))"
CAPABILITIES = (
    "print([l.split()[1] for l in open('/proc/self/status') if l.startswith(('CapEff', 'CapBnd'))])"
)


def test_unprivileged_has_no_rights(unprivileged: Runner, open_tmp: Path) -> None:
    assert unprivileged("id", "-u").stdout.strip() == str(UID if os.geteuid() == 0 else os.geteuid())
    assert unprivileged("cat", "/etc/shadow").returncode != 0
    assert unprivileged("touch", open_tmp / "mine").returncode == 0
    assert unprivileged(sys.executable, "-c", TRY_NAMESPACE).stdout == "0\n"


def test_no_userns_allows_no_user_namespace(no_userns: Runner) -> None:
    assert no_userns(sys.executable, "-c", TRY_NAMESPACE).stdout == "-1\n"
    assert no_userns(sys.executable, "-c", CAPABILITIES).stdout == f"{['0' * 16] * 2}\n"


def test_a_runner_hands_on_what_it_is_given(tmp_path: Path) -> None:
    done = runner([])(
        "sh", "-c", 'cat; echo "$WORD" >&2; pwd; exit 3', stdin="in\n", env={"WORD": "x"}, cwd=tmp_path
    )
    assert (done.stdout, done.stderr, done.returncode) == (f"in\n{tmp_path}\n", "x\n", 3)
    with pytest.raises(subprocess.TimeoutExpired):
        runner([])("sleep", "5", timeout=0.05)


@pytest.mark.skipif(
    os.geteuid() != 0, reason="closing a directory to oneself proves nothing, and only root reopens"
)
def test_a_checkout_in_a_closed_directory_is_reached(tmp_path: Path) -> None:
    closed = tmp_path / "closed home"
    inner = closed / "project"
    inner.mkdir(parents=True)
    (inner / "file").write_text("here")
    (closed / "secret").write_text("there")
    closed.chmod(0o700)
    become = ["setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups"]
    assert first_closed(inner) is not None
    assert runner(become)("cat", inner / "file").returncode != 0
    run = runner([*reopened([inner]), *become])
    assert run("cat", inner / "file").stdout == "here"
    assert run("cat", closed / "secret").returncode != 0
    assert (closed / "secret").read_text() == "there"


def test_unmeasured_processes_load_no_coverage(unmeasured: None) -> None:
    done = runner([])(sys.executable, "-c", "import sys; print('coverage' in sys.modules)")
    assert done.stdout == "False\n"
