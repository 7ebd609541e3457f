"""``anchorhold audit diff``: what did one run read that another did not?"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from anchorhold.audit.log import Log
from tests.unit.audit.logs import GRANT, session
from tests.unit.cli.runs import FIRST, SECOND, Run, runner, two_runs


@pytest.fixture
def run(state_dir: Path, capfd: pytest.CaptureFixture[str]) -> Run:
    two_runs(state_dir)
    return runner(state_dir, capfd)


def test_the_last_two_runs(run: Run) -> None:
    code, out, _ = run("diff")
    assert code == 0
    lines = out.splitlines()
    assert lines[-1].startswith("+\t") and "\x1b" not in out and "\u202e" not in out
    assert lines[:-1] == ["~\t/home/a/letter", "+\t/home/a/new", "-\t/home/a/taxes/2025/roof.pdf"]


def test_as_json(run: Run) -> None:
    code, out, _ = run("diff", FIRST, SECOND[:4], "--json")
    rows = {row["path"]: row for row in map(json.loads, out.splitlines())}
    assert code == 0 and rows["/home/a/letter"]["after"] == ["0" * 64]
    assert rows["/home/a/letter"]["change"] == "changed" and rows["/home/a/new"]["change"] == "new"
    assert rows["/home/a/taxes/2025/roof.pdf"]["before"] == ["ab" * 32]


def test_the_same_run_and_two_requests_of_one(run: Run) -> None:
    assert run("diff", FIRST, FIRST) == (0, "", "both read the same\n")
    code, out, _ = run("diff", f"{FIRST}-1", f"{FIRST}-2")
    assert code == 0 and "+\t/home/a/letter" in out


def test_a_file_that_was_moved(run: Run, state_dir: Path) -> None:
    log = Log.open(state_dir)
    for name, path in (("c" * 16, "/home/a/old"), ("d" * 16, "/home/a/moved")):
        session(log, name, 0, end=False)
        log.append("grant", name, {**GRANT, "path": path, "resolved": path, "sha256": "9" * 64})
    log.checkpoint()
    log.close()
    assert run("diff")[1].splitlines() == [
        "+\t/home/a/moved\t/home/a/old",
        "-\t/home/a/old\t/home/a/moved",
    ]
    assert [json.loads(line)["same"] for line in run("diff", "--json")[1].splitlines()] == [
        ["/home/a/old"],
        ["/home/a/moved"],
    ]


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ([FIRST], "two runs are needed"),
        ([FIRST, "cccc"], "no run is called"),
        (["", FIRST], "runs are called"),
        ([FIRST, "\x1b[2J"], "no run is called"),
    ],
)
def test_wrong_words(run: Run, names: list[str], words: str) -> None:
    code, out, err = run("diff", *names)
    assert (code, out) == (2, "") and words in err and "\x1b" not in err


def test_one_run_is_too_few(state_dir: Path, capfd: pytest.CaptureFixture[str]) -> None:
    log = Log.open(state_dir)
    session(log, FIRST)
    log.close()
    code, out, err = runner(state_dir, capfd)("diff")
    assert (code, out) == (2, "") and "has not two runs" in err
