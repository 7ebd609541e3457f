"""What ends a request, or the worker, with a reason for the user.

::

    Failure            becomes a `failed` message: code, message, detail
    Cancelled          somebody asked to stop; becomes `done` with the reason "cancelled"

Codes: bad_model, bad_template, bad_request, context_exceeded, no_documents, engine.
"""

from __future__ import annotations


class Failure(Exception):
    """The request cannot be served. The worker goes on, unless it was the model that failed to load."""

    def __init__(self, code: str, message: str, detail: dict[str, int | str] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.detail = detail or {}


class Cancelled(Exception):
    """The request was stopped."""
