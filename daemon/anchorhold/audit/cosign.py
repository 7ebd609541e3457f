"""The other side of a witness: a second person's machine, which cosigns a log's heads.

Sources: https://c2sp.org/tlog-cosignature (the message ``cosignature/v1``, the time, signature type 0x04),
https://c2sp.org/tlog-witness (that a head is remembered, on the disk, before it is cosigned, and that the
next one must be consistent with it). The HTTP calls of tlog-witness are not spoken: neither side has network
access; what is cosigned travels as a file.
"""

from __future__ import annotations

import os
import time
from urllib.parse import quote

from anchorhold.audit.files import read_file, replace
from anchorhold.audit.keys import Key
from anchorhold.audit.note import Checkpoint, key_identifier, note_line, vkey_text
from anchorhold.audit.read import Snapshot, log_folder
from anchorhold.audit.tree import fold, load_edge
from anchorhold.audit.witness import head_of
from anchorhold.errors import AuditError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path

COSIGNATURE = b"\x04"
"""Signature type of tlog-cosignature with Ed25519."""


class Cosigner:
    """A witness's own key and memory, in a folder of its own: ``key``, and the last head of each origin that
    it saw."""

    def __init__(self, folder: str, name: str | None = None) -> None:
        """Made on first use, with ``name`` (as ``witness.example/anna``). Raises AuditError, OSError."""
        self.folder = folder
        path = os.path.join(folder, "key")
        if not os.path.lexists(path):
            if not name or any(character.isspace() or character == "+" for character in name):
                raise AuditError(
                    "a witness needs a name without spaces and +", hint="Say --as witness.example/anna"
                )
            os.makedirs(folder, mode=0o700, exist_ok=True)
            key = Key.generate(name)
            key.save(path)
            key.wipe()

    def vkey(self) -> str:
        """What the others verify its cosignatures with."""
        key = Key.load(os.path.join(self.folder, "key"))
        try:
            return vkey_text(key.name, key.public, COSIGNATURE)
        finally:
            key.wipe()

    def last(self, origin: str) -> Checkpoint | None:
        """The head of this origin that it cosigned last."""
        note = read_file(self._path(origin))
        return None if note is None else Checkpoint.parse(note)

    def cosign(self, head: Checkpoint) -> bytes:
        """Remember the head, then sign it; the caller has verified it and that it goes on from the `last`
        one.

        Returns the note with the cosignature. The record reaches the disk first: tlog-witness.
        """
        replace(self._path(head.origin), head.note, sync=True)
        now = int(time.time())
        body, _, signatures = head.note.decode().rpartition("\n\n")
        message = f"cosignature/v1\ntime {now}\n{body}\n"
        key = Key.load(os.path.join(self.folder, "key"))
        try:
            signature = now.to_bytes(8, "big") + key.signature(message)
            line = note_line(key.name, key_identifier(key.name, key.public, COSIGNATURE), signature)
        finally:
            key.wipe()
        return f"{body}\n\n{signatures}{line}".encode()

    def _path(self, origin: str) -> str:
        # another origin must not come to the same name: it would take the memory of this one away
        return os.path.join(
            self.folder, quote(origin, safe="/").replace("_", "%5F").replace("/", "_") + ".seen"
        )


def _joined(kept: bytes | None, note: bytes, head: Checkpoint) -> bytes:
    """The note with what others cosigned of the same head. AuditError where a newer head is kept."""
    if kept is None:
        return note
    if Checkpoint.parse(kept).size > head.size:
        raise AuditError("a newer head is kept already", hint="Let the witness cosign that one.")
    (body, _, lines), (others, _, known) = (one.rpartition(b"\n\n") for one in (note, kept))
    if others != body:
        return note
    joined = dict.fromkeys([*known.splitlines(keepends=True), *lines.splitlines(keepends=True)])
    return body + b"\n\n" + b"".join(joined)


def keep_cosigned(state_dir: Path, note: bytes) -> None:
    """Put a cosigned head into the log, if it is a head of this log. Raises AuditError."""
    log = log_folder(state_dir)
    head = Checkpoint.parse(note)
    try:
        for epoch in Snapshot(log).epochs:
            own = head_of(epoch)
            if own.origin == head.origin:
                if head.size > own.size:
                    raise AuditError("the cosigned head is newer than this log: was it rolled back?")
                root = own.root if head.size == own.size else fold(load_edge(epoch.folder, head.size))
                if root != head.root:
                    raise AuditError("the cosigned head is of another log with this name: was it rewritten?")
                path = os.path.join(epoch.folder, "cosigned")
                replace(path, _joined(read_file(path), note, head), sync=True)
                return
    except OSError as error:
        raise AuditError(f"the cosigned head cannot be kept: {error}") from error
    raise AuditError("the cosigned head is not of this log")
