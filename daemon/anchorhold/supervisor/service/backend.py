"""What the door to the gateway and the keepers of workers say to each other.

Constraint: whoever calls a `Sink` is the thread that reads a worker; a sink only queues and returns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from anchorhold.errors import AnchorholdError
    from anchorhold.supervisor.events import Done, Event
    from anchorhold.supervisor.requests import Asked


class Refused(Exception):
    """A request that is not taken. ``status``: as in HTTP; ``retry_after``: seconds, or None."""

    def __init__(self, status: int, code: str, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.retry_after = status, code, message, retry_after


class Sink(Protocol):
    """Where a request's answer goes. After ``done`` or ``failed``, of which one comes, nothing does."""

    def started(self, name: str) -> None:
        """It is being served, as ``<session>-<number>`` of the log."""

    def event(self, event: Event) -> None: ...

    def done(self, done: Done, shown: list[tuple[str, str, int]], receipt: str | None) -> None:
        """shown: path, digest and size of each file that was granted for this request."""

    def failed(self, error: AnchorholdError) -> None: ...


class Backend(Protocol):
    """The keepers, as the door sees them. From any thread."""

    def describe(self) -> list[dict[str, Any]]:
        """One for each policy: name, state, model, model_sha256, context, created, embeddings, figures."""

    def submit(self, policy: str, request: Asked, sink: Sink, *, receipt: bool = False) -> object:
        """Queue a request. Returns what `cancel` takes. Raises Refused."""

    def cancel(self, ticket: object) -> None:
        """Nobody waits for it any more. The sink still hears of its end."""
