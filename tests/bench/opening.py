"""Opening and closing granted files of 4 KiB, as seen by the process that does it.

The same loop runs in the cell (recorded, and handed out as a sealed copy), under sandlock with its supervisor
opening the file, and under ``strace --seccomp-bpf -e trace=openat`` writing to a file. Each once: every open
makes a copy. The same: the copy is made once, its bytes are read and hashed each time. As it comes: the
kernel places the processes. One CPU: all of a tool's processes on it. No snapshot: the model's file, which
is recorded and handed over as it is.
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
    # Each name is another file; without a number in it, always the same.
    names = [path % number if "%" in path else path for number in range(times + 50)]
    for name in names[times:]:
        os.close(os.open(name, os.O_RDONLY))
    started = time.perf_counter()
    for name in names[:times]:
        os.close(os.open(name, os.O_RDONLY))
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


def _measures(place: Path, files: str, model: Path, pin: int | None) -> dict[str, Callable[[], float]]:
    script = place / "loop.py"
    script.write_text(LOOP + CALL)
    granted = Path(files).parent
    one = files % 0

    def plain(path: str) -> list[str]:
        return [peers.outside_python(), str(script), path, str(OPENS)]

    def cell(path: str) -> float:
        here = [sys.executable, "-m", "tests.bench.opening", str(place / "state"), str(granted), path]
        return _output(here, pin)

    found: dict[str, Callable[[], float]] = {
        "cell, each once": lambda: cell(files),
        "cell, the same": lambda: cell(one),
        "cell, no snapshot": lambda: cell(str(model)),
        "plain, each once": lambda: _output(plain(files), pin),
        "plain, the same": lambda: _output(plain(one), pin),
    }
    try:
        peers.sandlock_run(plain(one), [place])
        found["sandlock, each once"] = lambda: _output(peers.sandlock_run(plain(files), [place]), pin)
        found["sandlock, the same"] = lambda: _output(peers.sandlock_run(plain(one), [place]), pin)
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
        found["strace, each once"] = lambda: _output([*strace, *plain(files)], pin)
        found["strace, the same"] = lambda: _output([*strace, *plain(one)], pin)
    except Missing:
        pass
    return found


def rows(rounds: int) -> list[Row]:
    model = demo_model()
    table: list[Row] = []
    with folder() as place:
        files = str(place / "granted" / "file-%05d.txt")
        Path(files).parent.mkdir()
        for number in range(OPENS + 50):
            Path(files % number).write_bytes(os.urandom(SIZE))
        for pin in (None, min(os.sched_getaffinity(0))):
            found = in_turn(rounds, _measures(place, files, model, pin))
            where = "as it comes" if pin is None else "one CPU"
            for how in ("each once", "the same"):
                what = f"open + record + close, 4 KiB, {how}, {where}"
                ours = found[f"cell, {how}"]
                for peer, name in (("sandlock", "sandlock, brokered"), ("strace", "strace --seccomp-bpf")):
                    theirs = found.get(f"{peer}, {how}")
                    if theirs is None:
                        table.append(absent(what, name, "not installed"))
                        continue
                    most = 1.0 if pin is None else None
                    table.append(compared(what, ours, name, theirs, unit="µs", most=most))
                    if how == "the same":
                        direct = what.replace(how, "no snapshot")
                        table.append(compared(direct, found["cell, no snapshot"], name, theirs, unit="µs"))
                table.append(compared(what, ours, "no sandbox at all", found[f"plain, {how}"], unit="µs"))
    return table


def main() -> None:
    """In a process of its own, so that it can be pinned: STATE GRANTED-FOLDER PATH-TO-OPEN."""
    from tests.bench.workers import Caged

    state, granted, path = sys.argv[1:]
    caged = Caged(Path(state), demo_model(), read=[Path(granted)], source=LOOP + PROBE)
    try:
        print(caged.ask(f"{path}\n{OPENS}")[0])
    finally:
        caged.close()


if __name__ == "__main__":
    main()
