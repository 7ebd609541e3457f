"""A name is forgotten while the model runs that was shown the file: it goes on, and no byte of it is left."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from anchorhold.audit.log import Log
from anchorhold.audit.query import entries
from anchorhold.supervisor import events
from anchorhold.supervisor.session import Request, Session
from tests.integration import cells
from tests.support import TOP
from tests.unit.audit.logs import all_bytes, good

SECRET = "letter-to-the-judge.txt"
SOURCE = """
import os
def attempt():
    fd = os.open(QUESTION, os.O_RDONLY)
    try:
        return os.read(fd, 1000).decode()
    finally:
        os.close(fd)
"""


def asked(session: Session, path: Path) -> str:
    found = session.ask(Request(str(path)))
    return "".join(event.text for event in found if isinstance(event, events.Token))


def redact(state: Path, pattern: str) -> None:
    command = [sys.executable, "-m", "anchorhold", "--state-dir", str(state), "audit", "redact", "--yes"]
    done = subprocess.run(
        [*command, "--path", pattern, "--reason", "asked to"],
        env={**os.environ, "PYTHONPATH": str(TOP / "daemon")},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0 and "redacted" in done.stdout, done.stderr


def test_a_name_is_forgotten_while_the_model_runs(tmp_path: Path, state_dir: Path, demo_model: Path) -> None:
    papers = tmp_path / "papers"
    papers.mkdir()
    (papers / SECRET).write_text("the judge is kind")
    (papers / "other.txt").write_text("something else")
    log = Log.open(state_dir)
    rules = cells.policy(demo_model, read=(papers,))
    config: dict[str, object] = {"source": SOURCE}
    session = Session(rules, log, state_dir=state_dir, entry=cells.PROBE, config=config)
    try:
        session.start()
        assert asked(session, papers / SECRET) == "the judge is kind"
        assert SECRET.encode() in all_bytes(state_dir)
        redact(state_dir, f"**/{SECRET}")
        assert SECRET.encode() not in all_bytes(state_dir)
        assert asked(session, papers / "other.txt") == "something else"
        assert (
            asked(session, papers / SECRET) == "the judge is kind"
        )  # and is named again, since it was shown again
    finally:
        session.close()
        log.close()
    assert SECRET.encode() in all_bytes(state_dir)
    redact(state_dir, f"**/{SECRET}")
    assert SECRET.encode() not in all_bytes(state_dir)
    shown = [entry for entry in entries(state_dir) if entry["kind"] == "grant" and entry["class"] == "data"]
    assert [entry.get("path") for entry in shown] == [None, str(papers / "other.txt"), None]
    good(state_dir)
