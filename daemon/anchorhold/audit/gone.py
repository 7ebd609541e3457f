"""What was pruned, in words: for whoever asks for what the log does not have, or does not have any more.

Constraint: of a pruned entry nothing is known but its number, so of a session it can only be said that it may
have been among them.
"""

from __future__ import annotations

import json
import os
import re

from anchorhold.audit.files import audit_error, read_file
from anchorhold.audit.read import Epoch, Snapshot, log_folder, unreadable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path

HINT = "When and why: anchorhold audit list --kind prune"

_TIME = re.compile(r"([0-9-]{10}T[0-9:]{8})\.[0-9]{6}Z", re.ASCII)


def pruned_entry(state_dir: Path, seq: int) -> str:
    """``entry 5 was pruned, with epoch 0, which ended …``; empty where that entry was not pruned. Raises
    AuditError."""
    log = log_folder(state_dir)
    try:
        for epoch in Snapshot(log).epochs:
            if epoch.pruned and epoch.first <= seq < epoch.first + epoch.size:
                return f"entry {seq} was pruned, with epoch {epoch.number}, which ended {_ended(epoch)}"
    except OSError as error:
        raise audit_error(error, "be read", error.filename or log) from error
    return ""


def pruned_before(state_dir: Path) -> str:
    """``the entries before 83 were pruned, with the epochs 0 to 2, the last of which ended …``; empty where
    nothing was. Raises AuditError."""
    log = log_folder(state_dir)
    try:
        last = max((one for one in Snapshot(log).epochs if one.pruned), key=_number, default=None)
        if last is None:
            return ""
        epochs = f"the epochs 0 to {last.number}, the last of which" if last.number else "epoch 0, which"
        return f"the entries before {last.first + last.size} were pruned, with {epochs} ended {_ended(last)}"
    except OSError as error:
        raise audit_error(error, "be read", error.filename or log) from error


def _number(epoch: Epoch) -> int:
    return epoch.number


def _ended(epoch: Epoch) -> str:
    """The second (UTC) of a pruned epoch's last entry, which is all that is left of its entries. AuditError,
    OSError."""
    try:
        entry = json.loads(json.loads(read_file(os.path.join(epoch.folder, "end")) or b"")["entry"])
        time = _TIME.fullmatch(entry["time"])
    except (ValueError, TypeError, LookupError, RecursionError):
        time = None
    if time is None:
        raise unreadable(epoch.first + epoch.size - 1)
    return f"{time[1]}Z"
