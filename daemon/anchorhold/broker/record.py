"""What the broker writes down, and when: before the effect, always.

Repeated identical denials are merged: the first one is an entry at once, those that follow within
a second are one more entry with their count. The sum of the counts is the exact number.
"""

from __future__ import annotations

import os
import threading
import time

from anchorhold.audit.entry import encode_grant

TYPE_CHECKING = False
if TYPE_CHECKING:
    from anchorhold.audit.copies import Copies
    from anchorhold.audit.log import Log

MERGE_SECONDS = 1.0
MERGE_KEYS = 4096
EXAMPLES = 20
QUIET_SECONDS = 2.0
SETTLE_SECONDS = 10.0
"""How often at most the log is settled in between."""


def text(path: bytes) -> str:
    """A path for the log: bytes that are no UTF-8 stay, as surrogate escapes."""
    return path.decode("utf-8", "surrogateescape")


class Recorder:
    """Appends the entries of one session. Every method raises AuditError when nothing could be written."""

    def __init__(self, log: Log, session: str, copies: Copies | None = None) -> None:
        """copies: who is told of each entry once it is in the log (`anchorhold.audit.copies`)."""
        self.log = log
        self.copies = copies
        self.session = session
        self.request: int | None = None  # its number in the session
        self.phase = "boot"
        self.denied = 0
        self.shown: dict[bytes, tuple[str, int]] = {}
        self.request_shown: dict[bytes, tuple[str, int]] = {}
        """The same, for the request being served; whoever serves it clears this."""
        self.lists = 0
        self.examples: dict[tuple[str, bytes, str], int] = {}
        self._pending: dict[tuple[str, bytes, str], int] = {}
        self._flush_at = 0.0
        self._quiet_since = self._settled_at = time.monotonic()
        self._lock = threading.RLock()  # the thread that asks writes request.start, the loop all else

    def _append(self, kind: str, fields: dict[str, object]) -> None:
        if self.request is not None:
            fields["request"] = self.request
        self.log.append(kind, self.session, fields)
        if self.copies is not None:
            self._tell(kind, fields)

    def _tell(self, kind: str, fields: dict[str, object]) -> None:
        """A courtesy: never waits, never raises, proves nothing."""
        assert self.copies is not None
        now = time.time_ns()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now // 1_000_000_000))
        common = {
            "v": 2,
            "time": f"{stamp}.{now // 1000 % 1_000_000:06d}Z",
            "session": self.session,
            "kind": kind,
        }
        self.copies.send({**common, **fields})

    def event(self, kind: str, **fields: object) -> None:
        """Any other entry of the session."""
        with self._lock:
            self.flush()
            self._append(kind, fields)

    def grant(self, path: bytes, resolved: bytes, cls: str, sha256: str, size: int, mode: str) -> None:
        """One descriptor is about to be handed over. ``sha256`` is 64 hex digits."""
        asked, real = text(path), text(resolved)
        public, names = encode_grant(cls, size, mode, self.phase, self.request, asked, real)
        self.log.write("grant", self.session, public, names, b'{"sha256":"%b"}' % sha256.encode("ascii"))
        if self.copies is not None:
            told: dict[str, object] = {"class": cls, "size": size, "mode": mode, "phase": self.phase}
            if self.request is not None:
                told["request"] = self.request
            self._tell("grant", {"path": asked, "resolved": real, "sha256": sha256, **told})
        if cls in ("data", "stdin"):
            self.shown[resolved] = (sha256, size)
            if self.request is not None:
                self.request_shown[resolved] = (sha256, size)

    def listing(self, path: bytes, resolved: bytes, cls: str, names: int, hidden: int) -> None:
        """The names in a folder are about to be told."""
        self._append(
            "list",
            {"path": text(path), "resolved": text(resolved), "class": cls, "listed": names, "hidden": hidden,
             "phase": self.phase},
        )  # fmt: skip
        if cls == "data":
            self.lists += 1

    def denial(self, call: str, path: bytes, reason: str) -> None:
        """One request is about to be refused."""
        with self._lock:
            self._denial(call, path, reason)

    def _denial(self, call: str, path: bytes, reason: str) -> None:
        self.denied += 1
        key = (call, path, reason)
        waiting = self._pending.get(key)
        if waiting is not None:
            self._pending[key] = waiting + 1
        else:
            if len(self._pending) >= MERGE_KEYS:
                self.flush()
            self._deny(key, 1)
            self._pending[key] = 0
        if key in self.examples or len(self.examples) < EXAMPLES:
            self.examples[key] = self.examples.get(key, 0) + 1
        now = time.monotonic()
        if not self._flush_at:
            self._flush_at = now + MERGE_SECONDS
        elif now >= self._flush_at:
            self.flush()

    def _deny(self, key: tuple[str, bytes, str], count: int) -> None:
        call, path, reason = key
        fields: dict[str, object] = {"call": call, "reason": reason, "count": count, "phase": self.phase}
        if path:
            fields["path"] = text(path)
        self._append("denial", fields)

    def settle(self, *, quiet: bool) -> None:
        """While nothing happens, what gathered in the journal enters the tree and is signed."""
        now = time.monotonic()
        if not quiet:
            self._quiet_since = now
        elif (
            now - self._quiet_since >= QUIET_SECONDS
            and now - self._settled_at >= SETTLE_SECONDS
            and self.log.unsettled
        ):
            self._settled_at = now
            self.flush()
            self.log.settle()

    def flush_due(self) -> float | None:
        """Seconds until counted denials must be written, or None if none waits."""
        if not self._flush_at:
            return None
        return max(0.0, self._flush_at - time.monotonic())

    def flush(self) -> None:
        """Write the counts that wait."""
        with self._lock:
            if not self._flush_at:
                return
            pending, self._pending = self._pending, {}
            self._flush_at = 0.0
            for key, count in pending.items():
                if count:
                    self._deny(key, count)


def new_session() -> str:
    """A session's name: 64 random bits in hex."""
    return os.urandom(8).hex()
