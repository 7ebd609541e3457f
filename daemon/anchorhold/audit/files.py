"""File operations of the log, and the one place where their errors become words.

Constraint: whatever fails, a reader finds either the old file or the whole new one. So every file but the
tail is written under a temporary name and renamed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat

from anchorhold.errors import AuditError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

TMP = ".tmp-"
"""Prefix of temporary names. A crash can leave one; readers and the verifier pass over it."""

_HINTS = {
    errno.ENOSPC: "Free some space there, or choose another place with --state-dir.",
    errno.EDQUOT: "The disk quota is used up: free some space there, or choose another --state-dir.",
    errno.EFBIG: "A file-size limit (ulimit -f) stops the log from growing: raise it.",
    errno.EROFS: "That file system is read-only: remount it, or choose another place with --state-dir.",
    errno.EACCES: "This user may not use it: check owner and mode, or choose another --state-dir.",
    errno.EPERM: "This user may not use it: check owner, mode and attributes, or choose another --state-dir.",
    errno.EIO: "The disk reported an error: check the system's journal before trusting this disk again.",
    errno.EMFILE: "Too many files are open in this process: raise ulimit -n.",
    errno.ENFILE: "Too many files are open on this machine.",
    errno.ENOTDIR: "A folder is needed where a file is: move it, or choose another --state-dir.",
    errno.ELOOP: "A symbolic link stands where the log keeps its own file: remove it.",
    errno.ENOLCK: "The file system has no locks left or none at all: choose a local --state-dir.",
}


def audit_error(error: OSError, doing: str, path: str) -> AuditError:
    """What failed, on what file and why; the hint says what to do."""
    reason = error.strerror or str(error)
    hint = _HINTS.get(error.errno or 0, "Check that folder, or choose another place with --state-dir.")
    name = errno.errorcode.get(error.errno or 0, "")
    detail = f"{name} on {error.filename or path}" if name else ""
    return AuditError(f"the audit log cannot {doing}: {path}: {reason}", hint=hint, detail=detail)


def write_all(fd: int, data: bytes | bytearray) -> None:
    """Write everything or raise: a short write is followed by the error that caused it."""
    view = memoryview(data)
    while view:
        written = os.write(fd, view)
        if written == 0:  # POSIX allows it; looping on it would never end
            raise OSError(errno.EIO, "nothing was written")
        view = view[written:]


def give(fd: int, folder: str) -> None:
    """Make a file or folder that was just made the property of whoever has ``folder``.

    For root, who works in the state of a service: a file of root's there would keep the service out of its
    own log for good. ``fd`` is an open file, so that no name can be put in its place meanwhile. Where root
    may not do that (one of a user namespace), it is left as it is.
    """
    if os.geteuid() != 0:
        return
    owner, made = os.stat(folder), os.fstat(fd)
    if (made.st_uid, made.st_gid) == (owner.st_uid, owner.st_gid):
        return
    if made.st_uid == 0 and (made.st_nlink == 1 or stat.S_ISDIR(made.st_mode)):
        with contextlib.suppress(OSError):
            os.fchown(fd, owner.st_uid, owner.st_gid)


def fsync_path(path: str, *, directory: bool = False) -> None:
    """fsync a file or a folder by name."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | (os.O_DIRECTORY if directory else 0))
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def replace(
    path: str, data: bytes, *, sync: bool, mode: int = 0o600, name_later: bool = False, owned: bool = False
) -> None:
    """Put ``data`` at ``path`` at once: temporary file, write, rename; ``sync`` fsyncs file and folder.

    ``name_later``: the folder is not fsynced, so after a power loss the old file may be there, whole. Without
    ``sync`` there may be an empty one. ``owned``: it is part of a log, so `give` it.
    """
    folder, name = os.path.split(path)
    temporary = os.path.join(folder, f"{TMP}{name}-{os.getpid()}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        fd = os.open(temporary, flags, mode)
    except FileNotFoundError:
        make_folders(folder, sync=sync, owned=owned)
        fd = os.open(temporary, flags, mode)
    try:
        try:
            if owned:
                give(fd, folder)
            write_all(fd, data)
            if sync:
                os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(temporary, path)
    except OSError:
        remove_quietly((temporary,))
        raise
    if sync and not name_later:
        fsync_path(folder, directory=True)


def make_folders(path: str, *, sync: bool = False, owned: bool = False) -> None:
    """``mkdir -p`` with mode 0700; ``sync`` makes each new name durable, ``owned``: as for `replace`."""
    if os.path.isdir(path):
        return
    parent = os.path.dirname(path)
    if parent and parent != path:
        make_folders(parent, sync=sync, owned=owned)
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        if not os.path.isdir(path):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path) from None
    else:
        if owned:
            give_folder(path, parent)
        if sync and parent:
            fsync_path(parent, directory=True)


def give_folder(path: str, parent: str) -> None:
    """As `give`, for a folder below ``parent``."""
    if os.geteuid() != 0:
        return
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        give(fd, parent)
    finally:
        os.close(fd)


LARGEST = 256 << 20
"""Bytes that are read whole; no file that is read so has as many."""


def read_file(path: str) -> bytes | None:
    """The whole file; None where there is none. OSError, also where it is no file or above `LARGEST`."""
    try:
        # a named pipe in its place would be waited for without end
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file", path)
        if status.st_size > LARGEST:
            raise OSError(errno.EINVAL, "it is longer than any that is written", path)
        return read_fd(fd, status.st_size)
    finally:
        os.close(fd)


def read_fd(fd: int, size: int, offset: int = 0) -> bytes:
    """Up to ``size`` bytes from ``offset``; fewer only where the file ends."""
    parts = []
    while size > 0:
        part = os.pread(fd, size, offset)
        if not part:
            break
        parts.append(part)
        offset += len(part)
        size -= len(part)
    return b"".join(parts)


def remove_quietly(paths: Sequence[str]) -> None:
    """Unlink what can be; for leftovers whose presence harms nobody."""
    for path in paths:
        try:
            os.unlink(path)
        except OSError:
            continue
