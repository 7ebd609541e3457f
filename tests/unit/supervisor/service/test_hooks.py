"""The fixed programs that are run after a breach."""

from __future__ import annotations

import json
import time
from pathlib import Path

from anchorhold.supervisor.service import hooks


def wait_for(path: Path) -> str:
    deadline = time.monotonic() + 10
    while not path.exists() or not path.read_text().endswith("\n"):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return path.read_text()


def script(tmp_path: Path, text: str) -> str:
    path = tmp_path / "hook"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_the_facts_come_on_standard_input_and_nowhere_else(tmp_path: Path) -> None:
    out = tmp_path / "out"
    program = script(tmp_path, f'{{ cat; echo "args: $*"; env | sort; }} >{out}.new; mv {out}.new {out}')
    facts: dict[str, object] = {"what": "breach", "error": "$(touch /tmp/x); `id` \x1b[31m"}
    hooks.run((program, "one", "two words"), facts, lambda line: None)
    said = wait_for(out)
    assert json.loads(said.splitlines()[0]) == facts
    assert "args: one two words" in said and "breach" not in said.split("args:")[1]


def test_what_goes_wrong_is_said(tmp_path: Path) -> None:
    said: list[str] = []
    hooks.run(("/no/such/program",), {}, said.append)
    hooks.run((script(tmp_path, "exit 3"),), {}, said.append)
    deadline = time.monotonic() + 10
    while len(said) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert any("could not be run" in line for line in said) and any("ended with 3" in line for line in said)


def test_nothing_is_waited_for(tmp_path: Path) -> None:
    before = time.monotonic()
    hooks.run((script(tmp_path, "sleep 1"),), {}, lambda line: None)
    assert time.monotonic() - before < 0.5


def test_none() -> None:
    hooks.run((), {}, lambda line: None)
