"""What a verification found."""

from __future__ import annotations


class LogUnreadable(Exception):
    """There is no log at that place, or it may not be read. Says nothing about what is in it."""


class WitnessUnusable(LogUnreadable):
    """A witness that was asked for is none: a slip of the hand, which says nothing about the log."""


class Finding:
    """One thing that is wrong.

    ``place`` is a file below the log's folder. ``seq`` is the first entry it concerns, ``last`` the last one;
    None where it concerns no entry.
    """

    __slots__ = ("last", "place", "problem", "seq")

    def __init__(self, place: str, problem: str, seq: int | None = None, last: int | None = None) -> None:
        self.place = place
        self.problem = problem
        self.seq = seq
        self.last = seq if last is None else last

    def as_dict(self) -> dict[str, object]:
        """For ``--json``."""
        return {"seq": self.seq, "last": self.last, "place": self.place, "problem": self.problem}

    def __str__(self) -> str:
        if self.seq is None:
            return f"{self.place}: {self.problem}"
        which = f"entry {self.seq}" if self.last == self.seq else f"entries {self.seq} to {self.last}"
        return f"{which} ({self.place}): {self.problem}"


FINDINGS_KEPT = 1000
"""A log that is wrong throughout must not fill the memory; what comes after is only counted."""


UNKNOWN_KEPT = 50


class Result:
    """The verdict. ``ok`` is true if nothing is wrong with what is signed nor with what is not.

    ``size`` counts all entries of the chain. The first ``before`` of them are pruned, or were not looked at
    since the given key is that of a later epoch. ``signed`` ones are covered by a
    checkpoint; ``unsigned`` ones come after it (``unsettled`` of them are still in journals): they are well
    formed, but nothing proves that they were not changed. ``proven`` says that all signatures are good and
    the trees' roots are the signed ones (so that each entry which is not among the findings is what was
    written).
    """

    def __init__(self, log: str) -> None:
        self.log = log
        self.vkey = ""
        self.origin = ""
        self.root = ""
        self.note = b""  # the newest signed head, whole, as it was read
        self.size = 0
        self.before = 0
        self.signed = 0
        self.proven = False
        self.torn_bytes = 0
        self.unsettled = 0
        self.redacted = 0
        self.left_over = 0
        self.epochs = 0
        self.pruned = 0
        self.witnessed: list[dict[str, object]] = []
        self.bad_entries = 0
        self.sessions = 0
        self.open_sessions = 0
        self.findings: list[Finding] = []
        self.findings_left_out = 0
        self.wrong_key: Finding | None = None  # that the key which was given is none of this log's
        self.notes: list[str] = []

    @property
    def ok(self) -> bool:
        """Nothing was found."""
        return not self.findings

    @property
    def unsigned(self) -> int:
        """Entries after the checkpoint, in the tree and in journals."""
        return max(0, self.size - self.signed)

    @property
    def first_bad(self) -> Finding | None:
        """That the given key is not the log's, which all others can follow from; else the finding about the
        lowest entry; else the first one about a file."""
        found = self.wrong_key or self._first_bad_entry
        return found or (self.findings[0] if self.findings else None)

    @property
    def _first_bad_entry(self) -> Finding | None:
        about = [finding for finding in self.findings if finding.seq is not None]
        return min(about, key=lambda finding: finding.seq or 0, default=None)

    @property
    def sound_after(self) -> int:
        """Entries after the first bad one with which nothing is wrong; 0 where nothing is proven."""
        first = self._first_bad_entry
        if first is None or first.seq is None or not self.proven:
            return 0
        return max(0, self.size - first.seq - self.bad_entries)

    def add(self, finding: Finding) -> None:
        """Keep a finding, up to a limit."""
        if len(self.findings) < FINDINGS_KEPT:
            self.findings.append(finding)
        else:
            self.findings_left_out += 1

    def unknown(self, names: list[str]) -> None:
        """Files that are none of the log's; a flood of them is only counted."""
        self.notes += [f"unknown file {ascii(name)}" for name in names[:UNKNOWN_KEPT]]
        if len(names) > UNKNOWN_KEPT:
            self.notes.append(f"and {len(names) - UNKNOWN_KEPT} unknown files more")

    def as_dict(self) -> dict[str, object]:
        """The stable form of ``--json``."""
        first = self.first_bad
        return {
            "ok": self.ok,
            "log": self.log,
            "key": self.vkey,
            "origin": self.origin,
            "entries": self.size,
            "signed": self.signed,
            "unsigned": self.unsigned,
            "root": self.root,
            "proven": self.proven,
            "sessions": self.sessions,
            "open_sessions": self.open_sessions,
            "torn_bytes": self.torn_bytes,
            "unsettled": self.unsettled,
            "redacted": self.redacted,
            "epochs": self.epochs,
            "pruned_epochs": self.pruned,
            "witnesses": self.witnessed,
            "first_bad": first.as_dict() if first else None,
            "bad_entries": self.bad_entries,
            "sound_after": self.sound_after,
            "findings": [finding.as_dict() for finding in self.findings],
            "findings_left_out": self.findings_left_out,
            "notes": self.notes,
        }

    def text(self) -> str:
        """For people. Holds nothing of the log's content but numbers and ASCII."""
        lines = [f"log      {ascii(self.log)[1:-1]}", f"key      {ascii(self.vkey)[1:-1]}"]
        count = f"{self.size} in {_count(self.sessions, 'session')} and {_count(self.epochs, 'epoch')}"
        lines.append(f"entries  {count}; {self.signed} signed, {self.unsigned} not yet")
        if self.pruned:
            left = f"of entries before {self.before} only signed heads are left"
            lines.append(f"pruned   {_count(self.pruned, 'epoch')}; {left}")
        if self.redacted:
            lines.append(f"redacted {_count(self.redacted, 'entry', 'entries')}, as the log itself tells")
        lines += [f"note     {note}" for note in self.notes]
        first = self.first_bad
        if first is None:
            lines.append("result   the log verifies")
            return "\n".join(lines)
        lines.append(f"WRONG    {first}")
        others = [finding for finding in self.findings if finding is not first]
        lines += [f"wrong    {finding}" for finding in others[:20]]
        more = len(others) - 20 + self.findings_left_out
        if more > 0:
            lines.append(f"wrong    and {more} more")
        entry = self._first_bad_entry
        if entry is not None and entry.seq is not None and self.proven:
            sound = _count(max(0, entry.seq - self.before), "entry", "entries")
            lines.append(f"sound    {sound} before the first bad one, {self.sound_after} after it")
        elif self.wrong_key is not None and not self.proven:
            lines.append("sound    nothing is proven: the log is not signed with the key that was given")
        elif not self.proven:
            lines.append("sound    nothing is proven: the signed head does not cover these entries")
        lines.append("result   the log does NOT verify")
        return "\n".join(lines)


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"
