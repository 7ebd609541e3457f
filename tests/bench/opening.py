"""Opening and closing a granted file of 4 KiB, again and again, as seen by the process that does it.

The same loop runs in the cell (copied, hashed and recorded each time), under sandlock with its supervisor
opening the file, and under ``strace --seccomp-bpf -e trace=openat`` writing to a file. As it comes: the
kernel places the processes. Pinned: all of a tool's processes on one CPU. Without the snapshot: the model's
file, which is recorded and handed over as it is.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.bench import peers
from tests.bench.measure import Missing, Row, absent, compared, demo_model, environment, folder, in_turn

OPENS = 1500
SIZE = 4096

LOOP = """
import os, time

def microseconds(path, times):
    for _ in range(50):
        os.close(os.open(path, os.O_RDONLY))
    started = time.perf_counter()
    for _ in range(times):
        os.close(os.open(path, os.O_RDONLY))
    return (time.perf_counter() - started) / times * 1e6
"""
CALL = "import sys\nprint(microseconds(sys.argv[1], int(sys.argv[2])))\n"
PROBE = 'def attempt():\n    path, n = QUESTION.split("\\n")\n    return repr(microseconds(path, int(n)))\n'


def _output(command: list[str], pin: int | None) -> float:
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        env=environment(),
        check=False,
        timeout=120,
        preexec_fn=None if pin is None else lambda: os.sched_setaffinity(0, {pin}),
    )
    if done.returncode:
        raise RuntimeError(f"{command[0]}: {done.stderr.strip()}")
    return float(done.stdout.split()[-1])


def _measures(place: Path, file: Path, model: Path, pin: int | None) -> dict[str, Callable[[], float]]:
    script = place / "loop.py"
    script.write_text(LOOP + CALL)
    plain = [peers.outside_python(), str(script), str(file), str(OPENS)]

    def cell(path: Path) -> float:
        here = [sys.executable, "-m", "tests.bench.opening", str(place / "state"), str(file), str(path)]
        return _output(here, pin)

    found: dict[str, Callable[[], float]] = {
        "cell": lambda: cell(file),
        "direct": lambda: cell(model),
        "plain": lambda: _output(plain, pin),
    }
    try:
        sandlock = peers.sandlock_run(plain, [place])
        found["sandlock"] = lambda: _output(sandlock, pin)
    except Missing:
        pass
    try:
        strace = [
            peers.tool("strace"),
            "-f",
            "--seccomp-bpf",
            "-e",
            "trace=openat",
            "-o",
            str(place / "trace"),
        ]
        found["strace"] = lambda: _output([*strace, *plain], pin)
    except Missing:
        pass
    return found


def rows(rounds: int) -> list[Row]:
    model = demo_model()
    table: list[Row] = []
    with folder() as place:
        file = place / "granted" / "file.txt"
        file.parent.mkdir()
        file.write_bytes(os.urandom(SIZE))
        for pin in (None, min(os.sched_getaffinity(0))):
            found = in_turn(rounds, _measures(place, file, model, pin))
            how = "as it comes" if pin is None else "one CPU"
            bar = 1.0 if pin is None else None
            what = f"open + record + close, 4 KiB, {how}"
            for peer, name in (("sandlock", "sandlock, brokered"), ("strace", "strace --seccomp-bpf")):
                if peer in found:
                    table.append(compared(what, found["cell"], name, found[peer], unit="µs", most=bar))
                    table.append(
                        compared(what + ", no snapshot", found["direct"], name, found[peer], unit="µs")
                    )
                else:
                    table.append(absent(what, name, "not installed"))
            table.append(compared(what, found["cell"], "no sandbox at all", found["plain"], unit="µs"))
    return table


def main() -> None:
    """In a process of its own, so that it can be pinned: STATE GRANTED-FILE PATH-TO-OPEN."""
    from tests.bench.workers import Caged

    state, granted, path = sys.argv[1:]
    caged = Caged(Path(state), demo_model(), read=[Path(granted).parent], source=LOOP + PROBE)
    try:
        print(caged.ask(f"{path}\n{OPENS}")[0])
    finally:
        caged.close()


if __name__ == "__main__":
    main()
