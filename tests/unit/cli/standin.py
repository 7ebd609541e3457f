"""A session that does what a script says, for what the real one cannot produce at will.

Hostile token text, breaches, kills in the middle of a token: a test writes the steps as JSON, this plays
them to the real command line, which cannot tell the difference, and records what was done to the session.

Run as a program, it is the `anchorhold` command with this session in the place of the real one:
``python standin.py SCRIPT RECORD arguments…``.
"""

from __future__ import annotations

import fcntl
import json
import os
import sys
import threading
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anchorhold.errors
from anchorhold.supervisor import events, session

SESSION_ID = "7f3a" + "0123456789ab" * 2 + "cdef"


class Player:
    """What `Session` promises, played from steps. `record` gets one line for each thing done to it."""

    steps: list[list[Any]] = []
    record: Callable[[str], None] = staticmethod(lambda line: None)

    def __init__(self, policy: object, log: object, *, state_dir: Path, suffixes: Any = ()) -> None:
        self.policy = policy
        self.killed = threading.Event()
        self.shown: list[tuple[str, str, int]] = []
        self.refused: list[tuple[str, str, int]] = []
        self.left_out = 0
        self.record(f"suffixes {' '.join(suffixes)}")

    def start(self) -> None:
        self.record("start")
        for kind, *values in self.steps:
            if kind == "start-raises":
                raise getattr(anchorhold.errors, values[0])(*values[1:2], hint="what to do")
            if kind == "start-sleeps":
                self.killed.wait(values[0])

    def ask(self, request: Any) -> Iterator[object]:
        self.record("ask " + json.dumps([request.question, request.material, list(request.history)]))
        for kind, *values in self.steps:
            yield from self._step(kind, values)

    def _step(self, kind: str, values: list[Any]) -> Iterator[object]:
        if kind == "token":
            yield events.Token(values[0])
        elif kind == "tokens":
            for _ in range(values[1]):
                yield events.Token(values[0])
        elif kind == "document":
            yield events.Document(*values)
        elif kind == "unused":
            yield events.Unused(*values)
        elif kind == "progress":
            yield events.Progress(*values)
        elif kind == "phase":
            yield events.Phase(*values)
        elif kind == "shown":
            self.shown.append((values[0], values[1], values[2]))
        elif kind == "refused":
            self.refused.append((values[0], values[1], values[2]))
        elif kind == "left-out":
            self.left_out = values[0]
        elif kind == "sleep":
            self.record("asleep")
            if self.killed.wait(values[0]):
                raise anchorhold.errors.KilledError("killed")
        elif kind == "raise":
            error = getattr(anchorhold.errors, values[0], None) or getattr(__import__("builtins"), values[0])
            raise error(*values[1:])
        elif kind == "done":
            yield events.Done(values[0], 11, 7, 0.5, 0.25, values[1] if len(values) > 1 else [])

    def kill(self, reason: str) -> None:
        self.record(f"kill {reason}")
        self.killed.set()

    @property
    def summary(self) -> Any:
        return types.SimpleNamespace(
            session=SESSION_ID,
            shown=self.shown,
            listed=[],
            refused_total=sum(times for _path, _why, times in self.refused),
            refused=self.refused,
            layers={"seccomp": "held"},
            missing={"cgroup": "none here"},
            hidden=0,
            left_out=self.left_out,
            phase="sealed",
        )

    def close(self, reason: str = "done") -> None:
        self.record(f"close {reason}")
        for kind, *values in self.steps:
            if kind == "close-sleeps":
                threading.Event().wait(values[0])


def main() -> int:
    script, record, *arguments = sys.argv[1:]
    Player.steps = json.loads(Path(script).read_text())
    low = os.open(record, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    fd = fcntl.fcntl(low, fcntl.F_DUPFD_CLOEXEC, 100)  # out of the way of descriptors that a test closed
    os.close(low)

    def write_record(line: str) -> None:
        os.write(fd, line.encode() + b"\n")

    Player.record = staticmethod(write_record)
    vars(session)["Session"] = Player
    from anchorhold.cli.main import main

    return main(arguments)


if __name__ == "__main__":
    sys.exit(main())
