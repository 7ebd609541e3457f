"""Takes away the oldest epochs, whole, and keeps what the chain of keys needs of them.

Constraint: told before it is done (an entry ``prune``), and the chain stays checkable from the root key: of a
pruned epoch its key, its final signed head and its last entry, which names the next key, with the proof,
stay. Cut short, it is completed by the next one.
"""

from __future__ import annotations

import json
import os
import shutil
from contextlib import suppress

from anchorhold.audit.files import audit_error, fsync_path, replace
from anchorhold.audit.lock import Locked
from anchorhold.audit.query import flat
from anchorhold.audit.read import Epoch, Pruned, Snapshot, log_folder, read_bundle
from anchorhold.audit.receipt import last_entry
from anchorhold.audit.settle import Chain
from anchorhold.audit.tree import WIDTH

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path


class Old:
    """An epoch that can go: its number, how many entries it has, the time of its last one."""

    __slots__ = ("entries", "epoch", "last")

    def __init__(self, epoch: Epoch, last: str) -> None:
        self.epoch, self.entries, self.last = epoch, epoch.size, last


def old_epochs(state_dir: Path, before: str) -> list[Old]:
    """The ended epochs, from the oldest on, whose last entry is older than ``before`` (in the log's form of
    time).

    The list ends at the first one that is not. Raises AuditError.
    """
    log = log_folder(state_dir)
    try:
        return _old(Snapshot(log), before)
    except OSError as error:
        raise audit_error(error, "be read", error.filename or log) from error


def _old(snapshot: Snapshot, before: str) -> list[Old]:
    found = []
    for epoch in snapshot.epochs[:-1]:
        if epoch.pruned:
            continue
        try:
            bundle = read_bundle(epoch, (epoch.size - 1) // WIDTH)
        except Pruned:  # by somebody else, just now
            continue
        last = str(flat(epoch.number, epoch.first + epoch.size - 1, bundle.entries[-1], None).get("time"))
        if last >= before:
            break
        found.append(Old(epoch, last))
    return found


def prune(state_dir: Path, before: str, *, reason: str, by: str) -> list[Old]:
    """Remove the entries of the epochs that `old_epochs` names; returns those. Raises AuditError."""
    log = log_folder(state_dir)
    try:
        with Locked(log):
            chain = Chain(log)
            chain.settle()
            snapshot = Snapshot(log)
            left = list(filter(is_left, snapshot.epochs))  # by one that was cut short
            found = _old(snapshot, before)
            if found:
                numbers = [found[0].epoch.number, found[-1].epoch.number]
                chain.write("prune", {"epochs": numbers, "reason": reason, "by": by})
            chain.sign()
            for one in found:
                entry, proof = last_entry(one.epoch)
                content = json.dumps({"entry": entry.decode("ascii"), "proof": proof}, separators=(",", ":"))
                replace(
                    os.path.join(one.epoch.folder, "end"), content.encode() + b"\n", sync=True, owned=True
                )
                left.append(one.epoch)
            if left:
                _forget_index(log)  # as long as the files are there, it is known that this is to be done
                for epoch in left:
                    remove(epoch)
                _forget_index(log)  # one that was made meanwhile
            return found
    except OSError as error:
        raise audit_error(error, "be pruned", error.filename or log) from error


def _forget_index(log: str) -> None:
    """It may hold names of what is gone; one that is renamed meanwhile has the other name then."""
    for name in ("index.sqlite.new", "index.sqlite"):
        with suppress(FileNotFoundError):
            os.unlink(os.path.join(os.path.dirname(log), name))


def is_cut_short(state_dir: Path) -> bool:
    """Whether files are left of an epoch that was pruned. Raises AuditError."""
    log = log_folder(state_dir)
    try:
        return any(map(is_left, Snapshot(log).epochs))
    except OSError as error:
        raise audit_error(error, "be read", error.filename or log) from error


def is_left(epoch: Epoch) -> bool:
    """Whether an epoch's pruning was cut short: it is told, and files are there."""
    return epoch.pruned and any(
        os.path.lexists(os.path.join(epoch.folder, name)) for name in ("openings", "tile")
    )


def remove(epoch: Epoch) -> None:
    """Remove the entries of an epoch that was pruned. OSError."""
    for name in ("openings", "tile"):
        path = os.path.join(epoch.folder, name)
        if os.path.lexists(path):
            shutil.rmtree(path)
    fsync_path(epoch.folder, directory=True)
