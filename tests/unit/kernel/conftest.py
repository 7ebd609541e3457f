"""What the tests of ``kernel/`` share: a forked child in which a process may be changed for good."""

from __future__ import annotations

import os
import pickle
import select
import signal
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import coverage
import pytest

from anchorhold.kernel import libc, prctl
from anchorhold.kernel.syscalls import NR

TIMEOUT = 20.0  # seconds for one child
NOBODY = 65534
IDENTITIES = ["root", "nobody"] if os.geteuid() == 0 else ["self"]


class ChildKilled(Exception):
    """The child died of the signal ``signal``."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.signal = number


def become_nobody() -> None:
    """An unprivileged user for good; dumpable again, or its own /proc would belong to root."""
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    prctl.set_dumpable(1)


def _in_child(write: int, function: Callable[..., Any], args: tuple[Any, ...], identity: str) -> None:
    """Runs ``function`` and writes what came of it, with the lines it covered (memory only: by then the child
    may have no right to a file)."""
    measured = None
    outer = coverage.Coverage.current()
    if outer is not None:
        outer.stop()
        measured = coverage.Coverage(
            data_file=None, config_file=False, branch=True, include=["*/anchorhold/*"]
        )
        # All of it was imported before, and a short child may run none of it: neither is worth a warning.
        measured.set_option(
            "run:disable_warnings",
            ["already-imported", "module-not-imported", "module-not-measured", "no-data-collected"],
        )
        measured.start()
    try:
        if identity == "nobody":
            become_nobody()
        outcome = (True, function(*args))
    except BaseException:
        outcome = (False, traceback.format_exc())
    arcs = {}
    if measured is not None:
        measured.stop()
        data = measured.get_data()
        arcs = {file: data.arcs(file) or [] for file in data.measured_files()}
    message = pickle.dumps((outcome, arcs))
    while message:
        message = message[os.write(write, message) :]


def run_child(function: Callable[..., Any], *args: Any, identity: str = "self") -> Any:
    """The result of ``function(*args)`` in a forked child, as ``identity``. Fails with the child's traceback;
    raises ChildKilled when a signal ended it."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(read)
            _in_child(write, function, args, identity)
            # Not os._exit: a coverage tool may have patched it to write a file first, which ends half-written
            # in a child that has limits or no rights.
            libc.raw_syscall(NR["exit_group"], 0)
        finally:
            os._exit(0)
    os.close(write)
    received = bytearray()
    deadline = time.monotonic() + TIMEOUT
    try:
        while select.select([read], [], [], max(deadline - time.monotonic(), 0))[0]:
            chunk = os.read(read, 1 << 16)
            if not chunk:
                break
            received += chunk
        else:
            os.kill(pid, signal.SIGKILL)
    finally:
        os.close(read)
    status = os.waitpid(pid, 0)[1]
    if os.WIFSIGNALED(status):
        raise ChildKilled(os.WTERMSIG(status))
    assert received, "the child ended without a result"
    (good, value), arcs = pickle.loads(bytes(received))
    outer = coverage.Coverage.current()
    if arcs and outer is not None:
        outer.get_data().add_arcs(arcs)
    if not good:
        pytest.fail(f"in the child:\n{value}")
    return value


@pytest.fixture
def child() -> Callable[..., Any]:
    return run_child


@pytest.fixture(params=IDENTITIES)
def child_as_anyone(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """The same as root and as nobody, where the tests run as root."""

    def run(function: Callable[..., Any], *args: Any) -> Any:
        return run_child(function, *args, identity=request.param)

    return run


@pytest.fixture
def unprivileged() -> Callable[..., Any]:
    """The same as an unprivileged user."""

    def run(function: Callable[..., Any], *args: Any) -> Any:
        return run_child(function, *args, identity=IDENTITIES[-1])

    return run


@pytest.fixture
def public() -> Iterator[Path]:
    """A directory that any user may enter; those of ``tmp_path`` are closed to others."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        os.chmod(name, 0o755)
        yield Path(name)


@pytest.fixture
def killed() -> type[ChildKilled]:
    return ChildKilled
