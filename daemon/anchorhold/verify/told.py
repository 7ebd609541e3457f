"""What a log tells of itself and what lies beside the tree, held against each other: redactions and erased
openings, recoveries and what was set aside, journals and the sessions that they go on with.
"""

from __future__ import annotations

import hashlib

from anchorhold.verify.bundle import record_problem
from anchorhold.verify.disk import Disk, State
from anchorhold.verify.entries import GROUPS
from anchorhold.verify.epoch import Books
from anchorhold.verify.result import Finding, Result
from anchorhold.verify.rules import INSIDE, Rules


class Told:
    """To be asked when all epochs have been read. Findings and notes go into the result."""

    def __init__(self, disk: Disk, state: State | None, books: Books, rules: Rules, result: Result) -> None:
        self.disk, self.state, self.books, self.rules, self.result = disk, state, books, rules, result

    def _wrong(self, place: str, problem: str, seq: int | None = None) -> None:
        self.result.add(Finding(place, problem, seq))

    def redactions(self, kept: int) -> None:
        """Each erased opening must be named by a redaction; what a redaction names must be erased.

        ``kept``: the first entry that was not pruned.
        """
        left = dict(self.books.erased)
        again = 0
        for _, seq, fields in self.books.own:
            if fields["kind"] != "redaction":
                continue
            try:
                mask = sum(1 << GROUPS.index(name) for name in fields["what"])
                ranges = [(first, last) for first, last in fields["ranges"]]
                if any(type(one) is not int for pair in ranges for one in pair) or any(
                    a > b or b >= seq for a, b in ranges
                ):
                    raise ValueError
            except (KeyError, ValueError, TypeError):
                self._wrong("redaction", "it does not say what was erased", seq)
                continue
            for first, last in ranges:
                for one in range(first, min(last, first + 10_000_000) + 1):
                    have = self.books.erased.get(one, 0)
                    self.result.redacted += bool(have & mask)
                    if mask & ~have and one >= kept:
                        again += 1
                    if one in left:
                        left[one] &= ~mask
        if again and not self.books.without_names:
            self.result.notes.append(f"{again} entries that a redaction names are not erased: run it again")
        for seq in sorted(seq for seq, mask in left.items() if mask)[:1000]:
            groups = ", ".join(name for at, name in enumerate(GROUPS) if left[seq] >> at & 1)
            self._wrong("openings", f"its {groups} were erased, and no redaction tells of it", seq)

    def recovered(self) -> None:
        """What crashes tore and was set aside is there, as the entry says, unless a redaction emptied it."""
        told: dict[str, int] = {}
        emptied = -1
        for _, seq, fields in self.books.own:
            if fields["kind"] == "log.recovered":
                told[str(fields.get("sha256"))] = seq
            elif fields["kind"] == "redaction" and fields.get("torn") is True:
                emptied = seq
        for name in self.disk.torn:
            data = self.disk.read(f"torn/{name}") or b""
            if hashlib.sha256(data).hexdigest() != name:
                self._wrong(f"torn/{ascii(name)[1:-1]}", "its content is not what was set aside")
            elif name not in told:
                self.result.notes.append(f"torn/{name}: no entry tells of it yet; the next run does")
        for digest, seq in told.items():
            if digest not in self.disk.torn and seq > emptied:
                self._wrong(
                    f"torn/{ascii(digest)[1:-1][:80]}", "what a crash tore and was set aside is missing", seq
                )

    def journals(self) -> None:
        """Records that are not in the tree yet: well formed, and going on where their sessions are."""
        offsets = self.state.journals if self.state else {}
        expected: dict[str, int] = {}
        for name, data in self.disk.journals.items():
            at = offsets.get(name, 0)
            place = f"journal/{name}"
            if at > len(data):
                self._wrong(place, f"{at} bytes of it are in the tree, but it has only {len(data)}")
                continue
            while at + 5 <= len(data):
                middle = at + 5 + int.from_bytes(data[at : at + 2], "big")
                end = middle + int.from_bytes(data[at + 2 : at + 5], "big")
                if end > len(data) or middle == at + 5 or end == middle:
                    break
                problem = record_problem(data[at + 5 : middle], data[middle:end])
                if isinstance(problem, str):
                    self._wrong(place, f"a record at byte {at}: {problem}")
                    break
                session, n, kind = problem
                wanted = expected.get(session, self.rules.next_number(session)) if session else n
                if n != wanted and wanted is not None:
                    self._wrong(
                        place, f"a record at byte {at} is number {n} of its session; {wanted} should come"
                    )
                if wanted == 0 and kind in INSIDE:
                    self._wrong(place, f"a record at byte {at}: {kind} before its session's start")
                expected[session] = n + 1
                self.result.unsettled += 1
                at = end
            if at < len(data):
                self.result.torn_bytes += len(data) - at
                self.result.notes.append(
                    f"{place}: the last record is torn, or being written ({len(data) - at} bytes)"
                )
        for name in offsets.keys() - self.disk.journals.keys():
            self.result.notes.append(f"state names journal {name}, which is gone: all of it is in the tree")
        self.result.size += self.result.unsettled
