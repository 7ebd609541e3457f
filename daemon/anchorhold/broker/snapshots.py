"""Data grants are copies: sealed memory files, hashed while they are written.

So the digest in the log is the digest of exactly the bytes that the worker can see, whoever edits
the file meanwhile. What is handed out stays on the books until the worker has let go of it, so that
opening one large file again and again cannot fill the memory of the machine.
Source: memfd_create(2), fcntl(2) (seals, leases).
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os

from anchorhold.broker.refusal import Refusal
from anchorhold.kernel import memfd

CHUNK = 1 << 20
MOST_HELD = 512
"""Copies the worker may hold at once; descriptors of ours."""

_SEALS = memfd.F_SEAL_SEAL | memfd.F_SEAL_SHRINK | memfd.F_SEAL_GROW | memfd.F_SEAL_WRITE
_READ = os.O_RDONLY | os.O_CLOEXEC


class Snapshots:
    """Makes copies and keeps count of those that the worker still holds."""

    def __init__(self, budget: int) -> None:
        """budget: bytes of copies that may be held by the worker at one time."""
        self.budget = budget
        self.held: dict[int, int] = {}
        self.bytes_held = 0

    def copy(self, source: int, limit: int) -> tuple[int, str, int]:
        """A read-only descriptor of a sealed copy, its SHA-256 in hex, its size in bytes.

        Raises Refusal: over ``limit`` while it was read, unreadable, or too much held already.
        """
        self._make_room(0)
        copy = memfd.memfd_create("anchorhold", memfd.MFD_CLOEXEC | memfd.MFD_ALLOW_SEALING)
        try:
            digest = hashlib.sha256()
            size = 0
            expected = os.fstat(source).st_size
            while True:
                # As much as is there, and one byte to see the end: room has its price, used or not.
                wanted = min(CHUNK, expected - size + 1) if size <= expected else CHUNK
                try:
                    chunk = os.read(source, wanted)
                except OSError as error:
                    raise Refusal(errno.EIO, f"reading it failed: {error.strerror}", breach=False) from None
                if not chunk:
                    break
                size += len(chunk)
                if size > limit:
                    raise Refusal(errno.EFBIG, f"it grew over data.max_file = {limit}", breach=False)
                self._make_room(size)
                digest.update(chunk)
                view = memoryview(chunk)
                while view:
                    view = view[os.write(copy, view) :]
                if len(chunk) < wanted and size >= os.fstat(source).st_size:
                    break
            memfd.add_seals(copy, _SEALS)
            # Two opens of their own: one to hand out, one to tell by (see sweep) when that has been let go.
            reader = os.open(b"/proc/self/fd/%d" % copy, _READ)
            self.held[os.open(b"/proc/self/fd/%d" % copy, _READ)] = size
        finally:
            os.close(copy)
        self.bytes_held += size
        return reader, digest.hexdigest(), size

    def _make_room(self, size: int) -> None:
        if self.bytes_held + size <= self.budget and len(self.held) < MOST_HELD:
            return
        self.sweep()
        if self.bytes_held + size > self.budget or len(self.held) >= MOST_HELD:
            raise Refusal(
                errno.ENOMEM,
                f"the worker holds copies of {self.bytes_held} bytes already and lets none go",
                breach=False,
            )

    def sweep(self) -> None:
        """Forget copies that nobody but us has open: only then is a write lease given (F_SETLEASE)."""
        for fd in list(self.held):
            try:
                fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
            except OSError:
                continue
            self._drop(fd)

    def _drop(self, fd: int) -> None:
        self.bytes_held -= self.held.pop(fd)
        os.close(fd)

    def close(self) -> None:
        for fd in list(self.held):
            self._drop(fd)
