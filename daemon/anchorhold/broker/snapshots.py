"""Data grants are copies: sealed memory files, hashed while they are written.

So the digest in the log is the digest of exactly the bytes that the worker can see, whoever edits
the file meanwhile. What is handed out stays on the books until the worker has let go of it, so that
opening one large file again and again cannot fill the memory of the machine.

A copy is known by its digest: while it is there, the same bytes are handed out from it again. They are
read and hashed each time all the same, whatever the file's name and times say.
Source: memfd_create(2), fcntl(2) (seals), flock(2).
"""

from __future__ import annotations

import errno
import fcntl
import os
from hashlib import sha256

from anchorhold.broker.refusal import Refusal
from anchorhold.kernel import memfd

CHUNK = 1 << 20
MOST = 512
"""Copies that there may be at one time: descriptors of ours."""
KEPT = 256
BYTES_KEPT = 32 << 20
"""Copies that nobody holds are kept up to this, for the next time that the same bytes are asked for."""
_PAGE = 4096
_OVERHEAD = 4096
"""Bytes that the kernel keeps for a copy besides its pages, generously."""

_SEALS = memfd.F_SEAL_SEAL | memfd.F_SEAL_SHRINK | memfd.F_SEAL_GROW | memfd.F_SEAL_WRITE
_FLAGS = memfd.MFD_CLOEXEC | memfd.MFD_NOEXEC_SEAL
_OLDER = memfd.MFD_CLOEXEC | memfd.MFD_ALLOW_SEALING
_READ = os.O_RDONLY | os.O_CLOEXEC


class Snapshots:
    """Makes copies and keeps count of those that the worker still holds.

    Whether it holds one, the kernel tells: what is handed out carries a lock of flock(2), which lasts as long
    as any descriptor or mapping of it, and which the worker cannot take off since it has no flock.
    """

    def __init__(self, budget: int) -> None:
        """budget: bytes of copies that may be held by the worker at one time, the kernel's share included."""
        self.budget = budget
        self._copies: dict[str, tuple[int, int]] = {}  # digest → our descriptor, what it is charged with
        self._charged = 0
        self._flags = _FLAGS
        try:
            os.close(os.memfd_create("anchorhold", _FLAGS))
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            self._flags = _OLDER  # before Linux 6.3
        self._descriptors = os.open("/proc/self/fd", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def copy(self, source: int, limit: int, expected: int) -> tuple[int, str, int]:
        """A read-only descriptor of a sealed copy, its SHA-256 in hex, its size in bytes.

        source: at its beginning. expected: the size that the file had a moment ago. Raises Refusal: over
        ``limit``, unreadable, or too much held already.
        """
        if expected < CHUNK:
            # As much as is there, and one byte to see the end: room has its price, used or not.
            data = _read(source, expected + 1)
            if len(data) == expected:
                digest = sha256(data).hexdigest()
                there = self._copies.get(digest)
                if there is None:
                    self._make_room(expected)
                    copy = os.memfd_create("anchorhold", self._flags)
                    try:
                        _write(copy, data)
                        self._seal(copy, digest, expected)
                    except BaseException:
                        os.close(copy)
                        raise
                else:
                    copy = there[0]
                return self._reader(copy), digest, expected
            # It grew or shrank, or its file system hands out less than was asked for.
            os.lseek(source, 0, os.SEEK_SET)
        return self._copy_large(source, limit, expected)

    def _copy_large(self, source: int, limit: int, expected: int) -> tuple[int, str, int]:
        self._make_room(expected)
        copy = os.memfd_create("anchorhold", self._flags)
        try:
            hashed = sha256()
            size = 0
            while chunk := _read(source, CHUNK):
                size += len(chunk)
                if size > limit:
                    raise Refusal(errno.EFBIG, f"it grew over data.max_file = {limit}", breach=False)
                if size > expected:
                    self._make_room(size)
                hashed.update(chunk)
                _write(copy, chunk)
            digest = hashed.hexdigest()
            there = self._copies.get(digest)
            if there is None:
                self._seal(copy, digest, size)
        except BaseException:
            os.close(copy)
            raise
        if there is not None:
            os.close(copy)
            copy = there[0]
        return self._reader(copy), digest, size

    def _seal(self, copy: int, digest: str, size: int) -> None:
        fcntl.fcntl(copy, memfd.F_ADD_SEALS, _SEALS)
        charge = (size + _PAGE - 1) // _PAGE * _PAGE + _OVERHEAD
        self._copies[digest] = (copy, charge)
        self._charged += charge

    def _reader(self, copy: int) -> int:
        """An open of its own, which cannot write even by its mode, with the lock that tells of it."""
        reader = os.open(b"%d" % copy, _READ, dir_fd=self._descriptors)
        try:
            fcntl.flock(reader, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BaseException:
            os.close(reader)
            raise
        return reader

    def _make_room(self, size: int) -> None:
        if self._charged + size <= self.budget and len(self._copies) < MOST:
            return
        for digest in list(self._copies):
            copy, charge = self._copies[digest]
            if _is_held(copy):
                continue
            del self._copies[digest]
            self._charged -= charge
            os.close(copy)
            if self._charged + size <= min(self.budget, BYTES_KEPT) and len(self._copies) < KEPT:
                return
        if self._charged + size > self.budget or len(self._copies) >= MOST:
            raise Refusal(
                errno.ENOMEM,
                f"the worker holds copies of {self._charged} bytes already and lets none go",
                breach=False,
            )

    def held(self) -> int:
        """Bytes of copies that the worker has open or mapped now."""
        return sum(charge for copy, charge in self._copies.values() if _is_held(copy))

    def close(self) -> None:
        """Let go of everything. What the worker holds stays as it is."""
        for copy, _charge in self._copies.values():
            os.close(copy)
        self._copies.clear()
        os.close(self._descriptors)


def _is_held(copy: int) -> bool:
    try:
        fcntl.flock(copy, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    fcntl.flock(copy, fcntl.LOCK_UN)
    return False


def _read(source: int, size: int) -> bytes:
    try:
        return os.read(source, size)
    except OSError as error:
        raise Refusal(errno.EIO, f"reading it failed: {error.strerror}", breach=False) from None


def _write(fd: int, data: bytes) -> None:
    written = os.write(fd, data)
    while written < len(data):
        written += os.write(fd, memoryview(data)[written:])
