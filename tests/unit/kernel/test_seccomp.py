from __future__ import annotations

import errno
import fcntl
import os
import resource
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from anchorhold.kernel import bpf, libc, memfd, prctl, seccomp
from anchorhold.kernel.errors import KernelError
from anchorhold.kernel.syscalls import AUDIT_ARCH, NR

Child = Callable[..., Any]
LISTEN = seccomp.SECCOMP_FILTER_FLAG_NEW_LISTENER


def on(call: str, action: int) -> bytes:
    """A filter that answers one call with ``action`` and allows the rest."""
    return (
        bpf.Program()
        .load_arch()
        .jeq(AUDIT_ARCH, "ours")
        .ret(seccomp.SECCOMP_RET_KILL_PROCESS)
        .label("ours")
        .load_nr()
        .jeq(NR[call], "hit")
        .ret(seccomp.SECCOMP_RET_ALLOW)
        .label("hit")
        .ret(action)
        .assemble()
    )


def install(call: str, action: int, flags: int = 0) -> int:
    prctl.set_no_new_privs()
    return seccomp.set_filter(on(call, action), flags)


class Brokered:
    """A forked process whose ``mkdirat`` waits for us; ``calls`` run in it, and their results come back."""

    def __init__(self, calls: Callable[[], list[int]]) -> None:
        here, there = socket.socketpair()
        self.results = here
        self.pid = os.fork()
        if self.pid == 0:
            try:
                here.close()
                fd = install("mkdirat", seccomp.SECCOMP_RET_USER_NOTIF, LISTEN)
                socket.send_fds(there, [b"x"], [fd])
                os.close(fd)
                there.send(repr(calls()).encode())
                libc.raw_syscall(NR["exit_group"], 0)  # see conftest
            finally:
                os._exit(0)
        there.close()
        here.settimeout(20)
        self.listener = socket.recv_fds(here, 1, 1)[1][0]
        self.buffer = seccomp.new_buffer()

    def receive(self) -> seccomp.Notification:
        assert select.select([self.listener], [], [], 20)[0], "no call arrived"
        return seccomp.receive(self.listener, self.buffer)

    def result(self) -> str:
        return self.results.recv(4096).decode()

    def close(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.listener)
        self.results.close()


Spawn = Callable[[Callable[[], list[int]]], Brokered]


@pytest.fixture
def broker() -> Iterator[Spawn]:
    spawned = []

    def spawn(calls: Callable[[], list[int]]) -> Brokered:
        spawned.append(Brokered(calls))
        return spawned[-1]

    yield spawn
    for one in spawned:
        one.close()


def mkdir(*args: int) -> int:
    return libc.raw_syscall(NR["mkdirat"], *args)


def _hostname() -> str:
    return socket.gethostname()


def _uname_before_and_under_a_filter() -> tuple[bool, int]:
    before = bool(_hostname())
    assert install("uname", seccomp.SECCOMP_RET_ERRNO | errno.EPERM) == 0
    try:
        _hostname()
    except PermissionError as error:
        return before, error.errno or -1
    return before, 0


def test_a_call_works_without_the_filter_and_not_with_it(child_as_anyone: Child) -> None:
    assert child_as_anyone(_uname_before_and_under_a_filter) == (True, errno.EPERM)


def _killed_by_uname() -> None:
    install("uname", seccomp.SECCOMP_RET_KILL_PROCESS)
    _hostname()


def test_a_killing_filter_kills(child: Child, killed: type[Exception]) -> None:
    assert child(_hostname) == _hostname()
    with pytest.raises(killed, match="SIGSYS"):
        child(_killed_by_uname)


def _error_of(function: Callable[..., Any], *args: Any) -> tuple[int, str]:
    try:
        function(*args)
    except KernelError as error:
        return error.errno or -1, str(error)
    return 0, ""


def _filter_without_no_new_privs() -> tuple[int, str]:
    return _error_of(seccomp.set_filter, on("uname", seccomp.SECCOMP_RET_ALLOW))


def test_without_no_new_privs_an_unprivileged_filter_is_refused_with_advice(unprivileged: Child) -> None:
    number, text = unprivileged(_filter_without_no_new_privs)
    if prctl.prctl(prctl.PR_GET_NO_NEW_PRIVS):  # whoever runs the tests has it, for good
        assert (number, text) == (0, "")
    else:
        assert number == errno.EACCES
        assert "no_new_privs" in text


def _two_listeners() -> tuple[int, str]:
    install("mkdirat", seccomp.SECCOMP_RET_USER_NOTIF, LISTEN)
    return _error_of(install, "uname", seccomp.SECCOMP_RET_USER_NOTIF, LISTEN)


def test_a_second_listener_is_refused_naming_the_cause_and_the_remedy(child_as_anyone: Child) -> None:
    number, text = child_as_anyone(_two_listeners)
    assert number == errno.EBUSY
    assert "seccomp listener already" in text
    assert "WSL2" in text


def _bad_program() -> tuple[int, str]:
    prctl.set_no_new_privs()
    return _error_of(seccomp.set_filter, bytes(8))


def test_a_bad_program_is_refused(child: Child) -> None:
    assert child(_bad_program)[0] == errno.EINVAL


def _tsync_with_a_thread_that_differs() -> tuple[int, str]:
    prctl.set_no_new_privs()
    ready, done = threading.Event(), threading.Event()

    def own_filter() -> None:
        seccomp.set_filter(on("uname", seccomp.SECCOMP_RET_ERRNO | 1))
        ready.set()
        done.wait(10)

    thread = threading.Thread(target=own_filter)
    thread.start()
    ready.wait(10)
    program = on("uname", seccomp.SECCOMP_RET_ALLOW)
    outcome = _error_of(seccomp.set_filter, program, seccomp.SECCOMP_FILTER_FLAG_TSYNC)
    done.set()
    thread.join()
    return outcome


def test_tsync_that_misses_a_thread_is_a_failure_not_a_descriptor(child: Child) -> None:
    number, text = child(_tsync_with_a_thread_that_differs)
    assert number == errno.ESRCH
    assert "TSYNC, thread" in text


def test_the_kernels_structures_are_the_ones_this_module_packs(monkeypatch: pytest.MonkeyPatch) -> None:
    assert seccomp.notification_sizes() == (80, 24, 64)
    seccomp.check_sizes()
    monkeypatch.setattr(seccomp, "notification_sizes", lambda: (88, 24, 64))
    with pytest.raises(KernelError, match=r"\(88, 24, 64\)"):
        seccomp.check_sizes()


def test_actions_are_asked_of_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    assert seccomp.action_available(seccomp.SECCOMP_RET_USER_NOTIF)
    assert not seccomp.action_available(0x00420000)
    monkeypatch.setattr(libc, "raw_syscall", lambda *args: -errno.ENOSYS)
    with pytest.raises(KernelError, match="SECCOMP_GET_ACTION_AVAIL"):
        seccomp.action_available(seccomp.SECCOMP_RET_ALLOW)


def test_a_call_arrives_with_its_number_and_arguments_and_gets_our_answers(broker: Spawn) -> None:
    worker = broker(lambda: [mkdir(1, 2, -3), mkdir(0)])
    call = worker.receive()
    assert (call.pid, call.nr, call.arch) == (worker.pid, NR["mkdirat"], AUDIT_ARCH)
    assert call.args[:3] == (1, 2, 2**64 - 3)
    assert "mkdirat" in repr(call)
    assert seccomp.id_valid(worker.listener, call.id)
    assert not seccomp.id_valid(worker.listener, call.id + 1)
    seccomp.respond(worker.listener, call.id, value=4711)
    seccomp.respond(worker.listener, worker.receive().id, error=errno.ENOTDIR)
    assert worker.result() == f"[4711, {-errno.ENOTDIR}]"


def test_continue_lets_the_kernel_answer(broker: Spawn) -> None:
    worker = broker(lambda: [mkdir(0, 0, 0)])
    call = worker.receive()
    seccomp.respond(worker.listener, call.id, flags=seccomp.SECCOMP_USER_NOTIF_FLAG_CONTINUE)
    assert worker.result() == f"[{-errno.EFAULT}]"


def _use_descriptor() -> list[int]:
    fd = mkdir(0)
    return [fd, int(os.read(fd, 10) == b"granted"), fcntl.fcntl(fd, fcntl.F_GETFD)]


def test_a_descriptor_is_injected_as_the_result(broker: Spawn) -> None:
    worker = broker(_use_descriptor)
    source = memfd.memfd_create("grant")
    os.write(source, b"granted")
    os.lseek(source, 0, os.SEEK_SET)
    got = seccomp.add_fd(worker.listener, worker.receive().id, source)
    os.close(source)
    assert worker.result() == f"[{got}, 1, {fcntl.FD_CLOEXEC}]"


def test_a_descriptor_can_be_given_its_number_and_the_answer_apart(broker: Spawn) -> None:
    worker = broker(lambda: [mkdir(0), len(os.readlink("/proc/self/fd/77")) > 0])
    call = worker.receive()
    flags = seccomp.SECCOMP_ADDFD_FLAG_SETFD
    assert seccomp.add_fd(worker.listener, call.id, 0, flags=flags, newfd=77, newfd_flags=0) == 77
    seccomp.respond(worker.listener, call.id, value=5)
    assert worker.result() == "[5, True]"


def _without_room() -> list[int]:
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, lowest))
    return [mkdir(0)]


def test_a_caller_without_room_for_a_descriptor_is_told_apart(broker: Spawn) -> None:
    worker = broker(_without_room)
    call = worker.receive()
    with pytest.raises(KernelError, match="answer it with EMFILE") as caught:
        seccomp.add_fd(worker.listener, call.id, worker.listener)
    assert caught.value.errno == errno.EMFILE
    seccomp.respond(worker.listener, call.id, error=errno.EMFILE)
    assert worker.result() == f"[{-errno.EMFILE}]"


def test_an_answered_call_cannot_be_answered_again(broker: Spawn) -> None:
    worker = broker(lambda: [mkdir(0)])
    call = worker.receive()
    seccomp.respond(worker.listener, call.id, value=1)
    worker.result()
    with pytest.raises(FileNotFoundError, match="nobody waits"):
        seccomp.respond(worker.listener, call.id, value=2)
    with pytest.raises(FileNotFoundError, match="nobody waits"):
        seccomp.add_fd(worker.listener, call.id, 0)


def test_a_dead_caller_is_seen_everywhere(broker: Spawn) -> None:
    worker = broker(lambda: [mkdir(0)])
    call = worker.receive()
    os.kill(worker.pid, signal.SIGKILL)
    assert select.select([worker.results], [], [], 20)[0]
    assert worker.result() == ""
    assert not seccomp.id_valid(worker.listener, call.id)
    with pytest.raises(FileNotFoundError):
        seccomp.respond(worker.listener, call.id)
    with pytest.raises(FileNotFoundError):
        seccomp.add_fd(worker.listener, call.id, 0)


def test_a_caller_that_died_before_it_was_received_is_no_call(broker: Spawn) -> None:
    worker = broker(lambda: [mkdir(0)])
    assert select.select([worker.listener], [], [], 20)[0]
    os.kill(worker.pid, signal.SIGKILL)
    assert worker.result() == ""
    with pytest.raises(FileNotFoundError, match="nobody waits"):
        seccomp.receive(worker.listener, worker.buffer)


def test_a_used_buffer_is_used_again(broker: Spawn) -> None:
    worker = broker(lambda: [mkdir(number) for number in range(50)])
    worker.buffer[:] = b"\xff" * len(worker.buffer)
    for number in range(50):
        call = worker.receive()
        assert call.args[0] == number
        seccomp.respond(worker.listener, call.id, value=number * 2)
    assert worker.result() == repr([number * 2 for number in range(50)])


def test_a_signal_interrupts_the_wait_and_the_wait_goes_on(broker: Spawn) -> None:
    def late() -> list[int]:
        time.sleep(0.3)
        return [mkdir(9)]

    seen: list[int] = []
    previous = signal.signal(signal.SIGALRM, lambda number, frame: seen.append(number))
    try:
        worker = broker(late)
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        call = seccomp.receive(worker.listener, worker.buffer)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    assert (call.args[0], seen) == (9, [signal.SIGALRM])
    seccomp.respond(worker.listener, call.id)


def test_synchronous_wake_up_is_taken_by_a_listener(broker: Spawn) -> None:
    worker = broker(lambda: [mkdir(0)])
    try:
        seccomp.set_sync_wakeup(worker.listener)
    except KernelError as error:  # before Linux 6.6
        assert error.errno in (errno.EINVAL, errno.ENOTTY)
    seccomp.respond(worker.listener, worker.receive().id, value=3)
    assert worker.result() == "[3]"


def test_what_is_no_listener_is_refused_by_every_call() -> None:
    read, write = os.pipe()
    try:
        calls: list[Callable[[], object]] = [
            lambda: seccomp.receive(read, seccomp.new_buffer()),
            lambda: seccomp.id_valid(read, 1),
            lambda: seccomp.respond(read, 1),
            lambda: seccomp.add_fd(read, 1, 0),
            lambda: seccomp.set_sync_wakeup(read),
        ]
        for call in calls:
            with pytest.raises(KernelError, match="SECCOMP_IOCTL_NOTIF") as caught:
                call()
            assert caught.value.errno == errno.ENOTTY
    finally:
        os.close(read)
        os.close(write)
