"""Goes through a log from its root key to its last entry and holds everything against everything else.

The chain: each epoch's final head is signed with its key; its last entry names the next key; the next epoch's
first entry names that head. In each epoch: `anchorhold.verify.epoch`. Over all: the sessions' rules, what
redactions and recoveries tell of, journals, what was set aside, and what witnesses saw.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Sequence
from typing import Any

from anchorhold.verify.disk import Disk, State, StateError
from anchorhold.verify.entries import EntryError, canonical
from anchorhold.verify.epoch import Books, EpochCheck
from anchorhold.verify.merkle import ProofError, leaf, proved_root
from anchorhold.verify.note import Head, NoteError, VerifierKey, decode64, private_belongs, read_head
from anchorhold.verify.result import Finding, LogUnreadable, Result
from anchorhold.verify.rules import Rules, step_words
from anchorhold.verify.told import Told
from anchorhold.verify.witness import Seen, check_heads, check_witnesses


def verify(
    directory: str,
    *,
    vkey: str | None = None,
    witnesses: Sequence[str] = (),
    heads: Sequence[bytes] = (),
    names: bool = True,
    processes: int | None = None,
) -> Result:
    """Verify the log in ``directory`` (a state directory or a log's own folder).

    ``vkey`` is the key to trust: the root's, or that of a later epoch, and then what is before is not looked
    at. Without it, the one that lies beside the log, which proves that nothing changed since whoever holds
    that key signed it. ``witnesses``: vkeys of witnesses that must have cosigned, or folders of checkpoints
    that must be of this log. ``heads``: signed heads that were seen before; those of this log must still be
    true. ``names``: whether openings must be there; a copy without names can do without. Raises
    LogUnreadable.
    """
    inner = os.path.join(directory, "log")
    log = inner if os.path.isdir(inner) else directory
    try:
        os.stat(os.path.join(log, "."))
    except FileNotFoundError:
        pass
    except OSError as error:
        raise LogUnreadable(f"{log}: {error.strerror}") from error
    if not any(os.path.lexists(os.path.join(log, name)) for name in ("state", "vkey", "0")):
        old = os.path.lexists(os.path.join(log, "checkpoint"))
        raise LogUnreadable(
            f"the log at {log} is of an earlier form" if old else f"there is no audit log at {directory}"
        )
    try:
        return _Check(log, vkey, witnesses, heads, names, processes or len(os.sched_getaffinity(0))).run()
    except OSError as error:
        raise LogUnreadable(f"{error.filename or log}: {error.strerror}") from error


class _Check:
    def __init__(
        self,
        log: str,
        vkey: str | None,
        witnesses: Sequence[str],
        heads: Sequence[bytes],
        names: bool,
        processes: int,
    ) -> None:
        self.disk = Disk(log)
        self.trusted, self.witnesses, self.heads = vkey, witnesses, heads
        self.names, self.processes = names, processes
        self.result = Result(log)
        self.result.notes += [f"unknown file {ascii(name)}" for name in self.disk.strange]
        self.books = Books()
        self.rules = Rules()
        self.proven = True
        self.seen: list[Seen] = []
        self.previous: Head | None = None
        self.state: State | None = None

    def _wrong(self, place: str, problem: str, seq: int | None = None, last: int | None = None) -> None:
        self.result.add(Finding(place, problem, seq, last))

    def run(self) -> Result:
        result = self.result
        self._read_state()
        key, start = self._trusted_key()
        last = self.state.epoch if self.state else max(self.disk.epochs, default=-1)
        first: int | None = 0 if start == 0 else None
        following = key
        for number in range(start, last + 1):
            following, first = self._epoch(number, following, first, last)
        self._beyond(last)
        told = Told(self.disk, self.state, self.books, self.rules, result)
        told.redactions(min((one.first for one in self.seen if one.has_tree), default=0))
        told.recovered()
        told.journals()
        result.proven = self.proven and key is not None and last >= start
        result.sessions, result.open_sessions = self.rules.sessions, self.rules.open_sessions
        if result.open_sessions:
            result.notes.append(f"{result.open_sessions} sessions have no end: still running, or crashed")
        result.notes += [step_words(seq, moved) for seq, moved in self.rules.steps[:20]]
        if result.left_over:
            result.notes.append(
                f"{result.left_over} files are left over from a crash: the next run writes them anew"
            )
        if self.books.without_names and not self.names:
            result.notes.append(
                "names and digests are not in this copy: only commitments to them were checked"
            )
        check_witnesses(self.witnesses, self.seen, self.result)
        check_heads(self.heads, self.seen, self.result)
        return result

    # -- state and keys

    def _read_state(self) -> None:
        try:
            if self.disk.state is None:
                raise StateError("it is missing")
            self.state = State(self.disk.state)
        except StateError as error:
            self._wrong("state", str(error))

    def _trusted_key(self) -> tuple[VerifierKey | None, int]:
        """The key that all begins with, and its epoch."""
        stored = _line(self.disk.read("vkey"))
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
            self._wrong("vkey" if self.trusted is None else "the given key", str(error))
        if start == 0 and self.disk.epochs[:1] == [0] and _line(self.disk.read("0/vkey")) != stored:
            self._wrong("vkey", "it is not the key of epoch 0")
        if key is not None:
            self.result.vkey = key.text
        return key, start

    def _later_epoch(self, key: VerifierKey) -> int:
        for number in self.disk.epochs:
            if number and _line(self.disk.read(f"{number}/vkey")) == key.text:
                self.rules.pruned = True
                self.result.notes.append(
                    f"the given key is that of epoch {number}: what is before is not checked"
                )
                return number
        self._wrong("vkey", "it is not the key that was given")
        return 0

    # -- epochs

    def _epoch(
        self, number: int, key: VerifierKey | None, first: int | None, last: int
    ) -> tuple[VerifierKey | None, int | None]:
        """Check one; returns the next one's key and the seq of its first entry."""
        place = f"{number}/checkpoint"
        if number not in self.disk.checkpoints:
            self._wrong(str(number), "the epoch is missing")
            self.proven = False
            return None, None
        stored = _line(self.disk.read(f"{number}/vkey"))
        if key is not None and stored != key.text:
            self._wrong(f"{number}/vkey", "it is not the key that the chain names")
        if key is None:
            self.proven = False
            key = self._stray_key(stored)
        head = self._head(place, self.disk.checkpoints[number], key)
        self._private(number, key, current=number == last)
        self.result.epochs += 1
        if os.path.lexists(os.path.join(self.disk.log, str(number), "end")):
            return self._pruned(number, head, first)
        state = self.state
        committed = head.size if head is not None and number < last else 0
        if number == last:
            committed = state.size if state else head.size if head else 0
            if head is not None and committed < head.size:
                missing = head.size - committed
                self._wrong(
                    "state",
                    f"{missing} signed entries are missing: it counts {committed}, signed are {head.size}",
                )
                committed = head.size
            if head is not None and state is not None and state.signed > head.size:
                what = f"it covers {head.size} entries; {state.signed} were signed"
                self._wrong(place, f"it is an older one, put back: {what}")
            if state is not None and first is not None and state.first != first:
                self._wrong(
                    "state", f"it says that epoch {number} begins with entry {state.first}; it is {first}"
                )
        if first is None:
            first = state.first if state and number == last else 0
        check = EpochCheck(self.disk.log, number, first, committed, head, self.result, self.rules, self.books)
        proven = check.run(self.processes, with_names=self.names)
        self.proven &= proven
        following = self._ends(
            number, first, committed, head, ended=number < last or bool(state and state.ended)
        )
        self.result.size = first + committed
        self.result.signed = first + (head.size if head else 0)
        if head is not None:
            self.result.origin, self.result.root = head.origin, head.root.hex()
            folder = os.path.join(self.disk.log, str(number))
            self.seen.append(Seen(folder, head.origin, committed, head.size, head.root, first))
        self.previous = head
        return following, first + committed

    def _stray_key(self, stored: str | None) -> VerifierKey | None:
        """Where the chain is broken, the key that lies there still tells which entries belong together."""
        try:
            return VerifierKey(stored or "")
        except NoteError:
            return None

    def _head(self, place: str, note: bytes | None, key: VerifierKey | None) -> Head | None:
        if note is None:
            self._wrong(place, "it is missing; an epoch has one from its beginning")
            self.proven = False
            return None
        try:
            if key is None:
                self.proven = False
            return read_head(note, key)
        except NoteError as error:
            self._wrong(place, str(error))
            self.proven = False
        try:  # its size and root still tell where things went wrong
            return read_head(note, None)
        except NoteError:
            return None

    def _private(self, number: int, key: VerifierKey | None, *, current: bool) -> None:
        try:
            private = self.disk.read(f"{number}/key")
        except PermissionError:
            return  # an auditor need not be able to read it
        if private is None:
            return
        ending = self.state is not None and number == self.state.epoch - 1 and self.state.size <= 1
        if not current and not ending:
            self._wrong(
                f"{number}/key",
                "the private key of an ended epoch is still there: it could sign that epoch anew",
            )
        if ending and not private.strip(b"\0\xff"):
            self.result.notes.append(f"{number}/key was being destroyed: the next run goes on with it")
        elif key is not None and not private_belongs(private.decode("utf-8", "replace"), key):
            self._wrong(f"{number}/key", "it is not the private half of the verifier key")

    def _ends(
        self, number: int, first: int, committed: int, head: Head | None, *, ended: bool
    ) -> VerifierKey | None:
        """The first and the last entry of an epoch; the next one's key."""
        own = [(seq, fields) for epoch, seq, fields in self.books.own if epoch == number]
        place = f"{number}/tile/entries"
        following: VerifierKey | None = None
        begin = next((fields for seq, fields in own if seq == first), None)
        if committed and (begin is None or begin["kind"] != "epoch.start" or begin.get("epoch") != number):
            self._wrong(place, "the first entry of an epoch is not its epoch.start", first)
        elif committed and begin is not None and self.previous is not None:
            before = {
                "origin": self.previous.origin,
                "size": self.previous.size,
                "root": base64.b64encode(self.previous.root).decode(),
            }
            if begin.get("previous") != before:
                self._wrong(place, "it does not name the head that the epoch before ended with", first)
                self.proven = False
        for seq, fields in own:
            if fields["kind"] == "epoch.start" and seq != first:
                self._wrong(place, "an epoch.start in the middle of an epoch", seq)
            elif fields["kind"] == "epoch.end" and (seq != first + committed - 1 or not ended):
                self._wrong(place, "an epoch.end that is not its epoch's end", seq)
        if ended:
            end = next((fields for seq, fields in own if seq == first + committed - 1), None)
            following = self._following(number, end, place, first + max(0, committed - 1))
            if head is not None and head.size != committed:
                self.result.notes.append(f"the end of epoch {number} is not signed yet")
        return following

    def _following(self, number: int, end: dict[str, Any] | None, place: str, seq: int) -> VerifierKey | None:
        if end is None or end.get("kind") != "epoch.end" or end.get("epoch") != number:
            self._wrong(place, "the last entry of an ended epoch is not its epoch.end", seq)
            return None
        try:
            return VerifierKey(str(end.get("next")))
        except NoteError as error:
            self._wrong(place, f"it names no next key: {error}", seq)
            return None

    def _pruned(
        self, number: int, head: Head | None, first: int | None
    ) -> tuple[VerifierKey | None, int | None]:
        """Of a pruned epoch the last entry is left, with its proof."""
        place = f"{number}/end"
        self.rules.pruned = True
        self.result.pruned += 1
        if head is None:
            return None, None
        try:
            line = self.disk.read(place) or b""
            if not line.endswith(b"\n"):
                raise ProofError
            content = canonical(line[:-1])
            data = content["entry"].encode("ascii")
            proof = [decode64(one) for one in content["proof"]]
            if list(content) != ["entry", "proof"] or any(len(one) != 32 for one in proof):
                raise ProofError
            root = proved_root(head.size, [(head.size - 1, leaf(data))], proof)
            end = canonical(data)
            if root != head.root or type(end["seq"]) is not int:
                raise ProofError
        except (
            EntryError,
            NoteError,
            ProofError,
            TypeError,
            KeyError,
            AttributeError,
            UnicodeError,
            RecursionError,
        ):
            self._wrong(place, "it does not prove the last entry of the pruned epoch")
            return None, None
        for name in ("tile", "openings"):
            if os.path.lexists(os.path.join(self.disk.log, str(number), name)):
                self.result.notes.append(
                    f"epoch {number} is pruned, but some of its files are left: prune again"
                )
                break
        if first is not None and end["seq"] != first + head.size - 1:
            self._wrong(place, f"its last entry should be {first + head.size - 1}", end["seq"])
        self.previous = head
        following = self._following(number, end, place, end["seq"])
        self.result.size = self.result.signed = end["seq"] + 1
        self.seen.append(
            Seen(
                os.path.join(self.disk.log, str(number)),
                head.origin,
                head.size,
                head.size,
                head.root,
                end["seq"] + 1 - head.size,
            )
        )
        return following, end["seq"] + 1

    def _beyond(self, last: int) -> None:
        """Epochs after the current one: a rotation that a crash cut short has left one, with no entry."""
        for number in self.disk.epochs:
            if number > last:
                if number == last + 1 and not os.path.lexists(
                    os.path.join(self.disk.log, str(number), "tile", "1")
                ):
                    self.result.notes.append(
                        f"epoch {number} was about to begin: the next run goes on with it"
                    )
                else:
                    self._wrong(str(number), "an epoch that the state does not know of")


def _line(data: bytes | None) -> str | None:
    """A file of one line; None if it is anything else."""
    if data is None or not data.endswith(b"\n") or data.count(b"\n") != 1:
        return None
    return data.decode("utf-8", "replace")[:-1]
