"""Gives heads to witnesses while the log grows: a thread for each witness, woken after each signing.

Constraint: delivery can neither delay nor veto what the log permits. `Delivery.wake` sets flags and returns;
a witness that hangs holds up neither the log nor another witness. Where heads come faster than a witness
takes them, it gets the newest one, and the final one of each epoch.
"""

from __future__ import annotations

import threading
import time

from anchorhold.audit.witness import Deliverer, Problem
from anchorhold.errors import AuditError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

CLOSE_SECONDS = 3.0
"""How long whoever has the answer already waits for witnesses to take the last head."""

STOP_SECONDS = 0.5
"""How long a program that was killed may take to be gone."""


class Delivery:
    """Serves all witnesses of one open log. `wake` may be called from any thread."""

    def __init__(self, state_dir: Path, targets: Iterable[str]) -> None:
        self._posts = [_Post(Deliverer(state_dir, text), text) for text in targets]
        for post in self._posts:
            post.start()

    def wake(self) -> None:
        """There may be a new head."""
        for post in self._posts:
            post.due.set()

    def close(self, seconds: float = CLOSE_SECONDS) -> list[Problem]:
        """Give the last heads away; what went wrong at the end, for each witness. What has not come to its
        end in that time is stopped."""
        deadline = time.monotonic() + seconds
        for post in self._posts:
            post.closing = True
            post.due.set()
        for post in self._posts:
            post.join(max(0.0, deadline - time.monotonic()))
        late = [post for post in self._posts if post.is_alive()]
        for post in late:
            post.deliverer.stop()
        for post in late:
            post.join(STOP_SECONDS)
            if post.is_alive():  # a file system that hangs; the thread ends with the process
                post.problem = Problem(f"witness {post.text}: it does not answer")
        return [post.problem for post in self._posts if post.problem is not None]


class _Post(threading.Thread):
    """One witness; ``problem`` is what went wrong the last time."""

    def __init__(self, deliverer: Deliverer, text: str) -> None:
        super().__init__(name="anchorhold-witness", daemon=True)
        self.deliverer, self.text = deliverer, text
        self.due = threading.Event()
        self.closing = False
        self.problem: Problem | None = None

    def run(self) -> None:
        last = False
        while not last and not self.deliverer.stopped.is_set():
            self.due.wait()
            self.due.clear()
            last = self.closing  # read before the heads are: what was signed before the end is among them
            try:
                self.problem = self.deliverer.run()
            except AuditError as error:
                self.problem = Problem(f"witness {self.text}: {error}")
            except Exception as error:  # a defect of ours must be told, and must not end the thread
                self.problem = Problem(f"witness {self.text}: {type(error).__name__}: {error}")
