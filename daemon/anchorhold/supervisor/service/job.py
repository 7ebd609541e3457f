"""One request on its way through a keeper."""

from __future__ import annotations

import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from anchorhold.supervisor.requests import Asked
    from anchorhold.supervisor.service.backend import Sink


class Job:
    """A request, where its answer goes, and whether anybody still waits for it."""

    __slots__ = ("cancelled_at", "queued_at", "receipt", "request", "sink")

    def __init__(self, request: Asked, sink: Sink, *, receipt: bool) -> None:
        self.request, self.sink, self.receipt = request, sink, receipt
        self.queued_at = time.monotonic()
        self.cancelled_at: float | None = None
