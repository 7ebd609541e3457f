"""What an error of the trusted side is over HTTP: a status and a word for programs."""

from __future__ import annotations

from anchorhold import errors

# The worker's own words for what is wrong with a request.
OF_THE_REQUEST = frozenset(
    {"context_exceeded", "bad_request", "no_documents", "not_supported", "bad_template", "bad_schema"}
)
UNAVAILABLE: tuple[tuple[type[errors.AnchorholdError], str], ...] = (
    (errors.BreachError, "breach"),
    (errors.KilledError, "killed"),
    (errors.LatchedError, "latched"),
    (errors.LimitError, "limit"),
    (errors.AuditError, "log"),
    (errors.Interrupted, "stopped"),
    (errors.LayerError, "layer"),
    (errors.PolicyError, "policy"),
)


def status_of(error: errors.AnchorholdError) -> int:
    """400: the request's fault; 503: nobody can answer now; 500: the worker failed."""
    if getattr(error, "code", "") in OF_THE_REQUEST:
        return 400
    return 503 if isinstance(error, tuple(kind for kind, _word in UNAVAILABLE)) else 500


def code_of(error: errors.AnchorholdError) -> str:
    code = getattr(error, "code", "")
    if isinstance(code, str) and code:
        return code
    return next((word for kind, word in UNAVAILABLE if isinstance(error, kind)), "worker_failed")
