"""Where each system call keeps its paths, and how a path is cleaned before anything is decided on it."""

from __future__ import annotations

PATH_ARGUMENTS: dict[str, tuple[int, ...]] = {
    "access": (0,), "acct": (0,), "chdir": (0,), "chmod": (0,), "chown": (0,), "chroot": (0,),
    "creat": (0,), "execve": (0,), "execveat": (1,), "faccessat": (1,), "faccessat2": (1,),
    "fanotify_mark": (4,), "fchmodat": (1,), "fchmodat2": (1,), "fchownat": (1,), "file_getattr": (1,),
    "file_setattr": (1,), "fsconfig": (3,), "fspick": (1,), "futimesat": (1,),
    "getxattr": (0,), "getxattrat": (1,),
    "inotify_add_watch": (1,), "lchown": (0,), "lgetxattr": (0,), "link": (0, 1), "linkat": (1, 3),
    "listxattr": (0,), "listxattrat": (1,), "llistxattr": (0,), "lremovexattr": (0,), "lsetxattr": (0,),
    "lstat": (0,), "mkdir": (0,), "mkdirat": (1,), "mknod": (0,), "mknodat": (1,), "mount": (0, 1),
    "mount_setattr": (1,), "move_mount": (1, 3), "mq_open": (0,), "mq_unlink": (0,),
    "name_to_handle_at": (1,), "newfstatat": (1,), "open": (0,), "open_tree": (1,),
    "open_tree_attr": (1,), "openat": (1,), "openat2": (1,), "pivot_root": (0, 1), "quotactl": (1,),
    "readlink": (0,), "readlinkat": (1,), "removexattr": (0,), "removexattrat": (1,), "rename": (0, 1),
    "renameat": (1, 3), "renameat2": (1, 3), "rmdir": (0,), "setxattr": (0,), "setxattrat": (1,),
    "stat": (0,), "statfs": (0,), "statx": (1,), "swapoff": (0,), "swapon": (0,), "symlink": (0, 1),
    "symlinkat": (0, 2), "truncate": (0,), "umount2": (0,), "unlink": (0,), "unlinkat": (1,),
    "uselib": (0,), "utime": (0,), "utimensat": (1,), "utimes": (0,),
}  # fmt: skip
"""System call → the arguments that are paths (man pages of each)."""


def clean(path: bytes) -> tuple[bytes, bool]:
    """An absolute path without empty and ``.`` components, and whether it had a ``..``.

    ``..`` is taken out by text. That is not what the kernel does behind a link, so such a path is good
    for the runtime only, where the text is what is opened; for data it is refused as it stands.
    """
    if b"//" not in path and b"/." not in path and (path == b"/" or path[-1:] != b"/"):
        return path, False
    parts: list[bytes] = []
    dots = False
    for part in path.split(b"/"):
        if part in (b"", b"."):
            continue
        if part == b"..":
            dots = True
            if parts:
                parts.pop()
            continue
        parts.append(part)
    return b"/" + b"/".join(parts), dots
