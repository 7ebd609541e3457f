from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator

import pytest

from anchorhold.kernel import pidfd
from anchorhold.kernel.errors import KernelError


@pytest.fixture
def sleeper() -> Iterator[Callable[[int], tuple[int, int]]]:
    """Children that exit with a code, or sleep until killed when it is negative."""
    opened = []

    def start(code: int) -> tuple[int, int]:
        pid = os.fork()
        if pid == 0:
            try:
                if code < 0:
                    time.sleep(30)
            finally:
                os._exit(max(code, 0))
        fd = pidfd.pidfd_open(pid)
        opened.append(fd)
        return pid, fd

    yield start
    for fd in opened:
        os.close(fd)


Start = Callable[[int], tuple[int, int]]


def test_a_process_is_signalled_waited_for_and_reaped(sleeper: Start) -> None:
    _, fd = sleeper(-1)
    pidfd.pidfd_send_signal(fd, 0)
    assert not pidfd.wait(fd, 0.01)
    assert not pidfd.wait(fd, -1)
    assert pidfd.exit_status(fd) is None
    pidfd.pidfd_send_signal(fd, signal.SIGKILL)
    assert pidfd.wait(fd, 10)
    assert pidfd.exit_status(fd) == -signal.SIGKILL


def test_an_exit_code_is_positive(sleeper: Start) -> None:
    _, fd = sleeper(7)
    assert pidfd.wait(fd)
    assert pidfd.exit_status(fd) == 7


def test_after_reaping_nothing_can_be_hit_by_mistake(sleeper: Start) -> None:
    pid, fd = sleeper(0)
    pidfd.wait(fd)
    pidfd.exit_status(fd)
    with pytest.raises(ProcessLookupError, match="pidfd_send_signal"):
        pidfd.pidfd_send_signal(fd, signal.SIGKILL)
    with pytest.raises(ProcessLookupError, match=rf"pidfd_open\(pid {pid}\)"):
        pidfd.pidfd_open(pid)
    with pytest.raises(ChildProcessError, match="Only the parent"):
        pidfd.exit_status(fd)


def test_a_wrong_descriptor_is_refused() -> None:
    with pytest.raises(KernelError, match="waitid"):
        pidfd.exit_status(-1)
