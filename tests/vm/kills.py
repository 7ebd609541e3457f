"""Killed in every way, while it answers, the supervisor at work or stopped: the third start's checks.

Each way is tried on an answer that is on its way, says how long the last process of the cell lived, and is
held against the log. Times are of an emulated machine: some twenty times those of a real one.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.vm.machine import (
    STATE,
    check,
    entries,
    goes_on_when_rearmed,
    gone,
    lives,
    main_pid,
    post,
    question,
    run,
    running,
    serving,
    shown,
    until,
    verifies,
    workers,
)

UNIT = "anchorhold@taxes"
PATIENT = Path(f"/run/systemd/system/{UNIT}.service.d/90-patient.conf")
CONTROL = (
    "import json, sys; from anchorhold.supervisor.service.control import ask;"
    "print(json.dumps(ask('/run/anchorhold/taxes', sys.argv[1], 'taxes')))"
)


class Answer(threading.Thread):
    """A long answer, read as it comes until it ends in whatever way. ``lines`` counts what came."""

    def __init__(self, tokens: int = 600, policy: str = "taxes") -> None:
        super().__init__(daemon=True)
        self.body = question(tokens, stream=True, model=policy)
        self.path = f"/run/anchorhold/{policy}.sock"
        self.lines = 0
        self.said = ""
        self.end = ""

    def run(self) -> None:
        try:
            answer = post(self.body, self.path)
            while line := answer.readline():
                self.lines += bool(line.strip())
                self.said = line.decode(errors="replace").strip() or self.said
            self.end = "closed"
        except (OSError, http.client.HTTPException) as error:
            self.end = type(error).__name__

    def is_under_way(self) -> Answer:
        self.start()
        until("some words", lambda: self.lines > 3 or self.end)
        assert not self.end, f"it ended at once: {self.said}"
        return self

    def is_over(self) -> str:
        """How it ended; by itself would be after ``[DONE]``, which a killed one must not say."""
        until("the client is told", lambda: self.end, 60)
        return self.said


def killed_by(act: Callable[[], object]) -> str:
    """Do it in the middle of an answer. Returns how long any process of the cell lived, at most."""
    answer, pids = Answer().is_under_way(), workers()
    assert pids
    ended: list[float] = []

    def look() -> None:
        while not gone(pids):
            time.sleep(0.002)
        ended.append(time.monotonic())

    watch = threading.Thread(target=look, daemon=True)
    watch.start()
    start = time.monotonic()
    said = act()
    done = time.monotonic()
    watch.join(0.5)
    assert ended, f"processes of the cell are left: {[pid for pid in pids if lives(pid)]}; {said}"
    own = next((word for word in str(said or "").splitlines() if "dead after" in word), "")
    answer.is_over()
    assert "[DONE]" not in answer.said, f"the answer ended as if all were well: {answer.said}"
    return (
        f"cell gone {(ended[0] - start) * 1000:.0f} ms after the command began, which took "
        f"{(done - start) * 1000:.0f} ms{'; its own word: ' + own if own else ''}"
    )


def session() -> str:
    """Of the cell that runs, by the name of its cgroup."""
    pid = workers()[0]
    return Path(f"/proc/{pid}/cgroup").read_text().strip().rpartition("/anchorhold-")[2]


def latched() -> bool:
    """By the file itself; asking a command takes seconds here."""
    return bool({path.name for path in (STATE / "latch").iterdir()} - {".spare"})


def is_logged_once(killed: str) -> None:
    found = [one for one in entries(kind="kill", session=killed) if one.get("action", "kill") == "kill"]
    assert len(found) == 1, entries(kind="kill")[-3:]


def ends() -> None:
    """A service whose only policy was killed stays, and says so."""
    until("the service says it", lambda: shown(UNIT, "StatusText")["StatusText"] == "taxes: latched")
    assert not workers()


def latches(act: Callable[[], object]) -> str:
    """A way of the kill switch: latched, in the log once, and it goes on when rearmed."""
    killed = session()
    said = killed_by(act)
    assert latched(), "it is not latched"
    ends()
    goes_on_when_rearmed()
    is_logged_once(killed)
    return said


def comes_back() -> None:
    """A way of systemd: no latch, so that it starts as ever."""
    assert not latched(), "it is latched"
    run("systemctl", "reset-failed", UNIT, check=False)
    run("systemctl", "start", UNIT)
    until("it serves", serving)


def by_the_command() -> str:
    return latches(lambda: run("anchorhold", "kill", "taxes"))


def by_the_program() -> str:
    return latches(lambda: run("anchorhold-kill", "taxes"))


def by_everything() -> str:
    """Root's plain `anchorhold-kill`: what a key is bound to. The latch is of the service's own state."""
    said = killed_by(lambda: run("anchorhold-kill"))
    ends()
    assert latched(), "it is not latched"
    run("anchorhold", "rearm")
    run("anchorhold", "--state-dir", str(STATE), "rearm")
    goes_on_when_rearmed()
    return said


def by_the_socket() -> str:
    python = next(Path("/usr/lib/anchorhold/bin").glob("python3"))
    told: list[str] = []

    def act() -> None:
        told.append(run(str(python), "-c", CONTROL, "kill"))

    said = killed_by(act)
    assert json.loads(told[0])["killed"]["taxes"]["dead"], told
    assert latched()
    ends()
    goes_on_when_rearmed()
    return said


def by_systemctl_kill() -> str:
    said = killed_by(lambda: run("systemctl", "kill", UNIT) + str(until("dead", lambda: not workers(), 20)))
    until("it has ended", lambda: shown(UNIT, "ActiveState")["ActiveState"] in ("inactive", "failed"))
    found = shown(UNIT, "ActiveState", "Result")
    comes_back()
    return f"{said}; then {found['ActiveState']} ({found['Result']})"


def by_systemctl_kill_9() -> str:
    pid = running()
    said = killed_by(
        lambda: run("systemctl", "kill", "-s", "KILL", UNIT) + str(until("dead", lambda: not workers(), 5))
    )
    until("systemd starts it again", lambda: serving() and main_pid() not in (0, pid))
    comes_back()
    return f"{said}; started again by systemd"


def by_systemctl_stop() -> str:
    said = killed_by(lambda: run("systemctl", "stop", UNIT))
    found = shown(UNIT, "ActiveState", "Result")
    assert found == {"ActiveState": "inactive", "Result": "success"}, found
    comes_back()
    return said


def ticks(pids: list[int]) -> int:
    """Processor time of these processes, in clock ticks."""
    total = 0
    for pid in pids:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(words[11]) + int(words[12])
    return total


def frozen() -> list[str]:
    told = json.loads(run("anchorhold", "--state-dir", str(STATE), "status", "--frozen", "--json"))
    return [one["name"] for one in told["policies"] + told["cells"]]


def frozen_and_thawed() -> str:
    """In an answer, which stands still meanwhile and then goes on to its end."""
    assert frozen() == []
    answer = Answer(60).is_under_way()
    pids = workers()
    run("anchorhold", "kill", "--freeze", "taxes")
    until("status shows it", lambda: frozen() == ["taxes"], 60)
    before, lines = ticks(pids), answer.lines
    time.sleep(3)
    assert ticks(pids) == before and workers() == pids, "it does not stand still"
    stood = answer.lines - lines
    run("anchorhold", "kill", "--thaw", "taxes")
    until("the answer ends", lambda: answer.end)
    assert answer.said.endswith("[DONE]") and stood <= 2, (answer.said, stood)
    until("status shows none", lambda: frozen() == [], 60)
    actions = [one.get("action") for one in entries(kind="kill")]
    assert actions[-2:] == ["freeze", "thaw"], actions
    return "no processor time in 3 s; the answer went on to its end"


def frozen_then_killed() -> str:
    run("anchorhold", "kill", "--freeze", "taxes")
    until("status shows it", lambda: frozen() == ["taxes"], 60)
    pids = workers()
    said = run("anchorhold-kill", "taxes")
    assert gone(pids) and "dead after" in said, said
    ends()
    goes_on_when_rearmed()
    return said.splitlines()[0]


def killed_while_systemd_holds_it_frozen() -> str:
    """`systemctl freeze`: a cgroup above the cell's stands still, and with it the supervisor."""
    run("systemctl", "freeze", UNIT)
    try:
        pids = workers()
        said = run("anchorhold-kill", "taxes")
        assert gone(pids) and "dead after" in said, said
    finally:
        run("systemctl", "thaw", UNIT)
    ends()
    goes_on_when_rearmed()
    return said.splitlines()[0]


@contextmanager
def stopped() -> Iterator[int]:
    """The supervisor stands still (SIGSTOP) meanwhile."""
    pid = running()
    os.kill(pid, signal.SIGSTOP)
    try:
        yield pid
    finally:
        if lives(pid):
            os.kill(pid, signal.SIGCONT)


def while_stopped(act: Callable[[], object]) -> str:
    """The kill comes while the supervisor stands still; it writes the entry when it goes on."""
    killed = session()
    answer, pids = Answer().is_under_way(), workers()
    with stopped():
        start = time.monotonic()
        said = str(act())
        took = time.monotonic() - start
        assert gone(pids), f"left: {[pid for pid in pids if lives(pid)]}"
    answer.is_over()
    assert latched()
    ends()
    goes_on_when_rearmed()
    is_logged_once(killed)
    return f"{said.splitlines()[0]}; the command took {took * 1000:.0f} ms"


def stopped_by_the_command() -> str:
    return while_stopped(lambda: run("anchorhold", "kill", "taxes"))


def stopped_by_the_program() -> str:
    return while_stopped(lambda: run("anchorhold-kill", "taxes"))


def stopped_and_frozen() -> str:
    pids = workers()
    with stopped():
        run("anchorhold", "kill", "--freeze", "taxes")
        assert frozen() == ["taxes"], "status does not show it"
        before = ticks(pids)
        time.sleep(2)
        assert ticks(pids) == before and workers() == pids
        run("anchorhold", "kill", "--thaw", "taxes")
        assert frozen() == []
    until("it serves", serving)
    assert post(question(4)).status == 200
    return "shown by its record; it answers afterwards"


def stopped_by_systemctl_stop() -> str:
    """It cannot hear SIGTERM; systemd kills it after TimeoutStopSec, and the cell dies with it."""
    pids, start = workers(), time.monotonic()
    with stopped():
        run("systemctl", "stop", UNIT)
        assert gone(pids) and not workers()
        took = time.monotonic() - start
    found = shown(UNIT, "Result")["Result"]
    comes_back()
    return f"after {took:.0f} s ({found})"


def stopped_by_systemctl_kill_9() -> str:
    pids = workers()
    with stopped() as pid:
        subprocess.run(["systemctl", "kill", "-s", "KILL", UNIT], check=True)
        until("dead", lambda: gone(pids), 5)
    until("systemd starts it again", lambda: serving() and main_pid() not in (0, pid))
    comes_back()
    return "and started again by systemd"


def all_of_them() -> None:
    # Emulated, a command takes seconds: the watchdog would end a stopped supervisor first.
    PATIENT.parent.mkdir(parents=True, exist_ok=True)
    PATIENT.write_text("[Service]\nWatchdogSec=0\n")
    run("systemctl", "daemon-reload")
    run("systemctl", "stop", UNIT)
    goes_on_when_rearmed()
    check("`anchorhold-kill` in an answer", by_the_program)
    check("`anchorhold kill` in an answer", by_the_command)
    check("`anchorhold-kill` in an answer, the supervisor stopped", stopped_by_the_program)
    check("`kill --freeze`, `status --frozen`, `--thaw` in an answer", frozen_and_thawed)
    check("the same with the supervisor stopped", stopped_and_frozen)
    check("`systemctl kill` in an answer", by_systemctl_kill)
    check("`systemctl stop` in an answer", by_systemctl_stop)
    check("`anchorhold kill` in an answer, the supervisor stopped", stopped_by_the_command)
    check("`systemctl kill -s KILL` in an answer", by_systemctl_kill_9)


def the_rest() -> None:
    check("frozen, then killed", frozen_then_killed)
    check("`systemctl stop` with the supervisor stopped", stopped_by_systemctl_stop)
    check("`systemctl kill -s KILL` with the supervisor stopped", stopped_by_systemctl_kill_9)
    check("the control socket's kill in an answer", by_the_socket)
    check("`anchorhold-kill` without a name, in an answer", by_everything)
    check("killed while `systemctl freeze` holds all of it", killed_while_systemd_holds_it_frozen)
    PATIENT.unlink()
    run("systemctl", "daemon-reload")
    check("the log verifies after all of it", verifies)
