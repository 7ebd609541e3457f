"""Reads the log's entries back, oldest first, with filters.

Constraint: never changes the log and needs no right to write it (`anchorhold.audit.read`). An entry that is
in a journal but not in the tree yet comes at the end, with the number that it may get and ``"unsettled":
True``.
"""

from __future__ import annotations

import json
import os
import re
from datetime import UTC, datetime

from anchorhold.audit.entry import GROUPS, merge, split_openings
from anchorhold.audit.files import audit_error, read_file
from anchorhold.audit.read import Snapshot, log_folder, unreadable
from anchorhold.audit.state import State

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator
    from pathlib import Path
    from typing import Any

PATH_FIELDS = ("path", "resolved")
KINDS = (
    "session.start", "session.sealed", "grant", "list", "denial", "breach", "request.start", "request.end",
    "policy.load", "limit", "kill", "session.end", "log.recovered", "epoch.start", "epoch.end", "redaction",
    "prune",
)  # fmt: skip
"""Every kind of entry that there is (docs/audit-log.md)."""

CLASSES = ("data", "model", "runtime", "system", "stdin")
"""What a grant or listing can be of."""


def entries(
    state_dir: Path,
    *,
    session: str | None = None,
    kinds: Collection[str] = (),
    path: str | None = None,
    since: str | datetime | None = None,
    until: str | datetime | None = None,
    first: int = 0,
) -> Iterator[dict[str, Any]]:
    """The entries that match all that is given.

    ``session`` is a session's name or its beginning. ``path`` is a pattern (`path_pattern`) for ``path`` or
    ``resolved``. ``since`` is included, ``until`` is not; text is in the log's own form of time. ``first`` is
    the lowest ``seq`` wanted. Raises AuditError where there is no log or an entry cannot be read.
    """
    lower, upper = stamp(since), stamp(until)
    matches = path_pattern(path) if path is not None else None
    for entry in _all(log_folder(state_dir), first):
        if session is not None and not str(entry.get("session", "")).startswith(session):
            continue
        if kinds and entry.get("kind") not in kinds:
            continue
        time = str(entry.get("time", ""))
        if (lower is not None and time < lower) or (upper is not None and time >= upper):
            continue
        if matches is not None and not any(
            name in entry and matches(str(entry[name])) for name in PATH_FIELDS
        ):
            continue
        yield entry


def stamp(time: str | datetime | None) -> str | None:
    """A point in time in the log's own form."""
    if isinstance(time, datetime):
        return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return time


def log_size(state_dir: Path) -> int:
    """Entries in the tree, pruned ones included: the seq that the next one gets. AuditError where there is no
    log."""
    log = log_folder(state_dir)
    try:
        state = State.load(log)
    except OSError as error:
        raise audit_error(error, "be read", error.filename or log) from error
    return state.total if state else 0


def log_mark(state_dir: Path) -> tuple[object, ...]:
    """Something that is another as soon as there is another entry, for little: no file is read."""
    log = log_folder(state_dir)
    found: list[object] = []
    try:
        found.append(os.stat(os.path.join(log, "state")).st_mtime_ns)
        with os.scandir(os.path.join(log, "journal")) as journals:
            found += sorted((one.name, one.stat().st_size) for one in journals)
    except FileNotFoundError:  # between two names
        found.append(None)
    except OSError as error:
        raise audit_error(error, "be read", error.filename or log) from error
    return tuple(found)


def log_token(state_dir: Path) -> str:
    """What tells this log from another one: the root key."""
    log = log_folder(state_dir)
    try:
        return (read_file(os.path.join(log, "vkey")) or b"").decode("ascii", "replace").strip()
    except OSError as error:
        raise audit_error(error, "be read", error.filename or log) from error


def pick(state_dir: Path, seqs: Iterable[int]) -> Iterator[dict[str, Any]]:
    """The entries of these numbers, ascending, each bundle read once; those that are pruned are left out."""
    log = log_folder(state_dir)
    try:
        snapshot = Snapshot(log)
        bundle = None
        for seq in seqs:
            if bundle is None or not bundle.first <= seq < bundle.first + len(bundle.entries):
                bundle = snapshot.one(seq)
            if bundle is not None:
                at = seq - bundle.first
                yield flat(
                    bundle.epoch, seq, bundle.entries[at], bundle.openings[at] if bundle.openings else None
                )
    except OSError as error:
        raise audit_error(error, "be read", error.filename or log) from error


def _all(log: str, first: int) -> Iterator[dict[str, Any]]:
    try:
        snapshot = Snapshot(log)
        for bundle in snapshot.bundles(first):
            for seq, data in enumerate(bundle.entries, bundle.first):
                if seq >= first:
                    opening = bundle.openings[seq - bundle.first] if bundle.openings is not None else None
                    yield flat(bundle.epoch, seq, data, opening)
        for seq, (shown, openings) in enumerate(snapshot.unsettled, snapshot.total):
            if seq >= first:
                entry = flat(snapshot.state.epoch, seq, b'{"v":2,"seq":%d,%b}' % (seq, shown), openings)
                entry["unsettled"] = True
                yield entry
    except OSError as error:
        raise audit_error(error, "be read", error.filename or log) from error


def flat(epoch: int, seq: int, data: bytes, openings: bytes | None) -> dict[str, Any]:
    """An entry and its openings as one object; ``redacted`` says what is erased, or is not in this copy of
    the log."""
    try:
        shown = json.loads(data)
        if not isinstance(shown, dict):
            raise ValueError
        parts = []
        if openings is None:
            parts = [(name, b"") for name in GROUPS if name in shown]
        else:
            spans, groups, _ = split_openings(openings, 0)
            parts = [
                (GROUPS[at], openings[start:end]) for at, (start, end) in zip(groups, spans, strict=True)
            ]
        entry = merge(shown, parts)
        if isinstance(entry.get("request"), int):  # an entry says its session once
            entry["request"] = f"{entry['session']}-{entry['request']}"
    except (ValueError, LookupError, RecursionError):
        raise unreadable(seq) from None
    entry["epoch"] = epoch
    return entry


def path_pattern(pattern: str) -> Callable[[str], bool]:
    """A test for paths.

    ``*`` and ``?`` stay within one name, ``**`` goes through folders, ``[abc]`` is one of these characters. A
    pattern without ``/`` is for the last name. One without wildcards also matches all that lies below it.
    """
    if "/" not in pattern:
        compiled = re.compile(_translate(pattern), re.DOTALL)
        return lambda path: compiled.fullmatch(path.rpartition("/")[2]) is not None
    pattern = pattern.rstrip("/") or "/"
    below = "" if any(character in pattern for character in "*?[") else "(?:/.*)?"
    if pattern == "/":
        return lambda path: path.startswith("/")
    compiled = re.compile(_translate(pattern) + below, re.DOTALL)
    return lambda path: compiled.fullmatch(path) is not None


def _translate(pattern: str) -> str:
    parts = []
    at = 0
    while at < len(pattern):
        if pattern.startswith("/**/", at):
            parts.append("/(?:.*/)?")
            at += 4
            continue
        if pattern.startswith("**", at):
            parts.append(".*")
            at += 2
            continue
        character = pattern[at]
        end = pattern.find("]", at + 2) if character == "[" else -1
        if character == "*":
            parts.append("[^/]*")
        elif character == "?":
            parts.append("[^/]")
        elif end > 0:
            parts.append(_one_of(pattern[at + 1 : end]))
            at = end
        else:
            parts.append(re.escape(character))
        at += 1
    return "".join(parts)


def _one_of(inside: str) -> str:
    """``[abc]``, ``[a-z]`` or ``[!a]`` as a regular expression; a range that runs backwards is empty."""
    negated = inside[:1] in ("!", "^")
    body = inside[1:] if negated else inside
    parts = []
    at = 0
    while at < len(body):
        if body[at + 1 : at + 2] == "-" and at + 2 < len(body):
            if body[at] <= body[at + 2]:
                parts.append(f"{re.escape(body[at])}-{re.escape(body[at + 2])}")
            at += 3
        else:
            parts.append(re.escape(body[at]))
            at += 1
    if not parts:
        return "[^/]" if negated else "(?!)"
    return f"(?!/)[{'^' if negated else ''}{''.join(parts)}]"
