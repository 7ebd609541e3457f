"""What others saw of a log: cosignatures of witnesses, and checkpoints kept elsewhere.

A log that was rolled back, or of which there are two, agrees with itself; it does not agree with what
somebody saw before. Source: https://c2sp.org/tlog-cosignature.

Of a pruned epoch only the final head is left, and an earlier one cannot be compared with it. It is vouched
for by a newer one that agrees, since each epoch names the final head of the one before; where there is none,
that is a finding: pruning must not hide that an epoch was written anew.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping, Sequence

from anchorhold.verify.entries import frames
from anchorhold.verify.epoch import root_at
from anchorhold.verify.files import read
from anchorhold.verify.merkle import index_path
from anchorhold.verify.note import COSIGNATURE, Head, NoteError, VerifierKey, cosigned_at, read_head
from anchorhold.verify.result import Finding, LogUnreadable, Result, WitnessUnusable

MOST = 100_000
"""Files of a folder that are looked at."""

_TIME = re.compile(rb'"time":"([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2})')


class Seen:
    """An epoch that was verified: where it is, its key, signed head, entries in the tree, first seq."""

    __slots__ = ("first", "folder", "head", "key", "pruned", "size")

    def __init__(
        self, folder: str, key: VerifierKey | None, head: Head, size: int, first: int, *, pruned: bool = False
    ) -> None:
        self.folder, self.key, self.head, self.size, self.first = folder, key, head, size, first
        self.pruned = pruned


class _Log:
    """The epochs that were verified, from ``start`` on, by origin."""

    def __init__(self, seen: list[Seen], start: int) -> None:
        self.seen, self.start = seen, start
        self.by_origin = {one.head.origin: one for one in seen}
        self.base = seen[-1].head.origin.rpartition("/")[0] if seen else ""

    def lacks(self, origin: str) -> bool:
        """Whether it is the origin of an epoch that this log should have and does not."""
        base, _, number = origin.rpartition("/")
        known = number.isascii() and number.isdigit() and len(number) < 10
        return (
            base == self.base != ""
            and origin not in self.by_origin
            and not (known and int(number) < self.start)
        )


def kept_in(witnesses: Sequence[str]) -> dict[str, list[str]]:
    """The names in those of ``witnesses`` that are folders. Asked for before the log is read: a head that
    comes later can be of more than was verified, and says nothing of that. OSError."""
    return {
        folder: sorted(name for name in os.listdir(folder) if not name.startswith("."))
        for folder in witnesses
        if os.path.isdir(folder)
    }


def check_witnesses(
    witnesses: Sequence[str], kept: Mapping[str, list[str]], seen: list[Seen], start: int, result: Result
) -> None:
    """Each of ``witnesses`` (a vkey, a folder, a file with a checkpoint or a vkey) must agree; what they say
    goes into the result. ``kept``: by `kept_in`. Raises WitnessUnusable."""
    for one in seen:
        _own(one, result)
    log = _Log(seen, start)
    files: list[str] = []
    keys: list[VerifierKey] = []
    for witness in witnesses:
        if witness in kept:
            continue
        key = _given(witness)
        if key is None:
            files.append(witness)
        else:
            keys.append(key)
    for folder, names in kept.items():
        _folder(folder, names, log, keys, result)
    for file in files:
        _file(file, log, keys, result)
    for key in keys:
        _key(key, seen, files, result)


def _given(witness: str) -> VerifierKey | None:
    """The key that a witness is given by, as it is or in a file; None for a file with a checkpoint."""
    text = witness
    note = _note(witness) if len(witness) < 4096 and "\0" not in witness else None
    if note is not None:
        try:
            read_head(note, None)
            return None
        except NoteError as error:
            problem = f"is no checkpoint ({error}) and no vkey of a witness"
        text = note.partition(b"\n")[0].decode("utf-8", "replace")
    else:
        problem = "is neither a folder, nor a file, nor the vkey of a witness"
    try:
        return VerifierKey(text.strip(), COSIGNATURE)
    except NoteError as error:
        why = "" if note is not None else f": {error}"
        raise WitnessUnusable(f"{ascii(witness)} {problem}{why}") from None


def _note(path: str) -> bytes | None:
    """A checkpoint as it came, on paper or by mail: what that does to the ends of lines and of the text is
    taken back. None where there is no such file."""
    try:
        data = read(path)
    except OSError:
        return None
    if data is None:
        return None
    lines = [line.rstrip(b" \t\r") for line in data.strip().split(b"\n")]
    return b"\n".join(lines) + b"\n"


def _own(one: Seen, result: Result) -> None:
    """The stored copy with cosignatures is a head of this epoch, whoever cosigned it."""
    note = read(os.path.join(one.folder, "cosigned"))
    if note is not None:
        problem = _signed(note, one)
        if problem:
            result.add(Finding(f"{os.path.basename(one.folder)}/cosigned", problem))


def check_heads(notes: Sequence[tuple[bytes, float]], seen: list[Seen], start: int, result: Result) -> None:
    """Signed heads that somebody remembers: those of this log's chain must still be true. Each with the
    time at which it was seen."""
    log = _Log(seen, start)
    newest = lost = -1  # entries of the newest head that agrees, and of the newest that cannot be compared
    for note, when in notes:
        try:
            head = read_head(note, None)
        except NoteError as error:
            raise LogUnreadable(f"a head that was seen before cannot be read: {error}") from None
        one = log.by_origin.get(head.origin)
        problem = _agrees(head, one) if one is not None else ""
        if log.lacks(head.origin):
            problem = "the log was rolled back: that epoch is gone"
        if problem:
            result.add(Finding("a head that was seen before", f"{problem}; it was seen on {_day(when)}"))
        elif one is not None and _comparable(head, one):
            newest = max(newest, one.first + head.size)
        elif one is not None:
            lost = max(lost, one.first + head.size)
    if lost > newest:
        result.add(Finding("a head that was seen before", _LOST))


def _key(key: VerifierKey, seen: list[Seen], files: list[str], result: Result) -> None:
    """The newest checkpoint that this witness cosigned, in the log or in one of ``files``."""
    newest: tuple[int, Seen, Head] | None = None
    notes = [(ascii(path)[1:-1], _note(path), None) for path in files]
    for one in seen:
        number = os.path.basename(one.folder)
        stored = [
            (f"{number}/{name}", read(os.path.join(one.folder, name)), one)
            for name in ("cosigned", "checkpoint")
        ]
        for place, note, its in (*stored, *notes):
            if note is None:
                continue
            try:
                when = cosigned_at(note, key)
                head = read_head(note, None)
            except NoteError as error:
                result.add(Finding(place, str(error)))
                continue
            if when is None or (its is None and head.origin != one.head.origin):
                continue
            problem = _agrees(head, one)
            if problem:
                result.add(
                    Finding(place, f"{ascii(key.name)[1:-1]} saw another log on {_day(when)}: {problem}")
                )
            elif _comparable(head, one) and (newest is None or when >= newest[0]):
                newest = (when, one, head)
    if newest is None:
        there = [one.folder for one in seen if os.path.isfile(os.path.join(one.folder, "cosigned"))]
        place = f"{os.path.basename(there[-1])}/cosigned" if there else "cosigned"
        problem = f"the witness {ascii(key.name)[1:-1]} has cosigned nothing of this log{_end(seen)}"
        result.add(Finding(place, problem))
        return
    when, one, head = newest
    _tell(result, key.name, one.first + head.size, when)


def _end(seen: list[Seen]) -> str:
    """Where the log ends that a witness does not know: if it was put back, then to there."""
    words = ": if it has, the log was put back"
    if seen and seen[-1].head.size:
        one = seen[-1]
        number, at = divmod(one.head.size - 1, 256)
        path = os.path.join(one.folder, "tile", "entries", index_path(number))
        data = read(f"{path}.p/{at + 1}") or read(path) or b""
        found = frames(data)[0][at : at + 1]
        time = _TIME.search(found[0]) if found else None
        if time is not None:
            day = time[1].decode("ascii").replace("T", " ")
            words += f" to what it was on {day} UTC, when its last signed entry was made"
    return f"{words}. The head that it cosigned says since when: --witness FILE"


def _file(path: str, log: _Log, keys: list[VerifierKey], result: Result) -> None:
    """One checkpoint that was kept elsewhere must be of this log and still be true."""
    before = len(result.findings) + result.findings_left_out
    found = _kept(path, log, keys, result)
    if found is not None and not found[2]:
        result.add(Finding(ascii(path)[1:-1], f"{_LOST}; it was seen on {_day(found[1])}"))
    elif found is not None:
        _tell(result, path, *found[:2])
    elif len(result.findings) + result.findings_left_out == before:
        result.add(Finding(ascii(path)[1:-1], "it is the checkpoint of another log, or of an epoch before"))


def _kept(path: str, log: _Log, keys: list[VerifierKey], result: Result) -> tuple[int, float, bool] | None:
    """A checkpoint in a file. If it is of this log and true: how many entries it covers, since when it is
    known, by the cosignature of one of ``keys`` or else by the file's own time, and whether anything was left
    to compare it with."""
    place = ascii(path)[1:-1]
    note = _note(path) or b""
    since = os.stat(path).st_mtime
    try:
        head = read_head(note, None)
        since = min([float(when) for key in keys if (when := cosigned_at(note, key)) is not None] or [since])
    except NoteError as error:
        result.notes.append(f"{place} is no checkpoint: {error}")
        return None
    one = log.by_origin.get(head.origin)
    if log.lacks(head.origin):
        problem = "the log was rolled back: it is of an epoch that this log does not have"
        result.add(Finding(place, f"{problem}; it was seen on {_day(since)}"))
    if one is None:
        return None
    problem = _signed(note, one)
    if problem:
        result.add(Finding(place, f"{problem}; it was seen on {_day(since)}"))
        return None
    return one.first + head.size, since, _comparable(head, one)


def _folder(folder: str, names: list[str], log: _Log, keys: list[VerifierKey], result: Result) -> None:
    """Checkpoints that were kept elsewhere, in files of these ``names``: each one of this log must still be
    true."""
    latest: tuple[int, float] | None = None
    lost: tuple[int, str, str] | None = None  # the newest one that cannot be compared
    vouched = 0  # how many there are
    if len(names) > MOST:  # what was left out can say the opposite
        problem = f"it holds {len(names)} files, and only the first {MOST} were looked at"
        result.add(Finding(ascii(folder)[1:-1], f"{problem}: move old heads, and what is none, elsewhere"))
    for name in names[:MOST]:
        path = os.path.join(folder, name)
        if not os.path.isfile(path):
            continue
        found = _kept(path, log, keys, result)
        if found is None:
            continue
        entries, since, comparable = found
        if not comparable:
            vouched += 1
            problem = f"{_LOST}; it was seen on {_day(since)}"
            lost = max(lost or (0, "", ""), (entries, ascii(path)[1:-1], problem))
        elif latest is None or entries >= latest[0]:
            latest = (entries, since)
    if lost is not None and lost[0] > (latest[0] if latest else -1):
        result.add(Finding(*lost[1:]))
    elif latest is None:
        result.add(Finding(ascii(folder)[1:-1], "the folder holds no checkpoint that this log agrees with"))
    elif vouched:
        result.notes.append(
            f"{vouched} checkpoints in {ascii(folder)[1:-1]} are of epochs that were pruned since, and count "
            "as true because a newer one agrees: of worth if nobody else can write to that folder"
        )
    if latest is not None:
        _tell(result, folder, *latest)


def _signed(note: bytes, one: Seen) -> str:
    """What is wrong with a checkpoint of an epoch, or nothing. Anybody can put a file somewhere: only what
    the log itself signed says anything about it."""
    try:
        return _agrees(read_head(note, one.key), one)
    except NoteError as error:
        return str(error)


_LOST = (
    "its epoch was pruned since, and nothing newer was seen: whether the log goes on from it cannot be told"
)


def _comparable(head: Head, one: Seen) -> bool:
    """Whether anything is left to compare with: of a pruned epoch only its final head."""
    return not one.pruned or head.size == one.head.size


def _agrees(head: Head, one: Seen) -> str:
    """What is wrong between a checkpoint of an epoch and the epoch as it is now, or nothing."""
    if head.origin != one.head.origin:
        return "it is of another log or epoch"
    if head.size > one.size:
        return f"the log was rolled back: it had {head.size} entries in this epoch, and has {one.size}"
    if head.size == one.head.size:
        root: bytes | None = one.head.root
    elif not _comparable(head, one):
        return ""
    else:
        root = root_at(one.folder, head.size)
        if root is None:
            return f"tiles are missing: whether its first {head.size} entries are these cannot be told"
    if root != head.root:
        return f"the log was rewritten: its first {head.size} entries in this epoch were others"
    return ""


def _tell(result: Result, name: str, entries: int, when: float) -> None:
    result.witnessed.append({"witness": name, "entries": entries, "time": int(when)})
    since = max(0, result.size - entries)
    result.notes.append(
        f"{ascii(name)[1:-1]} saw the first {entries} entries on {_day(when)}; {since} came since"
    )


def _day(when: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(max(0, min(when, 1 << 40))))
