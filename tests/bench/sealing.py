"""From fork to sealed: every layer of the cell, put on by the cell's own code in a forked process.

Run as a file by ``rows`` (a small process, as the launcher is one). Ours: from before fork(2) until the
process, now the only one in its namespaces and with both filters on, has said so in a pipe. bubblewrap: from
before posix_spawn(3) of ``bwrap --unshare-all --ro-bind / / true`` until it has ended. Ours starts no
program: Python's own start and the boot of the engine are in the row on the first token.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tests.bench.measure import Row

NOBODY = 65534


def sealed() -> float:
    """Milliseconds."""
    from anchorhold.cell import filters, layers

    programs = (filters.boot_filter(), filters.sealed_filter())  # of the supervisor's, for every cell
    read, write = os.pipe()
    started = time.perf_counter()
    first = os.fork()
    if first == 0:
        try:
            layers.Rlimits({"CORE": 0}).apply()
            if os.getuid() == 0:
                layers.User(NOBODY, NOBODY).apply()
            layers.Namespaces().apply()
            worker = os.fork()
            if worker:
                os._exit(os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1]))
            own: tuple[type[layers.Root] | type[layers.Capabilities] | type[layers.NoNewPrivileges], ...]
            own = (layers.Root, layers.Capabilities, layers.NoNewPrivileges)
            for layer in own:
                layer().apply()
            layers.Landlock().apply()
            layers.Dumpable().apply()
            boot_program, program = (filters.for_process(one, os.getpid()) for one in programs)
            boot = layers.Seccomp(boot_program)
            boot.apply()
            os.close(boot.listener)
            layers.Mdwe().apply()
            layers.Seccomp(program, all_threads=True).apply()
            os.write(write, b"sealed")
            os._exit(0)
        finally:
            os._exit(1)
    os.close(write)
    said = os.read(read, 16)
    taken = (time.perf_counter() - started) * 1e3
    os.close(read)
    os.waitpid(first, 0)
    if said != b"sealed":
        raise RuntimeError("the cell could not be built with all its layers here")
    return taken


def bubblewrap(path: str) -> float:
    """Milliseconds."""
    command = [path, "--unshare-all", "--ro-bind", "/", "/", "true"]
    started = time.perf_counter()
    status = os.waitpid(os.posix_spawn(path, command, {"PATH": "/usr/bin:/bin"}), 0)[1]
    taken = (time.perf_counter() - started) * 1e3
    if status:
        raise RuntimeError("bwrap failed")
    return taken


def rows(rounds: int) -> list[Row]:
    from tests.bench import peers
    from tests.bench.measure import TOP, Missing, Row, absent, compared, environment, shown

    what = "fork to sealed, all layers"
    try:
        peer = peers.tool("bwrap")
    except Missing as missing:
        peer, why = "", str(missing)
    command = [sys.executable, __file__, peer, str(rounds)]
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment(), cwd=TOP, check=False, timeout=120
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    lines = [[float(value) for value in line.split()] for line in done.stdout.splitlines()]
    ours = [line[0] for line in lines]
    if not peer:
        return [Row(what, shown(ours, "ms", 2), "", "", "", "", None), absent(what, "bubblewrap", why)]
    theirs = [line[1] for line in lines]
    return [compared(what, ours, "bwrap --unshare-all … true", theirs, unit="ms", most=1.0, digits=2)]


def main() -> None:
    peer, rounds = sys.argv[1], int(sys.argv[2])
    for number in range(rounds + 3):
        ours = sealed()
        theirs = bubblewrap(peer) if peer else 0.0
        if number >= 3:
            print(ours, theirs)


if __name__ == "__main__":
    main()
