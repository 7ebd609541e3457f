"""What the log's own entries tell of, held against what is there: redactions, pruned epochs, what crashes
tore.

Constraint: memory does not grow with the number of entries. Erased openings are remembered as runs, in the
order in which they come, and compared with the ranges of all redactions at the end.
"""

from __future__ import annotations

import hashlib
import os
from array import array
from collections.abc import Iterable, Iterator
from typing import Any

from anchorhold.verify.disk import Disk
from anchorhold.verify.entries import GROUPS, EntryError, openings_at
from anchorhold.verify.merkle import WIDTH, index_path
from anchorhold.verify.parallel import Reader
from anchorhold.verify.result import Finding, Result

Span = tuple[int, int]
"""First and last of consecutive entries."""


class Erased:
    """Openings that are not there: (first, last, mask of groups) in ascending order, 24 bytes a run."""

    def __init__(self) -> None:
        self._runs = array("Q")

    def add(self, seq: int, mask: int) -> None:
        """The next one."""
        runs = self._runs
        if runs and runs[-2] + 1 == seq and runs[-1] == mask:
            runs[-2] = seq
        else:
            runs.extend((seq, seq, mask))

    def __bool__(self) -> bool:
        return bool(self._runs)

    def of(self, group: int) -> Iterator[Span]:
        """Where this group was erased."""
        runs = self._runs
        for at in range(0, len(runs), 3):
            if runs[at + 2] >> group & 1:
                yield runs[at], runs[at + 1]


class Epoch:
    """Where an epoch lies in the chain, for whoever has to say where an entry is."""

    __slots__ = ("committed", "first", "number", "own")

    def __init__(self, number: int, first: int, committed: int) -> None:
        self.number, self.first, self.committed = number, first, committed
        self.own: list[tuple[int, dict[str, Any]]] = []  # seq, fields of the log's own entries


class Books:
    """What is gathered over all epochs that are not pruned, in order."""

    def __init__(self) -> None:
        self.epochs: list[Epoch] = []
        self.erased = Erased()
        self.without_names: set[int] = set()
        self.pruned: list[int] = []

    def own(self, kind: str) -> Iterator[tuple[int, dict[str, Any]]]:
        """The log's own entries of a kind."""
        for epoch in self.epochs:
            for seq, fields in epoch.own:
                if fields["kind"] == kind:
                    yield seq, fields

    def place(self, seq: int, what: str = "tile/entries") -> str:
        """The file that an entry, or its openings, are in."""
        for epoch in reversed(self.epochs):
            if epoch.first <= seq:
                return f"{epoch.number}/{what}/{index_path((seq - epoch.first) // WIDTH)}"
        return what


def redactions(books: Books, result: Result, log: str) -> None:
    """Each erased opening must be named by a later redaction; what a redaction names must be erased."""
    named: list[list[Span]] = [[], [], []]
    for seq, fields in books.own("redaction"):
        try:
            groups = [GROUPS.index(name) for name in fields["what"]]
            ranges = [(first, last) for first, last in fields["ranges"]]
            if any(type(one) is not int for pair in ranges for one in pair):
                raise ValueError
            if any(first < 0 or first > last or last >= seq for first, last in ranges):
                raise ValueError
        except (KeyError, ValueError, TypeError):
            result.add(Finding(books.place(seq), "it does not say what was erased", seq))
            continue
        for group in groups:
            named[group] += ranges
    silent: dict[Span, list[str]] = {}
    redacted: list[Span] = []
    left: list[list[Span]] = []
    for group, name in enumerate(GROUPS):
        told = _union(named[group])
        for span in _union(_without(books.erased.of(group), told)):
            silent.setdefault(span, []).append(name)
        redacted += _without(books.erased.of(group), _without([(0, 1 << 63)], told))
        left.append(list(_without(told, books.erased.of(group))))
    result.redacted = sum(last - first + 1 for first, last in _union(redacted))
    for first, last in sorted(silent):
        what = ", ".join(silent[first, last])
        problem = f"its {what} were erased, and no redaction tells of it"
        result.add(Finding(books.place(first, "openings"), problem, first, last))
    again = _still_there(books, left, log)
    if again:
        result.notes.append(f"{again} entries that a redaction names are not erased: run it again")


def _union(spans: Iterable[Span]) -> list[Span]:
    """The same numbers as ascending spans that do not touch."""
    found: list[Span] = []
    for first, last in sorted(spans):
        if found and first <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(found[-1][1], last))
        else:
            found.append((first, last))
    return found


def _without(spans: Iterable[Span], others: Iterable[Span]) -> Iterator[Span]:
    """The numbers of ascending ``spans`` that are in none of the ascending ``others``."""
    rest = iter(others)
    other = next(rest, None)
    for first, last in spans:
        while other is not None and other[0] <= last:
            if other[1] >= first:
                if first < other[0]:
                    yield first, other[0] - 1
                first = other[1] + 1
            if other[1] > last:
                break
            other = next(rest, None)
        if first <= last:
            yield first, last


def _still_there(books: Books, left: list[list[Span]], log: str) -> int:
    """How many entries have an opening although a redaction names it: these bundles are read once more."""
    count = 0
    for epoch in books.epochs:
        if epoch.number in books.without_names:
            continue
        reader = Reader(os.path.join(log, str(epoch.number)), epoch.first, epoch.committed)
        end = epoch.first + epoch.committed - 1
        bundles = _union(
            ((max(first, epoch.first) - epoch.first) // WIDTH, (min(last, end) - epoch.first) // WIDTH)
            for spans in left
            for first, last in spans
            if first <= end and last >= epoch.first
        )
        for number in (number for first, last in bundles for number in range(first, last + 1)):
            data, _ = reader.openings(number)
            start = epoch.first + number * WIDTH
            at = 0
            for seq in range(start, min(start + WIDTH, end + 1)):
                try:
                    found, at = openings_at(data or b"", at)
                except EntryError:
                    break  # a finding by now
                mask = sum(1 << group for group, opening in found if opening)
                count += any(mask >> group & 1 and _holds(left[group], seq) for group in range(3))
    return count


def _holds(spans: list[Span], seq: int) -> bool:
    """Whether an ascending list of spans holds the number."""
    low, high = 0, len(spans)
    while low < high:
        middle = (low + high) // 2
        if spans[middle][1] < seq:
            low = middle + 1
        else:
            high = middle
    return low < len(spans) and spans[low][0] <= seq


def prunes(books: Books, result: Result) -> None:
    """The last pruned epoch must be named by an entry ``prune`` that is still there: whoever only takes files
    away cannot write one. (Earlier ones can have been named by what was pruned since.)"""
    told: list[Span] = []
    for seq, fields in books.own("prune"):
        epochs = fields.get("epochs")
        if (
            not isinstance(epochs, list)
            or len(epochs) != 2
            or any(type(one) is not int for one in epochs)
            or not 0 <= epochs[0] <= epochs[1]
        ):
            result.add(Finding(books.place(seq), "it does not say what was pruned", seq))
        else:
            told.append((epochs[0], epochs[1]))
    last = max(books.pruned, default=-1)
    if books.pruned and not any(first <= last <= end for first, end in told):
        result.add(Finding(f"{last}/end", "the epoch's entries are gone, and no entry tells of it"))
    there = [epoch.number for epoch in books.epochs]
    waiting = [one for one in there if any(first <= one <= end for first, end in told)]
    if waiting:
        result.notes.append(f"epoch {waiting[0]} was to be pruned, and is still there: prune again")


def recovered(books: Books, result: Result, disk: Disk) -> None:
    """What crashes tore and was set aside is there, as the entry says, unless a redaction emptied it."""
    told = {str(fields.get("sha256")): seq for seq, fields in books.own("log.recovered")}
    emptied = max((seq for seq, fields in books.own("redaction") if fields.get("torn") is True), default=-1)
    for name in disk.torn:
        place = f"torn/{ascii(name)[1:-1]}"
        if hashlib.sha256(disk.read(f"torn/{name}") or b"").hexdigest() != name:
            result.add(Finding(place, "its content is not what was set aside"))
        elif name not in told:
            why = "the entry was pruned, or the next run writes it" if books.pruned else "the next run does"
            result.notes.append(f"{place}: no entry tells of it yet; {why}")
    for digest, seq in told.items():
        if digest not in disk.torn and seq > emptied:
            place = f"torn/{ascii(digest)[1:-1][:80]}"
            result.add(Finding(place, "what a crash tore and was set aside is missing", seq))
