"""Sessions whose launcher is a program of the test, or whose worker runs lines of the test in a real cell."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from anchorhold.audit.log import Log
from anchorhold.audit.query import entries
from anchorhold.policy.schema import Audit, DataPolicy, ModelPolicy, Policy
from anchorhold.supervisor import spawn
from anchorhold.supervisor.session import Session
from anchorhold.verify.check import verify

PROBE = "anchorhold.worker.probe"
START = """
import os, socket, signal, sys, time
while os.read(3, 65536): pass
setup = socket.socket(fileno=4)
"""
SPEAK = """
import os
from anchorhold.channel import frames, messages
def say(**message): frames.write_frame(6, messages.encode(message))
def attempt():
"""


class Stage:
    """Sessions in one state directory; all of them are closed at the end."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.monkeypatch = folder, monkeypatch
        self.state = folder / "state"
        self.model = folder / "model.gguf"
        self.model.write_bytes(b"no model")
        self.opened: list[tuple[Session, Log]] = []

    def session(
        self,
        source: str = "",
        *,
        prompts: str = "none",
        read: tuple[str, ...] = (),
        require: tuple[str, ...] = (),
    ) -> Session:
        rules = Policy(
            "test",
            ModelPolicy(str(self.model)),
            data=DataPolicy(read=read),
            audit=Audit(prompts=prompts),
            require=require,
        )
        log = Log.open(self.state)
        made = Session(rules, log, state_dir=self.state, entry=PROBE, config={"source": source})
        self.opened.append((made, log))
        return made

    def serving(self, lines: str, **options: Any) -> Session:
        """A sealed worker with these lines as the body of ``attempt``."""
        made = self.session(SPEAK + "".join(f"    {line}\n" for line in lines.splitlines()), **options)
        made.start()
        return made

    def launched_by(self, text: str) -> Session:
        """A session whose launcher is this program."""
        program = self.folder / "launcher.py"
        program.write_text(START + text)
        self.monkeypatch.setattr(spawn, "LAUNCHER", str(program))
        return self.session()

    def close(self) -> None:
        for made, log in self.opened:
            made.close()
            made.close()
            log.close()
            assert made._loop is None or not made._loop.is_alive()
        result = verify(str(self.state))
        assert result.ok and result.signed == result.size, result.text()

    def log(self, kind: str) -> list[dict[str, Any]]:
        return list(entries(self.state, kinds=(kind,)))


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    before = set(os.listdir("/proc/self/fd"))
    made = Stage(tmp_path, monkeypatch)
    yield made
    made.close()
    left = set(os.listdir("/proc/self/fd")) - before
    assert len(left) <= 1, "descriptors stay open"  # listdir's own
