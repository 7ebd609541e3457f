"""Why a worker ended: what the log says of it, and what its user is told.

Constraint: the worker is dead before anything is said here, so that a log that fails keeps nothing alive.
"""

from __future__ import annotations

import contextlib
import os
import signal

from anchorhold.errors import AnchorholdError, BreachError, LayerError, LimitError, WorkerError
from anchorhold.supervisor.limits import Exceeded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from anchorhold.broker.broker import Breach
    from anchorhold.broker.record import Recorder
    from anchorhold.channel.errors import ProtocolError
    from anchorhold.supervisor.limits import Limits
    from anchorhold.supervisor.spawn import Message

SERVING = "serving"
"""The stage from which on a worker answers; before it, it is the engine that starts."""

_UNTRUSTED = "No answer of this worker should be trusted."
_SILENT = "a system call of a foreign architecture, or one that a filter above the cell refuses"
_HINTS = {"watch": "Let this user see its own processes in /proc, or give it a cgroup v2 with controllers."}
"""What to do about a limit that cannot simply be raised."""


def by_breach(recorder: Recorder, stage: str, breach: Breach) -> AnchorholdError:
    """The policy answers a refusal with a kill."""
    what = breach.path.decode("utf-8", "backslashreplace") or breach.call
    if stage != SERVING:
        return WorkerError(
            f"the engine asked for {what} while it started ({breach.call}: {breach.reason})",
            hint="Nothing was started. If this belongs to your Python installation, report it.",
        )
    with contextlib.suppress(AnchorholdError):
        recorder.event(
            "breach",
            call=breach.call,
            path=breach.path.decode("utf-8", "surrogateescape"),
            reason=breach.reason,
        )
    if breach.call == "heartbeat":
        return BreachError(
            f"the worker gave {breach.reason} and was killed",
            hint="Something stopped it, or a library that it runs hangs. "
            "[limits] heartbeat says how long is too long.",
        )
    return BreachError(
        f"the worker asked for {what} ({breach.call}: {breach.reason}) and was killed",
        hint=f"The log has the details. {_UNTRUSTED}",
    )


def by_message(recorder: Recorder, stage: str, error: ProtocolError) -> AnchorholdError:
    """It said what is not of the protocol. There is no answer to that but the end."""
    if stage != SERVING:
        return WorkerError(f"the worker broke the protocol: {error}")
    with contextlib.suppress(AnchorholdError):
        recorder.event("breach", call="channel", reason=f"no message of the protocol: {error}")
    return BreachError(
        f"the worker broke the protocol: {error}; it was killed",
        hint=f"The log has the details. {_UNTRUSTED}",
    )


def by_limit(recorder: Recorder, exceeded: Exceeded) -> AnchorholdError:
    """It went over a limit."""
    with contextlib.suppress(AnchorholdError):
        recorder.event("limit", limit=exceeded.limit, detail=str(exceeded))
    return LimitError(
        f"the worker was killed: {exceeded}",
        hint=_HINTS.get(exceeded.limit, f"Raise limits.{exceeded.limit} in the policy, or ask for less."),
    )


def by_itself(
    recorder: Recorder, stage: str, status: int | None, limits: Limits, stderr: bytes | bytearray
) -> AnchorholdError:
    """Nobody of us ended it. ``status``: of the launcher, which passes on how the worker ended (waitpid(2)).

    Raises AuditError where a breach cannot be recorded.
    """
    code = os.waitstatus_to_exitcode(status) if status is not None else 0
    number = code - 128 if code > 128 else -code if code < 0 else 0
    tail = stderr.decode("utf-8", "backslashreplace").strip()
    if number == signal.SIGSYS:
        recorder.event("breach", call="?", reason=f"{_SILENT} (SIGSYS)")
        return BreachError(
            f"the worker made {_SILENT}, and the kernel ended it",
            hint="The log has the time, the kernel's own log the number of the call (type=1326). "
            + _UNTRUSTED,
        )
    if limits.killed_for_memory():
        return by_limit(recorder, Exceeded("memory", "it went over limits.memory"))
    if number:
        name = signal.Signals(number).name if number in set(signal.Signals) else str(number)
        return WorkerError(f"the worker died of {name}", hint=_what_to_do(stage), detail=tail)
    return WorkerError(
        f"the worker ended by itself (exit {code}) in stage {stage!r}", hint=_what_to_do(stage), detail=tail
    )


def of_launcher(message: Message) -> AnchorholdError:
    """The launcher says that it failed."""
    words = message.words
    if "seccomp" in words:
        return LayerError(
            f"the seccomp layer cannot be had: {words['seccomp']}",
            hint="Without it nothing starts, since nothing would be on record.",
        )
    return WorkerError("; ".join(f"{key}: {value}" for key, value in words.items()) or "the launcher failed")


def _what_to_do(stage: str) -> str:
    if stage == SERVING:
        return "The model file may be damaged, or a document too much for the library that reads it."
    return "The engine could not be started in the cell; ANCHORHOLD_DEBUG=1 shows what it said."
