"""What happened below the granted folders since the service started: new, changed and removed files.

For `status` only. The model is told nothing, and nothing that it reads is decided here. Names that the
policy hides are not counted. Source: inotify(7), by way of watchdog.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque

from anchorhold.policy.match import Matcher

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from watchdog.events import FileSystemEvent

    from anchorhold.policy.schema import DataPolicy

MOST = 50
_WORDS = {"created": "new", "modified": "changed", "deleted": "removed", "moved": "removed"}


class Documents:
    """Counts by what happened, and the newest of them."""

    def __init__(self, policy: DataPolicy) -> None:
        self._matcher = Matcher(policy)
        self._lock = threading.Lock()
        self._counts = {"new": 0, "changed": 0, "removed": 0}
        self._newest: deque[dict[str, Any]] = deque(maxlen=MOST)
        self.unwatched: dict[str, str] = {}
        """Folders that could not be watched, and why."""

    def dispatch(self, event: FileSystemEvent) -> None:
        """Called by watchdog, from its thread."""
        word = _WORDS.get(event.event_type)
        if word is None or event.is_directory:
            return
        self._note(os.fsencode(event.src_path), word)
        if event.event_type == "moved":
            self._note(os.fsencode(event.dest_path), "new")

    def _note(self, path: bytes, word: str) -> None:
        if not self._matcher.decide(path).allowed:
            return
        name = path.decode("utf-8", "surrogateescape")
        with self._lock:
            last = self._newest[-1] if self._newest else None
            if last is not None and last["path"] == name and word == "changed":
                last["time"] = time.time()  # one file that is being written
                return
            self._counts[word] += 1
            self._newest.append({"path": name, "what": word, "time": time.time()})

    def as_dict(self) -> dict[str, Any]:
        with self._lock:
            return {**self._counts, "newest": list(self._newest), "unwatched": dict(self.unwatched)}
