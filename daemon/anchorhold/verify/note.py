"""Reads and checks C2SP signed notes (https://c2sp.org/signed-note) that are checkpoints
(https://c2sp.org/tlog-checkpoint). Strict: whatever is not exactly as these write it is refused, so that no
bit of a checkpoint or key can change unseen.
"""

from __future__ import annotations

import base64
import hashlib
import re

from anchorhold.verify.files import read

_CONTROL = re.compile("[\x00-\x09\x0b-\x1f]")
MAX_SIGNATURES = 64
MAX_BYTES = 100_000


class NoteError(Exception):
    """The note or key is malformed, or its signature is not good. The text says what."""


ED25519 = 1
COSIGNATURE = 4
"""Signature types: signed-note's Ed25519, tlog-cosignature's Ed25519."""


class VerifierKey:
    """A vkey of signature type ``kind``: 1 (a log's, Ed25519) or 4 (a witness's, Ed25519 with a time)."""

    def __init__(self, text: str, kind: int = ED25519) -> None:
        parts = text.split("+", 2)
        if len(parts) != 3:
            raise NoteError("the verifier key is no vkey")
        self.name, identifier, material = parts
        decoded = decode64(material)
        if not self.name or len(decoded) != 33 or decoded[0] != kind:
            raise NoteError(f"the verifier key is no Ed25519 vkey of type {kind}")
        if (
            " " in self.name or not self.name.isprintable()
        ):  # what turns text round or acts on a terminal, too
            raise NoteError("the verifier key's name holds white space or unprintable characters")
        self.public = decoded[1:]
        self.kind = kind
        self.identifier = hashlib.sha256(self.name.encode() + b"\n" + decoded).digest()[:4]
        if self.identifier.hex() != identifier:
            raise NoteError("the verifier key's ID does not belong to it")
        self.text = text

    def check(self, signature: bytes, text: bytes) -> bool:
        """Whether the signature of the text is good."""
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        try:
            Ed25519PublicKey.from_public_bytes(self.public).verify(signature, text)
        except (InvalidSignature, ValueError):
            return False
        return True


def given_key(text: str) -> str:
    """The vkey that a person gave: as it is, or the first line of the file that has this name. Raises
    NoteError."""
    try:
        return VerifierKey(text.strip()).text
    except NoteError as error:
        problem = str(error)
    try:
        data = read(text, MAX_BYTES)
    except (OSError, ValueError):
        data = None
    if data is None:
        raise NoteError(f"{ascii(text)} is neither a vkey ({problem}) nor a file that holds one")
    try:
        return VerifierKey(data.partition(b"\n")[0].decode("utf-8", "replace").strip()).text
    except NoteError as error:
        raise NoteError(f"the file {ascii(text)} does not begin with a vkey: {error}") from None


class Head:
    """A tree head: what a checkpoint says."""

    def __init__(self, origin: str, size: int, root: bytes) -> None:
        self.origin = origin
        self.size = size
        self.root = root


def decode64(text: str) -> bytes:
    """Standard base64 in its one canonical form: spare bits must be zero."""
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError:
        raise NoteError("base64 is malformed") from None
    if base64.b64encode(data).decode() != text:
        raise NoteError("base64 is not in its canonical form")
    return data


def read_head(note: bytes, key: VerifierKey | None) -> Head:
    """The head of a checkpoint. With ``key``, its signature is demanded and checked. Raises NoteError."""
    body, signatures = _split(note)
    lines = body.split("\n")
    if len(lines) < 3 or not all(lines):
        raise NoteError("the checkpoint has not the three lines of a tree head")
    origin, size, root = lines[:3]
    if not (size.isascii() and size.isdigit()) or len(size) > 19 or str(int(size)) != size:
        raise NoteError("the checkpoint's size is no number")
    head = Head(origin, int(size), decode64(root))
    if len(head.root) != 32:
        raise NoteError("the checkpoint's root is no SHA-256 hash")
    if key is not None:
        if origin != key.name:
            raise NoteError("the checkpoint is of another log than the key")
        text = (body + "\n").encode()
        found = _signatures(signatures, key)
        if any(len(one) != 64 or not key.check(one, text) for one in found):
            raise NoteError("the checkpoint's signature is not good")
        if not found:
            raise NoteError("the checkpoint is not signed by the log's key")
    return head


def cosigned_at(note: bytes, witness: VerifierKey) -> int | None:
    """When ``witness`` cosigned the checkpoint (POSIX seconds); None if it did not. Raises NoteError if a
    line that claims to be its cosignature is not good. Source: https://c2sp.org/tlog-cosignature."""
    body, signatures = _split(note)
    newest = None
    for one in _signatures(signatures, witness):
        time = int.from_bytes(one[:8], "big")
        message = f"cosignature/v1\ntime {time}\n{body}\n".encode()
        if len(one) != 72 or time >= 1 << 63 or not witness.check(one[8:], message):
            raise NoteError("a cosignature of the checkpoint is not good")
        newest = max(newest or 0, time)
    return newest


def _split(note: bytes) -> tuple[str, list[str]]:
    """The text of a signed note without its last newline, and its signature lines."""
    if len(note) > MAX_BYTES:
        raise NoteError("the checkpoint is too long")
    try:
        whole = note.decode("utf-8")
    except UnicodeDecodeError:
        raise NoteError("the checkpoint is no UTF-8") from None
    if _CONTROL.search(whole):
        raise NoteError("the checkpoint holds control characters")
    body, blank, signatures = whole.rpartition("\n\n")
    if not blank or not signatures.endswith("\n"):
        raise NoteError("the checkpoint is no signed note")
    return body, signatures[:-1].split("\n")


def _signatures(lines: list[str], key: VerifierKey) -> list[bytes]:
    """The signatures that claim to be of ``key``. All lines must be well formed."""
    if len(lines) > MAX_SIGNATURES:
        raise NoteError("the checkpoint has too many signatures")
    found = []
    for line in lines:
        dash, _, rest = line.partition(" ")
        name, _, encoded = rest.partition(" ")
        if dash != "\u2014" or not name or "+" in name:
            raise NoteError("a signature line of the checkpoint is malformed")
        data = decode64(encoded)
        if len(data) < 5:
            raise NoteError("a signature of the checkpoint is too short")
        if name == key.name and data[:4] == key.identifier:  # others are passed over, as signed-note wants
            found.append(data[4:])
    return found


def private_belongs(text: str, key: VerifierKey) -> bool:
    """Whether a stored private key (Go's note form) is the one of ``key``, bit for bit."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    start = f"PRIVATE+KEY+{key.name}+{key.identifier.hex()}+"
    if not text.startswith(start) or not text.endswith("\n"):
        return False
    try:
        material = decode64(text[len(start) : -1])
    except NoteError:
        return False
    if len(material) != 33 or material[0] != 1:
        return False
    public = Ed25519PrivateKey.from_private_bytes(material[1:]).public_key()
    # Not public_bytes_raw(): an auditor's cryptography can be older than 40 (Debian 12 has 38).
    return public.public_bytes(Encoding.Raw, PublicFormat.Raw) == key.public
