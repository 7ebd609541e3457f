"""Several sessions at once in one state directory: every entry is there, each session's count is exact."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from anchorhold.verify.check import verify
from tests.support import TOP, session_entries

OPENS = 400
WRITERS = 4

SOURCE = f"""
def attempt():
    for number in range({OPENS}):
        with open(f"{{QUESTION}}/{{number % 20}}.txt", "rb") as file:
            assert file.read()
        try:
            open(f"/etc/none-{{number % 3}}")
        except OSError:
            continue
    return "end"
"""


@pytest.mark.usefixtures("unmeasured")
def test_no_entry_is_lost(tmp_path: Path, demo_model: Path) -> None:
    state = tmp_path / "state"
    jobs = []
    for writer in range(WRITERS):
        papers = tmp_path / f"papers{writer}"
        papers.mkdir()
        for number in range(20):
            (papers / f"{number}.txt").write_text(f"{writer} {number}\n" * 50)
        given = {"state": str(state), "model": str(demo_model), "papers": str(papers), "source": SOURCE,
                 "question": str(papers)}  # fmt: skip
        job = subprocess.Popen(
            [sys.executable, "-m", "tests.integration.lifecycle.probing"], cwd=TOP, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        assert job.stdin is not None
        job.stdin.write(json.dumps(given))
        job.stdin.close()
        job.stdin = None
        jobs.append(job)
    ends = [json.loads(job.communicate(timeout=50)[0]) for job in jobs]
    for end in ends:
        assert end["exit"] == 0 and end["answer"] == "end" and end["ends"] == [], end["ends"]

    log = session_entries(state)
    assert [entry["seq"] for entry in log] == list(range(1, len(log) + 1))  # 0 is the epoch's own
    result = verify(str(state))
    assert result.ok and result.signed == result.size == len(log) + 1, result.text()
    assert result.sessions == WRITERS and result.open_sessions == 0
    granted = Counter(entry["session"] for entry in log if entry.get("class") == "data")
    assert list(granted.values()) == [OPENS] * WRITERS
    denied: Counter[str] = Counter()
    for entry in log:
        if entry["kind"] == "denial":
            denied[entry["session"]] += entry["count"]
    assert list(denied.values()) == [OPENS] * WRITERS
    for session in granted:
        mine = [entry for entry in log if entry["session"] == session]
        assert [mine[0]["kind"], mine[-1]["kind"]] == ["session.start", "session.end"]
        assert mine[-1]["shown"] == 20 and mine[-1]["denied"] == OPENS
    turns = sum(one["session"] != other["session"] for one, other in zip(log, log[1:], strict=False))
    assert turns > 50, "they hardly ran at once"
