"""Runs a piece of Python in a real cell: what the integration tests attack with."""

from __future__ import annotations

import textwrap
from pathlib import Path

from anchorhold.audit.log import Log
from anchorhold.audit.query import entries
from anchorhold.policy.schema import Breach, DataPolicy, Limits, ModelPolicy, Policy
from anchorhold.supervisor import events
from anchorhold.supervisor.session import Request, Session
from anchorhold.supervisor.summary import Summary

PROBE = "anchorhold.worker.probe"


def policy(
    model: Path,
    *,
    read: tuple[Path, ...] = (),
    files: tuple[Path, ...] = (),
    kill: bool = False,
    require: tuple[str, ...] = ("seccomp", "landlock"),
    limits: Limits | None = None,
    **data: object,
) -> Policy:
    """A policy over these folders; ``kill`` false: what is refused is answered, so all of it can be tried."""
    answer = "kill" if kill else "deny"
    return Policy(
        name="test",
        model=ModelPolicy(str(model)),
        data=DataPolicy(read=tuple(map(str, read)), files=tuple(map(str, files)), **data),  # type: ignore[arg-type]  # passed through
        breach=Breach(answer, answer, answer),
        limits=limits or Limits(),
        require=require,
    )


class Outcome:
    """What a probe returned, and what the supervisor knows of it."""

    def __init__(
        self, answer: str, summary: Summary, log: list[dict[str, object]], seen: list[events.Event]
    ) -> None:
        self.answer = answer
        self.summary = summary
        self.log = log
        self.events = seen

    def denials(self) -> list[dict[str, object]]:
        return [entry for entry in self.log if entry["kind"] == "denial"]


def run(state: Path, rules: Policy, source: str, *, question: str = "go") -> Outcome:
    """Boot the source in a cell, seal, ask once, end. Raises what the session raises."""
    log = Log.open(state)
    session = Session(rules, log, state_dir=state, entry=PROBE, config={"source": textwrap.dedent(source)})
    seen: list[events.Event] = []
    try:
        session.start()
        for event in session.ask(Request(question)):
            seen.append(event)
    finally:
        session.close()
        log.close()
    answer = "".join(event.text for event in seen if isinstance(event, events.Token))
    return Outcome(answer, session.summary, list(entries(state, session=session.recorder.session)), seen)
