"""Runs the fixed programs of ``[breach] command`` and ``notify``, with the facts on standard input.

Constraint: no shell, no word of a worker in an argument or in the environment, nothing waited for: by the
time one runs, the worker is dead and the entry is written. Each has `SECONDS`; not more than `MOST` at once.
"""

from __future__ import annotations

import json
import subprocess
import threading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

SECONDS = 10.0
MOST = 8
_ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}
_places = threading.BoundedSemaphore(MOST)


def run(command: tuple[str, ...], facts: dict[str, object], said: Callable[[str], None]) -> None:
    """Start it and return. said: gets one line if it could not be run, or failed."""
    if not command:
        return
    if not _places.acquire(blocking=False):
        said(f"{command[0]} was not run: {MOST} are running already")
        return
    threading.Thread(target=_run, args=(command, facts, said), name="hook", daemon=True).start()


def _run(command: tuple[str, ...], facts: dict[str, object], said: Callable[[str], None]) -> None:
    try:
        done = subprocess.run(
            command,
            input=json.dumps(facts, default=str).encode("ascii") + b"\n",
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=_ENVIRONMENT,
            cwd="/",
            timeout=SECONDS,
            check=False,
            start_new_session=True,
        )
        if done.returncode:
            said(f"{command[0]} ended with {done.returncode}")
    except subprocess.TimeoutExpired:
        said(f"{command[0]} took more than {SECONDS:g} s and was killed")
    except OSError as error:
        said(f"{command[0]} could not be run: {error.strerror}")
    finally:
        _places.release()
