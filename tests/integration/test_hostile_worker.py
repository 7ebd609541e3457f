"""A worker that lies on its channel or hoards what it is given."""

from __future__ import annotations

from pathlib import Path

import pytest

from anchorhold.audit.log import Log
from anchorhold.audit.query import entries
from anchorhold.errors import AnchorholdError, BreachError
from anchorhold.supervisor.session import Request, Session
from tests.integration import cells

DONE = """
import json, os
def frame(**message):
    data = json.dumps(message).encode()
    os.write(6, len(data).to_bytes(4, "big") + data)
def done(number):
    frame(type="done", id=number, reason="stop", prompt_tokens=0, output_tokens=0, prompt_seconds=0.0,
          output_seconds=0.0, files=[])
"""


def test_an_answer_to_a_request_that_was_not_made_kills(state_dir: Path, demo_model: Path) -> None:
    source = DONE + "def attempt():\n    done(2)\n"
    with pytest.raises(BreachError, match="request 2"):
        cells.run(state_dir, cells.policy(demo_model), source)


def test_an_answer_that_ends_twice_kills(state_dir: Path, demo_model: Path) -> None:
    source = DONE + "def attempt():\n    done(1)\n    done(1)\n    import time\n    time.sleep(5)\n"
    log = Log.open(state_dir)
    session = Session(
        cells.policy(demo_model), log, state_dir=state_dir, entry=cells.PROBE, config={"source": source}
    )
    try:
        session.start()
        list(session.ask(Request("one")))
        with pytest.raises(AnchorholdError):
            list(session.ask(Request("two")))
    finally:
        session.close()
        log.close()


def test_garbage_on_the_channel_kills(state_dir: Path, demo_model: Path) -> None:
    source = (
        DONE + "def attempt():\n    os.write(6, b'\\0\\0\\0\\4{}{}')\n    import time\n    time.sleep(5)\n"
    )
    with pytest.raises(BreachError, match="protocol") as caught:
        cells.run(state_dir, cells.policy(demo_model), source)
    assert caught.value.exit_code == 3
    (breach,) = [one for one in entries(state_dir) if one["kind"] == "breach"]
    assert breach["call"] == "channel" and "protocol" in breach["reason"]


def test_more_empty_files_than_descriptors_can_be_read_one_by_one(
    state_dir: Path, demo_model: Path, tmp_path: Path
) -> None:
    for number in range(1500):
        (tmp_path / f"{number}.txt").touch()
    source = f"""
    import os
    def attempt():
        folder = {str(tmp_path)!r}
        names = [name for name in os.listdir(folder) if name.endswith(".txt")]
        return str(sum(open(os.path.join(folder, name)).read() == "" for name in names))
    """
    out = cells.run(state_dir, cells.policy(demo_model, read=(tmp_path,)), source)
    assert out.answer == "1500"


def test_copies_that_are_kept_are_bounded(state_dir: Path, demo_model: Path, tmp_path: Path) -> None:
    """A descriptor costs the worker nothing, the copy behind it costs memory: it may not hold any number."""
    from anchorhold.policy.schema import Limits

    for number in range(24):
        with (tmp_path / f"{number}.txt").open("wb") as file:
            file.write(b"%d" % number)
            file.truncate(40 << 20)
    source = f"""
    import os
    def attempt():
        held = 0
        try:
            for number in range(24):
                os.open(f"{tmp_path}/{{number}}.txt", os.O_RDONLY)
                held += 1
        except OSError as error:
            return f"{{held}} {{error.errno}}"
    """
    rules = cells.policy(demo_model, read=(tmp_path,), limits=Limits(memory=800 << 20))
    out = cells.run(state_dir, rules, source)
    held, code = map(int, out.answer.split())
    assert held * (40 << 20) <= 400 << 20 and code == 12
    assert any("holds copies" in str(entry["reason"]) for entry in out.denials())
