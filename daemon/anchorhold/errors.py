"""Every error a user can meet, with its exit code.

::

    AnchorholdError (1)
    ├── UsageError (2)        wrong words on the command line
    ├── PolicyError (2)       the policy, or what the options make of it, cannot be used
    ├── BreachError (3)       the worker asked for what it may not have and was killed
    ├── KilledError (4)       the kill switch ended it
    ├── VerifyError (5)       the log does not verify
    ├── LayerError (6)        a required layer is missing on this machine
    ├── LatchedError (7)      a kill latched this policy; a person must rearm it
    ├── AuditError (1)        the log cannot be written or read
    ├── WorkerError (1)       the worker failed: bad model, crash, no usable document
    ├── LimitError (1)        the worker went over a limit and was killed
    └── Interrupted (130)     Ctrl-C, SIGTERM, SIGHUP or a closed pipe

The text is for the user: what happened, to what. ``hint`` says what to do about it. ``code`` is the worker's
own name for what went wrong with a request, where it gave one: context_exceeded, bad_request, not_supported,
no_documents, bad_template, bad_model, engine.
"""

from __future__ import annotations


class AnchorholdError(Exception):
    """Base of all; ``exit_code`` is part of the command-line interface."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "", detail: str = "", code: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint
        self.detail = detail

    def __str__(self) -> str:
        return self.message

    def diagnostics(self) -> str:
        """The message, what to do, and what else is known, one part a line."""
        return "\n".join(part for part in (self.message, self.hint, self.detail) if part)


class UsageError(AnchorholdError):
    """Wrong words on the command line."""

    exit_code = 2


class PolicyError(AnchorholdError):
    """A policy that cannot be used. Nothing starts."""

    exit_code = 2


class BreachError(AnchorholdError):
    """The worker asked for what it may not have, and the policy answers that with a kill."""

    exit_code = 3


class KilledError(AnchorholdError):
    """The kill switch ended the worker."""

    exit_code = 4


class VerifyError(AnchorholdError):
    """The log does not verify."""

    exit_code = 5


class LayerError(AnchorholdError):
    """A layer that is required cannot be had on this machine."""

    exit_code = 6


class LatchedError(AnchorholdError):
    """An emergency kill latched this policy."""

    exit_code = 7


class AuditError(AnchorholdError):
    """The log cannot be written, read or opened. No record, no grant."""


class WorkerError(AnchorholdError):
    """The worker could not do what was asked: bad model, no usable document, crash."""


class LimitError(AnchorholdError):
    """The worker went over a limit and was killed."""


class Interrupted(AnchorholdError):
    """A signal or a closed pipe ended the run."""

    exit_code = 130
