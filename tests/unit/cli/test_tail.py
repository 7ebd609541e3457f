"""``anchorhold audit tail``: the newest entries, and those that come."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from anchorhold.audit.log import Log
from anchorhold.audit.query import log_mark
from tests.unit.cli.runs import DAEMON, Run, runner, two_runs


@pytest.fixture
def state(state_dir: Path) -> Path:
    two_runs(state_dir)
    return state_dir


@pytest.fixture
def run(state: Path, capfd: pytest.CaptureFixture[str]) -> Run:
    return runner(state, capfd)


@contextmanager
def _following(state: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "anchorhold", "--state-dir", str(state), "audit", "tail", "-f"]
    job = subprocess.Popen(
        [*command, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(DAEMON)},
    )
    try:
        yield job
    finally:
        job.kill()
        job.wait()
        for stream in (job.stdout, job.stderr):
            assert stream is not None
            stream.close()


def test_the_newest(run: Run) -> None:
    code, out, _ = run("tail", "-n", "2", "--json")
    assert code == 0 and [json.loads(line)["kind"] for line in out.splitlines()] == ["denial", "breach"]
    assert run("tail", "-n", "0") == (0, "", "")
    assert len(run("tail")[1].splitlines()) == 10


@pytest.mark.parametrize("moment", ["before", "after"])
def test_each_entry_comes_once(state: Path, moment: str) -> None:
    """Whether it is shown while it is in a journal, or when it is in the tree; across epochs too."""
    with _following(state, "-n", "1", "--json") as job:
        assert job.stdout is not None and job.stderr is not None
        first = json.loads(job.stdout.readline())
        log = Log.open(state)
        for number in range(300):
            log.append("policy.load", "", {"number": number})
            time.sleep(0.0001)
        if moment == "before":
            time.sleep(0.5)
        log.checkpoint(rotate=True)
        log.append("policy.load", "", {"number": 300})
        log.checkpoint()
        log.close()
        found: list[int] = []
        while not found or found[-1] != 300:
            entry = json.loads(job.stdout.readline())
            found += [entry["number"]] if "number" in entry else []
        time.sleep(0.5)
        job.send_signal(signal.SIGINT)
        rest, said = job.stdout.read(), job.stderr.read()
        assert (job.wait(30), rest, said) == (130, b"", b"")
        assert first["kind"] == "breach" and found == list(range(301))


def test_it_ends_when_nobody_reads_any_more(state: Path) -> None:
    with _following(state, "-n", "1", "--json") as job:
        assert job.stdout is not None and job.stderr is not None
        job.stdout.readline()
        job.stdout.close()
        assert job.wait(30) == 130 and job.stderr.read() == b""


def test_while_nothing_comes_no_file_is_read(state: Path) -> None:
    mark = log_mark(state)
    assert log_mark(state) == mark
    log = Log.open(state)
    log.append("policy.load", "", {})
    assert (in_journal := log_mark(state)) != mark
    log.checkpoint()
    assert log_mark(state) not in (mark, in_journal)
    log.close()
