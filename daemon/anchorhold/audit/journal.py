"""Journals: where an event is first written, before what it describes happens.

Constraint: the fast path of a grant. Each writer has a file of its own, so an event is one ``write`` and no
lock; writers cannot disturb each other. A writer holds a shared ``flock`` on its journal for life, so that a
crashed one can be told from a live one.

Whoever settles (`anchorhold.audit.settle`) reads all journals. Only the writer itself ever adds to its file,
nobody ever shortens it but the writer taking back a write that failed.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from contextlib import suppress

from anchorhold.audit.entry import is_sound, records
from anchorhold.audit.files import LARGEST, fsync_path, give, give_folder, read_fd, remove_quietly

FOLDER = "journal"
CHUNK = 8 << 20
"""Bytes read from a journal at one time; a record is far smaller."""


class Writer:
    """The journal of one open log. Made on disk with the first record."""

    __slots__ = ("_fd", "_folder", "_log", "_named", "_place", "_root", "_sync", "broken", "name", "size")

    def __init__(self, log: str, *, sync: bool) -> None:
        self._log = log
        self._folder = os.path.join(log, FOLDER)
        self._sync = sync
        self._named = False  # whether the folder's own name is known to be on the disk
        self._fd = -1
        self._root = os.path.join(log, "vkey")
        self._place: tuple[int, int, int] | None = None
        self.name = ""
        self.size = 0
        self.broken = False
        """A write could not be taken back, or an fsync failed, or the file is gone: nothing may be added."""

    def settle_in(self) -> None:
        """Remember which log this is: there can be another one in its place later. OSError."""
        self._place = _identity(os.stat(self._root))

    def add(self, record: bytes) -> None:
        """Write one record; OSError if it is not in the file (and then nothing of it is).

        `size` tells whether it is there where something else was raised: a signal's exception.
        """
        fd = self._fd if self._fd >= 0 else self._create()
        before = self.size
        try:
            written = os.write(fd, record)
            while written != len(record):  # a disk that is full takes what fits; the next write says why
                more = os.write(fd, record[written:])
                if more == 0:
                    raise OSError(errno.EIO, "nothing was written")
                written += more
            self.size = before + written
        except BaseException:
            self._take_back(fd, before, len(record))
            raise
        if self._sync:
            try:
                os.fdatasync(fd)
            except OSError:  # reported once, and the data forgotten: fsync(2)
                self.broken = True
                raise

    def _take_back(self, fd: int, before: int, length: int) -> None:
        """What is there of a record that was not written to its end. A whole one stays: somebody may have
        settled it already, and must find later ones after it."""
        try:
            if os.fstat(fd).st_size == before + length:
                self.size = before + length
            else:
                self.size = before
                os.ftruncate(fd, before)
        except OSError:
            self.broken = True

    def _create(self) -> int:
        with suppress(FileExistsError):
            os.mkdir(self._folder, 0o700)  # not what is above it: a log that was removed stays so
            give_folder(self._folder, self._log)
            self._named = False
        if self._sync and not self._named:  # whoever made it may not have come so far yet
            fsync_path(self._log, directory=True)
            self._named = True
        if not self.is_there():
            raise FileNotFoundError(errno.ENOENT, "it was removed while in use", self._log)
        while True:
            name = os.urandom(8).hex()
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
            self._fd, self.name, self.size = os.open(os.path.join(self._folder, name), flags, 0o600), name, 0
            try:
                give(self._fd, self._log)
                fcntl.flock(self._fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
                if self._sync:
                    fsync_path(self._folder, directory=True)
                if self.is_there():
                    return self._fd
            except BlockingIOError:
                pass
            except OSError:
                remove_quietly((os.path.join(self._folder, name),))
                self.close()
                raise
            self.close()  # somebody took it for a dead writer's before it was locked, and removes it

    def is_there(self) -> bool:
        """Whether the file still has its name, and the log is the same where there is no file yet. Without it
        nobody would settle what is written."""
        path = self._root if self._fd < 0 else os.path.join(self._folder, self.name)
        try:
            named = os.stat(path)
        except FileNotFoundError:
            return False
        if self._fd < 0:
            return self._place is None or _identity(named) == self._place
        mine = os.fstat(self._fd)
        return (named.st_dev, named.st_ino) == (mine.st_dev, mine.st_ino)

    def end(self, settled: int) -> None:
        """All but the first ``settled`` bytes being in the tree: let go of the file; a later record starts
        another."""
        if self._fd < 0 or settled != self.size:
            return
        os.unlink(os.path.join(self._folder, self.name))
        self.close()

    def close(self) -> None:
        """Let go of the file; what is in it stays for whoever settles next."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self.name, self.size = -1, "", 0


def _identity(status: os.stat_result) -> tuple[int, int, int]:
    """The time too, since numbers are given again."""
    return status.st_dev, status.st_ino, status.st_mtime_ns


class Unsettled:
    """What a journal holds after byte ``start``: ``found`` are its whole records (text, openings).

    ``end`` is where the last of them ends. ``torn``: bytes after it, of a journal whose writer is ``gone``;
    a living one is in the middle of a write.
    """

    __slots__ = ("end", "found", "gone", "more", "name", "torn")

    def __init__(
        self, name: str, found: list[tuple[bytes, bytes]], end: int, torn: bytes, *, gone: bool, more: bool
    ):
        self.name, self.found, self.end, self.torn = name, found, end, torn
        self.gone = gone
        self.more = more


def names(log: str) -> list[str]:
    """The journals that there are."""
    try:
        found = os.listdir(os.path.join(log, FOLDER))
    except FileNotFoundError:
        return []
    return sorted(name for name in found if is_name(name))


def is_name(name: str) -> bool:
    """16 hex digits."""
    return len(name) == 16 and not name.strip("0123456789abcdef")


def read(log: str, name: str, start: int, *, limit: int = CHUNK, look: bool = True) -> Unsettled:
    """Read a journal from ``start`` on, about ``limit`` bytes at most (``more`` says that there are).
    OSError.

    ``look``: whether its writer lives; a mere reader does not touch the lock.
    """
    path = os.path.join(log, FOLDER, name)
    # a named pipe in its place would be waited for without end
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file", path)
        gone = look and _is_gone(fd)
        size = os.fstat(fd).st_size
        data = read_fd(fd, min(size - start, limit), start)
        found = []
        end = 0
        bad = False
        for shown, openings, stop in records(data):
            if gone and not is_sound(shown, openings):
                bad = True
                break
            found.append((shown, openings))
            end = stop
        more = not bad and bool(found) and start + len(data) < size
        if gone and not more and size - start - end > LARGEST:  # no crash tears so much
            raise OSError(errno.EINVAL, "it is longer than any that is written", path)
        torn = read_fd(fd, size - start - end, start + end) if gone and not more else b""
    finally:
        os.close(fd)
    return Unsettled(name, found, start + end, torn, gone=gone, more=more)


def _is_gone(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def remove(log: str, name: str, end: int) -> None:
    """Unlink the journal of a writer that is gone, if nothing follows its first ``end`` bytes, which are in
    the tree. After a power loss it can be shorter: only the tree was fsynced.

    The lock is held meanwhile: a writer that is only about to lock its new file then sees that it is gone.
    """
    path = os.path.join(log, FOLDER, name)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return
    try:
        if _is_gone(fd) and os.fstat(fd).st_size <= end:
            os.unlink(path)
    finally:
        os.close(fd)


def sync_folder(log: str) -> None:
    """Bring it to the disk that journals are gone. Only then may `State` forget them: one that came back
    would be taken in again. OSError."""
    try:
        fsync_path(os.path.join(log, FOLDER), directory=True)
    except FileNotFoundError:
        return


def blank(log: str, name: str, end: int) -> None:
    """Overwrite the first ``end`` bytes, which are in the tree, with zeros: names are not to stay here.

    Safe beside a living writer, who only adds at the end.
    """
    fd = os.open(os.path.join(log, FOLDER, name), os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        at = 0
        while at < end:
            at += os.pwrite(fd, bytes(min(1 << 20, end - at)), at)
        os.fsync(fd)
    finally:
        os.close(fd)
