"""The signing key of an epoch: made, used, and destroyed so that nothing of it is left.

Constraint: whoever takes the machine today must not find yesterday's key, on the disk or in a process's
memory. So a seed lives in bytearrays that are overwritten after use, never in ``bytes`` or ``str``, which
Python copies and frees without clearing; base64 is done by hand for that reason. OpenSSL clears its own copy
when the key object goes.

A file is overwritten before it is unlinked. A disk that writes elsewhere (flash, copy-on-write file systems,
snapshots, backups) can keep the old block all the same: docs/threat-model.md.

``cryptography`` is imported inside the functions: it takes 15 ms, and an ordinary start needs none of it.
Sources: RFC 8032, https://c2sp.org/signed-note; the file has the text form of Go's
``golang.org/x/mod/sumdb/note``: ``PRIVATE+KEY+<name>+<hex id>+<base64(0x01 || seed)>``, which other tools
read too.
"""

from __future__ import annotations

import errno
import os
import stat

from anchorhold.audit.files import fsync_path, give, write_all
from anchorhold.audit.note import ED25519, key_identifier, note_line, vkey_text
from anchorhold.errors import AuditError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_VALUES = {letter: value for value, letter in enumerate(_ALPHABET)}
SEED = 32

_HINT = "Restore it from a backup, or move the log's folder aside so that a new log with a new key begins."


class Key:
    """A key in use. ``name`` is the epoch's origin. `wipe` it as soon as it has signed."""

    __slots__ = ("_private", "identifier", "name", "public", "seed")

    def __init__(self, name: str, seed: bytearray) -> None:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        self.name = name
        self.seed = seed
        self._private: Ed25519PrivateKey | None = Ed25519PrivateKey.from_private_bytes(seed)
        self.public = self._private.public_key().public_bytes_raw()
        self.identifier = key_identifier(name, self.public)

    @classmethod
    def generate(cls, name: str) -> Key:
        """A new key from the kernel's random numbers."""
        seed = bytearray(SEED)
        with open("/dev/urandom", "rb", buffering=0) as source:
            if source.readinto(seed) != SEED:
                raise AuditError("the kernel gives no random numbers")
        return cls(name, seed)

    @classmethod
    def load(cls, path: str) -> Key:
        """Read a key file. AuditError if it is none, OSError."""
        text = _read(path)
        parts: list[bytearray] = []
        seed = bytearray()
        try:
            if text[-1:] == b"\n":
                del text[-1:]
            parts = text.split(b"+", 4)
            if len(parts) == 5 and parts[:2] == [b"PRIVATE", b"KEY"]:
                seed = _decode(parts[4])
            if len(seed) == SEED + 1 and seed[:1] == ED25519:
                key = cls(parts[2].decode("ascii", "replace"), seed[1:])
                if key.identifier.hex().encode() == parts[3]:
                    return key
                key.wipe()
        finally:
            _wipe(text, seed, *parts)
        raise AuditError("the audit log's signing key is damaged", hint=_HINT)

    def save(self, path: str) -> None:
        """Write the file, mode 0600, and its name, to the disk. OSError."""
        head = f"PRIVATE+KEY+{self.name}+{self.identifier.hex()}+".encode()
        material = bytearray(SEED + 1)
        material[:1] = ED25519
        material[1:] = self.seed
        encoded = _encode(material)
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                give(fd, os.path.dirname(path))
                for part in (head, encoded, b"\n"):
                    write_all(fd, part)
                os.fsync(fd)
            finally:
                os.close(fd)
        finally:
            _wipe(material, encoded)
        fsync_path(os.path.dirname(path), directory=True)

    def vkey(self) -> str:
        """The public verifier key."""
        return vkey_text(self.name, self.public)

    def sign(self, text: str) -> bytes:
        """The signed note of ``text``, which ends with a newline."""
        return f"{text}\n{note_line(self.name, self.identifier, self.signature(text))}".encode()

    def signature(self, text: str) -> bytes:
        """The bare signature."""
        if self._private is None:
            raise AuditError("the audit log's signing key is gone")
        return self._private.sign(text.encode())

    def wipe(self) -> None:
        """Overwrite the seed; OpenSSL clears its copy as the object is freed."""
        _wipe(self.seed)
        self._private = None


def destroy(path: str) -> None:
    """Overwrite and unlink a key file. Nothing happens where there is none. OSError."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return
    try:
        size = os.fstat(fd).st_size
        for filling in (b"\xff", b"\0"):
            os.pwrite(fd, filling * size, 0)
            os.fsync(fd)
    finally:
        os.close(fd)
    os.unlink(path)
    fsync_path(os.path.dirname(path), directory=True)


def _read(path: str) -> bytearray:
    """A small file, into memory that can be overwritten."""
    # a named pipe in its place would be waited for without end
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file", path)
        text = bytearray(min(status.st_size, 4096))
        del text[os.readv(fd, [text]) :]
        return text
    finally:
        os.close(fd)


def _wipe(*buffers: bytearray) -> None:
    for buffer in buffers:
        buffer[:] = bytes(len(buffer))


def _encode(data: bytearray) -> bytearray:
    """Base64 (RFC 4648); the length is a multiple of three. The result is never moved while it is filled: a
    buffer that grows leaves copies behind."""
    out = bytearray(len(data) // 3 * 4)
    for at in range(0, len(data), 3):
        value = data[at] << 16 | data[at + 1] << 8 | data[at + 2]
        for place, shift in enumerate((18, 12, 6, 0)):
            out[at // 3 * 4 + place] = _ALPHABET[value >> shift & 63]
    return out


def _decode(text: bytearray) -> bytearray:
    """The reverse; nothing where it is no such text."""
    if len(text) % 4 or any(letter not in _VALUES for letter in text):
        return bytearray()
    out = bytearray(len(text) // 4 * 3)
    for at in range(0, len(text), 4):
        value = 0
        for place in range(4):
            value = value << 6 | _VALUES[text[at + place]]
        for place, shift in enumerate((16, 8, 0)):
            out[at // 4 * 3 + place] = value >> shift & 255
    return out
