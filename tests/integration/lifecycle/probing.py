"""``python -m tests.integration.lifecycle.probing``: one cell in a process of its own, looked at closely.

On standard input a JSON object: state, model, papers, source, and optionally question, limits, fault.
``fault`` names what happens to the log when the worker has begun: see ``FAULTS``. On standard output: how
it ended, what the worker had told until then, and what the log says.
"""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import sys
import textwrap
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from anchorhold.audit.log import Log
from anchorhold.errors import AnchorholdError
from anchorhold.kernel import mounts, namespaces
from anchorhold.policy.schema import Limits
from anchorhold.supervisor import events
from anchorhold.supervisor.session import Request, Session
from anchorhold.verify.check import verify
from tests.integration import cells
from tests.integration.lifecycle.processes import descendants, members
from tests.support import session_entries


def own_mounts() -> None:
    """A mount namespace of this process's own; without rights, in a user namespace of its own."""
    uid, gid = os.geteuid(), os.getegid()
    namespaces.unshare(namespaces.CLONE_NEWNS | (namespaces.CLONE_NEWUSER if uid else 0))
    if uid:
        namespaces.write_id_maps("self", uid, gid)
    mounts.mount(None, "/", None, mounts.MS_REC | mounts.MS_PRIVATE)


def small_disk(state: Path) -> None:
    """The state lies on a file system of one mebibyte that only this process sees."""
    state.mkdir()
    own_mounts()
    mounts.mount("tmpfs", str(state), "tmpfs", 0, "size=1m,mode=700")


def fill(state: Path) -> None:
    """Until nothing more fits."""
    ballast = os.open(state / "ballast", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        for size in (4096, 64, 1):
            try:
                while os.write(ballast, bytes(size)):
                    pass
            except OSError as error:
                assert error.errno == errno.ENOSPC, error
    finally:
        os.close(ballast)


def shadow(state: Path) -> None:
    """Read-only under every name from now on. What is open for writing stays so, else the kernel refuses."""
    mounts.mount(str(state), str(state), None, mounts.MS_BIND)
    flags = mounts.MS_REMOUNT | mounts.MS_BIND | mounts.MS_RDONLY
    mounts.mount(None, str(state), None, flags)


def close_to_us(state: Path) -> None:
    """Everything of the log belongs to us and is closed to us."""
    for path in (state / "log").rglob("*"):
        os.chmod(path, 0)
    os.chmod(state / "log", 0)


def open_to_us(state: Path) -> None:
    os.chmod(state / "log", 0o700)
    for folder, folders, files in os.walk(state / "log"):
        for name in folders:
            os.chmod(os.path.join(folder, name), 0o700)
        for name in files:
            os.chmod(os.path.join(folder, name), 0o600)


def limit_growth(state: Path) -> None:
    """No file of this process may grow beyond what the log has now, and a little."""
    size = max(os.stat(path).st_size for path in (state / "log/journal").iterdir())
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 5000, resource.RLIM_INFINITY))


def remove(state: Path) -> None:
    """At one moment: half a log is damage, which is another test's."""
    os.rename(state / "log", state / "going")
    shutil.rmtree(state / "going")


def nothing(_state: Path) -> None:
    pass


def put_back(state: Path) -> None:
    os.rename(state / "away", state / "log")


class Fault:
    """before the log is opened; when the worker has begun; and to look at the log afterwards."""

    def __init__(
        self,
        strike: Callable[[Path], object],
        *,
        before: Callable[[Path], object] = nothing,
        after: Callable[[Path], object] = nothing,
    ) -> None:
        self.strike, self.before, self.after = strike, before, after


FAULTS = {
    "none": Fault(nothing),
    "full": Fault(fill, before=small_disk),
    "read-only": Fault(shadow, before=small_disk, after=lambda state: mounts.umount2(str(state), 0)),
    "closed": Fault(close_to_us, after=open_to_us),
    "removed": Fault(remove),
    "moved": Fault(lambda state: os.rename(state / "log", state / "away"), after=put_back),
    "limited": Fault(
        limit_growth,
        after=lambda _state: resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2),
    ),
}


def run(wanted: Mapping[str, Any]) -> dict[str, Any]:
    state = Path(wanted["state"])
    fault = FAULTS[wanted.get("fault", "none")]
    fault.before(state)
    rules = cells.policy(
        Path(wanted["model"]),
        read=(Path(wanted["papers"]),),
        kill=wanted.get("kill", False),
        limits=Limits(**wanted.get("limits", {})),
    )
    log = Log.open(state)
    source = textwrap.dedent(wanted["source"])
    session = Session(rules, log, state_dir=state, entry=cells.PROBE, config={"source": source})
    out: dict[str, Any] = {"answer": "", "exit": 0, "ends": []}
    cell: set[int] = set()
    try:
        session.start()
        cell = set(descendants(os.getpid()))
        for event in session.ask(Request(wanted.get("question", "go"))):
            if isinstance(event, events.Token):
                if not out["answer"]:
                    threading.Thread(target=fault.strike, args=(state,)).start()
                out["answer"] += event.text
    except AnchorholdError as error:
        out.update(exit=error.exit_code)
        out["ends"].append([type(error).__name__, str(error), error.hint])
    try:
        session.close("failed" if out["exit"] else "done")
    except AnchorholdError as error:
        out.update(exit=error.exit_code)
        out["ends"].append([type(error).__name__, str(error), error.hint])
    log.close()
    out["left"] = [*descendants(os.getpid()), *members(cell)]
    summary = session.summary
    out.update(layers=summary.layers, missing=summary.missing, phase=summary.phase, cell=len(cell))
    fault.after(state)
    if (state / "log").exists():
        result = verify(str(state))
        out["verified"] = result.ok or result.text()
        out["log"] = session_entries(state)
    return out


if __name__ == "__main__":
    json.dump(run(json.load(sys.stdin)), sys.stdout)
