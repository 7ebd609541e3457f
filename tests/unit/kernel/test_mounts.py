from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from anchorhold.kernel import libc, mounts, namespaces
from anchorhold.kernel.errors import KernelError

Child = Callable[..., Any]


def enter() -> None:
    """A mount namespace of our own, from which nothing propagates."""
    uid, gid = os.getuid(), os.getgid()
    namespaces.unshare(namespaces.CLONE_NEWUSER | namespaces.CLONE_NEWNS)
    namespaces.write_id_maps("self", uid, gid)
    mounts.mount(None, "/", None, mounts.MS_REC | mounts.MS_PRIVATE)


def writable(directory: str) -> int:
    try:
        os.close(os.open(f"{directory}/probe", os.O_CREAT | os.O_WRONLY, 0o600))
    except OSError as error:
        return error.errno or -1
    return 0


def _empty_root() -> tuple[bool, int, int, list[str], int]:
    enter()
    was_there = os.path.exists("/etc/passwd")
    mounts.mount("tmpfs", "/tmp", "tmpfs", mounts.MS_NOSUID | mounts.MS_NODEV, b"size=64k,mode=755")
    os.chdir("/tmp")
    mounts.pivot_root(".", ".")
    mounts.umount2(".", mounts.MNT_DETACH)
    os.chdir("/")
    before = writable("/")
    os.unlink("/probe")
    mounts.mount(None, "/", None, mounts.MS_REMOUNT | mounts.MS_BIND | mounts.MS_RDONLY)
    return was_there, before, writable("/"), os.listdir("/"), int(os.path.exists("/etc/passwd"))


def test_an_empty_read_only_root_takes_the_place_of_the_machines(child_as_anyone: Child) -> None:
    assert child_as_anyone(_empty_root) == (True, 0, errno.EROFS, [], 0)


def _descriptor_mounts() -> tuple[int, int, int, int]:
    enter()
    context = mounts.fsopen("tmpfs")
    mounts.fsconfig(context, mounts.FSCONFIG_SET_STRING, "size", "64k")
    mounts.fsconfig(context, mounts.FSCONFIG_SET_STRING, "nr_inodes", b"50")
    mounts.fsconfig(context, mounts.FSCONFIG_CMD_CREATE)
    mounted = mounts.fsmount(context, attr_flags=mounts.MOUNT_ATTR_NOSUID | mounts.MOUNT_ATTR_NOEXEC)
    mounts.move_mount(mounted, "", mounts.AT_FDCWD, "/tmp", mounts.MOVE_MOUNT_F_EMPTY_PATH)
    first = writable("/tmp")
    copy = mounts.open_tree(mounts.AT_FDCWD, "/tmp", mounts.OPEN_TREE_CLONE | mounts.OPEN_TREE_CLOEXEC)
    mounts.mount_setattr(copy, "", mounts.AT_EMPTY_PATH, attr_set=mounts.MOUNT_ATTR_RDONLY)
    through_copy = 0
    try:
        os.close(os.open("other", os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=copy))
    except OSError as error:
        through_copy = error.errno or -1
    mounts.mount_setattr(mounts.AT_FDCWD, "/tmp", mounts.AT_RECURSIVE, attr_set=mounts.MOUNT_ATTR_RDONLY)
    read_only = writable("/tmp")
    mounts.mount_setattr(mounts.AT_FDCWD, "/tmp", mounts.AT_RECURSIVE, attr_clr=mounts.MOUNT_ATTR_RDONLY)
    return first, through_copy, read_only, writable("/tmp")


def test_mounts_by_descriptor(child: Child) -> None:
    assert child(_descriptor_mounts) == (0, errno.EROFS, errno.EROFS, 0)


def _refused() -> str:
    try:
        mounts.mount("tmpfs", "/tmp", "tmpfs")
    except PermissionError as error:
        return str(error)
    return ""


def test_without_a_namespace_mounting_is_refused_with_advice(unprivileged: Child) -> None:
    text = unprivileged(_refused)
    assert text.startswith("mount(tmpfs /tmp tmpfs): Operation not permitted")
    assert "unshare user and mount namespaces first" in text


def test_a_path_that_is_no_text_is_shown_and_a_nul_refused() -> None:
    with pytest.raises(KernelError, match=r"umount2\(/no/\ufffd\)"):
        mounts.umount2(b"/no/\xff")
    with pytest.raises(KernelError, match="NUL"):
        mounts.umount2("/a\0b")


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: mounts.fsopen("nosuchfs"), "fsopen(nosuchfs)"),
        (lambda: mounts.fsconfig(-1, mounts.FSCONFIG_SET_STRING, "size", b"1"), "fsconfig(size 1)"),
        (lambda: mounts.fsmount(-1), "fsmount(descriptor -1)"),
        (lambda: mounts.move_mount(-1, "", -1, "/x", 4), "move_mount(descriptor -1 /x)"),
        (lambda: mounts.open_tree(-1, "x"), "open_tree(x)"),
        (lambda: mounts.mount_setattr(-1, "x", attr_set=1), "mount_setattr(x)"),
        (lambda: mounts.pivot_root("a", "b"), "pivot_root(a b)"),
    ],
)
def test_every_failure_says_on_what(
    monkeypatch: pytest.MonkeyPatch, call: Callable[[], object], text: str
) -> None:
    monkeypatch.setattr(libc, "raw_syscall", lambda *args: -errno.ENOSYS)
    with pytest.raises(KernelError) as caught:
        call()
    assert str(caught.value).startswith(text)
    assert "Linux 5.2" in str(caught.value)


def test_mount_flags_are_those_of_the_header() -> None:
    header = Path("/usr/include/linux/mount.h")
    text = header.read_text() if header.exists() else "#define MS_RDONLY\t 1\t/* */\n"
    checked = 0
    for line in text.splitlines():
        words = line.split()
        if len(words) > 2 and words[0] == "#define" and words[2][:1].isdigit() and hasattr(mounts, words[1]):
            assert getattr(mounts, words[1]) == int(words[2], 0), words[1]
            checked += 1
    assert checked
