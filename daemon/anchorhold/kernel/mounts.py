"""Mounts: mount(2) and the descriptor-based calls that follow it.

Constraint: no call here resolves or checks a path; it hands to the kernel what it is given.
Sources: linux/mount.h, sys/mount.h, mount(2), mount_setattr(2), fsopen(2).
"""

from __future__ import annotations

import errno
import struct

from anchorhold.kernel import libc
from anchorhold.kernel.errors import kernel_error
from anchorhold.kernel.syscalls import NR, name

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_SYNCHRONOUS = 16
MS_REMOUNT = 32
MS_MANDLOCK = 64
MS_DIRSYNC = 128
MS_NOSYMFOLLOW = 256  # Linux 5.10
MS_NOATIME = 1024
MS_NODIRATIME = 2048
MS_BIND = 4096
MS_MOVE = 8192
MS_REC = 16384
MS_SILENT = 32768
MS_UNBINDABLE = 1 << 17
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MS_SHARED = 1 << 20
MS_RELATIME = 1 << 21
MS_STRICTATIME = 1 << 24
MS_LAZYTIME = 1 << 25

MNT_FORCE = 1
MNT_DETACH = 2
MNT_EXPIRE = 4
UMOUNT_NOFOLLOW = 8

FSOPEN_CLOEXEC = 1
FSMOUNT_CLOEXEC = 1
FSCONFIG_SET_FLAG = 0
FSCONFIG_SET_STRING = 1
FSCONFIG_SET_BINARY = 2
FSCONFIG_SET_PATH = 3
FSCONFIG_SET_PATH_EMPTY = 4
FSCONFIG_SET_FD = 5
FSCONFIG_CMD_CREATE = 6
FSCONFIG_CMD_RECONFIGURE = 7
FSCONFIG_CMD_CREATE_EXCL = 8  # Linux 6.6

MOVE_MOUNT_F_SYMLINKS = 0x01
MOVE_MOUNT_F_AUTOMOUNTS = 0x02
MOVE_MOUNT_F_EMPTY_PATH = 0x04
MOVE_MOUNT_T_SYMLINKS = 0x10
MOVE_MOUNT_T_AUTOMOUNTS = 0x20
MOVE_MOUNT_T_EMPTY_PATH = 0x40
MOVE_MOUNT_SET_GROUP = 0x100
MOVE_MOUNT_BENEATH = 0x200  # Linux 6.5

MOUNT_ATTR_RDONLY = 0x01
MOUNT_ATTR_NOSUID = 0x02
MOUNT_ATTR_NODEV = 0x04
MOUNT_ATTR_NOEXEC = 0x08
MOUNT_ATTR__ATIME = 0x70
MOUNT_ATTR_RELATIME = 0x00
MOUNT_ATTR_NOATIME = 0x10
MOUNT_ATTR_STRICTATIME = 0x20
MOUNT_ATTR_NODIRATIME = 0x80
MOUNT_ATTR_IDMAP = 0x00100000
MOUNT_ATTR_NOSYMFOLLOW = 0x00200000

OPEN_TREE_CLONE = 1
OPEN_TREE_CLOEXEC = 0o2000000

AT_FDCWD = -100
AT_SYMLINK_NOFOLLOW = 0x100
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000

_HINTS = {
    errno.EPERM: "It needs CAP_SYS_ADMIN over the mount namespace: unshare user and mount namespaces first",
    errno.EACCES: "A security module forbids it: on Ubuntu see kernel.apparmor_restrict_unprivileged_userns",
    errno.ENODEV: "The running kernel has no such file system",
    errno.EINVAL: "Not a mount point, a locked or shared mount, or an option the file system does not know",
    errno.ENOSYS: "The descriptor-based calls need Linux 5.2, mount_setattr Linux 5.12",
}


def _call(call: str, subject: str, *args: int | bytes | None) -> int:
    result = libc.raw_syscall(NR[call], *args)
    if result < 0:
        raise kernel_error(-result, name(NR[call]), subject, _HINTS.get(-result, ""))
    return result


def _raw(path: str | bytes | None, call: str) -> bytes | None:
    return None if path is None else libc.path_bytes(path, call)


def _text(*parts: str | bytes | None) -> str:
    return " ".join(
        part.decode("utf-8", "replace") if isinstance(part, bytes) else part for part in parts if part
    )


def mount(
    source: str | bytes | None,
    target: str | bytes,
    fstype: str | bytes | None = None,
    flags: int = 0,
    data: str | bytes | None = None,
) -> None:
    """mount(2)."""
    raw = [_raw(part, "mount") for part in (source, target, fstype, data)]
    _call("mount", _text(source, target, fstype, data), raw[0], raw[1], raw[2], flags, raw[3])


def umount2(target: str | bytes, flags: int = 0) -> None:
    """umount2(2)."""
    _call("umount2", _text(target), _raw(target, "umount2"), flags)


def pivot_root(new: str | bytes, old: str | bytes) -> None:
    """Makes ``new`` the root and puts the old root at ``old``. ("." and "." works: then detach "."."""
    _call("pivot_root", _text(new, old), _raw(new, "pivot_root"), _raw(old, "pivot_root"))


def fsopen(fsname: str, flags: int = FSOPEN_CLOEXEC) -> int:
    """A descriptor of a file system being configured."""
    return _call("fsopen", fsname, _raw(fsname, "fsopen"), flags)


def fsconfig(
    fd: int, command: int, key: str | None = None, value: str | bytes | None = None, aux: int = 0
) -> None:
    """Sets one parameter, or with FSCONFIG_CMD_CREATE makes the file system."""
    _call("fsconfig", _text(key, value), fd, command, _raw(key, "fsconfig"), _raw(value, "fsconfig"), aux)


def fsmount(fd: int, flags: int = FSMOUNT_CLOEXEC, attr_flags: int = 0) -> int:
    """A descriptor of a new, detached mount with MOUNT_ATTR_*."""
    return _call("fsmount", f"descriptor {fd}", fd, flags, attr_flags)


def move_mount(
    from_dfd: int, from_path: str | bytes, to_dfd: int, to_path: str | bytes, flags: int = 0
) -> None:
    """Attaches a mount somewhere; with MOVE_MOUNT_F_EMPTY_PATH and "" the mount ``from_dfd`` itself."""
    source, target = _raw(from_path, "move_mount"), _raw(to_path, "move_mount")
    _call(
        "move_mount",
        _text(from_path or f"descriptor {from_dfd}", to_path),
        from_dfd,
        source,
        to_dfd,
        target,
        flags,
    )


def open_tree(dfd: int, path: str | bytes, flags: int = OPEN_TREE_CLOEXEC) -> int:
    """A descriptor of a mount; with OPEN_TREE_CLONE of a detached copy of it."""
    return _call("open_tree", _text(path), dfd, _raw(path, "open_tree"), flags)


def mount_setattr(
    dfd: int,
    path: str | bytes,
    flags: int = 0,
    attr_set: int = 0,
    attr_clr: int = 0,
    propagation: int = 0,
    userns_fd: int = 0,
) -> None:
    """Changes MOUNT_ATTR_* and propagation; with AT_RECURSIVE of all mounts below, in one step."""
    attr = struct.pack("=QQQQ", attr_set, attr_clr, propagation, userns_fd)
    _call("mount_setattr", _text(path), dfd, _raw(path, "mount_setattr"), flags, attr, len(attr))
