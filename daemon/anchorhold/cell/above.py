"""Which system calls a seccomp filter above the cell refuses: a service's, a container's. Found by trying.

Of several filters the strongest answer counts, and an errno is stronger than a question. So a call that
such a filter refuses would fail in the worker without the supervisor ever hearing of it: no entry, no breach.
Only the end of the process is stronger still. Hence the sealed program ends the worker for these calls
(`filters.sealed_filter`), and for these alone: of all others the supervisor is asked, and says their names.

Nothing is really called: a child puts on a filter that asks about everything, and is told a number that no
call gives. What it then sees for a call is that number, or what the filter above says.
Runs in the launcher, before the namespaces.
Source: seccomp(2), Documentation/userspace-api/seccomp_filter.rst.
"""

from __future__ import annotations

import _socket
import os
import select
import sys

from anchorhold.cell import filters
from anchorhold.kernel import bpf, libc, prctl, seccomp, syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

    Trial = tuple[int, tuple[int, ...]]

EHWPOISON = 133
"""The answer to every trial; no call fails with it but for broken memory."""

_NEEDED = ("mmap", "mprotect", "munmap", "mremap", "madvise", "clone3", "sendmsg")
"""What the child itself needs, so that it cannot be tried; clone3 has an answer of its own in the cell."""

_UNFILTERED = ("uprobe", "uretprobe")
"""No filter is asked about these (Linux 6.13); whoever makes them dies of SIGILL."""

_FILTER_MODE = 2
_NAMESPACES = (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000)
_NEW_TIME = 0x80  # of clone(2) these bits are a signal
_FAMILIES = range(46)
_SPECIAL = 0o4000

_BY_ARGUMENT: dict[str, tuple[tuple[int, ...], ...]] = {
    "socket": tuple((family, 1) for family in _FAMILIES),
    "socketpair": tuple((family, 1) for family in _FAMILIES),
    "clone": ((17,), *((flag | 17,) for flag in _NAMESPACES)),
    "unshare": tuple((flag,) for flag in (*_NAMESPACES, _NEW_TIME)),
    "setns": tuple((0, flag) for flag in (*_NAMESPACES, _NEW_TIME)),
    "personality": ((0,), (0x40000,), (0xFFFFFFFF,)),
    "sched_setscheduler": tuple((0, policy) for policy in range(8)),
    "chmod": ((0, _SPECIAL),),
    "fchmod": ((0, _SPECIAL),),
    "fchmodat": ((0, 0, _SPECIAL),),
    "mknod": ((0, 0x1000 | _SPECIAL),),
    "mkdir": ((0, _SPECIAL),),
    "ioctl": ((0, 0x5412), (0, 0x541C)),  # TIOCSTI, TIOCLINUX: typing into a terminal
    "prctl": ((8,), (22,), (24,), (47,)),  # keep capabilities, seccomp, bounding set, ambient set
    "fcntl": ((0, 8), (0, 1031), (0, 1033)),  # owner, size of a pipe, seals
    "prlimit64": tuple((0, resource, 1) for resource in range(16)),
    "tgkill": ((1, 1, 9),),
}
"""Calls whose answer can depend on arguments, with those that filters look at (systemd.exec(5), the default
profiles of container runtimes). Arguments of a trial point to nothing: it is never carried out."""


def present() -> bool:
    """Whether this process is under a seccomp filter (prctl(2), PR_GET_SECCOMP)."""
    return prctl.get_seccomp() == _FILTER_MODE


def refused(answered: Collection[int]) -> frozenset[int]:
    """The numbers of calls that the filters on this process refuse, by an errno, with some arguments.

    ``answered``: calls that are not tried, since a worker is not to end for them (`anchorhold.broker.table`).
    Those that end the process are not among them: nothing has to be done about them. Raises OSError.
    """
    tried, program = _trials(answered), _program()
    found: set[int] = set()
    at = 0
    while at < len(tried):
        answers = _answers(tried[at:], program)
        found.update(tried[at + index][0] for index, answer in enumerate(answers) if answer == 1)
        at += len(answers) + 1  # one without an answer ended the child
    return frozenset(found)


def _trials(answered: Collection[int]) -> list[Trial]:
    left_out = {*filters.FREE, *_NEEDED, *_UNFILTERED}
    return [
        (number, arguments)
        for name, number in syscalls.NR.items()
        if name not in left_out and number not in answered
        for arguments in _BY_ARGUMENT.get(name, ((),))
    ]


def _program() -> bytes:
    p = bpf.Program()
    p.load_nr()
    for name in (*filters.FREE, *_NEEDED):
        if name in syscalls.NR:
            p.jeq(syscalls.NR[name], "allow")
    p.ret(seccomp.SECCOMP_RET_USER_NOTIF)
    p.label("allow")
    p.ret(seccomp.SECCOMP_RET_ALLOW)
    return p.assemble()


def _answers(tried: list[Trial], program: bytes) -> bytes:
    """For each trial 1 if it is refused, else 0; shorter where a trial ended the child."""
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM)
    source, sink = os.pipe()  # more than all answers fit into it
    child = os.fork()
    if child == 0:
        try:
            _try(tried, program, theirs, sink)
            os._exit(0)
        finally:
            os._exit(1)
    theirs.close()
    os.close(sink)
    try:
        _data, control, _flags, _address = ours.recvmsg(1, 64, _socket.MSG_CMSG_CLOEXEC)
        if not control:
            raise OSError(5, "the child that tries the calls has failed")
        listener = int.from_bytes(control[0][2][:4], sys.byteorder)
        try:
            _answer_all(listener)
        finally:
            os.close(listener)
        answers = b""
        while data := os.read(source, 1 << 16):
            answers += data
        return answers
    finally:
        ours.close()
        os.close(source)
        os.waitpid(child, 0)


def _answer_all(listener: int) -> None:
    """Until the child is gone: poll(2) says so of a listener from Linux 5.9 on."""
    buffer = seccomp.new_buffer()
    waiting = select.poll()
    waiting.register(listener, select.POLLIN)
    while True:
        ((_fd, events),) = waiting.poll()
        if not events & select.POLLIN:
            return
        try:
            asked = seccomp.receive(listener, buffer)
            seccomp.respond(listener, asked.id, 0, EHWPOISON)
        except FileNotFoundError:
            continue


def _try(tried: list[Trial], program: bytes, theirs: _socket.socket, sink: int) -> None:
    """What the child does."""
    prctl.set_dumpable(0)
    prctl.set_no_new_privs()
    listener = seccomp.set_filter(
        program, seccomp.SECCOMP_FILTER_FLAG_NEW_LISTENER | seccomp.SECCOMP_FILTER_FLAG_SPEC_ALLOW
    )
    rights = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, listener.to_bytes(4, sys.byteorder))]
    theirs.sendmsg([b"x"], rights)
    os.close(listener)
    for number, arguments in tried:
        padded = (*arguments, 0, 0, 0, 0, 0, 0)[:6]
        answer = libc.raw_syscall(number, *padded)
        os.write(sink, b"\0" if answer == -EHWPOISON else b"\1")
