"""A session's side of the kill switch: its record, the latch, and word of what was done to it.

Constraint: the record is there before the first process, and the latch is looked for after the record. The
kill program latches first and reads records after that. So whichever comes first, one of the two sees the
other.
"""

from __future__ import annotations

import contextlib
import os
import time

from anchorhold.errors import LatchedError, WorkerError
from anchorhold.switch import latch, marks, places, processes, records
from anchorhold.switch.cells import Cell

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path

    from anchorhold.audit.log import Log
    from anchorhold.switch.records import Record

LOOK_SECONDS = 0.1


class Switched:
    """What the kill program knows of one session. `end` must follow."""

    def __init__(self, name: str, session: str, state_dir: Path) -> None:
        """name: the policy's."""
        self.name, self.session, self.state_dir = name, session, os.path.abspath(state_dir)
        self._record: Record | None = None
        self._look_at = 0.0

    def begin(self, cgroup: str) -> None:
        """Leave the record. cgroup: its path, or "". Raises LatchedError, and WorkerError where no record or
        latch can be written: what cannot be killed does not start."""
        try:
            folder = places.runtime_dir(self.state_dir)
            places.make(folder)
            _remove_leftovers(folder)
            own = processes.stat_of(os.getpid())
            self._record = records.begin(
                folder,
                self.session,
                name=self.name,
                state=self.state_dir,
                supervisor=os.getpid(),
                supervisor_start=own[2] if own else 0,
                launcher=0,
                launcher_start=0,
                worker=0,
                worker_start=0,
                cgroup=cgroup,
            )
            latch.prepare(self.state_dir)
        except OSError as error:
            raise WorkerError(
                f"the kill switch cannot be prepared: {error}",
                hint="Nothing was started. The runtime directory ($XDG_RUNTIME_DIR/anchorhold) and the state "
                "directory must be writable.",
            ) from None
        check(self.state_dir, self.name)

    def launched(self, pid: int) -> None:
        """The launcher is there, and has not been told what to do. Raises LatchedError, OSError."""
        self._set("launcher", pid)
        check(self.state_dir, self.name)

    def cell(self, pid: int) -> None:
        """The worker is there. Raises OSError."""
        self._set("worker", pid)

    def _set(self, key: str, pid: int) -> None:
        assert self._record is not None
        stat = processes.stat_of(pid)
        self._record.set(**{key: pid, f"{key}_start": stat[2] if stat else 0})

    def done_to_it(self, *, at_once: bool = False) -> list[dict[str, str]]:
        """What was done and is not recorded yet, but for kills; looks every tenth of a second or at once."""
        now = time.monotonic()
        if now < self._look_at and not at_once:
            return []
        self._look_at = now + LOOK_SECONDS
        return [words for action in ("freeze", "thaw") if (words := self._take(action)) is not None]

    def killed(self) -> dict[str, str] | None:
        """The mark of the kill that ended it, if that was the kill program's."""
        return self._take("kill")

    def _take(self, action: str) -> dict[str, str] | None:
        if self._record is None:
            return None
        try:
            return marks.take(os.path.dirname(self._record.path), action, self.session)
        except OSError:
            return None

    def end(self) -> None:
        """Nothing of it runs any more."""
        record, self._record = self._record, None
        if record is not None:
            Cell(record).forget()


def _remove_leftovers(folder: str) -> None:
    """Records of supervisors that were killed, and of which nothing runs any more."""
    for record in records.in_folder(folder):
        cell = Cell(record)
        if not cell.supervised:
            cell.find(set())
            if cell.is_over():
                cell.forget()
            cell.close()


def check(state_dir: str, name: str) -> None:
    """Raises LatchedError if a kill latched this name; also where that cannot be told."""
    try:
        held = latch.latched(state_dir, name)
    except OSError as error:
        raise LatchedError(f"whether {name!r} is latched cannot be told: {error}") from None
    if held is not None:
        rearm = "anchorhold rearm" if held == latch.ALL else f"anchorhold rearm {name}"
        what = "everything" if held == latch.ALL else repr(name)
        raise LatchedError(f"{what} was killed and is latched", hint=f"When it may start again: {rearm}")


def kill_words(words: dict[str, str]) -> dict[str, object]:
    """A mark as the fields of a ``kill`` entry."""
    number = {key: int(words[key]) for key in ("uid", "pid") if words[key].isdigit()}
    return {"action": words["action"], "by": "kill switch", **number}


def since(words: dict[str, str]) -> int:
    """Microseconds since it was asked for."""
    asked = int(words["asked"]) if words["asked"].isdigit() else 0
    return max(0, time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000 - asked)


def record_kept(log: Log, state_dir: Path) -> None:
    """Write down the kills that no supervisor was left to record. Raises AuditError; they stay then."""
    try:
        found = marks.kept(os.path.abspath(state_dir))
    except OSError:
        return  # the folder of another user's: its own supervisor will
    for path, words in found:
        fields = {**kill_words(words), "reason": "the kill switch; its supervisor was gone"}
        for key, name in (("microseconds", "microseconds"), ("time", "killed_at")):
            if words[key].isdigit():
                fields[name] = int(words[key])
        log.append("kill", "", {**fields, "killed": words["session"], "name": words["name"]})
        with contextlib.suppress(OSError):
            os.unlink(path)
