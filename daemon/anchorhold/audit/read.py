"""Reads the log's files back: which epochs there are, their bundles and openings, what journals hold.

Constraint: never changes the log, needs no lock and no right to write. The log may grow meanwhile: what was
there when reading began is read. Whether it is true, verify/ says.
"""

from __future__ import annotations

import os

from anchorhold.audit import journal
from anchorhold.audit.entry import divide_openings
from anchorhold.audit.files import read_file
from anchorhold.audit.grow import read_openings
from anchorhold.audit.note import Checkpoint
from anchorhold.audit.state import FILE, State
from anchorhold.audit.tree import TRIES, WIDTH, read_part, split_entries, tile_path
from anchorhold.errors import AuditError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


class Pruned(AuditError):
    """The entries were there when the log was looked at, and are being pruned."""


class Epoch:
    """``number``, its ``folder``, seq of its ``first`` entry, its ``size``; ``pruned``: the entries are
    gone."""

    __slots__ = ("first", "folder", "number", "pruned", "size")

    def __init__(self, log: str, number: int, first: int, size: int) -> None:
        self.number, self.first, self.size = number, first, size
        self.folder = os.path.join(log, str(number))
        self.pruned = self.is_pruned()

    def is_pruned(self) -> bool:
        """Whether it is so by now: ``end`` is there before the first file goes."""
        return os.path.lexists(os.path.join(self.folder, "end"))


class Bundle:
    """Up to 256 entries as they stand in the tree. ``openings`` are those of each entry, undivided; None
    where the file is not there (a copy of the log without names)."""

    __slots__ = ("entries", "epoch", "first", "openings")

    def __init__(self, epoch: int, first: int, entries: list[bytes], openings: list[bytes] | None) -> None:
        self.epoch, self.first, self.entries, self.openings = epoch, first, entries, openings


class Snapshot:
    """The log as it is now. Raises AuditError where there is none or it is damaged, OSError."""

    def __init__(self, log: str) -> None:
        self.log = log
        self.state, self.unsettled = _consistent(log)
        self._epochs: list[Epoch] | None = None

    @property
    def epochs(self) -> list[Epoch]:
        """All of them, oldest first; each one's signed head is read, so only where they are asked for."""
        if self._epochs is None:
            self._epochs = _epochs(self.log, self.state)
        return self._epochs

    @property
    def total(self) -> int:
        """Entries in the tree, in all epochs, pruned ones included."""
        return self.state.total

    def bundles(self, first: int = 0) -> Iterator[Bundle]:
        """The bundles from the one that holds entry ``first`` on; what is pruned meanwhile is left out."""
        for epoch in self.epochs:
            if epoch.pruned or epoch.first + epoch.size <= first:
                continue
            for number in range(max(0, first - epoch.first) // WIDTH, -(-epoch.size // WIDTH)):
                try:
                    bundle = read_bundle(epoch, number)
                except Pruned:
                    break
                yield bundle

    def one(self, seq: int) -> Bundle | None:
        """The bundle that holds an entry; None if the entry is not there (any more)."""
        for epoch in self.epochs:
            if epoch.first <= seq < epoch.first + epoch.size:
                try:
                    return None if epoch.pruned else read_bundle(epoch, (seq - epoch.first) // WIDTH)
                except Pruned:
                    return None
        return None


def log_folder(state_dir: str | os.PathLike[str]) -> str:
    """The log's folder. AuditError where there is none, or none for this user."""
    log = os.path.join(os.path.abspath(state_dir), "log")
    try:
        os.stat(os.path.join(log, "."))
    except FileNotFoundError:
        raise AuditError(
            f"there is no audit log at {log}", hint="The first run makes it: anchorhold ask"
        ) from None
    except OSError as error:
        raise AuditError(f"the audit log at {log} cannot be read: {error.strerror}") from None
    return log


def read_raw(epoch: Epoch, number: int) -> bytes:
    """A bundle's bytes; it may hold more entries than the epoch's size. AuditError (Pruned), OSError."""
    width = min(WIDTH, epoch.size - number * WIDTH)
    data = read_part(os.path.join(epoch.folder, tile_path("entries", number)), width)
    if data is None:
        raise _gone(epoch, epoch.first + number * WIDTH) or unreadable(epoch.first + number * WIDTH)
    return data


def read_bundle(epoch: Epoch, number: int) -> Bundle:
    """One bundle as far as the epoch's size goes. AuditError (Pruned), OSError."""
    width = min(WIDTH, epoch.size - number * WIDTH)
    first = epoch.first + number * WIDTH
    entries = split_entries(read_raw(epoch, number))[:width]
    if len(entries) != width:
        raise unreadable(first)
    raw = read_openings(epoch.folder, number)
    if raw is None and (gone := _gone(epoch, first)):  # else its names would look redacted
        raise gone
    openings = None
    if raw is not None:
        try:
            openings = divide_openings(raw, width)
        except (IndexError, ValueError):
            raise unreadable(first) from None
    return Bundle(epoch.number, first, entries, openings)


def _gone(epoch: Epoch, seq: int) -> Pruned | None:
    """The error where a file is missing because its epoch is pruned by now."""
    if not epoch.is_pruned():
        return None
    return Pruned(f"entry {seq} of the audit log is being pruned", hint="Try again.")


def unreadable(seq: int) -> AuditError:
    """An entry that is not what was written."""
    return AuditError(f"entry {seq} of the audit log cannot be read", hint="Run: anchorhold audit verify")


def _consistent(log: str) -> tuple[State, list[tuple[bytes, bytes]]]:
    """State and unsettled records that belong together: what is settled meanwhile must not come twice, nor
    never."""
    for _ in range(TRIES):
        before = read_file(os.path.join(log, FILE))
        state = State() if before is None else State.parse(before, log)
        try:
            found: list[tuple[bytes, tuple[bytes, bytes]]] = []
            for name in journal.names(log):
                at, more, latest = state.journals.get(name, 0), True, b""
                while more:  # a piece at a time: a file can be longer than the memory, and hold nothing
                    one = journal.read(log, name, at, look=False)
                    at, more = one.end, one.more
                    for record in one.found:  # those of one writer keep their order, as in `settle`
                        latest = max(latest, record[0][8:35])
                        found.append((latest, record))
        except FileNotFoundError:
            continue
        if read_file(os.path.join(log, FILE)) == before:
            return state, [record for _, record in sorted(found, key=lambda one: one[0])]
    raise AuditError("the audit log changes too fast to be read", hint="Try again.")


def _epochs(log: str, state: State) -> list[Epoch]:
    epochs = [Epoch(log, state.epoch, state.first, state.size)]
    first = state.first
    for number in range(state.epoch - 1, -1, -1):
        note = read_file(os.path.join(log, str(number), "checkpoint"))
        if note is None:
            raise AuditError(
                f"the audit log is damaged: the checkpoint of epoch {number} is missing",
                hint="Run: anchorhold audit verify",
            )
        size = Checkpoint.parse(note).size
        first -= size
        epochs.append(Epoch(log, number, first, size))
    return epochs[::-1]
