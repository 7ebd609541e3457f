"""Remembers the digests of large files that did not change, so that a model is hashed once and not each time.

Constraint: a wrong digest must never come out. The key is device, inode, size, mtime and ctime; ctime cannot
be set by a program, so whoever changes the file changes the key. A file changed in the last two seconds is
not remembered: it could change again within the clock's grain. What cannot be read in the cache is not there.

What a redaction forgot must not come back from the memory of a program that runs meanwhile: the redaction
leaves a random mark in the file, and who read the file with another mark, or none, saves nothing of what it
knew then.
"""

from __future__ import annotations

import json
import os
import time

from anchorhold.audit.files import TMP, give, make_folders, read_file, remove_quietly, write_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path

FILE = "digests.json"
MARK = "mark"
LIMIT = 4096
"""Digests kept; the oldest go first."""

_GRAIN = 2_000_000_000
"""Nanoseconds a file must have been left alone."""


class DigestCache:
    """``<state>/digests.json``. `put` and `get` work in memory, `save` writes; nothing raises."""

    def __init__(self, state_dir: Path) -> None:
        self._path = os.path.join(os.path.abspath(state_dir), FILE)
        self._mark, self._digests = _load(self._path)
        self._new: dict[str, str] = {}

    def get(self, stat: os.stat_result) -> str | None:
        """The SHA-256 (hex) of the file with this stat, if known."""
        return self._digests.get(_key(stat))

    def put(self, stat: os.stat_result, digest: str) -> None:
        """Remember it; ``stat`` must have been taken before the file was hashed and be unchanged after."""
        if time.time_ns() - max(stat.st_mtime_ns, stat.st_ctime_ns) >= _GRAIN and _is_digest(digest):
            self._digests[_key(stat)] = self._new[_key(stat)] = digest

    def save(self) -> None:
        """Write what is new beside what other runs saved. A cache that cannot be written is no error: the
        file is then hashed again."""
        if not self._new:
            return
        folder = os.path.dirname(self._path)
        temporary = os.path.join(folder, f"{TMP}{FILE}-{os.getpid()}")
        try:
            make_folders(folder)
            # There before the mark is read: a redaction after that removes it, and the rename fails.
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
            fd = os.open(temporary, flags, 0o600)
            try:
                give(fd, folder)
                mark, stored = _load(self._path)
                if mark != self._mark:
                    self._mark, self._digests, self._new = mark, stored, {}
                kept = dict(list({**stored, **self._new}.items())[-LIMIT:])
                write_all(fd, json.dumps({MARK: mark, **kept} if mark else kept).encode())
            finally:
                os.close(fd)
            os.rename(temporary, self._path)
        except OSError:
            remove_quietly((temporary,))
            return
        self._new = {}


def forgotten() -> bytes:
    """What a redaction leaves in the place of the cache."""
    return json.dumps({MARK: os.urandom(16).hex()}).encode()


def _key(stat: os.stat_result) -> str:
    return f"{stat.st_dev}:{stat.st_ino}:{stat.st_size}:{stat.st_mtime_ns}:{stat.st_ctime_ns}"


def _is_digest(value: object) -> bool:
    return isinstance(value, str) and len(value) == 64 and not value.strip("0123456789abcdef")


def _load(path: str) -> tuple[str, dict[str, str]]:
    """The mark of the last redaction, if there was one, and the digests."""
    try:
        content = json.loads(read_file(path) or b"{}")
    except (OSError, ValueError, RecursionError):
        return "", {}
    if not isinstance(content, dict):
        return "", {}
    mark = content.get(MARK)
    digests = {key: value for key, value in content.items() if _is_digest(value)}
    return mark if isinstance(mark, str) else "", digests
