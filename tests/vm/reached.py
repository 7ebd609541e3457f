"""Limits reached by a service that answers: the fourth start's checks. limits.py has the cell alone.

A model cannot be told to take memory or to start threads, so each limit of the worker's own cgroup is brought
to it instead: lowered while it answers, or used up by a process that is put beside it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.vm.kills import Answer
from tests.vm.machine import (
    check,
    entries,
    gone,
    post,
    question,
    run,
    running,
    serving,
    shown,
    until,
    verifies,
    workers,
    write_policy,
)

MIB = 1 << 20
SWAP = 64 * MIB
UNIT = "anchorhold@small"
STATE = Path("/var/lib/anchorhold/small")
SOCKET = "/run/anchorhold/small.sock"
FORKS = """
import os, signal, sys, time
open(sys.argv[1] + "/cgroup.procs", "w").write(str(os.getpid()))
made = []
try:
    for _number in range(200):
        child = os.fork()
        if not child:
            time.sleep(60)
            os._exit(0)
        made.append(child)
except OSError as error:
    print(len(made), error.errno)
finally:
    for child in made:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
"""


def group() -> Path:
    """The cgroup of the worker that runs."""
    (pid, *_rest) = workers("small")
    return Path("/sys/fs/cgroup") / Path(f"/proc/{pid}/cgroup").read_text().strip().removeprefix("0::/")


def answers() -> None:
    answer = json.loads(post(question(4, model="small"), SOCKET).read())
    assert answer["choices"][0]["message"]["content"], answer


def numbers(file: Path) -> dict[str, int]:
    return {name: int(value) for name, value in (line.split() for line in file.read_text().splitlines())}


def starts() -> str:
    path = Path(write_policy("small", "/home/someone/taxes"))
    text = path.read_text().replace(
        'memory = "1GiB"', f'memory = "700MiB"\nswap = "{SWAP >> 20}MiB"\ncpu = 1.0'
    )
    path.write_text(text)
    run("anchorhold", "service", "install", str(path))
    until("it serves", lambda: serving("small"))
    place = group()
    names = ("memory.max", "memory.swap.max", "cpu.max", "pids.max")
    written = [(place / name).read_text().strip() for name in names]
    assert written == [str(700 * MIB), str(SWAP), "100000 100000", "40"], written
    return ", ".join(f"{name} {value}" for name, value in zip(names, written, strict=True))


def cpu() -> str:
    """One processor of two, while it answers: the kernel holds it back, which is no fault."""
    before = len(entries(STATE, kind="limit"))
    answer, place = Answer(12, "small").is_under_way(), group()
    first, start = numbers(place / "cpu.stat"), time.monotonic()
    time.sleep(5)
    last, took = numbers(place / "cpu.stat"), time.monotonic() - start
    share = (last["usage_usec"] - first["usage_usec"]) / took / 1e6
    held = last["nr_throttled"] - first["nr_throttled"]
    until("the answer ends", lambda: answer.end)
    assert share < 1.1 and held > 0 and answer.said.endswith("[DONE]"), (share, held, answer.said)
    assert len(entries(STATE, kind="limit")) == before
    assert "cgroup cpu.max" in entries(STATE, kind="session.start")[-1]["limits"]["cpu"]
    return f"{share:.2f} of a processor, held back {held} times, and the answer came whole"


def tasks() -> str:
    """The kernel refuses a process too many; the worker is not disturbed."""
    place, pids = group(), workers("small")
    was = int((place / "pids.current").read_text())
    done = subprocess.run(
        [sys.executable, "-c", FORKS, str(place)], capture_output=True, text=True, check=False, timeout=120
    )
    made, errno = map(int, done.stdout.split())
    assert errno == 11 and was + 1 + made == 40, (was, made, errno, done.stderr)
    assert numbers(place / "pids.events")["max"] > 0
    assert workers("small") == pids
    answers()
    return f"{was} were there, {made + 1} more until EAGAIN; it answers"


def memory() -> str:
    """Less than it uses, in an answer: it swaps as far as it may, is killed alone, another answers."""
    pid = running("small")
    before = len(entries(STATE, kind="limit"))
    answer, place, pids = Answer(600, "small").is_under_way(), group(), workers("small")
    swapped = 0
    lower = subprocess.Popen(["sh", "-c", f"echo {8 * MIB} >{place}/memory.max"], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 200
    while not gone(pids):
        assert time.monotonic() < deadline, f"it lives; {swapped} bytes swapped"
        try:
            swapped = max(swapped, int((place / "memory.swap.current").read_text()))
        except OSError:
            break
        time.sleep(0.02)
    lower.wait(60)
    until("the client is told", lambda: answer.end)
    assert "[DONE]" not in answer.said, answer.said
    until("another worker serves", lambda: serving("small") and not set(workers("small")) & set(pids))
    assert running("small") == pid, "the supervisor was killed with it"
    told = entries(STATE, kind="limit")
    assert [one["limit"] for one in told[before:]] == ["memory"], told
    assert 0 < swapped <= SWAP, swapped
    answers()
    verifies(STATE)
    return f"swapped {swapped // MIB} of {SWAP // MIB} MiB; {told[-1]['detail']}; told: {answer.said[:160]}"


def too_little() -> str:
    """A policy with less memory than the model needs: tried five times, given up, and said so."""
    path = Path(write_policy("tiny", "/home/someone/taxes"))
    path.write_text(path.read_text().replace('memory = "1GiB"', 'memory = "64MiB"'))
    run("anchorhold", "service", "install", "--no-start", str(path))
    state = Path("/var/lib/anchorhold/tiny")
    run("systemctl", "start", "--no-block", "anchorhold@tiny")
    until(
        "it is given up",
        lambda: len(entries(state, kind="limit")) >= 5 if (state / "log").is_dir() else False,
    )
    time.sleep(10)
    found: dict[str, Any] = {
        **shown("anchorhold@tiny", "ActiveState", "ExecMainStatus", "NRestarts", "StatusText"),
        "limits": [one["limit"] for one in entries(state, kind="limit")],
    }
    run("systemctl", "stop", "anchorhold@tiny", check=False)
    assert set(found["limits"]) == {"memory"} and len(found["limits"]) == 5, found
    return str(found)


def all_of_them() -> None:
    run("mkswap", "-q", "/dev/vdc")
    run("swapon", "/dev/vdc")
    check("a service with limits starts, and they are where its worker is", starts)
    check("memory and swap reached in an answer", memory)
    check("tasks reached beside an answer", tasks)
    check("cpu reached in an answer", cpu)
    check("memory that is too little for the model", too_little)
    run("systemctl", "disable", "--now", "anchorhold@small.service", "anchorhold@small.socket", check=False)
