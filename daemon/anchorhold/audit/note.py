"""Signed notes, verifier keys and checkpoints, with one Ed25519 key.

Sources: https://c2sp.org/signed-note (text, blank line, ``— <name> base64(key ID || signature)``; key ID =
first 4 bytes of ``SHA-256(name || 0x0A || 0x01 || public key)``; vkey ``<name>+<hex id>+<base64(0x01 ||
public key)>``), https://c2sp.org/tlog-checkpoint (origin, size, root, one a line; the key's name is the
origin). The private key is stored in the text form of Go's ``golang.org/x/mod/sumdb/note``:
``PRIVATE+KEY+<name>+<hex id>+<base64(0x01 || seed)>``, which other tools read too.

``cryptography`` is imported inside the functions: it takes 15 ms, and an ordinary start needs none of it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os

from anchorhold.errors import AuditError

ED25519 = b"\x01"
"""Signature type identifier of signed-note."""


class Key:
    """The signing key: ``name`` is the log's origin, ``seed`` the 32 secret bytes (RFC 8032)."""

    __slots__ = ("identifier", "name", "public", "seed")

    def __init__(self, name: str, seed: bytes) -> None:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        self.name = name
        self.seed = seed
        self.public = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
        self.identifier = key_identifier(name, self.public)

    @classmethod
    def generate(cls) -> Key:
        """A new key; the random half of its name makes the origin unique, as tlog-checkpoint wants."""
        return cls(f"anchorhold/{os.urandom(8).hex()}", os.urandom(32))

    @classmethod
    def parse(cls, text: str) -> Key:
        """Read the stored form; AuditError if it is anything else."""
        parts = text.removesuffix("\n").split("+", 4)
        try:
            if len(parts) != 5 or parts[:2] != ["PRIVATE", "KEY"]:
                raise ValueError
            material = base64.b64decode(parts[4], validate=True)
            if len(material) != 33 or material[:1] != ED25519:
                raise ValueError
            key = cls(parts[2], material[1:])
            if key.identifier.hex() != parts[3]:
                raise ValueError
        except (ValueError, binascii.Error):
            raise AuditError("the audit log's signing key is damaged", hint=_KEY_HINT) from None
        return key

    def text(self) -> str:
        """The stored form, with its newline."""
        material = base64.b64encode(ED25519 + self.seed).decode()
        return f"PRIVATE+KEY+{self.name}+{self.identifier.hex()}+{material}\n"

    def vkey(self) -> str:
        """The public verifier key."""
        material = base64.b64encode(ED25519 + self.public).decode()
        return f"{self.name}+{self.identifier.hex()}+{material}"

    def sign(self, text: str) -> bytes:
        """The signed note of ``text``, which ends with a newline."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        signature = Ed25519PrivateKey.from_private_bytes(self.seed).sign(text.encode())
        line = base64.b64encode(self.identifier + signature).decode()
        return f"{text}\n\u2014 {self.name} {line}\n".encode()


_KEY_HINT = (
    "Restore it from a backup, or move the log's folder aside so that a new log with a new key begins."
)


def key_identifier(name: str, public: bytes) -> bytes:
    """signed-note's key ID of an Ed25519 key."""
    return hashlib.sha256(name.encode() + b"\n" + ED25519 + public).digest()[:4]


class Checkpoint:
    """A signed head: ``size`` entries, their ``root``; ``note`` is the whole signed note."""

    __slots__ = ("note", "origin", "root", "size")

    def __init__(self, origin: str, size: int, root: bytes, note: bytes = b"") -> None:
        self.origin = origin
        self.size = size
        self.root = root
        self.note = note

    def text(self) -> str:
        """The note's text as tlog-checkpoint has it."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"

    @classmethod
    def parse(cls, note: bytes) -> Checkpoint:
        """Read a checkpoint; its signature is verify/'s work. AuditError if malformed."""
        try:
            origin, size, root, *rest = note.decode().split("\n")
            if not origin or not rest or str(int(size)) != size or int(size) < 0:
                raise ValueError
            checkpoint = cls(origin, int(size), base64.b64decode(root, validate=True), note)
            if len(checkpoint.root) != 32:
                raise ValueError
        except (ValueError, binascii.Error):
            raise AuditError(
                "the audit log's checkpoint is damaged", hint="Run: anchorhold audit verify"
            ) from None
        return checkpoint
