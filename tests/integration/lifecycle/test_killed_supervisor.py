"""``kill -9`` of the supervisor at many moments: nothing of the cell lives on, and the log is whole."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from anchorhold.audit.log import Log
from anchorhold.verify.check import verify

MOMENTS = 50
LIFE = 0.100  # seconds that anything of the cell may live after the supervisor

CHILD = """
import sys
from pathlib import Path
from tests.integration import cells
model, state = map(Path, sys.argv[1:])
print("begin", flush=True)
while True:
    cells.run(state, cells.policy(model), "def attempt():\\n    return 'x' * 1000\\n")
"""


def descendants(pid: int) -> set[int]:
    """Every process below this one now."""
    found: set[int] = set()
    waiting = [pid]
    while waiting:
        for task in Path(f"/proc/{waiting.pop()}/task").glob("*"):
            try:
                children = [int(child) for child in (task / "children").read_text().split()]
            except OSError:
                continue
            waiting += [child for child in children if child not in found]
            found.update(children)
    return found


def lives(pid: int) -> bool:
    """A zombie is dead: it waits for its parent to read how it ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_nothing_outlives_a_killed_supervisor(state_dir: Path, demo_model: Path, unmeasured: None) -> None:
    moments = random.Random(1)
    seen = 0
    top = Path(__file__).parents[3]
    for number in range(MOMENTS):
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(demo_model), str(state_dir)], stdout=subprocess.PIPE,
            cwd=top, env={**os.environ, "PYTHONPATH": f"{top}:{top / 'daemon'}"},
        )  # fmt: skip
        assert child.stdout is not None
        assert child.stdout.readline() == b"begin\n"
        time.sleep(number * 0.4 / MOMENTS + moments.random() * 0.008)
        os.kill(child.pid, signal.SIGSTOP)  # so that the list of its processes stays true
        cell = descendants(child.pid)
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        child.stdout.close()
        seen += bool(cell)
        time.sleep(LIFE)
        assert not [pid for pid in cell if lives(pid)], f"after moment {number}"
        if state_dir.exists():
            log = Log.open(state_dir)
            log.checkpoint()
            log.close()
            assert verify(str(state_dir)).ok
    assert seen > MOMENTS // 2
