"""A worker that gives no sign of life: real ones, stopped from outside or busy."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from anchorhold.audit.log import Log
from anchorhold.errors import BreachError
from anchorhold.policy.schema import Breach, Limits
from anchorhold.supervisor import events
from anchorhold.supervisor.session import Request, Session
from tests.integration import cells
from tests.support import session_entries


@contextlib.contextmanager
def worker(state: Path, model: Path, answer: str) -> Iterator[Session]:
    """A real one with its model loaded, that must answer within a second."""
    rules = cells.policy(model, limits=Limits(heartbeat=1.0))
    log = Log.open(state)
    session = Session(replace(rules, breach=Breach(on_missing_heartbeat=answer)), log, state_dir=state)
    try:
        session.start()
        session.wait_loaded()
        yield session
    finally:
        session.close()
        log.close()


def kinds(state: Path, call: str) -> list[str]:
    found: list[dict[str, Any]] = session_entries(state)
    return [str(entry["kind"]) for entry in found if entry.get("call") == call]


def test_one_that_is_stopped_is_killed(state_dir: Path, demo_model: Path) -> None:
    with worker(state_dir, demo_model, "kill") as session:
        os.kill(session.worker_pid, signal.SIGSTOP)
        started = time.monotonic()
        assert session.wait_ended(10.0)
        assert 1.0 <= time.monotonic() - started < 5.0
        assert isinstance(session.error, BreachError) and "sign of life" in str(session.error)
    assert kinds(state_dir, "heartbeat") == ["denial", "breach"]


def test_where_the_policy_only_denies_it_is_on_record_and_goes_on(state_dir: Path, demo_model: Path) -> None:
    with worker(state_dir, demo_model, "deny") as session:
        os.kill(session.worker_pid, signal.SIGSTOP)
        time.sleep(3.0)
        os.kill(session.worker_pid, signal.SIGCONT)
        told = [type(event) for event in session.ask(Request("Say a word.", max_tokens=4))]
        assert events.Done in told and session.error is None
    assert set(kinds(state_dir, "heartbeat")) == {"denial"}


def test_one_that_calculates_answers_all_the_same(state_dir: Path, demo_model: Path) -> None:
    with worker(state_dir, demo_model, "kill") as session:
        started = time.monotonic()
        while time.monotonic() - started < 3.0:
            assert any(
                isinstance(event, events.Done) for event in session.ask(Request("x " * 900, max_tokens=40))
            )
        assert session.error is None
    assert kinds(state_dir, "heartbeat") == []
