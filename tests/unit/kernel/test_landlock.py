from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from anchorhold.kernel import landlock, libc, prctl
from anchorhold.kernel.errors import KernelError

Child = Callable[..., Any]


def confine(rules: Callable[[int], None] = lambda ruleset: None) -> None:
    """Everything handled that this kernel can handle, and granted only what ``rules`` grants."""
    ruleset = landlock.create_ruleset(*landlock.handled(landlock.abi()))
    rules(ruleset)
    prctl.set_no_new_privs()
    landlock.restrict_self(ruleset)
    os.close(ruleset)


def outcome(function: Callable[[], object]) -> int:
    try:
        function()
    except OSError as error:
        return error.errno or -1
    return 0


def test_this_kernel_speaks_landlock() -> None:
    assert landlock.abi() >= 1
    assert landlock.errata() >= 0


@pytest.mark.parametrize(
    ("abi", "fs_bits", "net", "scoped"),
    [(0, 0, 0, 0), (1, 13, 0, 0), (2, 14, 0, 0), (3, 15, 0, 0), (4, 15, 3, 0), (5, 16, 3, 0), (6, 16, 3, 3)],
)
def test_what_each_version_can_refuse(abi: int, fs_bits: int, net: int, scoped: int) -> None:
    assert landlock.handled(abi) == (2**fs_bits - 1, net, scoped)


def test_a_newer_version_is_used_as_far_as_it_is_known() -> None:
    assert landlock.handled(7) == landlock.handled(99) == landlock.handled(6)
    highest = landlock.handled(landlock.NEWEST_ABI)[0]
    rights = [value for name, value in vars(landlock).items() if name.startswith("LANDLOCK_ACCESS_FS_")]
    assert sum(rights) == highest


@pytest.mark.parametrize("answer", [errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_kernel_without_it_has_version_0_and_refuses_rulesets_with_advice(
    monkeypatch: pytest.MonkeyPatch, answer: int
) -> None:
    monkeypatch.setattr(libc, "raw_syscall", lambda *args: -answer)
    assert landlock.abi() == 0
    assert landlock.errata() == 0
    with pytest.raises(KernelError, match="lsm="):
        landlock.create_ruleset(1)


def test_any_other_failure_is_not_taken_for_absence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libc, "raw_syscall", lambda *args: -errno.EPERM)
    with pytest.raises(PermissionError):
        landlock.abi()


def test_a_right_the_kernel_does_not_know_is_refused() -> None:
    with pytest.raises(KernelError, match="handled") as caught:
        landlock.create_ruleset(1 << 40)
    assert caught.value.errno == errno.EINVAL


def _files(granted: str) -> list[int]:
    def attempt() -> list[int]:
        return [
            outcome(lambda: os.close(os.open("/etc/passwd", os.O_RDONLY))),
            outcome(lambda: os.close(os.open(f"{granted}/file", os.O_RDONLY))),
            outcome(lambda: os.close(os.open(f"{granted}/file", os.O_WRONLY))),
            outcome(lambda: os.close(os.open("/", os.O_RDONLY | os.O_DIRECTORY))),
            outcome(lambda: os.mkdir(f"{granted}/new")),
        ]

    def grant(ruleset: int) -> None:
        fd = os.open(granted, os.O_PATH)
        landlock.add_path_rule(ruleset, fd, landlock.LANDLOCK_ACCESS_FS_READ_FILE)
        os.close(fd)

    before = attempt()
    os.rmdir(f"{granted}/new")
    confine(grant)
    return before + attempt()


def test_files_open_before_the_domain_and_only_granted_ones_in_it(
    child_as_anyone: Child, public: Path
) -> None:
    (public / "file").write_text("x")
    (public / "file").chmod(0o666)
    public.chmod(0o777)
    no = errno.EACCES
    assert child_as_anyone(_files, str(public)) == [0, 0, 0, 0, 0, no, 0, no, no, no]


def _ports(open_port: int, granted: int) -> list[int]:
    def connect(port: int) -> int:
        with socket.socket() as one:
            return outcome(lambda: one.connect(("127.0.0.1", port)))

    before = [connect(open_port), connect(granted)]
    if landlock.abi() < 4:
        return [0, 0, errno.EACCES, 0]
    confine(
        lambda ruleset: landlock.add_port_rule(ruleset, granted, landlock.LANDLOCK_ACCESS_NET_CONNECT_TCP)
    )
    return [*before, connect(open_port), connect(granted)]


def test_tcp_connects_before_the_domain_and_only_to_granted_ports_in_it(child: Child) -> None:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        ports = one.getsockname()[1], two.getsockname()[1]
        assert child(_ports, *ports) == [0, 0, errno.EACCES, 0]


def _signal_outside(pid: int) -> list[int]:
    before = outcome(lambda: os.kill(pid, 0))
    if landlock.abi() < 6:
        return [0, errno.EPERM]
    confine()
    return [before, outcome(lambda: os.kill(pid, 0))]


def test_signals_reach_outside_before_the_domain_and_not_from_it(child: Child) -> None:
    assert child(_signal_outside, os.getpid()) == [0, errno.EPERM]


def _restrict_without_no_new_privs() -> str:
    ruleset = landlock.create_ruleset(1)
    try:
        landlock.restrict_self(ruleset)
    except PermissionError as error:
        return str(error)
    return ""


def test_without_no_new_privs_it_says_so(unprivileged: Child) -> None:
    said = unprivileged(_restrict_without_no_new_privs)
    # Whoever runs the tests may have it already, for good: then there is nothing to refuse.
    assert said == "" if prctl.prctl(prctl.PR_GET_NO_NEW_PRIVS) else "no_new_privs" in said


def test_a_rule_for_a_right_that_is_not_handled_is_refused() -> None:
    ruleset = landlock.create_ruleset(landlock.LANDLOCK_ACCESS_FS_READ_FILE)
    try:
        with pytest.raises(KernelError, match="landlock_add_rule"):
            landlock.add_path_rule(ruleset, ruleset, landlock.LANDLOCK_ACCESS_FS_READ_FILE)
        with pytest.raises(KernelError, match="port 80"):
            landlock.add_port_rule(ruleset, 80, landlock.LANDLOCK_ACCESS_NET_BIND_TCP)
    finally:
        os.close(ruleset)
