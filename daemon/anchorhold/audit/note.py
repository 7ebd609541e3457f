"""Signed notes, verifier keys and checkpoints, as texts.

Sources: https://c2sp.org/signed-note (text, blank line, ``— <name> base64(key ID || signature)``; key ID =
first 4 bytes of ``SHA-256(name || 0x0A || 0x01 || public key)``; vkey ``<name>+<hex id>+<base64(0x01 ||
public key)>``), https://c2sp.org/tlog-checkpoint (origin, size, root, one a line; the key's name is the
origin). Private keys are `anchorhold.audit.keys`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib

from anchorhold.errors import AuditError

ED25519 = b"\x01"
"""Signature type identifier of signed-note."""


def key_identifier(name: str, public: bytes, kind: bytes = ED25519) -> bytes:
    """signed-note's key ID of an Ed25519 key."""
    return hashlib.sha256(name.encode() + b"\n" + kind + public).digest()[:4]


def vkey_text(name: str, public: bytes, kind: bytes = ED25519) -> str:
    """The public verifier key."""
    material = base64.b64encode(kind + public).decode()
    return f"{name}+{key_identifier(name, public, kind).hex()}+{material}"


def note_line(name: str, identifier: bytes, signature: bytes) -> str:
    """A signature line, with its newline."""
    return f"\u2014 {name} {base64.b64encode(identifier + signature).decode()}\n"


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
