"""Goes through a log from its root key to its last entry and holds everything against everything else.

The chain of epochs: `anchorhold.verify.chain`; in each epoch: `anchorhold.verify.epoch`. Over all: the
sessions' rules, what the log's own entries tell of (`anchorhold.verify.told`), journals, and what witnesses
saw.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from anchorhold.verify.chain import Chain
from anchorhold.verify.disk import Disk, State, StateError
from anchorhold.verify.files import line
from anchorhold.verify.journals import journals
from anchorhold.verify.note import NoteError, VerifierKey
from anchorhold.verify.result import Finding, LogUnreadable, Result
from anchorhold.verify.rules import Rules, step_words
from anchorhold.verify.told import prunes, recovered, redactions
from anchorhold.verify.witness import check_heads, check_witnesses, kept_in

AGAIN = 3
"""Times that a log is looked at which is redacted or pruned meanwhile."""


def verify(
    directory: str,
    *,
    vkey: str | None = None,
    witnesses: Sequence[str] = (),
    heads: Sequence[tuple[bytes, float]] = (),
    names: bool = True,
    processes: int | None = None,
) -> Result:
    """Verify the log in ``directory`` (a state directory or a log's own folder).

    ``vkey`` is the key to trust: the root's, or that of a later epoch, and then what is before is not looked
    at. Without it, the one that lies beside the log, which proves that nothing changed since whoever holds
    that key signed it. ``witnesses``: vkeys of witnesses that must have cosigned, or folders or files of
    checkpoints that must be of this log. ``heads``: signed heads that were seen before, each with the time of
    that; those of this log must still be true. ``names``: whether openings must be there; a copy without
    names can do without. Raises LogUnreadable, WitnessUnusable.
    """
    inner = os.path.join(directory, "log")
    log = inner if os.path.isdir(inner) else directory
    try:
        os.stat(os.path.join(log, "."))
    except FileNotFoundError:
        pass
    except OSError as error:
        raise LogUnreadable(f"the audit log at {log} cannot be read: {error.strerror}") from error
    there = any(os.path.lexists(os.path.join(log, name)) for name in ("vkey", "0"))
    if not there and not os.path.isfile(os.path.join(log, "state")):
        old = os.path.lexists(os.path.join(log, "checkpoint"))
        raise LogUnreadable(
            f"the log at {log} is of an earlier form" if old else f"there is no audit log at {directory}"
        )
    count = processes or len(os.sched_getaffinity(0))
    try:
        for _ in range(AGAIN):
            kept = kept_in(witnesses)
            check = _Check(log, vkey, count, names=names)
            result = check.run(witnesses, kept, heads)
            if result.ok or not check.disk.outdated():
                break
        return result
    except OSError as error:
        raise LogUnreadable(f"{error.filename or log}: {error.strerror}") from error


class _Check:
    def __init__(self, log: str, vkey: str | None, processes: int, *, names: bool) -> None:
        self.disk = Disk(log)
        self.trusted, self.names, self.processes = vkey, names, processes
        self.result = Result(log)
        self.result.unknown(self.disk.strange)
        self.rules = Rules()

    def run(
        self,
        witnesses: Sequence[str] = (),
        kept: Mapping[str, list[str]] | None = None,
        heads: Sequence[tuple[bytes, float]] = (),
    ) -> Result:
        result = self.result
        state = self._state()
        key, start = self._trusted_key()
        chain = Chain(self.disk, state, result, self.rules, self.processes, names=self.names)
        chain.run(key, start)
        redactions(chain.books, result, self.disk.log)
        prunes(chain.books, result)
        recovered(chain.books, result, self.disk)
        journals(self.disk, state.journals if state else {}, self.rules, result)
        result.proven = chain.proven
        result.sessions, result.open_sessions = self.rules.sessions, self.rules.open_sessions
        if result.open_sessions:
            many = "1 session has" if result.open_sessions == 1 else f"{result.open_sessions} sessions have"
            result.notes.append(f"{many} no end: still running, or crashed")
        result.notes += [step_words(seq, moved) for seq, moved in sorted(self.rules.steps)[:20]]
        if result.left_over and not self.disk.outdated():  # else they are of a newer tree
            many = "1 file is" if result.left_over == 1 else f"{result.left_over} files are"
            result.notes.append(f"{many} left over from a crash: the next run writes anew what it needs")
        if chain.books.without_names and not self.names:
            result.notes.append(
                "names and digests are not in this copy: only commitments to them were checked"
            )
        check_witnesses(witnesses, kept or {}, chain.seen, start, result)
        check_heads(heads, chain.seen, start, result)
        return result

    def _state(self) -> State | None:
        try:
            if self.disk.state is None:
                raise StateError("it is missing")
            return State(self.disk.state)
        except StateError as error:
            self.result.add(Finding("state", str(error)))
            return None

    def _trusted_key(self) -> tuple[VerifierKey | None, int]:
        """The key that all begins with, and its epoch."""
        stored = line(self.disk.read("vkey"))
        start = 0
        key: VerifierKey | None = None
        try:
            if self.trusted is None:
                key = VerifierKey(stored or "")
            else:
                key = VerifierKey(self.trusted.strip())
                if stored != key.text:
                    start = self._later_epoch(key)
        except NoteError as error:
            if self.trusted is None:
                self.result.add(Finding("vkey", str(error)))
            else:
                self._wrong_key("the given key", str(error))
        if start == 0 and self.disk.epochs[:1] == [0] and line(self.disk.read("0/vkey")) != stored:
            self.result.add(Finding("vkey", "it is not the key of epoch 0"))
        if key is not None:
            self.result.vkey = key.text
        return key, start

    def _later_epoch(self, key: VerifierKey) -> int:
        for number in self.disk.epochs:
            if number and line(self.disk.read(f"{number}/vkey")) == key.text:
                self.rules.pruned = True
                self.result.notes.append(
                    f"the given key is that of epoch {number}: what is before is not checked"
                )
                return number
        self._wrong_key("vkey", "it is not the key that was given")
        return 0

    def _wrong_key(self, place: str, problem: str) -> None:
        self.result.wrong_key = Finding(place, problem)
        self.result.add(self.result.wrong_key)
