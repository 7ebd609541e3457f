"""A worker that asks again and again shares a processor with its supervisor, for as long as it does."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from anchorhold.supervisor import together
from tests.integration import cells

SOURCE = """
import ctypes, json, os, threading, time
libc = ctypes.CDLL(None)
def processors():
    mask = ctypes.create_string_buffer(128)
    libc.sched_getaffinity(0, 128, mask)
    return sum(byte.bit_count() for byte in mask.raw)
def boot():
    global booted
    for number in range(200):
        os.path.exists(os.__file__ + str(number))
    booted = processors()
def attempt():
    time.sleep(0.1)
    seen = [processors()]
    for _ in range(200):
        os.close(os.open(PATH, os.O_RDONLY))
    seen.append(processors())
    of_thread = []
    def born():
        of_thread.append(processors())
        time.sleep(0.2)
        of_thread.append(processors())
    thread = threading.Thread(target=born)
    for _ in range(200):
        os.close(os.open(PATH, os.O_RDONLY))
    thread.start()
    time.sleep(0.2)
    seen.append(processors())
    thread.join()
    return json.dumps([seen, of_thread, booted])
"""


def test_they_share_one_while_it_asks_and_all_afterwards(
    state_dir: Path, demo_model: Path, tmp_path: Path
) -> None:
    file = tmp_path / "file.txt"
    file.write_text("text")
    rules = cells.policy(demo_model, read=(tmp_path,))
    before = os.sched_getaffinity(0)
    out = cells.run(state_dir, rules, f"PATH = {str(file)!r}\n" + SOURCE)
    (first, asking, after), (born, grown), booted = json.loads(out.answer)
    every = len(before)
    assert booted == every  # libraries plan by what they find when they are loaded
    assert first == after == grown == every
    # On one processor there is nothing to share, and on a busy machine a question may come late now and then.
    assert {asking, born} <= {1, every}
    assert os.sched_getaffinity(0) == before


def test_only_close_questions_of_one_thread_count() -> None:
    pair = together.Together(os.getpid(), os.sched_getaffinity(0))
    for number in range(3 * together.ROW):
        pair.asked(number % 2 + 1)  # two threads in turn
    assert not pair.held and pair.wait() is None
    pair.release()  # of what is not held: nothing


def test_a_kernel_that_refuses_is_left_alone() -> None:
    before = os.sched_getaffinity(0)
    pair = together.Together(1 << 22, before)  # no such process
    pair.possible = True
    for _ in range(3 * together.ROW):
        pair.asked(1 << 22)
    assert not pair.held and not pair.possible
    assert os.sched_getaffinity(0) == before


def test_a_thread_that_is_not_the_workers_is_left_alone() -> None:
    before = os.sched_getaffinity(0)
    other = subprocess.Popen(["sleep", "10"])
    try:
        pair = together.Together(os.getpid(), before)
        pair.possible = True
        for _ in range(3 * together.ROW):
            pair.asked(other.pid)
        assert not pair.held and os.sched_getaffinity(other.pid) == before
    finally:
        other.kill()
        other.wait()
