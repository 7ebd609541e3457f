"""One cell as the kill program sees it: its record, its processes, and what can be done to them."""

from __future__ import annotations

import os
import time

from anchorhold.switch import marks, processes
from anchorhold.switch.processes import Process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from anchorhold.switch.records import Record

SIGCONT, SIGSTOP = 18, 19  # asm-generic/signal.h


class Cell:
    """A cell that a record tells of."""

    def __init__(self, record: Record) -> None:
        self.record = record
        self.name, self.session, self.state_dir = record.name, record.session, record.state
        self.folder = os.path.dirname(record.path)
        self.alive: list[Process] = []
        """Processes that are its own for certain."""

        self.mark_error = ""

    @property
    def supervised(self) -> bool:
        """Whether the supervisor of its record still runs."""
        stat = processes.stat_of(self.record.number("supervisor"))
        return stat is not None and stat[0] not in "ZX" and stat[2] == self.record.number("supervisor_start")

    def find(self, others: set[int]) -> None:
        """Take hold of its processes. others: numbers that belong to other cells of the same supervisor."""
        record, held = self.record, {process.pid for process in self.alive}
        for key in ("launcher", "worker"):
            pid = record.number(key)
            if pid and pid not in held:
                self._take(pid, record.number(f"{key}_start"))
        if not (record.number("launcher") and record.number("worker")):
            # It is being built: the kernel knows more than the record.
            of = processes.parents()
            launchers = processes.launchers_of(record.number("supervisor"), of) if self.supervised else []
            launchers = [pid for pid in launchers if pid not in others]
            launchers += [process.pid for process in self.alive]
            for pid in {*launchers, *(pid for pid, parent in of.items() if parent in launchers)} - held:
                self._take(pid, None)

    def _take(self, pid: int, start: int | None) -> None:
        try:
            process = Process(pid)
        except OSError:
            return
        # Asked after it was taken hold of: it cannot be replaced by another any more. A zombie by its state
        # can still have threads that run; the descriptor knows.
        stat = processes.stat_of(pid)
        if (
            not process.ended(0)
            and stat is not None
            and (stat[2] == start if start is not None else processes.is_of_a_cell(pid))
        ):
            self.alive.append(process)
        else:
            process.close()

    def is_over(self) -> bool:
        """Whether it ended before: nothing of it runs, and no supervisor that could build it."""
        return not self.alive and not self.supervised and not processes.populated(self._own_cgroup())

    def forget(self) -> None:
        """Remove its record, and word that nobody will take. What is left over does no harm."""
        try:
            for action in marks.ACTIONS:
                marks.take(self.folder, action, self.session)
            self.record.remove()
        except OSError:
            return

    def mark(self, action: str, words: dict[str, object]) -> None:
        """Leave word of what is about to be done. It is done in any case."""
        try:
            marks.put(self.folder, action, self.session, {**words, "name": self.name})
        except OSError as error:
            self.mark_error = str(error)

    def _own_cgroup(self) -> str:
        """Its cgroup, if it is one made for this session."""
        path: str = self.record.cgroup
        return path if path.endswith(f"/anchorhold-{self.session}") else ""

    def kill(self) -> list[str]:
        """cgroup.kill, then each process. Returns what went wrong."""
        problems = []
        group = self._own_cgroup()
        if group:
            try:
                processes.write(f"{group}/cgroup.kill", b"1")
            except OSError:
                group = ""  # before Linux 5.14, or gone: the next way does it
        for process in self.alive:
            try:
                process.kill()
            except OSError as error:
                problems.append(f"process {process.pid}: {os.strerror(error.errno or 0)}")
        return problems

    def dead(self, deadline: float) -> bool:
        """Whether no process of it exists any more, at the latest then (time.monotonic)."""
        for process in self.alive:
            if not process.ended(deadline - time.monotonic()):
                return False
        group = self._own_cgroup()
        while group and processes.populated(group):
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.001)
        return True

    def left(self) -> list[str]:
        """What is still there, in words."""
        found = []
        for process in self.alive:
            if not process.ended(0):
                stat = processes.stat_of(process.pid)
                found.append(f"process {process.pid} (state {stat[0] if stat else '?'})")
        return found

    def freeze(self, wanted: bool) -> list[str]:
        """Stop all of it, or let it go on. Returns what went wrong."""
        group = self._own_cgroup()
        if group:
            try:
                processes.write(f"{group}/cgroup.freeze", b"1" if wanted else b"0")
                return []
            except OSError:
                group = ""
        problems = []
        for process in self.alive:
            if process.pid == self.record.number("worker"):
                try:
                    process.signal(SIGSTOP if wanted else SIGCONT)
                except OSError as error:
                    problems.append(f"process {process.pid}: {os.strerror(error.errno or 0)}")
        return problems

    def stands_still(self, deadline: float) -> bool:
        """Whether all of it is stopped, at the latest then (time.monotonic)."""
        group = self._own_cgroup()
        while True:
            if processes.frozen(group) if group else self._stopped():
                return True
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.001)

    def _stopped(self) -> bool:
        worker = processes.stat_of(self.record.number("worker"))
        return worker is not None and worker[0] in "TZX"

    def close(self) -> None:
        for process in self.alive:
            process.close()
        self.alive.clear()
