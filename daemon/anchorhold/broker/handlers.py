"""The answers. One method per system call of the table; each gets registers and returns the call's value.

A method returns None when the answer has gone out with a descriptor, and raises Absent, Refusal or
Fault otherwise. Everything a path says is decided on one copy of it, taken once.
Sources: open(2), stat(2), statx(2), access(2), readlink(2), getdents(2), getcwd(2), uname(2).
"""

from __future__ import annotations

import errno
import os
import stat
import struct

from anchorhold.broker import paths
from anchorhold.broker.memory import Fault, Memory
from anchorhold.broker.model import ModelFile, digest_of
from anchorhold.broker.record import Recorder
from anchorhold.broker.refusal import Absent, Refusal, outside
from anchorhold.broker.runtime import Runtime
from anchorhold.broker.snapshots import Snapshots
from anchorhold.broker.stats import FOLDER, NULL, Stat
from anchorhold.broker.system import ABSENT, System
from anchorhold.broker.view import DT_DIR, DT_REG, DataView
from anchorhold.kernel import memfd, seccomp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from anchorhold.audit.digests import DigestCache
    from anchorhold.policy.match import Decision

AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
O_LARGEFILE = 0o100000
_HARMLESS = (
    os.O_CLOEXEC
    | os.O_NOFOLLOW
    | os.O_NONBLOCK
    | os.O_NOCTTY
    | os.O_DIRECTORY
    | os.O_NOATIME
    | os.O_PATH
    | O_LARGEFILE
)
_DIRENT = struct.Struct("=QqHB")
_OPEN_HOW = struct.Struct("=QQQ")
_MOST_HOW = 4096  # as the kernel: a page
DT_UNKNOWN = 0
LISTINGS = 64 << 20
"""Bytes of listings that the worker may have begun to read and not read to their end."""


class Folder:
    """A folder that the worker has open: its path, and what is still to be listed, the next one last."""

    __slots__ = ("entries", "path", "waiting")

    def __init__(self, path: bytes) -> None:
        self.path = path
        self.entries: list[bytes] | None = None
        self.waiting = 0  # bytes of them


class Handlers:
    """What the worker may ask, and the answers, for the life of one worker."""

    def __init__(
        self,
        *,
        memory: Memory,
        recorder: Recorder,
        view: DataView,
        model: ModelFile,
        runtime: Runtime,
        system: System,
        snapshots: Snapshots,
        digests: DigestCache,
        folder: int,
        total_memory: int,
        skipped: Callable[[bytes, str], None],
    ) -> None:
        """folder: the empty directory that stands for every folder; total_memory: bytes, for sysinfo(2)."""
        self.memory = memory
        self.recorder = recorder
        self.view = view
        self.model = model
        self.runtime = runtime
        self.system = system
        self.snapshots = snapshots
        self.digests = digests
        self.folder = folder
        self.total_memory = total_memory
        self.skipped = skipped
        self.phase = "boot"
        self.listener = -1
        self.asked_path = b""
        self.open_files: dict[int, tuple[Stat, Folder | None]] = {}

    # ---- system calls -------------------------------------------------------------------------

    def open(self, asked: seccomp.Notification) -> int | None:
        args = asked.args
        return self._open(asked.id, self._path(AT_FDCWD, args[0]), args[1])

    def openat(self, asked: seccomp.Notification) -> int | None:
        args = asked.args
        return self._open(asked.id, self._path(args[0], args[1]), args[2])

    def openat2(self, asked: seccomp.Notification) -> int | None:
        args = asked.args
        path = self._path(args[0], args[1])
        if args[3] < _OPEN_HOW.size:
            raise Fault(errno.EINVAL)
        if args[3] > _MOST_HOW:
            raise Fault(errno.E2BIG)
        how = self.memory.read(args[2], args[3])
        if any(how[_OPEN_HOW.size :]):
            raise Fault(errno.E2BIG)  # of a newer kernel's, which this one does not know: openat2(2)
        flags, _mode, _resolve = _OPEN_HOW.unpack_from(how)
        return self._open(asked.id, path, flags)

    def stat(self, asked: seccomp.Notification) -> int:
        args = asked.args
        self.memory.write(args[1], self._stat(self._path(AT_FDCWD, args[0])).packed())
        return 0

    def newfstatat(self, asked: seccomp.Notification) -> int:
        args = asked.args
        self.memory.write(args[2], self._stat_at(args[0], args[1], args[3]).packed())
        return 0

    def statx(self, asked: seccomp.Notification) -> int:
        args = asked.args
        self.memory.write(args[4], self._stat_at(args[0], args[1], args[2]).packed_statx())
        return 0

    def access(self, asked: seccomp.Notification) -> int:
        return self._access(self._path(AT_FDCWD, asked.args[0]), asked.args[1])

    def faccessat(self, asked: seccomp.Notification) -> int:
        return self._access(self._path(asked.args[0], asked.args[1]), asked.args[2])

    def readlink(self, asked: seccomp.Notification) -> int:
        self._stat(self._path(AT_FDCWD, asked.args[0]))
        raise Absent(errno.EINVAL)  # links are followed here; to the worker nothing is one

    def readlinkat(self, asked: seccomp.Notification) -> int:
        self._stat(self._path(asked.args[0], asked.args[1]))
        raise Absent(errno.EINVAL)

    def getdents64(self, asked: seccomp.Notification) -> int:
        fd, address, size = asked.args[0] & 0xFFFFFFFF, asked.args[1], asked.args[2] & 0xFFFFFFFF
        folder = self._open_folder(fd)
        self.asked_path = folder.path
        if folder.entries is None:
            folder.entries = self._list(folder.path)[::-1]
            folder.waiting = sum(map(len, folder.entries))
            others = sum(other.waiting for _stat, other in self.open_files.values() if other is not None)
            if others > LISTINGS:
                folder.entries, folder.waiting = None, 0
                reason = f"the worker holds {others} bytes of listings that it does not read"
                raise Refusal(errno.ENOMEM, reason, breach=False)
        entries = folder.entries
        data = bytearray()
        taken = 0
        while taken < len(entries) and len(data) + len(entries[-1 - taken]) <= size:
            taken += 1
            data += entries[-taken]
        if not data and entries:
            raise Absent(errno.EINVAL)  # the buffer holds not even one: as getdents(2) says
        if data:
            self.memory.write(address, bytes(data))
            del entries[-taken:]
            folder.waiting -= len(data)
        return len(data)

    def getcwd(self, asked: seccomp.Notification) -> int:
        if asked.args[1] < 2:
            raise Absent(errno.ERANGE)
        self.memory.write(asked.args[0], b"/\0")
        return 2

    def uname(self, asked: seccomp.Notification) -> int:
        self.memory.write(asked.args[0], self.system.uname())
        return 0

    def sysinfo(self, asked: seccomp.Notification) -> int:
        self.memory.write(asked.args[0], self.system.sysinfo(self.total_memory))
        return 0

    def nothing_to_do(self, asked: seccomp.Notification) -> int:
        return 0

    def not_here(self, asked: seccomp.Notification) -> int:
        raise Absent(errno.ENOSYS)

    def no_such_process(self, asked: seccomp.Notification) -> int:
        raise Absent(errno.ESRCH)

    def not_valid(self, asked: seccomp.Notification) -> int:
        raise Absent(errno.EINVAL)

    # ---- paths --------------------------------------------------------------------------------

    def _path(self, dirfd: int, address: int, *, empty: bool = False) -> bytes:
        """The absolute path that is meant, as text, read once. ``..`` is not taken out yet."""
        self.asked_path = path = self.memory.path(address)
        if path[:1] == b"/":
            return path
        if not path:
            if empty:
                return path
            raise Absent
        base = b"/"
        if dirfd & 0xFFFFFFFF != AT_FDCWD & 0xFFFFFFFF:
            base = self._open_folder(dirfd & 0xFFFFFFFF).path
        self.asked_path = path = base.rstrip(b"/") + b"/" + path
        return path

    def _open_folder(self, fd: int) -> Folder:
        known = self.open_files.get(fd)
        if known is None or known[1] is None:
            raise Absent(errno.ENOTDIR if known else errno.EBADF)
        return known[1]

    def _open(self, id: int, path: bytes, flags: int) -> int | None:
        flags &= 0xFFFFFFFF  # an int to the kernel: what is above it is nobody's
        cleaned, dots = paths.clean(path)
        if cleaned == b"/dev/null":
            self._give_null(id, flags)
            return None
        if flags & os.O_ACCMODE != os.O_RDONLY or flags & ~(_HARMLESS | os.O_ACCMODE):
            raise outside("asked to write or create")
        made_up = self.system.files.get(cleaned)
        if made_up is not None:
            self._give_made_up(id, path, made_up)
            return None
        if cleaned in ABSENT:
            raise Absent
        if self.phase == "sealed":
            if cleaned == self.model.path:
                self._give_model(id, path)
                return None
            decision = self.view.decide(path if dots else cleaned)
            if decision.allowed:
                self._give_data(id, path, cleaned, flags, decision)
                return None
        if self.runtime.knows(cleaned):
            self._give_runtime(id, path, cleaned, flags)
            return None
        raise self._refused(path if dots else cleaned)

    def _refused(self, path: bytes) -> Refusal:
        """Outside everything: the reason comes from the text of the path alone."""
        if self.phase != "sealed":
            return outside("outside the runtime")
        rule = self.view.decide(path).rule
        return Refusal(errno.EACCES, rule, breach=True, rule=rule)

    def _stat(self, path: bytes) -> Stat:
        cleaned, dots = paths.clean(path)
        if cleaned == b"/dev/null":
            return NULL
        made_up = self.system.files.get(cleaned)
        if made_up is not None:
            return Stat(stat.S_IFREG | 0o444, len(made_up))
        if cleaned in ABSENT:
            raise Absent
        if self.phase == "sealed":
            if cleaned == self.model.path:
                return Stat.of(self.model.stat)
            decision = self.view.decide(path if dots else cleaned)
            if decision.allowed:
                found = self.view.find(cleaned, decision)
                os.close(found.fd)
                return Stat.of(found.stat)
        if self.runtime.knows(cleaned):
            return Stat.of(self.runtime.look(cleaned))
        raise self._refused(path if dots else cleaned)

    def _stat_at(self, dirfd: int, address: int, flags: int) -> Stat:
        path = self._path(dirfd, address, empty=bool(flags & AT_EMPTY_PATH))
        if path:
            return self._stat(path)
        known = self.open_files.get(dirfd & 0xFFFFFFFF)
        if known is None:
            raise Absent(errno.EBADF)
        return known[0]

    def _access(self, path: bytes, mode: int) -> int:
        found = self._stat(path)
        if mode & os.W_OK and not stat.S_ISCHR(found.mode):
            raise Absent(errno.EACCES)
        if mode & os.X_OK and not stat.S_ISDIR(found.mode):
            raise Absent(errno.EACCES)
        return 0

    # ---- grants: the record first, then the descriptor ----------------------------------------

    def _send(self, id: int, fd: int, described: Stat, folder: Folder | None = None) -> None:
        try:
            number = seccomp.add_fd(self.listener, id, fd)
        except OSError as error:
            if error.errno == errno.ENOENT:
                return  # the thread died meanwhile; the record stands
            raise Absent(errno.EMFILE if error.errno == errno.EMFILE else errno.EIO) from None
        self.open_files[number] = (described, folder)

    def _give_null(self, id: int, flags: int) -> None:
        fd = os.open("/dev/null", flags & os.O_ACCMODE | os.O_CLOEXEC)
        try:
            self.recorder.grant(b"/dev/null", b"/dev/null", "device", "", 0, "direct")
            self._send(id, fd, NULL)
        finally:
            os.close(fd)

    def _give_made_up(self, id: int, path: bytes, content: bytes) -> None:
        source = memfd.memfd_create("anchorhold", memfd.MFD_CLOEXEC | memfd.MFD_NOEXEC_SEAL)
        try:
            os.write(source, content)
            os.lseek(source, 0, os.SEEK_SET)
            reader, digest, size = self.snapshots.copy(source, len(content), len(content))
        finally:
            os.close(source)
        try:
            self.recorder.grant(path, path, "system", digest, size, "snapshot")
            self._send(id, reader, Stat(stat.S_IFREG | 0o444, size))
        finally:
            os.close(reader)

    def _give_model(self, id: int, path: bytes) -> None:
        fd = self.model.open()
        try:
            model = self.model
            self.recorder.grant(path, model.resolved, "model", model.sha256, model.stat.st_size, "direct")
            self._send(id, fd, Stat.of(model.stat))
        finally:
            os.close(fd)

    def _give_data(self, id: int, path: bytes, cleaned: bytes, flags: int, decision: Decision) -> None:
        found = self.view.find(cleaned, decision)
        try:
            if stat.S_ISDIR(found.stat.st_mode):
                self._send(id, self.folder, Stat.of(found.stat), Folder(cleaned))
                return
            if flags & os.O_DIRECTORY:
                raise Absent(errno.ENOTDIR)
            source = self.view.open(found)
        finally:
            os.close(found.fd)
        try:
            reader, digest, size = self.snapshots.copy(source, self.view.policy.max_file, found.stat.st_size)
        finally:
            os.close(source)
        try:
            self.recorder.grant(path, found.resolved, "data", digest, size, "snapshot")
            described = Stat.of(found.stat)
            described.size = size
            self._send(id, reader, described)
        finally:
            os.close(reader)

    def _give_runtime(self, id: int, path: bytes, cleaned: bytes, flags: int) -> None:
        fd, found, real = self.runtime.open(cleaned)
        try:
            if stat.S_ISDIR(found.st_mode):
                self._send(id, self.folder, FOLDER, Folder(cleaned))
                return
            if flags & os.O_DIRECTORY:
                raise Absent(errno.ENOTDIR)
            digest = self.digests.get(found)
            if digest is None:
                digest = digest_of(fd)
                self.digests.put(found, digest)
            self.recorder.grant(path, real, "runtime", digest, found.st_size, "direct")
            self._send(id, fd, Stat.of(found))
        finally:
            os.close(fd)

    # ---- listings -----------------------------------------------------------------------------

    def _list(self, path: bytes) -> list[bytes]:
        if self.phase == "sealed" and self.view.decide(path).allowed:
            listing = self.view.list(path)
            self.recorder.listing(path, listing.resolved, "data", len(listing.names), len(listing.hidden))
            for name, reason in listing.hidden:
                self.skipped(path.rstrip(b"/") + b"/" + name, reason)
            return _records(listing.names)
        try:
            with os.scandir(path) as found:
                names = [
                    (os.fsencode(entry.name), DT_DIR if entry.is_dir(follow_symlinks=False) else DT_UNKNOWN)
                    for entry in found
                ]
        except OSError as error:
            raise Absent(error.errno or errno.ENOENT) from None
        shown = [(name, kind) for name, kind in names if self.runtime.shows(path, name)]
        self.recorder.listing(path, path, "runtime", len(shown), len(names) - len(shown))
        return _records(shown)


def _records(names: list[tuple[bytes, int]]) -> list[bytes]:
    """``struct linux_dirent64`` for each name, ``.`` and ``..`` first; inode numbers are made up."""
    records = []
    for number, (name, kind) in enumerate([(b".", DT_DIR), (b"..", DT_DIR), *names], 1):
        length = (_DIRENT.size + len(name) + 1 + 7) & ~7
        records.append((_DIRENT.pack(number, number, length, kind) + name).ljust(length, b"\0"))
    return records


__all__ = ["DT_DIR", "DT_REG", "Folder", "Handlers"]
