from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from anchorhold.kernel import libc, namespaces
from anchorhold.kernel import namespaces as ns
from anchorhold.kernel.errors import KernelError

Child = Callable[..., Any]
ALL = (
    ns.CLONE_NEWUSER
    | ns.CLONE_NEWNS
    | ns.CLONE_NEWPID
    | ns.CLONE_NEWNET
    | ns.CLONE_NEWIPC
    | ns.CLONE_NEWUTS
    | ns.CLONE_NEWCGROUP
)


def _ids() -> dict[str, str]:
    return {
        name: os.readlink(f"/proc/self/ns/{name}") for name in ("user", "mnt", "net", "ipc", "uts", "cgroup")
    }


def _enter_all() -> tuple[bool, tuple[int, int], str, list[str], int]:
    uid, gid = os.getuid(), os.getgid()
    before = _ids()
    ns.unshare(ALL)
    ns.write_id_maps("self", uid, gid)
    ns.sethostname("cell")
    after = _ids()
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(write, str(os.getpid()).encode())
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    interfaces = [name for _, name in socket.if_nameindex()]
    apart = all(before[name] != after[name] for name in before)
    same = (os.getuid(), os.getgid()) == (uid, gid)
    return apart and same, (uid, gid), socket.gethostname(), interfaces, int(os.read(read, 9))


def test_a_process_moves_into_namespaces_of_its_own_as_the_same_user(child_as_anyone: Child) -> None:
    moved, _, host, interfaces, pid_of_child = child_as_anyone(_enter_all)
    assert moved
    assert host == "cell"
    assert socket.gethostname() != "cell"
    assert interfaces == ["lo"]
    assert pid_of_child == 1


def _without_user_namespace() -> str:
    try:
        ns.unshare(ns.CLONE_NEWNET)
    except PermissionError as error:
        return str(error)
    return ""


def test_without_a_user_namespace_the_others_are_refused_with_advice(unprivileged: Child) -> None:
    text = unprivileged(_without_user_namespace)
    assert text.startswith("unshare(net): Operation not permitted")
    assert "apparmor_restrict_unprivileged_userns" in text


@pytest.mark.parametrize(
    ("number", "advice"),
    [(errno.ENOSPC, "/proc/sys/user"), (errno.EUSERS, "too deep"), (errno.ENOMEM, "memory")],
)
def test_each_refusal_names_its_remedy(monkeypatch: pytest.MonkeyPatch, number: int, advice: str) -> None:
    monkeypatch.setattr(libc, "raw_syscall", lambda *args: -number)
    with pytest.raises(KernelError, match=advice):
        ns.unshare(ns.CLONE_NEWUSER | ns.CLONE_NEWPID)


def test_flags_have_names() -> None:
    assert namespaces.flag_names(ALL) == "user|mnt|pid|net|ipc|uts|cgroup"
    assert namespaces.flag_names(0) == ""


def _join() -> tuple[bool, bool]:
    uid, gid = os.getuid(), os.getgid()
    ns.unshare(ns.CLONE_NEWUSER)
    ns.write_id_maps("self", uid, gid)
    ns.unshare(ns.CLONE_NEWNET)
    first = os.open("/proc/self/ns/net", os.O_RDONLY)
    old = os.readlink("/proc/self/ns/net")
    ns.unshare(ns.CLONE_NEWNET)
    left = os.readlink("/proc/self/ns/net") != old
    ns.setns(first, ns.CLONE_NEWNET)
    return left, os.readlink("/proc/self/ns/net") == old


def test_a_namespace_can_be_joined_again(child_as_anyone: Child) -> None:
    assert child_as_anyone(_join) == (True, True)


def test_joining_what_is_no_namespace_is_refused() -> None:
    read, write = os.pipe()
    with pytest.raises(KernelError, match=rf"setns\(descriptor {read} net\)"):
        ns.setns(read, ns.CLONE_NEWNET)
    os.close(read)
    os.close(write)


def _map_twice() -> str:
    uid, gid = os.getuid(), os.getgid()
    ns.unshare(ns.CLONE_NEWUSER)
    ns.write_id_maps("self", uid, gid)
    try:
        ns.write_id_maps("self", uid, gid)
    except PermissionError as error:
        return str(error)
    return ""


def test_maps_are_written_once_and_a_refusal_names_the_file(unprivileged: Child) -> None:
    text = unprivileged(_map_twice)
    assert text.startswith("write(/proc/self/setgroups): Operation not permitted")
    assert "apparmor" in text


def test_the_maps_are_identity_and_deny_setgroups(tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    for file in ("setgroups", "uid_map", "gid_map"):
        (tmp_path / "7" / file).touch()
    ns.write_id_maps(7, 1000, 100, proc=str(tmp_path))
    texts = [(tmp_path / "7" / file).read_text() for file in ("setgroups", "uid_map", "gid_map")]
    assert texts == ["deny", "1000 1000 1", "100 100 1"]


def test_a_missing_process_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="/8/setgroups"):
        ns.write_id_maps(8, 0, 0, proc=str(tmp_path))


def _hostname_refused() -> int:
    try:
        ns.sethostname("other")
    except PermissionError as error:
        return error.errno or 0
    return 0


def test_the_host_outside_cannot_be_renamed_without_a_namespace(unprivileged: Child) -> None:
    assert unprivileged(_hostname_refused) == errno.EPERM


def test_clone_flags_are_those_of_the_header() -> None:
    header = Path("/usr/include/linux/sched.h")
    lines = header.read_text().splitlines() if header.exists() else ["#define CLONE_VM\t0x00000100"]
    values = {
        words[1]: int(words[2].rstrip("UL"), 16)
        for words in (line.split() for line in lines)
        if len(words) > 2
        and words[0] == "#define"
        and words[1].startswith("CLONE_")
        and words[2].startswith("0x")
    }
    mine = {name: getattr(ns, name) for name in values if hasattr(ns, name)}
    assert mine == {name: values[name] for name in mine}
    assert "CLONE_VM" in mine
