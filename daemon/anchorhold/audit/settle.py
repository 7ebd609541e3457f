"""Settling: what the journals hold becomes part of the tree, and the tree's head is signed.

Constraint: under the log's exclusive lock, by whichever process comes first, for all writers. The moment of
truth is the rename of ``state``; until then readers see the old tree, and a crash loses nothing, since the
journals still have everything. Each step can be cut short and is then done again by the next run.

An epoch is a log of its own, with a key of its own. When it ends, its last entry names the next key, its last
head is signed, and its key is destroyed.
"""

from __future__ import annotations

import heapq
import os
import time
from base64 import b64encode
from bisect import bisect_right
from hashlib import sha256
from itertools import accumulate

from anchorhold.audit import journal
from anchorhold.audit.entry import RECORD_HEAD, Encoder, encode, encode_public, records
from anchorhold.audit.files import TMP, fsync_path, make_folders, read_file, replace
from anchorhold.audit.grow import Grow, tidy_partials
from anchorhold.audit.keys import Key, destroy
from anchorhold.audit.note import Checkpoint
from anchorhold.audit.state import FILE, State
from anchorhold.audit.tree import EMPTY_ROOT, fold, load_edge
from anchorhold.errors import AuditError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from anchorhold.audit.journal import Unsettled

EPOCH_SECONDS = 86_400
EPOCH_ENTRIES = 1_000_000

_DAMAGED = (
    "Run: anchorhold audit verify. To go on with a new log, move the folder aside; keep it as evidence."
)


def damaged(log: str, what: str) -> AuditError:
    """The log is not what a crash can make of it."""
    return AuditError(f"the audit log is damaged: {log}: {what}", hint=_DAMAGED)


class Chain:
    """The log of a state directory, under its lock. Methods raise AuditError, OSError."""

    def __init__(self, log: str) -> None:
        self.log = log
        state = State.load(log)
        # what the disk knows of the last head and of journals
        self._stored = (state.signed, dict(state.journals)) if state else (0, {})
        self.state = self._begin() if state is None else state
        self._finish_rotation()

    def folder(self, epoch: int) -> str:
        """An epoch's folder."""
        return os.path.join(self.log, str(epoch))

    # -- the beginning

    def _begin(self) -> State:
        """A new log: the first key, its public half, the head of the empty tree, the first entry."""
        strange = [name for name in os.listdir(self.log) if name == "checkpoint" or name == "tile"]
        if strange:
            raise AuditError(
                f"the audit log at {self.log} was made by an earlier version, in another form",
                hint="Move that folder aside; a new log begins then.",
            )
        if not self._is_fresh():
            raise damaged(self.log, f"there are entries, but {FILE} is gone")
        vkey = read_file(os.path.join(self.log, "vkey"))
        name = _origin(vkey.decode("ascii", "replace")) if vkey else f"anchorhold/{os.urandom(8).hex()}"
        public = self._make_epoch(name, 0)
        replace(os.path.join(self.log, "vkey"), public.encode() + b"\n", sync=True, mode=0o644, owned=True)
        self.state = State()
        self._start_epoch(State(), {})
        return self.state

    def _is_fresh(self) -> bool:
        """Whether nothing was ever committed: a crash in the very beginning can have left the first entry's
        files."""
        folder = self.folder(0)
        note = read_file(os.path.join(folder, "checkpoint"))
        if (
            journal.names(self.log)
            or os.path.lexists(self.folder(1))
            or (note and Checkpoint.parse(note).size)
        ):
            return False
        try:
            names = os.listdir(os.path.join(folder, "tile", "entries", "000.p"))
            return all(name == "1" or name.startswith(TMP) for name in names)
        except FileNotFoundError:
            return not os.path.lexists(os.path.join(folder, "tile", "entries", "000"))

    def _make_epoch(self, name: str, epoch: int) -> str:
        """The folder and key of an epoch that is about to begin; the same again if a crash came between. The
        vkey."""
        folder = self.folder(epoch)
        make_folders(folder, sync=True, owned=True)
        path = os.path.join(folder, "key")
        if not os.path.lexists(os.path.join(folder, "vkey")):  # a key without it was never named anywhere
            destroy(path)
            key = Key.generate(f"{name}/{epoch}")
            key.save(path)
        else:
            key = Key.load(path)
        try:
            public = key.vkey()
            replace(os.path.join(folder, "vkey"), public.encode() + b"\n", sync=True, mode=0o644, owned=True)
            head = Checkpoint(key.name, 0, EMPTY_ROOT)
            replace(os.path.join(folder, "checkpoint"), key.sign(head.text()), sync=True, owned=True)
        finally:
            key.wipe()
        return public

    def _start_epoch(self, state: State, previous: dict[str, object]) -> None:
        """The epoch's first entry; with its commit the epoch is the current one."""
        grow = Grow(self.folder(state.epoch), state.first, 0)
        grow.add(own_records("epoch.start", {"epoch": state.epoch, **previous}))
        self._commit(state, grow)
        self.sign()

    # -- growing

    def settle(self) -> None:
        """Take in all that the journals hold. Does not sign."""
        while True:
            found = [
                journal.read(self.log, name, self.state.journals.get(name, 0))
                for name in journal.names(self.log)
            ]
            _hold_back(found)
            if not any(one.found or one.torn for one in found):
                known = {one.name for one in found}
                if not known.issuperset(self.state.journals) or any(one.gone for one in found):
                    self._drop(found)
                return
            grow = self._grow()
            grow.add(_merged(found))
            offsets = {one.name: one.end for one in found}
            for one in found:
                if one.torn:
                    grow.add(self._set_aside(one.torn))
                    offsets[one.name] += len(one.torn)
            self._commit(self._same_epoch(journals=offsets), grow)
            self._drop(found)
            if not any(one.more for one in found):
                return

    def write(self, kind: str, fields: dict[str, object]) -> int:
        """Append an entry of the log's own, at once; returns its seq."""
        grow = self._grow()
        grow.add(own_records(kind, fields))
        self._commit(self._same_epoch(), grow)
        return self.state.total - 1

    def _grow(self) -> Grow:
        state = self.state
        grow = Grow(self.folder(state.epoch), state.first, state.size)
        head = self.checkpoint()
        edge = grow.root() if head.size == state.size else None
        if head.size > state.size:
            raise damaged(self.log, f"{head.size} entries are signed, {state.size} are there")
        if head.size < state.signed:
            raise damaged(self.log, f"{state.signed} entries were signed, the checkpoint is of {head.size}")
        if edge is None:
            edge = fold(load_edge(grow.folder, head.size))
        if edge != head.root:  # tlog-checkpoint: a log must not sign what is inconsistent with what it signed
            raise damaged(self.log, "its entries are not those of its last checkpoint")
        return grow

    def _same_epoch(self, *, ended: bool = False, journals: dict[str, int] | None = None) -> State:
        """The state that a commit in this epoch leads to; its size is filled in there."""
        state = self.state
        known = state.journals if journals is None else journals
        return State(state.epoch, state.first, signed=state.signed, ended=ended, journals=known)

    def _commit(self, state: State, grow: Grow) -> None:
        grow.flush()
        state.size = grow.size
        self._save(state)
        self.state = state
        grow.tidy()

    def _drop(self, found: list[Unsettled]) -> None:
        """Journals of writers that are gone, all of them being in the tree; then their mention in the
        state."""
        for one in found:
            if one.gone and not one.more:
                journal.remove(self.log, one.name, self.state.journals.get(one.name, 0))
        self.forget_journals()

    def forget_journals(self) -> None:
        """Journals that are gone leave the state; on the disk, with what is saved next: a mention too many
        harms nobody."""
        there = set(journal.names(self.log))
        self.state.journals = {name: end for name, end in self.state.journals.items() if name in there}

    def _save(self, state: State, *, name_later: bool = False) -> None:
        if not self._stored[1].keys() <= state.journals.keys():
            journal.sync_folder(self.log)
        state.save(self.log, name_later=name_later)
        self._stored = (state.signed, dict(state.journals))

    def _set_aside(self, torn: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Bytes that a crash tore: kept under their digest, on disk before the entry that tells of them."""
        digest = sha256(torn).hexdigest()
        replace(os.path.join(self.log, "torn", digest), torn, sync=True, owned=True)
        return own_records("log.recovered", {"bytes": len(torn), "sha256": digest, "file": f"torn/{digest}"})

    # -- signing

    def checkpoint(self) -> Checkpoint:
        """The current epoch's signed head."""
        note = read_file(os.path.join(self.folder(self.state.epoch), "checkpoint"))
        if note is None:
            raise damaged(self.log, "the checkpoint is gone")
        return Checkpoint.parse(note)

    def sign(self) -> Checkpoint:
        """Sign the head of what is in the tree, and put it in place."""
        old = self.checkpoint()
        if old.size == self.state.size:
            self._note(old.size)
            return old
        root = self._grow().root()
        folder = self.folder(self.state.epoch)
        path = os.path.join(folder, "key")
        try:
            mode = os.stat(path).st_mode
        except FileNotFoundError:
            raise damaged(self.log, "the signing key is gone") from None
        if mode & 0o077:
            raise AuditError(
                f"the audit log's signing key may be read by others: {path}",
                hint="Take it as known to them; make it private again with chmod 600 on that file, then "
                "begin a new key with: anchorhold audit key --rotate",
            )
        key = Key.load(path)
        try:
            if old.origin != key.name:
                raise damaged(self.log, "the checkpoint and the signing key are not of one log")
            new = Checkpoint(key.name, self.state.size, root)
            new.note = key.sign(new.text())
        finally:
            key.wipe()
        replace(os.path.join(folder, "checkpoint"), new.note, sync=True, owned=True)
        self._note(new.size)
        tidy_partials(folder, new.size)
        return new

    def _note(self, signed: int) -> None:
        """So that an older head in the place of this one is noticed; and which journals are gone. Lost in a
        power loss, it is noted next time."""
        self.state.signed = signed
        if self._stored != (signed, self.state.journals):
            self._save(self.state, name_later=True)

    # -- epochs

    def is_due(self, seconds: float | None = None, entries: int | None = None) -> bool:
        """Whether the current epoch has lasted long enough: ``seconds``, or ``entries``; a day and a million
        where nothing is said."""
        seconds = EPOCH_SECONDS if seconds is None else seconds
        if self.state.size >= (EPOCH_ENTRIES if entries is None else entries):
            return True
        first = os.path.join(self.folder(self.state.epoch), "vkey")
        # either way: a clock that was far ahead when the epoch began must not keep its key for years
        return abs(time.time() - os.stat(first).st_mtime) >= seconds and self.state.size > 1

    def rotate(self) -> None:
        """End the epoch and begin the next one."""
        state = self.state
        if not state.ended:
            vkey = read_file(os.path.join(self.folder(state.epoch), "vkey")) or b""
            following = self._make_epoch(_origin(vkey.decode("ascii", "replace")), state.epoch + 1)
            grow = self._grow()
            grow.add(own_records("epoch.end", {"epoch": state.epoch, "next": following}))
            self._commit(self._same_epoch(ended=True), grow)
        self._finish_rotation()

    def _finish_rotation(self) -> None:
        """From the commit of ``epoch.end`` on: the last head, the next epoch's first entry, the end of the
        old key."""
        state = self.state
        if state.ended:
            final = self.sign()
            previous = {"origin": final.origin, "size": final.size, "root": b64encode(final.root).decode()}
            following = State(state.epoch + 1, state.total, journals=state.journals)
            self.state = following
            self._start_epoch(following, {"previous": previous})
        if self.state.epoch:
            destroy(os.path.join(self.folder(self.state.epoch - 1), "key"))
        self._forget_next()

    def _forget_next(self) -> None:
        """A key that was made for the next epoch and named nowhere, since a crash came between, has lain
        about: whoever saw it meanwhile must not have the next epoch's."""
        folder = self.folder(self.state.epoch + 1)
        if os.path.lexists(folder):
            for name in ("vkey", "checkpoint"):
                if os.path.lexists(path := os.path.join(folder, name)):
                    os.unlink(path)
            destroy(os.path.join(folder, "key"))


def _origin(vkey: str) -> str:
    """The part of a vkey's name that all epochs share."""
    return vkey.split("+")[0].rpartition("/")[0] or vkey.split("+")[0]


def own_records(kind: str, fields: dict[str, object]) -> Iterator[tuple[bytes, bytes]]:
    """One record of the log's own, of no session and with nothing private."""
    # ``epoch`` is a member that no event may set; these kinds are the log's own
    text = "," + encode(fields)[1:-1] if kind.startswith("epoch.") else encode_public(fields)
    for shown, openings, _ in records(Encoder().record("", kind, text, b"")):
        yield shown, openings


def _hold_back(found: list[Unsettled]) -> None:
    """Where a journal has more than was read of it, what is later than that waits for the next turn: so all
    is taken in order of time, whoever wrote much."""
    ends = [max(_times(one.found)) for one in found if one.more]
    for one in found if ends else ():
        times = list(accumulate(_times(one.found), max))
        keep = bisect_right(times, min(ends))
        if keep < len(times):
            one.end -= sum(RECORD_HEAD + len(shown) + len(private) for shown, private in one.found[keep:])
            one.found, one.torn, one.more = one.found[:keep], b"", True


def _times(found: list[tuple[bytes, bytes]]) -> Iterator[bytes]:
    return (shown[8:35] for shown, _ in found)


def _merged(found: list[Unsettled]) -> Iterator[tuple[bytes, bytes]]:
    """All records in order of time; those of one journal always in their own order."""
    rows = [one.found for one in found if one.found]
    if len(rows) == 1:
        return iter(rows[0])

    def keyed(at: int) -> Iterator[tuple[bytes, int, tuple[bytes, bytes]]]:
        latest = accumulate(_times(rows[at]), max)
        return ((time, at, record) for time, record in zip(latest, rows[at], strict=True))

    return (record for _, _, record in heapq.merge(*map(keyed, range(len(rows))), key=lambda one: one[:2]))


def tidy_temporary(log: str, epoch: int) -> None:
    """What a crash left half-written, directly in the log's and the epoch's folder; under the lock."""
    for folder in (log, os.path.join(log, str(epoch))):
        try:
            names = [name for name in os.listdir(folder) if name.startswith(TMP)]
        except FileNotFoundError:
            continue
        for name in names:
            os.unlink(os.path.join(folder, name))
        if names:
            fsync_path(folder, directory=True)
