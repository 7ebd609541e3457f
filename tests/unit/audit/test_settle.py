"""Settling: what journals hold is taken in order of time, whole, once, whoever wrote how much."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anchorhold.audit import journal
from anchorhold.audit.log import Log
from anchorhold.audit.state import State
from anchorhold.errors import AuditError
from tests.unit.audit.logs import filled, good, records


def in_chunks(patch: pytest.MonkeyPatch, limit: int) -> None:
    """Read so many bytes of each journal at a time, as if they held millions of events."""
    read = journal.read
    patch.setattr(journal, "read", lambda *args, **options: read(*args, **{"limit": limit, **options}))


def told(state: Path) -> list[Any]:
    return [entry["number"] for entry in records(state) if "number" in entry]


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 8)), min_size=1, max_size=25),
    st.sets(st.integers(0, 3)),
    st.integers(400, 3000),
)
def test_any_writers_in_any_pieces_are_taken_in_order(
    tmp_path_factory: pytest.TempPathFactory, runs: list[tuple[int, int]], dead: set[int], limit: int
) -> None:
    state = tmp_path_factory.mktemp("settle") / "state"
    logs = [Log.open(state) for _ in range(4)]
    count = 0
    for writer, events in runs:
        for _ in range(events):
            logs[writer].append("policy.load", "", {"number": count, "path": f"/home/a/{count}"})
            count += 1
    for writer in dead:
        logs[writer].close()
    with pytest.MonkeyPatch.context() as patch:
        in_chunks(patch, limit)
        reader = Log.open(state)
        reader.checkpoint()
    assert told(state) == list(range(count))
    assert len(list((state / "log/journal").iterdir())) == len(
        {writer for writer, _ in runs} - dead  # those that live keep theirs
    )
    for log in (*logs, reader):
        log.close()
    Log.open(state).close()
    assert list((state / "log/journal").iterdir()) == [] and told(state) == list(range(count))
    good(state)


def test_a_torn_end_waits_for_what_is_earlier(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read in pieces, with much in another journal: the torn bytes are set aside once, and told once."""
    filled(state_dir, 2).close()
    one, two = Log.open(state_dir), Log.open(state_dir)
    for number in range(60):
        (one if number < 50 else two).append("policy.load", "", {"number": number})
    for path in (state_dir / "log/journal").iterdir():
        with path.open("ab") as file:
            file.write(b"\1\0\0\0\7torn")
    one.close()
    two.close()
    in_chunks(monkeypatch, 700)
    Log.open(state_dir).close()
    found = records(state_dir)
    assert told(state_dir)[1:] == list(range(60))
    assert [entry["bytes"] for entry in found if entry["kind"] == "log.recovered"] == [9, 9]
    good(state_dir)


def test_a_partial_checkpoint_costs_few_syncs(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What settling costs is its fsyncs. Upper tiles that did not change are left alone."""
    log = filled(state_dir, 600)
    log.append("policy.load", "", {})
    count = 0
    real = os.fsync

    def counting(fd: int) -> None:
        nonlocal count
        count += 1
        real(fd)

    before = (state_dir / "log/0/tile/1/000.p/2").stat().st_ino
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", counting)
        log.checkpoint()
    log.close()
    assert count <= 17, count
    assert (state_dir / "log/0/tile/1/000.p/2").stat().st_ino == before
    good(state_dir)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        bytes(150),
        b"[]",
        b"null",
        b'{"v":2}',
        b"[" * 100_000,
        b'{"v":2,"epoch":0,"first":0,"size":1,"signed":1,"ended":false,"journals":{}}',
    ],
)
def test_a_state_that_is_none_is_refused(content: bytes) -> None:
    with pytest.raises(AuditError, match="not what was written") as raised:
        State.parse(content, "/log")
    assert raised.value.hint


@pytest.mark.parametrize(
    "change",
    [{"epoch": -1}, {"size": True}, {"size": 1.0}, {"signed": "1"}, {"ended": 0}, {"journals": {"../x": 1}},
     {"journals": {"0" * 16: -1}}, {"journals": []}],
)  # fmt: skip
def test_a_state_of_wrong_parts_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    state = State(0, 0, 1, signed=1)
    state.save(str(tmp_path))
    assert State.load(str(tmp_path)) is not None
    for name, value in change.items():
        setattr(state, name, value)
    state.save(str(tmp_path))  # with a sum that fits
    with pytest.raises(AuditError, match="not what was written"):
        State.load(str(tmp_path))
