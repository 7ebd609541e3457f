"""``anchorhold audit list | tail | top | diff``: which data did the model see?"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from anchorhold.audit.log import Log
from anchorhold.cli.main import main
from tests.unit.audit.logs import GRANT, session

FIRST, SECOND = "aaaa111100000000", "bbbb222200000000"
HOSTILE = '=cmd|"/c calc"!A1\x1b[31m\n\u202e'
DAEMON = Path(__file__).parents[3] / "daemon"

Answer = tuple[int, str, str]


@pytest.fixture
def state(state_dir: Path, tmp_path: Path) -> Path:
    (tmp_path / "letter.txt").write_bytes(b"the roof cost 9000")
    digest = hashlib.sha256(b"the roof cost 9000").hexdigest()
    log = Log.open(state_dir)
    session(log, FIRST, 3, end=False)
    log.append(
        "grant",
        FIRST,
        {**GRANT, "request": 2, "path": "/home/a/letter", "resolved": "/home/a/letter", "sha256": digest},
    )
    log.append("session.end", FIRST, {"reason": "done"})
    model = {"sha256": "ef" * 32, "size": 7}
    log.append("session.start", SECOND, {"model": model, "model_path": "/models/big.gguf"})
    log.append("session.sealed", SECOND, {})
    for path, content in (("/home/a/letter", "0" * 64), ("/home/a/new", "1" * 64), (HOSTILE, "2" * 64)):
        log.append("grant", SECOND, {**GRANT, "path": path, "resolved": path, "sha256": content})
    log.append("denial", SECOND, {"call": "open", "path": "/etc/passwd", "reason": "outside", "count": 2})
    log.append("breach", SECOND, {"call": "ptrace", "reason": "forbidden"})
    log.checkpoint()
    log.close()
    return state_dir


@pytest.fixture
def run(state: Path, capfd: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    def run(*arguments: str) -> Answer:
        code = main(["--state-dir", str(state), "audit", *arguments])
        out, err = capfd.readouterr()
        return code, out, err

    return run


def test_filters(run: Callable[..., Answer], tmp_path: Path) -> None:
    def count(*arguments: str) -> int:
        code, out, err = run("list", "--json", *arguments)
        assert (code, err) == (0, "" if out else "no entry matches\n")
        return len(out.splitlines())

    assert count("--file", str(tmp_path / "letter.txt")) == 1
    (tmp_path / "other").write_bytes(b"never shown")
    assert count("--file", str(tmp_path / "other")) == 0
    assert count("--digest", "abab") == 4
    assert count("--class", "data") == 7 and count("--class", "runtime") == 1
    assert count("--request", f"{FIRST}-2") == 1 and count("--request", f"{FIRST}-3") == 0
    assert count("--model", "efef") == count("--model", "*.gguf") == count("--session", SECOND) == 7
    assert count("--model", "nobody") == 0
    assert count("--refused") == 2 and count("--refused", "--kind", "breach") == 1
    assert count("--last", "3") == 3
    assert count("--class", "data", "--last", "1", "--session", FIRST) == 1


def test_csv_is_safe_and_stable(run: Callable[..., Answer]) -> None:
    code, out, _ = run("list", "--csv", "--session", SECOND)
    rows = list(csv.DictReader(io.StringIO(out)))
    assert code == 0 and len(rows) == 7 and out.isascii()
    assert list(rows[0])[:8] == ["epoch", "seq", "time", "session", "n", "kind", "class", "path"]
    assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r")) for row in rows for cell in row.values())


def test_wrong_words(run: Callable[..., Answer]) -> None:
    for arguments, words in (
        (["list", "--json", "--csv"], "exclude each other"),
        (["list", "--digest", "xyz"], "is no digest"),
        (["list", "--file", "/nonexistent"], "cannot be read"),
        (["diff", FIRST], "two runs are needed"),
        (["diff", FIRST, "cccc"], "no run is called"),
        (["diff", "", FIRST], "runs are called"),
    ):
        code, out, err = run(*arguments)
        assert code in (1, 2) and out == "" and words in err, arguments


def test_diff(run: Callable[..., Answer]) -> None:
    code, out, _ = run("diff")
    assert code == 0
    lines = out.splitlines()
    assert lines[-1].startswith("+ ") and "\x1b" not in out and "\u202e" not in out
    assert lines[:-1] == ["~ /home/a/letter", "+ /home/a/new", "- /home/a/taxes/2025/roof.pdf"]
    code, out, _ = run("diff", FIRST, SECOND[:4], "--json")
    rows = {row["path"]: row for row in map(json.loads, out.splitlines())}
    assert code == 0 and rows["/home/a/letter"]["after"] == ["0" * 64]
    code, out, err = run("diff", FIRST, FIRST)
    assert (code, out, err) == (0, "", "both read the same\n")
    code, out, _ = run("diff", f"{FIRST}-1", f"{FIRST}-2")
    assert code == 0 and "+ /home/a/letter" in out


def test_top(run: Callable[..., Answer]) -> None:
    code, out, _ = run("top", "--json")
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 0 and rows[0] == {"file": "/home/a/taxes/2025/roof.pdf", "times": 3, "bytes": 3 * 12345}
    assert {"file": "/home/a/letter", "times": 2, "bytes": 2 * 12345} in rows
    for by, name in (("folder", "/home/a"), ("session", FIRST), ("model", "/models/big.gguf")):
        code, out, _ = run("top", "--by", by, "--json")
        assert name in [json.loads(line)[by] for line in out.splitlines()]
    code, out, _ = run("top", "-n", "1")
    assert out.splitlines()[1].split() == ["3", "37035", "/home/a/taxes/2025/roof.pdf"]


def test_tail(run: Callable[..., Answer]) -> None:
    code, out, _ = run("tail", "-n", "2", "--json")
    assert code == 0 and [json.loads(line)["kind"] for line in out.splitlines()] == ["denial", "breach"]


@pytest.mark.parametrize("moment", ["before", "after"])
def test_tail_follows_each_entry_once(state: Path, moment: str) -> None:
    """Whether an entry is shown while it is in a journal, or when it is in the tree: it comes once."""
    command = [sys.executable, "-m", "anchorhold", "--state-dir", str(state), "audit", "tail"]
    job = subprocess.Popen(
        [*command, "-f", "-n", "1", "--json"],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(DAEMON)},
    )
    assert job.stdout is not None
    try:
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
        rest = job.stdout.read()
    finally:
        job.kill()
        code = job.wait()
        job.stdout.close()
    assert first["kind"] == "breach" and found == list(range(301)) and rest == b"" and code == 130
