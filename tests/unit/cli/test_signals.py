"""Signals in this process: who is killed, what is raised, what is left as it was."""

from __future__ import annotations

import contextlib
import os
import signal
import termios
import time
from collections.abc import Iterator

import pytest

from anchorhold.cli import signals
from anchorhold.cli.signals import SIGNALS, Again, Guard, Stop, interruptions
from anchorhold.errors import Interrupted, WorkerError


class Worker:
    def __init__(self) -> None:
        self.reasons: list[str] = []

    def kill(self, reason: str) -> None:
        self.reasons.append(reason)


@pytest.fixture(autouse=True)
def as_a_shell_starts_us() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in SIGNALS}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@contextlib.contextmanager
def broken_stdout() -> Iterator[None]:
    saved = os.dup(1)
    reading, writing = os.pipe()
    os.dup2(writing, 1)
    os.close(writing)
    os.close(reading)
    try:
        yield
    finally:
        os.dup2(saved, 1)
        os.close(saved)


def send(number: int) -> None:
    os.kill(os.getpid(), number)
    time.sleep(0.5)  # the handler runs in here


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_kills_and_raises_the_second_leaves(number: int) -> None:
    worker = Worker()
    left: list[int] = []
    with Guard(leave=left.append) as guard:
        guard.watch(worker)
        with pytest.raises(Stop) as caught:
            send(number)
        assert caught.value.number == number == guard.stopped
        assert worker.reasons == [caught.value.words]
        assert not isinstance(caught.value, Exception)  # `except Exception` on the way must not swallow it
        assert left == []
        with pytest.raises(Stop):
            send(signal.SIGINT)
        assert left == [130]


def test_without_a_worker_it_only_raises() -> None:
    with Guard() as guard, pytest.raises(Stop):
        send(signal.SIGINT)
    assert guard.stopped == signal.SIGINT


def test_while_closing_it_does_not_raise() -> None:
    worker = Worker()
    with Guard() as guard:
        guard.watch(worker)
        guard.closing()
        send(signal.SIGTERM)
        assert guard.stopped == signal.SIGTERM and len(worker.reasons) == 1


def test_after_settling_the_next_is_a_first_one_again() -> None:
    left: list[int] = []
    with Guard(leave=left.append) as guard:
        for _ in range(2):
            worker = Worker()
            guard.watch(worker)
            with pytest.raises(Stop):
                send(signal.SIGINT)
            assert len(worker.reasons) == 1
            guard.settle()
    assert left == []


def test_a_typed_line_takes_ctrl_c_but_no_other_signal() -> None:
    worker = Worker()
    with Guard() as guard:
        guard.watch(worker)
        guard.typing = lambda: True
        with pytest.raises(Again):
            send(signal.SIGINT)
        assert worker.reasons == [] and guard.stopped == 0
        guard.typing = lambda: False
        with pytest.raises(Stop):
            send(signal.SIGINT)
        guard.settle()
        guard.typing = lambda: True
        with pytest.raises(Stop):
            send(signal.SIGTERM)


def test_handlers_are_put_back_and_ignored_ones_left() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    before = {number: signal.getsignal(number) for number in SIGNALS}
    with Guard():
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        assert signal.getsignal(signal.SIGINT) != before[signal.SIGINT]
    assert {number: signal.getsignal(number) for number in SIGNALS} == before


def test_sigpipe_of_another_pipe_is_not_believed() -> None:
    worker = Worker()
    with Guard() as guard:
        guard.watch(worker)
        send(signal.SIGPIPE)
        reading, writing = os.pipe()
        os.close(reading)
        with pytest.raises(BrokenPipeError):
            os.write(writing, b"x")  # the kernel sends SIGPIPE for this one
        os.close(writing)
        assert guard.stopped == 0 and worker.reasons == []


def test_a_closed_standard_output_is_a_signal() -> None:
    worker = Worker()
    with broken_stdout(), Guard() as guard:
        guard.watch(worker)
        with pytest.raises(Stop) as caught:
            guard.watch_output()
            time.sleep(5)
        assert caught.value.number == signal.SIGPIPE and len(worker.reasons) == 1
        send(signal.SIGPIPE)  # again: not a second signal, it does not leave
    assert guard.stopped == signal.SIGPIPE


def test_the_watch_ends_with_the_guard() -> None:
    saved = os.dup(1)
    reading, writing = os.pipe()
    os.dup2(writing, 1)
    try:
        with Guard() as guard:
            guard.watch_output()
            guard.watch_output()
            watcher = guard._watcher
            assert watcher is not None and watcher.is_alive()
        assert not watcher.is_alive()
    finally:
        os.dup2(saved, 1)
        for fd in (saved, reading, writing):
            os.close(fd)


def test_what_interruptions_make_of_it() -> None:
    guard = Guard()
    with pytest.raises(Interrupted, match="interrupted; the model is killed"), interruptions(guard):
        raise Stop(signal.SIGINT)
    with pytest.raises(Interrupted, match="^$"), interruptions(guard):
        raise BrokenPipeError
    with pytest.raises(WorkerError), interruptions(guard):
        raise WorkerError("its own")
    with interruptions(guard):
        pass
    guard.stopped = signal.SIGTERM
    with pytest.raises(Interrupted, match="SIGTERM"), interruptions(guard):
        raise WorkerError("brought about by the kill")
    with pytest.raises(Interrupted, match="SIGTERM"), interruptions(guard):
        pass


def test_leaving_gives_the_terminal_back(monkeypatch: pytest.MonkeyPatch) -> None:
    master, slave = os.openpty()
    saved = os.dup(0)
    os.dup2(slave, 0)
    try:
        sane = termios.tcgetattr(0)
        left: list[int] = []
        with Guard(leave=left.append) as guard:
            edited = termios.tcgetattr(0)
            edited[3] &= ~(termios.ICANON | termios.ECHO)
            termios.tcsetattr(0, termios.TCSANOW, edited)
            guard.stopped = signal.SIGINT
            with pytest.raises(Stop):
                send(signal.SIGINT)
            assert left == [signals.INTERRUPTED]
        assert termios.tcgetattr(0)[3] == sane[3]
    finally:
        os.dup2(saved, 0)
        for fd in (master, slave, saved):
            os.close(fd)


def test_a_signal_that_was_not_noticed_is_sent_again() -> None:
    """A wait that begins after the signal was taken down would sleep on: here, one whose signal is hidden."""
    worker = Worker()
    with Guard() as guard:
        guard.watch(worker)
        guard._tell(signal.SIGTERM)  # as the C handler tells, of one that Python did not get to
        with pytest.raises(Stop) as caught:
            time.sleep(5)
        assert caught.value.number == signal.SIGTERM and len(worker.reasons) == 1
        time.sleep(0.2)  # and not again and again: that would leave at once
        assert guard._handled == 1
