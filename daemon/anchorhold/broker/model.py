"""The model file: opened once, its digest taken once, handed over as it is."""

from __future__ import annotations

import errno
import hashlib
import os
import stat

from anchorhold.broker.refusal import Refusal
from anchorhold.errors import PolicyError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from anchorhold.audit.digests import DigestCache

CHUNK = 1 << 20


def digest_of(fd: int) -> str:
    """SHA-256 in hex of the whole file behind ``fd``, wherever its offset is."""
    digest = hashlib.sha256()
    offset = 0
    while chunk := os.pread(fd, CHUNK, offset):
        digest.update(chunk)
        offset += len(chunk)
    return digest.hexdigest()


def identity(found: os.stat_result) -> tuple[int, ...]:
    """What changes when a file does."""
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


class ModelFile:
    """The one file of class ``model``. Pinned by a descriptor: what is put in its place later is not it."""

    def __init__(self, path: str, expected: str | None, digests: DigestCache) -> None:
        """Raises PolicyError if it cannot be opened, is no regular file or not the one of the policy."""
        self.path = os.fsencode(path)
        try:
            self.fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        except OSError as error:
            raise PolicyError(
                f"{path}: {error.strerror}", hint="Name a model file that this user may read."
            ) from None
        try:
            found = os.fstat(self.fd)
            if not stat.S_ISREG(found.st_mode):
                raise PolicyError(f"{path}: no regular file", hint="model.path must name a GGUF file.")
            self.resolved = os.readlink(b"/proc/self/fd/%d" % self.fd)
            cached = digests.get(found)
            self.sha256 = cached or digest_of(self.fd)
            self.stat = os.fstat(self.fd)
            if identity(self.stat) != identity(found):
                raise PolicyError(f"{path}: it changed while it was read", hint="Wait until it is written.")
            if cached is None:
                digests.put(self.stat, self.sha256)
            if expected is not None and expected != self.sha256:
                raise PolicyError(
                    f"{path}: its SHA-256 is {self.sha256}, the policy wants {expected}",
                    hint="This is not the model that the policy was written for.",
                )
        except BaseException:
            os.close(self.fd)
            raise

    def open(self) -> int:
        """A descriptor to hand over. Raises Refusal if the file was written to since its digest was taken."""
        if identity(os.fstat(self.fd)) != identity(self.stat):
            raise Refusal(
                errno.EACCES, "the model file changed after its digest was taken",
                breach=True, answer="on_changed_model",
            )  # fmt: skip
        return os.open(b"/proc/self/fd/%d" % self.fd, os.O_RDONLY | os.O_CLOEXEC)

    def close(self) -> None:
        os.close(self.fd)
