"""What `anchorhold status` says of one policy, as plain data."""

from __future__ import annotations

import os

from anchorhold.supervisor.limits import memory_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from anchorhold.errors import AnchorholdError
    from anchorhold.supervisor.service.documents import Documents
    from anchorhold.supervisor.service.keeper import Keeper
    from anchorhold.supervisor.session import Session

MOST_SHOWN = 1000
"""Files named; of all there is the number."""


def of_keeper(keeper: Keeper, documents: Documents | None, problem: AnchorholdError | None) -> dict[str, Any]:
    """One policy. problem: why its changed file was not taken."""
    policy, session, error = keeper.policy, keeper.session, keeper.error
    found: dict[str, Any] = {
        "name": policy.name,
        "state": keeper.state,
        "since": keeper.since,
        "policy": {"file": policy.source, "sha256": policy.digest, "problem": _words(problem)},
        "model": {"path": policy.model.path},
        "waiting": keeper.waiting,
        "busy": keeper.busy,
        "served": keeper.served,
        "output_tokens": keeper.output_tokens,
        "restarts": keeper.restarts,
        "error": _words(error),
        "exit_code": None if error is None else error.exit_code,
        "listen": policy.api.listen,
        "documents": None if documents is None else documents.as_dict(),
        "session": None,
    }
    if session is not None:
        found["session"] = _of_session(session)
    return found


def _of_session(session: Session) -> dict[str, Any]:
    summary = session.summary
    shown = summary.shown
    return {
        "name": summary.session,
        "phase": summary.phase,
        "layers": summary.layers,
        "missing": summary.missing,
        "limits": session.mechanisms,
        "pid": session.worker_pid,
        **usage(session.worker_pid, session.cgroup),
        "exposure": {
            "files": len(shown),
            "bytes": sum(size for _path, _digest, size in shown),
            "newest": [
                {"path": path, "sha256": digest, "size": size} for path, digest, size in shown[-MOST_SHOWN:]
            ],
        },
        "refused": summary.refused_total,
        "hidden": summary.hidden,
    }


def usage(pid: int, cgroup: str) -> dict[str, Any]:
    """Memory in bytes (``memory`` its own, ``mapped`` all that is resident, the model included), processor
    time in seconds, threads. None: cannot be told."""
    found: dict[str, Any] = {"memory": None, "mapped": None, "cpu_seconds": None, "threads": None}
    if pid <= 0:
        return found
    import psutil

    try:
        process = psutil.Process(pid)
        with process.oneshot():
            times = process.cpu_times()
            found["mapped"] = process.memory_info().rss
            found["cpu_seconds"] = times.user + times.system
            found["threads"] = process.num_threads()
        found["memory"] = memory_of(pid)
    except (psutil.Error, OSError):
        return found
    if cgroup:
        current = _number(os.path.join(cgroup, "memory.current"))
        found["memory"] = found["memory"] if current is None else current
    return found


def _number(path: str) -> int | None:
    try:
        with open(path, encoding="ascii") as file:
            return int(file.read())
    except (OSError, ValueError):
        return None


def _words(error: AnchorholdError | None) -> str | None:
    return None if error is None else error.message
