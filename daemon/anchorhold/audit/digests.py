"""Remembers the digests of large files that did not change, so that a model is hashed once and not each time.

Constraint: a wrong digest must never come out. The key is device, inode, size, mtime and ctime; ctime cannot
be set by a program, so whoever changes the file changes the key. A file changed in the last two seconds is
not remembered: it could change again within the clock's grain. What cannot be read in the cache is not there.
"""

from __future__ import annotations

import json
import os
import time

from anchorhold.audit.files import make_folders, read_file, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path

LIMIT = 4096
"""Digests kept; the oldest go first."""

_GRAIN = 2_000_000_000
"""Nanoseconds a file must have been left alone."""


class DigestCache:
    """``<state>/digests.json``. `put` and `get` work in memory, `save` writes; nothing raises."""

    def __init__(self, state_dir: Path) -> None:
        self._path = os.path.join(os.path.abspath(state_dir), "digests.json")
        self._digests = _load(self._path)
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
        merged = {**_load(self._path), **self._new}
        kept = dict(list(merged.items())[-LIMIT:])
        try:
            make_folders(os.path.dirname(self._path))
            replace(self._path, json.dumps(kept).encode(), sync=False)
        except OSError:
            return
        self._new = {}


def _key(stat: os.stat_result) -> str:
    return f"{stat.st_dev}:{stat.st_ino}:{stat.st_size}:{stat.st_mtime_ns}:{stat.st_ctime_ns}"


def _is_digest(value: object) -> bool:
    return isinstance(value, str) and len(value) == 64 and not value.strip("0123456789abcdef")


def _load(path: str) -> dict[str, str]:
    try:
        content = json.loads(read_file(path) or b"{}")
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(content, dict):
        return {}
    return {key: value for key, value in content.items() if _is_digest(value)}
