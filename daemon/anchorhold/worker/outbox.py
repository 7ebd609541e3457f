"""What the worker sends. Frames that nobody waits for are held back and go out together."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any

from anchorhold.channel import frames, messages

_MOST_HELD = 1 << 15  # bytes: below a pipe's own 64 KiB
_INTERVAL = 0.05  # seconds between two reports of progress


class Outbox:
    """Writes messages to one descriptor, in order, from whatever thread."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._held = bytearray()
        self._lock = threading.Lock()
        self._reported = 0.0

    def send(self, kind: str, **fields: Any) -> None:
        """Now. Raises OSError when the other end is gone."""
        with self._lock:
            self._hold({"type": kind, **fields})
            self._flush()

    def hold(self, kind: str, **fields: Any) -> None:
        """Soon: with the next message that is sent."""
        with self._lock:
            self._hold({"type": kind, **fields})
            if len(self._held) > _MOST_HELD:
                self._flush()

    def progress(self, stage: str, done: int, total: int) -> None:
        """Now, unless the last report was a moment ago."""
        now = time.monotonic()
        if now - self._reported >= _INTERVAL:
            self._reported = now
            self.send("progress", stage=stage, done=done, total=total)

    def _hold(self, message: Mapping[str, Any]) -> None:
        self._held += frames.frame(messages.encode(dict(message)))

    def flush(self) -> None:
        with self._lock:
            self._flush()

    def _flush(self) -> None:
        data = bytes(self._held)
        self._held.clear()
        frames.write_all(self._fd, data)
