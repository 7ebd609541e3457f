"""A log of two runs, and the command that reads it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from anchorhold.audit.log import Log
from anchorhold.cli.main import main
from tests.unit.audit.logs import GRANT, session

FIRST, SECOND = "aaaa111100000000", "bbbb222200000000"
HOSTILE = '=cmd|"/c calc"!A1\x1b[31m\n\u202e'
LETTER = b"the roof cost 9000"
DAEMON = Path(__file__).parents[3] / "daemon"

Answer = tuple[int, str, str]
Run = Callable[..., Answer]


def two_runs(state_dir: Path) -> None:
    """The first run reads one file three times and a letter; the second the letter, changed, and others."""
    digest = hashlib.sha256(LETTER).hexdigest()
    log = Log.open(state_dir)
    session(log, FIRST, 3, end=False)
    letter = {"request": 2, "path": "/home/a/letter", "resolved": "/home/a/letter", "sha256": digest}
    log.append("grant", FIRST, {**GRANT, **letter})
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


def runner(state: Path, capfd: pytest.CaptureFixture[str]) -> Run:
    """Runs ``anchorhold audit …``."""

    def run(*arguments: str) -> Answer:
        code = main(["--state-dir", str(state), "audit", *arguments])
        out, err = capfd.readouterr()
        return code, out, err

    return run
