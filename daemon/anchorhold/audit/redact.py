"""Forgets names, digests or texts, and keeps the proof.

Constraint: told before it is done, as everything in the log: the redaction is an entry, in the tree and
signed, before the first opening is erased. After it no byte of what was erased is left in any file of the
state directory: openings are rewritten and the old bytes overwritten, journals are overwritten, and what
crashes tore, the index and the cache of digests are removed. Cut short, it is completed by the next one
(`complete`).

The entries and the tree do not change: they only ever held commitments.
"""

from __future__ import annotations

import json
import os

from anchorhold.audit import digests as cache
from anchorhold.audit import journal
from anchorhold.audit.entry import GROUPS, split_openings
from anchorhold.audit.files import TMP, audit_error, fsync_path, read_file, replace
from anchorhold.audit.grow import openings_path, read_openings, write_openings
from anchorhold.audit.lock import Locked
from anchorhold.audit.prune import is_left, remove
from anchorhold.audit.query import flat
from anchorhold.audit.read import Epoch, Snapshot, log_folder, read_bundle
from anchorhold.audit.repeats import Repeats, paths_of
from anchorhold.audit.settle import Chain, tidy_temporary
from anchorhold.audit.tree import WIDTH
from anchorhold.errors import AuditError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path
    from typing import Any

RANGES = 2_000
"""Ranges of numbers in one entry: they have to fit in 65,535 bytes."""


class Plan:
    """Which openings are to be erased: for each number of an entry the mask of groups."""

    def __init__(self, masks: dict[int, int]) -> None:
        self.masks = masks

    def __len__(self) -> int:
        return len(self.masks)

    def by_mask(self) -> Iterator[tuple[int, list[list[int]]]]:
        """The numbers as ranges, for each mask that occurs."""
        for mask in sorted(set(self.masks.values())):
            ranges: list[list[int]] = []
            for seq in sorted(seq for seq, one in self.masks.items() if one == mask):
                if ranges and ranges[-1][1] == seq - 1:
                    ranges[-1][1] = seq
                else:
                    ranges.append([seq, seq])
            yield mask, ranges


def plan(
    state_dir: Path,
    matches: Callable[[dict[str, Any]], bool],
    groups: Iterable[str],
    *,
    path: Callable[[str], bool] | None = None,
    unsettled: bool = True,
) -> Plan:
    """What a redaction of the entries that match would erase. Raises AuditError.

    ``path``: the test that the entries' paths were chosen by. Then every other entry whose paths or free text
    repeat such a path is chosen too: an error's words can hold a name. ``unsettled``: those in journals too;
    their numbers are a guess.
    """
    log = log_folder(state_dir)
    wanted = sum(1 << GROUPS.index(group) for group in groups)
    try:
        snapshot = Snapshot(log)
        masks: dict[int, int] = {}
        names: set[str] = set()
        for seq, entry, mask in _openings(snapshot, unsettled=unsettled):
            if matches(entry):
                if mask & wanted:
                    masks[seq] = mask & wanted
                names.update(name for name in paths_of(entry) if path is not None and path(name))
        if names and wanted & 1:
            repeats = Repeats(names)
            wanted &= ~2  # the digest of another content is no name
            for seq, entry, mask in _openings(snapshot, unsettled=unsettled):
                if mask & wanted & ~masks.get(seq, 0) and repeats(entry):
                    masks[seq] = mask & wanted | masks.get(seq, 0)
    except OSError as error:
        raise audit_error(error, "be read", error.filename or log) from error
    return Plan(masks)


def _openings(snapshot: Snapshot, *, unsettled: bool) -> Iterator[tuple[int, dict[str, Any], int]]:
    """Each entry that still has an opening: number, all its fields, the mask of what is there."""
    for bundle in snapshot.bundles():
        for at, openings in enumerate(bundle.openings or ()):
            if len(openings) > 1:
                spans, groups, _ = split_openings(openings, 0)
                mask = sum(
                    1 << group for (start, end), group in zip(spans, groups, strict=True) if end > start
                )
                if mask:
                    seq = bundle.first + at
                    yield seq, flat(bundle.epoch, seq, bundle.entries[at], openings), mask
    for seq, (shown, openings) in enumerate(snapshot.unsettled if unsettled else (), snapshot.total):
        if openings[0]:
            entry = flat(snapshot.state.epoch, seq, b'{"v":2,"seq":%d,%b}' % (seq, shown), openings)
            yield seq, entry, openings[0]


def redact(
    state_dir: Path,
    matches: Callable[[dict[str, Any]], bool],
    groups: Iterable[str],
    *,
    reason: str,
    by: str,
    path: Callable[[str], bool] | None = None,
) -> int:
    """Erase the ``groups`` of all entries that match; returns how many entries that were. Raises AuditError.

    ``reason`` and ``by`` go into the log, in the open. ``path`` as for `plan`.
    """
    log = log_folder(state_dir)
    groups = tuple(groups)
    try:
        with Locked(log):
            chain = Chain(log)
            tidy_temporary(log, chain.state.epoch)
            chain.settle()  # all that is in journals has its place then
            # what a writer adds from here on comes after the redaction, which cannot name it
            todo = plan(state_dir, matches, groups, path=path, unsettled=False)
            if todo:
                torn = bool(_files(os.path.join(log, "torn")))
                for mask, ranges in todo.by_mask():
                    for at in range(0, len(ranges), RANGES):
                        part = ranges[at : at + RANGES]
                        fields: dict[str, object] = {
                            "what": [name for bit, name in enumerate(GROUPS) if mask >> bit & 1],
                            "count": sum(last - first + 1 for first, last in part),
                            "ranges": part,
                            "reason": reason,
                            "by": by,
                        }
                        if torn:
                            fields["torn"] = True
                        chain.write("redaction", fields)
            chain.sign()
            _erase(chain, _Told(Snapshot(log)))
            return len(todo)
    except OSError as error:
        raise audit_error(error, "be redacted", error.filename or log) from error


def complete(state_dir: Path) -> int:
    """Do again what all redactions in the log say: for one that was cut short. Returns how many entries they
    name."""
    log = log_folder(state_dir)
    try:
        with Locked(log):
            chain = Chain(log)
            chain.settle()
            chain.sign()
            told = _Told(Snapshot(log))
            _erase(chain, told)
            return len(told.masks)
    except OSError as error:
        raise audit_error(error, "be redacted", error.filename or log) from error


def may_be_cut_short(state_dir: Path) -> bool:
    """Whether the log tells of a redaction, which can have been cut short, or of a pruning that was: then
    `complete` has to come before it can be said that a name is nowhere. Raises AuditError."""
    log = log_folder(state_dir)
    try:
        snapshot = Snapshot(log)
        return any(map(is_left, snapshot.epochs)) or bool(_Told(snapshot).masks)
    except OSError as error:
        raise audit_error(error, "be read", error.filename or log) from error


class _Told:
    """What the redactions in the log say: ``masks`` as in `Plan`, and which files of ``torn/`` stay, since
    no later redaction says that they are gone."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.masks: dict[int, int] = {}
        self._emptied = -1  # number of the last redaction that says so
        self._set_aside: dict[object, int] = {}
        for bundle in snapshot.bundles():
            for seq, data in enumerate(bundle.entries, bundle.first):
                if b'"kind":"redaction"' in data:
                    self._redaction(seq, json.loads(data))
                elif b'"kind":"log.recovered"' in data:
                    self._set_aside[str(json.loads(data).get("sha256"))] = seq

    def _redaction(self, seq: int, entry: dict[str, Any]) -> None:
        if entry.get("kind") == "redaction" and not entry.get("session"):
            mask = sum(1 << GROUPS.index(name) for name in entry["what"])
            for first, last in entry["ranges"]:
                for one in range(first, last + 1):
                    self.masks[one] = self.masks.get(one, 0) | mask
            if entry.get("torn") is True:
                self._emptied = seq

    def stays(self, digest: str) -> bool:
        """Whether a file of ``torn/`` does."""
        return self._emptied < self._set_aside.get(digest, 0)


def _erase(chain: Chain, told: _Told) -> None:
    """Erase, and remove whatever else of the state directory can hold the same bytes. What was cut short
    before is done as well: an entry tells of it, so nobody would choose it again."""
    log, left = chain.log, False
    for epoch in Snapshot(log).epochs:
        if epoch.pruned:
            if is_left(epoch):
                left = True
                for path in _files(os.path.join(epoch.folder, "openings")):
                    _shred(path)
                remove(epoch)
        elif told.masks:
            bundles: dict[int, dict[int, int]] = {}
            for seq, mask in told.masks.items():
                if epoch.first <= seq < epoch.first + epoch.size:
                    number, at = divmod(seq - epoch.first, WIDTH)
                    bundles.setdefault(number, {})[at] = mask
            for number, erased in bundles.items():
                _rewrite(epoch, number, erased)
            _cut_off(epoch)
    if not told.masks and not left:
        return
    for name in journal.names(log):
        journal.blank(log, name, chain.state.journals.get(name, 0))
    for path in _files(os.path.join(log, "torn")):
        if not told.stays(os.path.basename(path)):
            _shred(path)
    _forget_copies(os.path.dirname(log), digests=any(mask & 2 for mask in told.masks.values()))


def _rewrite(epoch: Epoch, number: int, erased: dict[int, int]) -> None:
    data = read_openings(epoch.folder, number)
    if data is None:
        raise AuditError(f"the openings of the audit log are missing: {epoch.folder}/{openings_path(number)}")
    out = []
    at = index = 0
    while at < len(data) and index < epoch.size - number * WIDTH:  # what follows is not in the tree
        start = at
        spans, groups, at = split_openings(data, start)
        mask = erased.get(index, 0)
        if any(mask >> group & 1 for group in groups):
            parts = [data[start : start + 1]]
            for (first, end), group in zip(spans, groups, strict=True):
                gone = mask >> group & 1
                parts.append(b"\0\0" if gone else (end - first).to_bytes(2, "big") + data[first:end])
            out.append(b"".join(parts))
        else:
            out.append(data[start:at])
        index += 1
    new = b"".join(out)
    if new == data:
        return
    path = os.path.join(epoch.folder, openings_path(number))
    old = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        write_openings(epoch.folder, number, new, sync=True)
        _overwrite(old)
    finally:
        os.close(old)


def _cut_off(epoch: Epoch) -> None:
    """Openings behind the last entry: a crash left them, and after a power loss no journal has the same."""
    last, count = divmod(epoch.size, WIDTH)
    if count and len(read_openings(epoch.folder, last) or b"") > sum(
        map(len, read_bundle(epoch, last).openings or ())
    ):
        _rewrite(epoch, last, {})
    folder = os.path.join(epoch.folder, "openings")
    for path in _files(folder):
        digits = os.path.relpath(path, folder).replace("/", "").replace("x", "")
        if digits.isdigit() and int(digits) * WIDTH >= epoch.size:
            _shred(path)


def _files(top: str) -> list[str]:
    """The files below a folder. OSError for what cannot be looked at, which can hold a name; a folder that is
    gone by now holds none."""

    def failed(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            raise error

    return [os.path.join(folder, name) for folder, _, names in os.walk(top, onerror=failed) for name in names]


def _forget_copies(state_dir: str, *, digests: bool) -> None:
    """The index, the cache of digests (where digests were erased), and whatever was being written.

    The new index first: who makes it renames it, and then it is found under its name, or cannot any more.
    """
    _shred(os.path.join(state_dir, "index.sqlite.new"))
    for path in _files(state_dir):
        if os.path.basename(path).startswith(("index.sqlite", TMP)):
            _shred(path)
    if digests:
        _forget_digests(state_dir)


def _forget_digests(state_dir: str) -> None:
    """Leave a mark in the place of the cache, so that nobody who runs meanwhile saves what it knew before.

    Who had read an older mark is either still writing, and finds its file gone, or was in time, and is found.
    """
    path, mark = os.path.join(state_dir, cache.FILE), cache.forgotten()
    while True:
        _shred(path)
        replace(path, mark, sync=True, owned=True)
        for name in os.listdir(state_dir):
            if name.startswith(TMP):
                _shred(os.path.join(state_dir, name))
        if read_file(path) == mark:
            return


def _shred(path: str) -> None:
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return
    try:
        os.unlink(path)
        _overwrite(fd)
    finally:
        os.close(fd)
    fsync_path(os.path.dirname(path), directory=True)


def _overwrite(fd: int) -> None:
    """Zeros over a file that has no name any more."""
    size = os.fstat(fd).st_size
    at = 0
    while at < size:
        at += os.pwrite(fd, bytes(min(1 << 20, size - at)), at)
    if size:  # a named pipe has none, and cannot be synced
        os.fsync(fd)
