"""Proves that a later head goes on from an earlier one, in the form in which a public witness wants it.

Sources: RFC 6962, 2.1.2 (Merkle consistency proofs), https://www.rfc-editor.org/rfc/rfc6962.html;
https://c2sp.org/tlog-witness, the body of an add-checkpoint request: a line ``old <size>``, the hashes of the
proof in base64 (63 at most), an empty line, the checkpoint. The request itself is for a program of the user's
to make: nothing here speaks HTTP.
"""

from __future__ import annotations

from base64 import b64encode

from anchorhold.audit.files import audit_error
from anchorhold.audit.read import Snapshot, log_folder
from anchorhold.audit.tree import Subtrees
from anchorhold.audit.witness import head_of
from anchorhold.errors import AuditError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path


def add_checkpoint(state_dir: Path, old: int, *, epoch: int | None = None) -> bytes:
    """The body for a witness that saw ``old`` entries of the epoch last (0: none). Raises UsageError where
    the epoch has not so many, AuditError."""
    log = log_folder(state_dir)
    try:
        epochs = Snapshot(log).epochs
        if epoch is not None and epoch >= len(epochs):
            raise UsageError(f"the log has no epoch {epoch}")
        one = epochs[-1 if epoch is None else epoch]
        head = head_of(one)
        if old > head.size:
            raise UsageError(
                f"epoch {one.number} has {head.size} signed entries, not {old}",
                hint="An epoch is a log of its own: a witness that saw an earlier one begins anew, with 0. "
                "If it did see more of this one, the log was rolled back.",
            )
        if one.pruned and 0 < old < head.size:
            raise AuditError(f"the entries of epoch {one.number} were pruned: there is no proof any more")
        proof = consistency(one.folder, old, head.size)
    except OSError as error:
        raise audit_error(error, "be read", error.filename or log) from error
    lines = [f"old {old}", *(b64encode(value).decode("ascii") for value in proof), "", ""]
    return "\n".join(lines).encode("ascii") + head.note


def consistency(folder: str, old: int, size: int) -> list[bytes]:
    """PROOF(old, D[size]) of RFC 6962; nothing to prove from 0, and to the same size. AuditError, OSError."""
    if old in (0, size):
        return []
    subtrees = Subtrees(folder, size)

    def subproof(low: int, high: int, whole: bool) -> list[bytes]:
        """SUBPROOF(old - low, D[low:high], whole): ``whole`` while the old tree's root is this part's."""
        if old == high:
            return [] if whole else [subtrees.root(low, high)]
        middle = low + (1 << ((high - low - 1).bit_length() - 1))
        if old <= middle:
            return [*subproof(low, middle, whole), subtrees.root(middle, high)]
        return [*subproof(middle, high, False), subtrees.root(low, middle)]

    return subproof(0, size, True)
