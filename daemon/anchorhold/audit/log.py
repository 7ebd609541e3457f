"""The append-only log: every event is on disk before its effect.

Constraint: no record, no grant. `Log.append` returns when the event is in this writer's journal
(``durability="write"``) or on the disk (``"fsync"``), or it raises AuditError and the log is as it was.
Several processes write one log; 100,000 events a second from one.

What is in journals becomes part of the Merkle tree when somebody settles (`anchorhold.audit.settle`): at
`Log.open` what a crash left, at `Log.checkpoint`, and in `Log.append` when much has gathered.
docs/audit-log.md says it all.

Not safe in a signal handler, nor after a fork: the child must open the log itself.
"""

from __future__ import annotations

import os
import threading

from anchorhold.audit.entry import Encoder, encode_group, encode_public, split
from anchorhold.audit.files import audit_error, give_folder, make_folders
from anchorhold.audit.journal import Writer
from anchorhold.audit.lock import Held, Locked
from anchorhold.audit.settle import Chain, damaged, tidy_temporary
from anchorhold.audit.state import FILE
from anchorhold.errors import AuditError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from anchorhold.audit.note import Checkpoint

DURABILITIES = ("write", "fsync")
LOOK = 20_000_000
"""Nanoseconds after which `append` looks again whether its journal was removed."""
GATHERED = 16 << 20
"""Bytes of a journal at which `append` itself settles, so that it cannot grow without bound."""


class Log:
    """An open log. Made by `Log.open`; `append` and `checkpoint` may be called from any thread."""

    def __init__(self, path: str, *, sync: bool, epoch: tuple[float | None, int | None]) -> None:
        self._path = path
        self._epoch = epoch
        self._pid = os.getpid()
        self._mutex = threading.Lock()
        self._encoder = Encoder()
        self._journal = Writer(path, sync=sync)
        self._looked = 0  # when the journal was last seen to be in its place
        self._settled = 0  # bytes of the journal that are known to be in the tree
        self._closed = False
        self.signed: Callable[[], object] | None = None
        """Called after each head that is signed here. It must not wait, nor raise."""

    @classmethod
    def open(
        cls,
        state_dir: Path,
        *,
        durability: str = "write",
        epoch_seconds: float | None = None,
        epoch_entries: int | None = None,
    ) -> Log:
        """Open the log of a state directory, made with its key if there is none; settle what a crash left.

        ``epoch_seconds``, ``epoch_entries``: after how long, or how many entries, a new epoch begins (None: a
        day, a million). Each writer of a log looks when it signs, so the one with the least decides.

        Raises AuditError if it cannot be written, or is damaged.
        """
        if durability not in DURABILITIES:
            raise AuditError(f"durability is {durability!r}; it must be one of {', '.join(DURABILITIES)}")
        path = os.path.join(os.path.abspath(state_dir), "log")
        log = cls(path, sync=durability == "fsync", epoch=(epoch_seconds, epoch_entries))
        try:
            make_folders(path, sync=True)
            give_folder(path, os.path.dirname(path))
            with Locked(path):
                chain = Chain(path)
                tidy_temporary(path, chain.state.epoch)
                chain.settle()
                chain.sign()
                if chain.is_due(*log._epoch):
                    chain.rotate()
        except Held:
            if not os.path.lexists(os.path.join(path, FILE)):
                raise  # nobody has made the log yet; else what a crash left can wait for the end of this run
        except OSError as error:
            raise audit_error(error, "be opened", error.filename or path) from error
        try:
            log._journal.settle_in()
        except OSError as error:
            raise audit_error(error, "be opened", path) from error
        return log

    def append(self, kind: str, session: str, fields: dict[str, object]) -> None:
        """Write one event.

        Raises AuditError: then it is not in the log. (After a failed fsync it may be; the log then takes no
        more events, since the kernel reports such an error once and forgets the data.)
        """
        public, (names, digests, text) = split(kind, fields)
        self.write(
            kind,
            session,
            encode_public(public),
            encode_group(names) if names else b"",
            encode_group(digests) if digests else b"",
            encode_group(text) if text else b"",
        )

    def write(
        self, kind: str, session: str, public: str, names: bytes, digests: bytes = b"", text: bytes = b""
    ) -> None:
        """`append` for who has encoded the fields already (`anchorhold.audit.entry`)."""
        gathered = self._journal.size - self._settled
        if gathered > GATHERED:  # before the event, not after it: an error would say that it is not there
            self.settle(must=gathered > 4 * GATHERED)
        with self._mutex:
            if self._closed or self._journal.broken or os.getpid() != self._pid:
                self._check_usable()
            size = self._journal.size
            record = self._encoder.record(session, kind, public, names, digests, text)
            try:
                if not 0 <= self._encoder.now - self._looked < LOOK:
                    self._look()
                self._journal.add(record)
                self._encoder.written(session)
            except BaseException as error:
                if self._journal.size > size:  # it is there all the same: no number may come twice
                    self._encoder.written(session)
                if isinstance(error, OSError):
                    raise audit_error(error, "be written", self._path) from error
                raise
            if kind == "session.end":
                self._encoder.forget(session)

    def settle(self, *, must: bool = False) -> None:
        """`checkpoint`, if nobody else is at it just now; else another time. ``must``: it has waited long
        enough."""
        try:
            self.checkpoint(seconds=None if must else 0.0)
        except Held:
            if must:
                raise

    def checkpoint(self, *, rotate: bool = False, seconds: float | None = None) -> Checkpoint:
        """Settle everything, from all journals, and sign the head; ``rotate`` begins a new epoch.

        ``seconds``: how long to wait for who holds the lock. Raises AuditError (Held).
        """
        with self._mutex:
            self._check_usable()
        try:
            with Locked(self._path, seconds):
                chain = Chain(self._path)
                with self._mutex:
                    self._look()
                chain.settle()
                with self._mutex:
                    self._settled = chain.state.journals.get(self._journal.name, 0)
                    if self._settled == self._journal.size:
                        self._journal.end(self._settled)
                        self._settled = 0
                        chain.forget_journals()
                if rotate or chain.is_due(*self._epoch):
                    chain.rotate()
                head = chain.sign()
        except OSError as error:
            raise audit_error(error, "be signed", error.filename or self._path) from error
        if self.signed is not None:
            self.signed()
        return head

    def close(self) -> None:
        """Let go of the files; settles and signs nothing. May be called twice."""
        with self._mutex:
            self._closed = True
            self._journal.close()

    @property
    def unsettled(self) -> int:
        """Bytes that this writer has added since it last settled."""
        return self._journal.size - self._settled

    def _look(self) -> None:
        """That the journal is in its place. What is written to a file without a name is lost."""
        self._looked = self._encoder.now
        if not self._journal.is_there():
            self._journal.broken = True
            raise damaged(self._path, "it was removed while in use")

    def _check_usable(self) -> None:
        if self._closed:
            raise AuditError("the audit log is closed")
        if self._journal.broken:
            raise AuditError("the audit log's disk failed; nothing more is written", hint="Check the disk.")
        if os.getpid() != self._pid:
            raise AuditError("the audit log was opened by another process; open it again after a fork")
