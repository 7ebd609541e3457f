"""The append-only log: every event is on disk before its effect.

Constraint: no record, no grant. `Log.append` returns when the entry is in the file (``durability="write"``)
or on the disk (``"fsync"``), or it raises AuditError and the log is as it was. Several processes append to
one log, 50,000 entries a second from one.

On disk, below ``<state>/log``: the C2SP tlog-tiles layout (``checkpoint``, ``tile/…``), beside it ``tail``
(the entries of the bundle that is not full yet, in bundle encoding), ``key`` and ``vkey``, ``torn/`` (what
crashes tore), ``lock`` (held for one operation) and ``writers`` (held by each open log for its life, so that
a crash can be told from a second run). A tail of 256 entries *is* the bundle and is renamed to become it.
docs/audit-log.md says it all.

Not safe in a signal handler, nor after a fork: the child must open the log itself.
"""

from __future__ import annotations

import errno
import fcntl
import os
import threading

from anchorhold.audit.entry import Encoder, encode_fields, scan
from anchorhold.audit.files import (
    TMP,
    audit_error,
    fsync_path,
    make_folders,
    read_fd,
    read_file,
    remove_quietly,
    replace,
)
from anchorhold.audit.note import Checkpoint, Key
from anchorhold.audit.recover import (
    count_bundles,
    damaged,
    pending,
    repair_bundles,
    set_aside,
    settle,
)
from anchorhold.audit.tree import (
    EMPTY_ROOT,
    WIDTH,
    Tiles,
    fold,
    full_root,
    leaf_hash,
    split_entries,
    tile_path,
)
from anchorhold.errors import AuditError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path

DURABILITIES = ("write", "fsync")


class Log:
    """An open log. Made by `Log.open`; `append` and `checkpoint` may be called from any thread."""

    def __init__(self, path: str, *, sync: bool) -> None:
        self._path = path
        self._sync = sync
        self._pid = os.getpid()
        self._mutex = threading.Lock()
        self._encoder = Encoder()
        self._tiles = Tiles(path, self._tail_hashes)
        self._lock = self._writers = self._tail = -1
        self._number = 0  # of the bundle that the tail will become
        self._count = 0  # entries in the tail
        self._bytes = 0  # bytes of those
        self._signed = 0  # entries that were signed when it was opened
        self._closed = self._unsynced = False

    @classmethod
    def open(cls, state_dir: Path, *, durability: str = "write") -> Log:
        """Open the log of a state directory, made with its key if there is none; put right what a crash left.

        Raises AuditError if it cannot be written, or is damaged.
        """
        if durability not in DURABILITIES:
            raise AuditError(f"durability is {durability!r}; it must be one of {', '.join(DURABILITIES)}")
        path = os.path.join(os.path.abspath(state_dir), "log")
        log = cls(path, sync=durability == "fsync")
        try:
            make_folders(path, sync=log._sync)
            log._lock = log._open_file("lock")
            log._writers = log._open_file("writers")
            with _Locked(log._lock):
                log._start()
        except OSError as error:
            log.close()
            raise audit_error(error, "be opened", error.filename or path) from error
        except BaseException:
            log.close()
            raise
        return log

    @property
    def size(self) -> int:
        """Entries in the log, as far as this process has seen it."""
        return self._number * WIDTH + self._count

    def append(self, kind: str, session: str, fields: dict[str, object]) -> int:
        """Write one entry and return its ``seq``.

        Raises AuditError: then it is not in the log. (After a failed fsync it may be; the log then takes no
        more entries, since the kernel reports such an error once and forgets the data.)
        """
        rest = encode_fields(fields)
        with self._mutex:
            self._check_usable()
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX)
                try:
                    self._catch_up()
                    if self._count == WIDTH:
                        self._rotate()
                    seq = self._write(kind, session, rest)
                finally:
                    fcntl.flock(self._lock, fcntl.LOCK_UN)
                if self._sync:  # outside the lock: the syncs of several writers become one
                    self._unsynced = True
                    os.fdatasync(self._tail)
                    self._unsynced = False
            except OSError as error:
                raise audit_error(error, "be written", self._file("tail")) from error
        return seq

    def checkpoint(self) -> Checkpoint:
        """Sign the head and put it in place, with all it covers on the disk. Raises AuditError."""
        with self._mutex:
            self._check_usable()
            try:
                key = self._load_key()
                with _Locked(self._lock):
                    self._catch_up()
                    return self._sign(key)
            except OSError as error:
                raise audit_error(error, "be signed", error.filename or self._path) from error

    def close(self) -> None:
        """Let go of the files; signs nothing. May be called twice."""
        with self._mutex:
            self._closed = True
            for fd in (self._tail, self._writers, self._lock):
                if fd >= 0:
                    os.close(fd)
            self._tail = self._writers = self._lock = -1

    # -- opening

    def _start(self) -> None:
        """Under the lock: the key, where the log ends, what a crash left; then be known as a writer."""
        alone = _try_lock(self._writers)
        self._make_key()
        self._signed = self._stored_checkpoint().size
        self._number = count_bundles(self._path)
        if alone:
            leftovers = [name for name in os.listdir(self._path) if name.startswith(TMP)]
            remove_quietly([self._file(name) for name in leftovers])
        if alone and self._number * WIDTH > self._signed:
            self._number = repair_bundles(self._path, self._signed, self._number)
        self._open_tail()
        self._catch_up(parse=True)
        if self.size < self._signed:
            raise damaged(self._path, f"{self._signed} entries are signed, {self.size} are there")
        if alone and self.size > self._signed:
            self._sign(self._load_key())
        fcntl.flock(self._writers, fcntl.LOCK_SH)

    def _make_key(self) -> None:
        """The key and the first checkpoint, of the empty log, on first use. Never a second key."""
        have = [os.path.lexists(self._file(name)) for name in ("key", "checkpoint")]
        fresh = not (os.path.exists(self._file("tail")) or os.path.exists(self._file("tile")))
        if not fresh and not all(have):
            missing = "signing key" if not have[0] else "checkpoint"
            raise damaged(self._path, f"there are entries, but the {missing} is gone")
        if all(have):
            mode = os.stat(self._file("key")).st_mode
            if mode & 0o077:
                raise AuditError(
                    f"the audit log's signing key may be read by others: {self._file('key')}",
                    hint="Take it as known to them; make it private again with: chmod 600 on that file",
                )
            return
        if have[0]:
            key = self._load_key()
        else:
            key = Key.generate()
            replace(self._file("key"), key.text().encode(), sync=True)
        replace(self._file("vkey"), key.vkey().encode() + b"\n", sync=True, mode=0o644)
        self._put_checkpoint(key, Checkpoint(key.name, 0, EMPTY_ROOT))

    def _load_key(self) -> Key:
        text = read_file(self._file("key"))
        if text is None:
            raise damaged(self._path, "the signing key is gone")
        return Key.parse(text.decode("ascii", "replace"))

    def _stored_checkpoint(self) -> Checkpoint:
        note = read_file(self._file("checkpoint"))
        if note is None:
            raise damaged(self._path, "the checkpoint is gone")
        return Checkpoint.parse(note)

    # -- all below runs under the lock

    def _open_tail(self) -> None:
        if self._tail >= 0:
            os.close(self._tail)
            self._tail = -1
        self._tail = self._open_file("tail", os.O_APPEND)
        self._count = self._bytes = 0
        if self._sync:
            fsync_path(self._path, directory=True)

    def _catch_up(self, *, parse: bool = False) -> None:
        """Take in what other processes appended or rotated since; set a torn last record aside."""
        while True:
            stat = os.fstat(self._tail)
            if stat.st_nlink == 0:
                raise damaged(self._path, "it was removed while in use")
            if stat.st_size != self._bytes:
                self._read_new(stat.st_size, parse)
            if self._count < WIDTH or self._is_tail(stat):
                break
            self._number += 1
            while os.path.exists(self._file(tile_path("entries", self._number))):
                self._number += 1
            self._open_tail()
        if parse or self._count == 0:
            self._name_torn()

    def _is_tail(self, stat: os.stat_result) -> bool:
        """Whether the open file still has the tail's name; another process may have renamed it."""
        try:
            named = os.stat(self._file("tail"))
        except FileNotFoundError:
            return False
        return (named.st_dev, named.st_ino) == (stat.st_dev, stat.st_ino)

    def _read_new(self, size: int, parse: bool) -> None:
        if size < self._bytes:
            raise damaged(self._path, "the tail has become shorter")
        data = read_fd(self._tail, size - self._bytes, self._bytes)
        count, end = scan(data, self.size, parse=parse)
        self._count += count
        self._bytes += end
        if self._count > WIDTH:
            raise damaged(self._path, "the tail holds more than a bundle")
        torn = data[end:]
        if torn:
            wanted = b'{"v":1,"seq":%d,' % self.size
            start = torn[2 : 2 + len(wanted)]
            if start.startswith(wanted[:13]) and not wanted.startswith(start):
                raise damaged(self._path, f"entry {self.size} is missing")
            if self.size < self._signed:
                raise damaged(self._path, f"{self._signed} entries are signed, {self.size} are there")
            set_aside(self._path, torn)
            os.ftruncate(self._tail, self._bytes)
            self._name_torn()

    def _name_torn(self) -> None:
        """Record what was set aside; repeated until it is, whatever stops us."""
        for digest, length in pending(self._path):
            if self._count == WIDTH:
                self._rotate()
            fields: dict[str, object] = {"bytes": length, "sha256": digest, "file": f"torn/{digest}"}
            self._write("log.recovered", "", encode_fields(fields))
            settle(self._path, digest)

    def _write(self, kind: str, session: str, rest: str) -> int:
        """The hot path's end: one write, undone if it was short."""
        seq = self._number * WIDTH + self._count
        record = self._encoder.entry(seq, session, kind, rest)
        try:
            written = os.write(self._tail, record)
            if written != len(record):
                # A disk that is full takes what fits; the next write says why.
                os.write(self._tail, record[written:])
                raise OSError(errno.EIO, "a record was written in two parts")
        except OSError:
            os.ftruncate(self._tail, self._bytes)
            raise
        self._bytes += written
        self._count += 1
        return seq

    def _rotate(self) -> None:
        """The tail is full: its hash tile, and those above that fill with it, then its new name."""
        data = read_fd(self._tail, self._bytes)
        level, number = 0, self._number
        hashes = list(map(leaf_hash, split_entries(data)))
        full: list[tuple[int | str, int]] = [("entries", number)]
        while True:
            replace(self._file(tile_path(level, number)), b"".join(hashes), sync=self._sync)
            full.append((level, number))
            if level == 0:
                self._tiles.remember(number, full_root(hashes))
            if (number + 1) % WIDTH:
                break
            level, number = level + 1, number // WIDTH
            hashes = self._tiles.hashes(level, number, WIDTH)
        bundle = self._file(tile_path("entries", self._number))
        make_folders(os.path.dirname(bundle), sync=self._sync)
        os.rename(self._file("tail"), bundle)
        if self._sync:
            fsync_path(os.path.dirname(bundle), directory=True)
        self._number += 1
        self._open_tail()
        for one in full:
            _remove_folder(self._file(tile_path(*one) + ".p"))

    def _tail_hashes(self) -> tuple[int, list[bytes]]:
        return self._number, list(map(leaf_hash, split_entries(read_fd(self._tail, self._bytes))))

    # -- checkpoints

    def _sign(self, key: Key) -> Checkpoint:
        """Sign what is there, after everything under it is on the disk."""
        if self._count == WIDTH:
            self._rotate()
        old = self._stored_checkpoint()
        size = self.size
        if old.origin != key.name:
            raise damaged(self._path, "the checkpoint and the signing key are not of one log")
        if old.size > size or fold(self._tiles.right_edge(old.size)) != old.root:
            # tlog-checkpoint: a log must not sign what is inconsistent with what it signed before
            raise damaged(self._path, "its entries are not those of its last checkpoint")
        if old.size == size:
            return old
        edge = self._tiles.right_edge(size)
        self._flush(old.size)
        for level, hashes in enumerate(edge):
            if hashes:
                path = tile_path(level, size >> (8 * (level + 1)), len(hashes))
                replace(self._file(path), b"".join(hashes), sync=True)
        if self._count:
            bundle = tile_path("entries", self._number, self._count)
            replace(self._file(bundle), read_fd(self._tail, self._bytes), sync=True)
        return self._put_checkpoint(key, Checkpoint(key.name, size, fold(edge)))

    def _flush(self, since: int) -> None:
        """fsync what was written since the last checkpoint, by whichever process and in whichever mode."""
        os.fsync(self._tail)
        folders = set()
        first, end = since // WIDTH, self._number
        level = 0
        while first < end:
            for number in range(first, end):
                names = [tile_path(level, number)] + ([tile_path("entries", number)] if level == 0 else [])
                for path in map(self._file, names):
                    fsync_path(path)
                    folders.add(os.path.dirname(path))
            first, end, level = first // WIDTH, end // WIDTH, level + 1
        for folder in sorted(folders, key=len, reverse=True):
            while len(folder) > len(self._path):
                fsync_path(folder, directory=True)
                folder = os.path.dirname(folder)
        fsync_path(self._path, directory=True)

    def _put_checkpoint(self, key: Key, checkpoint: Checkpoint) -> Checkpoint:
        checkpoint.note = key.sign(checkpoint.text())
        replace(self._file("checkpoint"), checkpoint.note, sync=True)
        return checkpoint

    # -- small things

    def _file(self, name: str) -> str:
        return f"{self._path}/{name}"

    def _open_file(self, name: str, flags: int = 0) -> int:
        flags |= os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        return os.open(self._file(name), flags, 0o600)

    def _check_usable(self) -> None:
        if self._closed:
            raise AuditError("the audit log is closed")
        if self._unsynced:
            raise AuditError("the audit log's disk failed; nothing more is written", hint="Check the disk.")
        if os.getpid() != self._pid:
            raise AuditError("the audit log was opened by another process; open it again after a fork")


class _Locked:
    """Exclusive ``flock`` for one operation."""

    __slots__ = ("fd",)

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __enter__(self) -> None:
        fcntl.flock(self.fd, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        fcntl.flock(self.fd, fcntl.LOCK_UN)


def _try_lock(fd: int) -> bool:
    """Whether no other writer is alive."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _remove_folder(path: str) -> None:
    """Partial tiles go when the full one is there, as tlog-tiles allows; leftovers harm nobody."""
    try:
        for name in os.listdir(path):
            os.unlink(f"{path}/{name}")
        os.rmdir(path)
    except OSError:
        return
