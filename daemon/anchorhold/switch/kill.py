"""``anchorhold-kill``: the model is dead when this returns, whatever state its supervisor is in.

It asks nobody. It leaves word for the log, kills by cgroup and by pidfd, waits until the kernel says that
nothing of the cell exists any more, and sets the latch. The latch is set in a child meanwhile, so that a disk
that does not answer delays no kill; then it looks once more, for what may have been starting.
"""

from __future__ import annotations

import os
import sys
import time
from select import POLLIN, poll

from anchorhold.switch import latch, marks, places, records
from anchorhold.switch.cells import Cell

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Say = Callable[[str, bool], object]

SECONDS = 10.0
"""How long it waits for processes to be gone, and for the latch."""

USAGE = """\
Usage: anchorhold-kill [--no-latch] [--freeze | --thaw] [--state-dir DIR] [NAME]...

Kill the models of these policies, or all models, at once; nothing of that name
starts again until `anchorhold rearm`. It needs no supervisor to be alive.

  --no-latch       only kill
  --freeze         stop all of it without killing, to look at it; no latch
  --thaw           let a frozen one go on
  --state-dir DIR  where the log is; also only what runs with it
  -h, --help       this text

Exit codes: 0 verified dead (frozen, going on), 1 not, 2 wrong usage."""


class Plan:
    """What is asked for."""

    __slots__ = ("action", "latches", "names", "only", "state_dir")

    def __init__(
        self,
        names: tuple[str, ...] = (),
        *,
        state_dir: str | None = None,
        default_state_dir: str = "",
        action: str = "kill",
        latches: bool = True,
    ) -> None:
        """names: none for all. state_dir: also only cells that run with it."""
        self.names, self.action = names, action
        self.only = None if state_dir is None else os.path.abspath(state_dir)
        self.state_dir = self.only or default_state_dir
        self.latches = latches and action == "kill"


def found(plan: Plan) -> list[Cell]:
    """The cells that it is about."""
    every, seen = [], set()
    for folder in places.candidates(plan.state_dir):
        for record in records.in_folder(folder):
            if record.session not in seen:
                seen.add(record.session)
                every.append(Cell(record))
    chosen = [
        cell
        for cell in every
        if (not plan.names or cell.name in plan.names) and plan.only in (None, cell.state_dir)
    ]
    mine = {cell.session for cell in chosen}
    others = {
        cell.record.number(key)
        for cell in every
        for key in ("launcher", "worker")
        if cell.session not in mine
    }
    for cell in chosen:
        cell.find(others)
    return chosen


def run(plan: Plan, say: Say) -> int:
    """Do it; returns the exit code. ``say`` gets each line, and whether it tells of a failure."""
    asked = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    words: dict[str, object] = {
        "uid": os.getuid(),
        "pid": os.getpid(),
        "asked": asked // 1000,
        "time": time.time_ns() // 1000,
    }
    if plan.action != "kill":
        return _freeze(plan, words, say)
    told = _begin_latch(plan) if plan.latches else None
    done: dict[str, Cell] = {}
    good = _kill(plan, words, done, say)
    if told is not None:
        good = _end_latch(plan, told, done, say) and good
        good = _kill(plan, words, done, say) and good
    for cell in done.values():
        cell.close()
    if not done:
        say("nothing of that name runs" if plan.names else "no cell runs", False)
    return 0 if good else 1


def _kill(plan: Plan, words: dict[str, object], done: dict[str, Cell], say: Say) -> bool:
    """Kill what there is and is not done yet. Whether all of it is dead."""
    cells = [cell for cell in found(plan) if cell.session not in done]
    for cell in [cell for cell in cells if cell.is_over()]:
        cells.remove(cell)
        done[cell.session] = cell
        say(f"{cell.name}: was dead already, with its supervisor (session {cell.session})", False)
        cell.forget()
    for cell in cells:
        cell.mark("kill", words)
    problems = {cell.session: cell.kill() for cell in cells}
    deadline = time.monotonic() + SECONDS
    good = True
    for cell in cells:
        done[cell.session] = cell
        dead = cell.dead(deadline)
        took = (time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000) - int(str(words["asked"]))
        if not dead:
            good = False
            why = "; ".join(cell.left() + problems[cell.session])
            say(f"{cell.name}: NOT DEAD: session {cell.session}: {why or 'its cgroup is not empty'}", True)
            continue
        say(f"{cell.name}: dead after {took / 1000:.1f} ms (session {cell.session})", False)
        good = _leave_word(cell, {**words, "microseconds": took, "name": cell.name}, say) and good
    return good


def _leave_word(cell: Cell, words: dict[str, object], say: Say) -> bool:
    """See to it that the log will tell of it."""
    if cell.supervised and not cell.mark_error:
        return True  # it takes the mark
    try:
        marks.keep(cell.state_dir, "kill", cell.session, words)
    except OSError as error:
        say(f"{cell.name}: this kill will not be in the log: {cell.mark_error or error}", True)
        return False
    if not cell.supervised:
        cell.forget()
    return True


def _begin_latch(plan: Plan) -> int:
    """Set the latches, in a child. Returns a pipe that tells how it went."""
    told, tell = os.pipe()
    child = os.fork()
    if child:
        os.close(tell)
        return told
    code = 1
    try:
        os.close(told)
        states = {plan.state_dir}
        for folder in places.candidates(plan.state_dir):
            for record in records.in_folder(folder):
                if (not plan.names or record.name in plan.names) and plan.only in (None, record.state):
                    states.add(record.state)
        problems = []
        for state in sorted(states - {""}):
            for name in plan.names or (None,):
                try:
                    latch.latch(state, name)
                except OSError as error:
                    problems.append(f"{name or 'every policy'} in {state}: {error.strerror}")
        os.write(tell, ("\n".join(problems) or "latched").encode("utf-8", "backslashreplace"))
        code = 0
    finally:
        os._exit(code)


def _end_latch(plan: Plan, told: int, done: dict[str, Cell], say: Say) -> bool:
    waiting = poll()
    waiting.register(told, POLLIN)
    answer = os.read(told, 1 << 16).decode() if waiting.poll(SECONDS * 1000) else "the disk does not answer"
    os.close(told)
    if answer != "latched":
        for line in answer.split("\n"):
            say(f"NOT LATCHED: {line or 'the latch could not be set'}: it can be started again", True)
        return False
    what = ", ".join(plan.names) if plan.names else "everything"
    say(f"latched: {what}; nothing of it starts until: {' '.join(('anchorhold rearm', *plan.names))}", False)
    # A service has a state of its own, where rearm does not look unless told.
    for state in sorted({cell.state_dir for cell in done.values()} - {plan.state_dir, ""}):
        rearm = " ".join((f"anchorhold --state-dir {state} rearm", *plan.names))
        say(f"latched: {what} in {state}; there until: {rearm}", False)
    return True


def _freeze(plan: Plan, words: dict[str, object], say: Say) -> int:
    wanted = plan.action == "freeze"
    cells = found(plan)
    good = True
    for cell in cells:
        cell.mark(plan.action, words)
        problems = cell.freeze(wanted)
        stopped = not problems and (not wanted or cell.stands_still(time.monotonic() + SECONDS))
        good = good and stopped
        state = "frozen" if wanted else "goes on"
        if stopped:
            say(f"{cell.name}: {state} (session {cell.session})", False)
        else:
            say(f"{cell.name}: NOT {state}: {'; '.join(problems) or 'it did not stop in time'}", True)
        cell.close()
    if not cells:
        say("nothing of that name runs" if plan.names else "no cell runs", False)
    return 0 if good else 1


def state_of(environ: dict[str, str]) -> str:
    """The state directory that the commands would use; empty where nothing says."""
    for given in (environ.get("ANCHORHOLD_STATE_DIR"), environ.get("STATE_DIRECTORY", "").split(":")[0]):
        if given:
            return os.path.abspath(given)
    base = environ.get("XDG_STATE_HOME", "")
    if os.path.isabs(base):
        return f"{base}/anchorhold"
    home = environ.get("HOME", "")
    return f"{home}/.local/state/anchorhold" if os.path.isabs(home) else ""


def main(arguments: list[str] | None = None) -> int:
    """The program. Returns the exit code."""
    rest = list(sys.argv[1:] if arguments is None else arguments)
    names: list[str] = []
    state_dir, action, latches = None, "kill", True
    while rest:
        word = rest.pop(0)
        if word in ("-h", "--help"):
            print(USAGE)
            return 0
        if word == "--no-latch":
            latches = False
        elif word in ("--freeze", "--thaw"):
            action = word[2:]
        elif word == "--state-dir" and rest:
            state_dir = rest.pop(0)
        elif word.startswith("--state-dir="):
            state_dir = word.partition("=")[2]
        elif is_name(word):
            names.append(word)
        else:
            print(f"anchorhold-kill: {word!a} is no option and no name\n{USAGE}", file=sys.stderr)
            return 2
    plan = Plan(
        tuple(dict.fromkeys(names)),
        state_dir=state_dir,
        default_state_dir=state_of(dict(os.environ)),
        action=action,
        latches=latches,
    )
    return run(plan, tell)


def is_name(word: str) -> bool:
    """As `anchorhold.policy.values.is_name`, which a test compares it with."""
    rest = word.replace(".", "a").replace("_", "a").replace("-", "a")
    return word.isascii() and 0 < len(word) <= 64 and rest.isalnum() and word[0].isalnum()


def tell(line: str, failed: bool) -> None:
    """To standard output or error. Whoever reads may be gone: the kill goes on."""
    data = f"{'anchorhold-kill: ' if failed else ''}{line}\n".encode("utf-8", "backslashreplace")
    try:
        os.write(2 if failed else 1, data)
    except OSError:
        return


if __name__ == "__main__":
    sys.exit(main())
