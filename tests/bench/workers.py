"""The two sides of a pair that answers: the worker in its cell, and the same worker as a plain process."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from anchorhold.audit.log import Log
from anchorhold.channel import frames, messages
from anchorhold.policy.schema import DataPolicy, Limits, ModelPolicy, Policy
from anchorhold.supervisor import events
from anchorhold.supervisor.session import Request, Session
from tests.bench.measure import SEED, environment

CONTEXT = 4096


def processors() -> int:
    import os

    return len(os.sched_getaffinity(0))


def ask_message(
    question: str, *, files: Sequence[Path] = (), roots: Sequence[Path] = (), max_tokens: int, number: int = 1
) -> messages.Message:
    return {
        "type": "ask",
        "id": number,
        "owner": 0,
        "question": question,
        "files": [str(path) for path in files],
        "roots": [str(path) for path in roots],
        "max_tokens": max_tokens,
        "temperature": 0.0,
        "seed": SEED,
        "system": None,
        "history": [],
        "material": None,
    }


class Plain:
    """The plain process and the two ends of its channel."""

    def __init__(self, model: Path, suffixes: Sequence[str]) -> None:
        self.started = time.perf_counter()
        self.process = subprocess.Popen(
            [
                sys.executable,
                str(Path(__file__).with_name("plain.py")),
                json.dumps({"suffixes": list(suffixes)}),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment(),
        )
        assert self.process.stdin is not None and self.process.stdout is not None
        self._to, self._from = self.process.stdin.fileno(), self.process.stdout.fileno()
        self.send({"type": "load", "path": str(model), "context": CONTEXT, "threads": processors()})

    def send(self, message: messages.Message) -> None:
        frames.write_frame(self._to, messages.encode(message))

    def until(self, kind: str) -> messages.Message:
        """The next message of this kind. Raises RuntimeError when it fails instead."""
        while (data := frames.read_frame(self._from)) is not None:
            message = messages.decode_from_worker(data)
            if message["type"] == kind:
                return message
            if message["type"] == "failed":
                raise RuntimeError(message["message"])
        raise RuntimeError("the plain script ended")

    def close(self) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(timeout=30)
        self.process.stdout.close()


class Caged:
    """The worker in its cell, with nothing but the supervisor's session around it."""

    def __init__(
        self,
        state: Path,
        model: Path,
        *,
        read: Sequence[Path] = (),
        files: Sequence[Path] = (),
        source: str | None = None,
    ) -> None:
        """source: run this module in place of the engine (see anchorhold.worker.probe)."""
        state.mkdir(parents=True, exist_ok=True)
        rules = Policy(
            name="bench",
            model=ModelPolicy(str(model)),
            data=DataPolicy(read=tuple(map(str, read)), files=tuple(map(str, files))),
            limits=Limits(),
        )
        self.log = Log.open(state)
        if source is None:
            self.session = Session(rules, self.log, state_dir=state, suffixes=[".txt"])
        else:
            self.session = Session(
                rules, self.log, state_dir=state, entry="anchorhold.worker.probe", config={"source": source}
            )
        self.session.start()

    def ask(self, question: str, *, max_tokens: int = 16) -> tuple[str, events.Done]:
        text, done = "", None
        for event in self.session.ask(Request(question, max_tokens=max_tokens, seed=SEED)):
            if isinstance(event, events.Token):
                text += event.text
            elif isinstance(event, events.Done):
                done = event
        assert done is not None
        return text, done

    def close(self) -> None:
        self.session.close()
        self.log.close()
