"""Looks at what is not in the tree yet: records in the writers' journals.

Nothing signs these. What can be noticed is that one is malformed, or does not go on where its session is; a
byte that was changed within a text, and left it well formed, cannot.
"""

from __future__ import annotations

from anchorhold.verify.bundle import record_problem
from anchorhold.verify.disk import Disk
from anchorhold.verify.result import Finding, Result
from anchorhold.verify.rules import INSIDE, LOG_KINDS, LOOSE, Rules


def journals(disk: Disk, offsets: dict[str, int], rules: Rules, result: Result) -> None:
    """All journals, from where the tree has them to their end."""
    expected: dict[str, int] = {}
    for name, (size, data) in disk.journals.items():
        start, at = offsets.get(name, 0), 0
        place = f"journal/{name}"
        if start > size:
            problem = f"{start} bytes of it are in the tree, but it has only {size}"
            result.add(Finding(place, problem))
            continue
        if name in disk.unread:
            result.add(Finding(place, f"the journals are too long to be read: {size} bytes in this one"))
        while at + 5 <= len(data):
            middle = at + 5 + int.from_bytes(data[at : at + 2], "big")
            end = middle + int.from_bytes(data[at + 2 : at + 5], "big")
            if end > len(data) or middle == at + 5 or end == middle:
                break
            found = record_problem(data[at + 5 : middle], data[middle:end])
            problem = found if isinstance(found, str) else _follows(*found, expected, rules)
            if problem:
                result.add(Finding(place, f"a record at byte {start + at}: {problem}"))
            if isinstance(found, str):
                at = len(data)  # where the next one begins is not known
                break
            result.unsettled += 1
            at = end
        if at < len(data):
            result.torn_bytes += len(data) - at
            result.notes.append(
                f"{place}: the last record is torn, or being written ({len(data) - at} bytes)"
            )
    for name in offsets.keys() - disk.journals.keys():
        result.notes.append(f"state names journal {name}, which is gone: all of it is in the tree")
    result.size += result.unsettled


def _follows(session: str, n: int, kind: str, expected: dict[str, int], rules: Rules) -> str:
    """What is wrong with a record's place; ``expected`` has the next numbers of the sessions in journals."""
    if not session:
        return "" if kind in LOG_KINDS or kind in LOOSE else f"{kind} without a session"
    if kind in LOG_KINDS:
        return f"a {kind} belongs to no session"
    wanted = expected.get(session, rules.next_number(session))
    expected[session] = n + 1
    if wanted is not None and n != wanted:
        return f"it is number {n} of its session; {wanted} should come"
    if wanted == 0 and kind in INSIDE:
        return f"{kind} before its session's start"
    return ""
