"""Reads the log's entries back, oldest first, with filters.

Constraint: never changes the log and needs no right to write it. It may grow meanwhile: what was there when
reading began is read. A torn last record is not there yet. Whether the entries are true, verify/ says.
"""

from __future__ import annotations

import json
import os
import re
from datetime import UTC, datetime

from anchorhold.audit.entry import scan
from anchorhold.audit.files import audit_error, read_fd, read_file
from anchorhold.audit.recover import count_bundles
from anchorhold.audit.tree import WIDTH, split_entries, tile_path
from anchorhold.errors import AuditError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from pathlib import Path
    from typing import Any

PATH_FIELDS = ("path", "resolved")
KINDS = (
    "session.start", "session.sealed", "grant", "list", "denial", "breach", "request.start", "request.end",
    "policy.load", "limit", "kill", "session.end", "log.recovered",
)  # fmt: skip
"""Every kind of entry that there is (docs/audit-log.md)."""


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
    lower, upper = _stamp(since), _stamp(until)
    matches = path_pattern(path) if path is not None else None
    for entry in _all(os.path.join(os.path.abspath(state_dir), "log"), first):
        if session is not None and not str(entry.get("session", "")).startswith(session):
            continue
        if kinds and entry.get("kind") not in kinds:
            continue
        time = str(entry.get("time", ""))
        if (lower is not None and time < lower) or (upper is not None and time >= upper):
            continue
        if matches is not None and not any(matches(str(entry.get(name, ""))) for name in PATH_FIELDS):
            continue
        yield entry


def _stamp(time: str | datetime | None) -> str | None:
    if isinstance(time, datetime):
        return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return time


def _all(log: str, first: int) -> Iterator[dict[str, Any]]:
    try:
        try:
            os.stat(os.path.join(log, "."))
        except FileNotFoundError:
            raise AuditError(
                f"there is no audit log at {log}", hint="The first run makes it: anchorhold ask"
            ) from None
        count, tail = _snapshot(log)
        for number in range(first // WIDTH, count):
            data = read_file(os.path.join(log, tile_path("entries", number)))
            if data is None:
                raise _unreadable(number * WIDTH)
            yield from _bundle(data, number, first)
        yield from _bundle(tail, count, first)
    except OSError as error:
        raise audit_error(error, "be read", error.filename or log) from error


def _snapshot(log: str) -> tuple[int, bytes]:
    """How many bundles there are, and the whole entries of the tail that belongs after them."""
    while True:
        count = count_bundles(log)
        tail = _whole_tail(os.path.join(log, "tail"), count * WIDTH)
        if count_bundles(log) == count:
            return count, tail


def _whole_tail(path: str, seq: int) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:  # between a rename and the next tail
        return b""
    try:
        data = read_fd(fd, os.fstat(fd).st_size)
    finally:
        os.close(fd)
    return data[: scan(data, seq, parse=False)[1]]


def _bundle(data: bytes, number: int, first: int) -> Iterator[dict[str, Any]]:
    for seq, one in enumerate(split_entries(data), number * WIDTH):
        if seq < first:
            continue
        try:
            entry = json.loads(one)
        except (ValueError, RecursionError):
            raise _unreadable(seq) from None
        if not isinstance(entry, dict):
            raise _unreadable(seq)
        yield entry


def _unreadable(seq: int) -> AuditError:
    return AuditError(f"entry {seq} of the audit log cannot be read", hint="Run: anchorhold audit verify")


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
