"""The gateway's filter, call by call, as the kernel would decide it."""

from __future__ import annotations

import pytest

from anchorhold.cell import gateway_filter
from anchorhold.kernel import bpf, seccomp, syscalls

TGID = 4321
PROGRAM = gateway_filter.program(TGID)
ALLOW, KILL = seccomp.SECCOMP_RET_ALLOW, seccomp.SECCOMP_RET_KILL_PROCESS
REFUSE = seccomp.SECCOMP_RET_ERRNO | 1


def answer(name: str, *args: int) -> int:
    return bpf.simulate(PROGRAM, bpf.pack_data(syscalls.NR[name], syscalls.AUDIT_ARCH, args))


def test_every_call_has_the_answer_that_its_list_gives() -> None:
    special = {
        "sendto", "sendmsg", "mmap", "mprotect", "madvise", "ioctl", "fcntl", "setsockopt", "getsockopt",
        "clock_gettime", "clock_getres", "clock_nanosleep", "prctl", "tgkill",
    }  # fmt: skip
    for name in syscalls.NR:
        if name in special:
            continue
        wanted = ALLOW if name in gateway_filter.FREE else KILL if name in gateway_filter.DEADLY else REFUSE
        assert answer(name) == wanted, name
    assert not set(gateway_filter.FREE) & set(gateway_filter.DEADLY)


@pytest.mark.parametrize(
    "name", ["open", "openat", "openat2", "stat", "newfstatat", "statx", "readlink", "getdents64", "unlink"]
)
def test_files_are_refused(name: str) -> None:
    if name in syscalls.NR:
        assert answer(name) == REFUSE


def test_unknown_and_foreign_calls() -> None:
    def raw(number: int, arch: int = syscalls.AUDIT_ARCH) -> int:
        return bpf.simulate(PROGRAM, bpf.pack_data(number, arch))

    assert raw(9999) == REFUSE and raw(syscalls.NR["read"], 0x40000003) == KILL
    if syscalls.ARCH == "x86_64":
        assert raw(syscalls.X32_SYSCALL_BIT | syscalls.NR["read"]) == KILL and raw(-1) == KILL


@pytest.mark.parametrize(
    ("call", "args", "wanted"),
    [
        ("sendto", (5, 1, 9, 0, 0, 0), ALLOW),
        ("sendto", (5, 1, 9, 0x4000, 0, 0), ALLOW),
        ("sendto", (5, 1, 9, 0, 7, 16), KILL),
        ("sendto", (5, 1, 9, 0, 7 << 32, 16), KILL),
        ("sendto", (5, 1, 9, 0x20000000, 0, 0), KILL),
        ("sendmsg", (5, 1, 0), ALLOW),
        ("sendmsg", (5, 1, 0x20000000), KILL),
        ("mmap", (0, 4096, 3, 0x22, 2**64 - 1, 0), ALLOW),
        ("mmap", (0, 4096, 5, 0x22, 2**64 - 1, 0), REFUSE),
        ("mmap", (0, 4096, 1, 0x02, 5, 0), REFUSE),
        ("mprotect", (0, 4096, 1), ALLOW),
        ("mprotect", (0, 4096, 5), REFUSE),
        ("madvise", (0, 4096, 4), ALLOW),
        ("madvise", (0, 4096, 12), REFUSE),
        ("ioctl", (5, 0x5421), ALLOW),
        ("ioctl", (5, 0x5412), REFUSE),
        ("fcntl", (5, 3), ALLOW),
        ("fcntl", (5, 4), REFUSE),
        ("setsockopt", (5, 6, 1), ALLOW),
        ("setsockopt", (5, 1, 26), REFUSE),
        ("setsockopt", (5, 6, 31), REFUSE),
        ("getsockopt", (5, 1, 3), ALLOW),
        ("getsockopt", (5, 0, 1), REFUSE),
        ("clock_gettime", (1,), ALLOW),
        ("clock_gettime", (2**32 - 6,), REFUSE),
        ("prctl", (0x53564D41,), ALLOW),
        ("prctl", (38,), REFUSE),
        ("tgkill", (TGID, 1, 6), ALLOW),
        ("tgkill", (TGID + 1, 1, 6), KILL),
    ],
)
def test_by_argument(call: str, args: tuple[int, ...], wanted: int) -> None:
    assert answer(call, *args) == wanted
