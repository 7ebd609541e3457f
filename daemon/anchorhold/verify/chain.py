"""Goes along the chain of epochs: each one's final head is signed with its key, its last entry names the next
key, and the next one's first entry names that head. Of pruned epochs, the last entry is proved.
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Sequence
from typing import Any

from anchorhold.verify.disk import Disk, State
from anchorhold.verify.entries import Entry, EntryError, canonical
from anchorhold.verify.epoch import EpochCheck
from anchorhold.verify.files import line
from anchorhold.verify.merkle import ProofError, Tiles, leaf, proved_root
from anchorhold.verify.note import Head, NoteError, VerifierKey, decode64, private_belongs, read_head
from anchorhold.verify.parallel import Pool
from anchorhold.verify.plan import Plan, plans
from anchorhold.verify.result import Finding, Result
from anchorhold.verify.rules import Rules
from anchorhold.verify.told import Books, Epoch
from anchorhold.verify.witness import Seen

_NAME = re.compile(r"(.+)/(0|[1-9][0-9]{0,8})", re.ASCII)


class Chain:
    """``seen``: the epochs whose heads were read; ``proven``: whether all signatures are good, and all roots
    the signed ones."""

    def __init__(
        self, disk: Disk, state: State | None, result: Result, rules: Rules, processes: int, *, names: bool
    ) -> None:
        self.disk, self.state, self.result, self.rules = disk, state, result, rules
        self.processes, self.names = processes, names
        self.books = Books()
        self.seen: list[Seen] = []
        self.proven = True
        self._previous: Head | None = None
        self._base = ""  # what the names of all epochs' keys begin with; empty: not known

    def run(self, key: VerifierKey | None, start: int) -> None:
        """All epochs from ``start`` on, whose key is ``key``."""
        last = self.state.epoch if self.state else max(self.disk.epochs, default=-1)
        last = min(last, max(self.disk.epochs, default=-1) + 1)
        if key is not None:
            self._base = self._first_base(key, start)
            name = _NAME.fullmatch(key.name)
            if name is None or int(name[2]) != start:
                self._wrong(f"{start}/vkey", f"its name is not that of epoch {start}")
        there = plans(self.disk, self.state, start, last)
        with Pool([plan.reader() for plan in there.values() if not plan.pruned], self.processes) as pool:
            following = key
            wanted = start
            for number in (*there, last + 1):  # a name can be any number: they are not counted one by one
                if wanted < number:
                    several = f"the epochs up to {number - 1} are missing"
                    self._wrong(str(wanted), several if wanted + 1 < number else "the epoch is missing")
                    self.proven = False
                    following = None
                if number in there:
                    following = self._epoch(there[number], following, pool, current=number == last)
                wanted = number + 1
        self._beyond(last, following)
        self.proven &= key is not None and last >= start

    def _first_base(self, key: VerifierKey, start: int) -> str:
        """What the key's name begins with; that of the key which lies in its place, where another log's was
        given: then the entries that name the next keys are as they should be."""
        stored = line(self.disk.read(f"{start}/vkey"))
        named: VerifierKey | None = key
        if stored != key.text:
            try:
                read_head(self.disk.checkpoints.get(start) or b"", key)
            except NoteError:
                named = _stray_key(stored)
        return named.name.rpartition("/")[0] if named is not None else ""

    def _wrong(self, place: str, problem: str, seq: int | None = None) -> None:
        self.result.add(Finding(place, problem, seq))

    # -- one epoch

    def _epoch(self, plan: Plan, key: VerifierKey | None, pool: Pool, *, current: bool) -> VerifierKey | None:
        """Check one; returns the next one's key."""
        number = plan.number
        stored = line(self.disk.read(f"{number}/vkey"))
        if key is not None and stored != key.text:
            self._wrong(f"{number}/vkey", "it is not the key that the chain names")
        if key is None:
            self.proven = False
            key = _stray_key(stored)
        head = self._head(f"{number}/checkpoint", self.disk.checkpoints[number], key)
        self._private(number, key, current=current)
        self.result.epochs += 1
        if plan.pruned:
            return self._pruned(plan, key, head)
        if current:
            self._current(plan, head)
        if not self.books.epochs:
            self.result.before = plan.first
        epoch = Epoch(number, plan.first, plan.committed)
        self.books.epochs.append(epoch)
        check = EpochCheck(
            plan.folder, epoch, head, self.result, self.rules, self.books, outdated=self.disk.outdated
        )
        proven = check.run(pool.all(), with_names=self.names)
        self.proven &= proven
        ended = not current or bool(self.state and self.state.ended)
        following = self._ends(epoch, head, ended=ended, start_changed=check.was_changed(plan.first))
        self.result.size = plan.first + plan.committed
        self.result.signed = plan.first + (head.size if head else 0)
        if head is not None:
            self.result.origin, self.result.root = head.origin, head.root.hex()
            self.result.note = self.disk.checkpoints[number] or b""
            self.seen.append(Seen(plan.folder, key, head, plan.committed, plan.first))
        self._previous = head
        return following

    def _current(self, plan: Plan, head: Head | None) -> None:
        """What ``state`` says of the current epoch: its beginning, its entries, how many are signed."""
        number, state = plan.number, self.state
        if os.path.lexists(os.path.join(plan.folder, "end")):
            self._wrong(f"{number}/end", "the current epoch cannot be pruned")
        if state is None:
            return
        if state.first != plan.first:
            problem = f"it says that epoch {number} begins with entry {state.first}; it is {plan.first}"
            self._wrong("state", problem)
        if state.size > plan.committed:
            what = f"it counts {state.size} entries in epoch {number}; {plan.stored} are there"
            self._wrong("state", what, plan.first + plan.stored)
        if head is not None and state.size < head.size:
            missing = head.size - state.size
            problem = f"{missing} signed entries are missing: it counts {state.size}, signed are {head.size}"
            self._wrong("state", problem)
        if head is not None and state.signed > head.size:
            what = f"it covers {head.size} entries; {state.signed} were signed"
            self._wrong(f"{number}/checkpoint", f"it is an older one, put back: {what}")

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
        elif ending:
            self.result.notes.append(f"{number}/key is about to be destroyed: the next run goes on with it")
        if ending and not private.strip(b"\0\xff"):
            return
        if key is not None and not private_belongs(private.decode("utf-8", "replace"), key):
            self._wrong(f"{number}/key", "it is not the private half of the verifier key")

    # -- its first and last entry

    def _ends(
        self, epoch: Epoch, head: Head | None, *, ended: bool, start_changed: bool
    ) -> VerifierKey | None:
        """The first and the last entry of an epoch; the next one's key. ``start_changed``: the first one is
        known not to be what was signed."""
        last = epoch.first + epoch.committed - 1
        own = dict(epoch.own)
        begin, end = own.get(epoch.first), own.get(last)
        if epoch.committed:
            self._begins(epoch, begin, changed=start_changed)
        for seq, fields in epoch.own:
            if fields["kind"] == "epoch.start" and seq != epoch.first:
                self._wrong(self.books.place(seq), "an epoch.start in the middle of an epoch", seq)
            elif fields["kind"] == "epoch.end" and (seq != last or not ended):
                self._wrong(self.books.place(seq), "an epoch.end that is not its epoch's end", seq)
        if not ended:
            return None
        if head is not None and head.size != epoch.committed:
            self.result.notes.append(f"the end of epoch {epoch.number} is not signed yet")
        last = max(epoch.first, last)
        return self._following(epoch.number, end, self.books.place(last), last)

    def _begins(self, epoch: Epoch, begin: dict[str, Any] | None, *, changed: bool) -> None:
        place = self.books.place(epoch.first)
        if begin is None or begin["kind"] != "epoch.start" or begin.get("epoch") != epoch.number:
            self._wrong(place, "the first entry of an epoch is not its epoch.start", epoch.first)
            return
        before = None
        if self._previous is not None:
            before = {
                "origin": self._previous.origin,
                "size": self._previous.size,
                "root": base64.b64encode(self._previous.root).decode(),
            }
        elif epoch.number:
            return  # what was before is not known
        if begin.get("previous") != before:
            self._wrong(place, "it does not name the head that the epoch before ended with", epoch.first)
            # signed so, the chain is broken; changed since, it is one bad entry, and the heads hold
            self.proven &= changed

    def _following(self, number: int, end: dict[str, Any] | None, place: str, seq: int) -> VerifierKey | None:
        if end is None or end.get("kind") != "epoch.end" or end.get("epoch") != number:
            self._wrong(place, "the last entry of an ended epoch is not its epoch.end", seq)
            return None
        try:
            key = VerifierKey(str(end.get("next")))
        except NoteError as error:
            self._wrong(place, f"it names no next key: {error}", seq)
            return None
        if self._base and key.name != f"{self._base}/{number + 1}":
            self._wrong(place, f"the name of the next key is not that of epoch {number + 1}", seq)
        return key

    # -- pruned, and about to begin

    def _pruned(self, plan: Plan, key: VerifierKey | None, head: Head | None) -> VerifierKey | None:
        """Of a pruned epoch the last entry is left, with its proof."""
        number, folder = plan.number, plan.folder
        place = f"{number}/end"
        self.rules.pruned = True
        self.result.pruned += 1
        if self.books.epochs:
            self._wrong(place, "an epoch is pruned, but not the one before it")
        self.books.pruned.append(number)
        if head is None:
            return None
        try:
            end = _proved_end(self.disk.read(place) or b"", head)
        except (EntryError, NoteError, ProofError):
            self._wrong(place, "it does not prove the last entry of the pruned epoch")
            self.proven = False
            return None
        if any(os.path.lexists(os.path.join(folder, name)) for name in ("tile", "openings")):
            self.result.notes.append(f"epoch {number} is pruned, but some of its files are left: prune again")
        if end.seq != plan.first + head.size - 1:
            self._wrong(place, f"its last entry should be {plan.first + head.size - 1}", end.seq)
        self._previous = head
        following = self._following(number, end.fields, place, end.seq)
        self.result.size = self.result.signed = end.seq + 1
        self.seen.append(Seen(folder, key, head, head.size, end.seq + 1 - head.size, pruned=True))
        return following

    def _beyond(self, last: int, following: VerifierKey | None) -> None:
        """Epochs after the current one: a rotation that a crash cut short leaves one, with nothing signed."""
        for number in (number for number in self.disk.epochs if number > last):
            folder = os.path.join(self.disk.log, str(number))
            tiles = Tiles(folder, 1)
            names: Sequence[str] = () if number > last + 1 else ("cosigned", "end")
            if (
                number > last + 1
                or tiles.most > 1
                or any(os.path.lexists(f"{folder}/{one}") for one in names)
            ):
                self._wrong(str(number), "an epoch that the state does not know of")
                continue
            self.result.notes.append(f"epoch {number} was about to begin: the next run goes on with it")
            stored = self.disk.read(f"{number}/vkey")
            key = following
            try:
                if stored is not None:
                    key = VerifierKey(line(stored) or "")
                    if following is not None and key.text != following.text:
                        raise NoteError("it is not the key that the chain names")
                note = self.disk.checkpoints[number]
                if note is not None and read_head(note, key).size:
                    self._wrong(
                        f"{number}/checkpoint", "an epoch that the state does not know of has entries"
                    )
            except NoteError as error:
                self._wrong(f"{number}/vkey", str(error))
            if stored is not None:
                self._private(number, key, current=True)


def _stray_key(stored: str | None) -> VerifierKey | None:
    """Where the chain is broken, the key that lies there still tells which entries belong together."""
    try:
        return VerifierKey(stored or "")
    except NoteError:
        return None


def _proved_end(data: bytes, head: Head) -> Entry:
    """The last entry in a file ``end``, if its proof leads to the head. Raises EntryError, NoteError,
    ProofError."""
    if not data.endswith(b"\n") or not head.size:
        raise ProofError
    content = canonical(data[:-1])
    if not isinstance(content, dict) or list(content) != ["entry", "proof"]:
        raise ProofError
    text, hashes = content["entry"], content["proof"]
    if type(text) is not str or not text.isascii() or not isinstance(hashes, list):
        raise ProofError
    proof = [decode64(one) if type(one) is str else b"" for one in hashes]
    if any(len(one) != 32 for one in proof):
        raise ProofError
    entry = text.encode("ascii")
    if proved_root(head.size, [(head.size - 1, leaf(entry))], proof) != head.root:
        raise ProofError
    return Entry(entry)
