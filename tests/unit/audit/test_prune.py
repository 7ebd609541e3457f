"""Pruning: whole epochs go, the chain of keys stays."""

from __future__ import annotations

import importlib
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from anchorhold.audit import prune
from anchorhold.audit.index import build
from anchorhold.audit.index.filters import Filter
from anchorhold.audit.index.find import find
from anchorhold.audit.index.schema import Unusable
from anchorhold.audit.log import Log
from anchorhold.audit.query import entries, log_size
from anchorhold.audit.read import Snapshot, read_bundle
from anchorhold.audit.sessions import of_session
from anchorhold.errors import AuditError
from anchorhold.verify.check import verify
from tests.unit.audit.logs import all_bytes, good, session


def chain(state: Path) -> list[str]:
    """Four epochs; the time of the last entry of each."""
    log = Log.open(state)
    times = []
    for number in range(4):
        session(log, f"{number:016x}", 20, end=number != 1)
        log.checkpoint(rotate=number < 3)
        times.append([entry["time"] for entry in entries(state)][-1])
    log.append("session.end", f"{1:016x}", {})  # a session that began in an epoch that will be pruned
    log.checkpoint()
    log.close()
    return times


def test_the_oldest_epochs_go_and_the_rest_verifies(state_dir: Path) -> None:
    times = chain(state_dir)
    vkey = (state_dir / "log/vkey").read_text().strip()
    size = log_size(state_dir)
    assert [one.epoch.number for one in prune.old_epochs(state_dir, times[0])] == [0]
    gone = prune.prune(state_dir, "2999", reason="a year is over", by="test")
    assert [one.epoch.number for one in gone] == [0, 1, 2]
    for number in range(3):
        left = sorted(path.name for path in (state_dir / f"log/{number}").iterdir())
        assert left == ["checkpoint", "end", "vkey"]
    result = good(state_dir)
    assert result.pruned == 3 and result.size == size + 1 and verify(str(state_dir), vkey=vkey).ok
    last = list(entries(state_dir))[-1]
    assert (last["kind"], last["epochs"], last["reason"]) == ("prune", [0, 2], "a year is over")
    assert f"{0:016x}".encode() not in all_bytes(state_dir / "log")
    log = Log.open(state_dir)
    session(log, f"{9:016x}")
    log.checkpoint(rotate=True)
    log.close()
    good(state_dir)


def test_what_was_pruned_is_said_and_not_called_sound(state_dir: Path) -> None:
    """By the key of a later epoch too, with which nothing before it is looked at."""
    chain(state_dir)
    later = (state_dir / "log/3/vkey").read_text().strip()
    prune.prune(state_dir, "2999", reason="r", by="b")
    first = next(iter(entries(state_dir)))["seq"]
    text = good(state_dir).text()
    assert f"pruned   3 epochs; of entries before {first} only signed heads are left" in text
    bundle = next((state_dir / "log/3/tile/entries/000.p").iterdir())
    bundle.write_bytes(bundle.read_bytes().replace(b'"size":12345', b'"size":12346', 1))
    for vkey in (None, later):
        result = verify(str(state_dir), vkey=vkey)
        assert result.proven and result.first_bad is not None and result.first_bad.seq is not None
        assert f"sound    {result.first_bad.seq - first} entries before the first bad one" in result.text()


@pytest.mark.parametrize(
    ("member", "problem"),
    [
        ('"size":', "does not name the head"),
        ('"root":"', "does not name the head"),
        ('"mono":', "hash differs"),
    ],
)
def test_a_changed_first_entry_leaves_the_rest_sound(state_dir: Path, member: str, problem: str) -> None:
    """Whichever byte of it: also where it says how the pruned epoch ended."""
    chain(state_dir)
    prune.prune(state_dir, "2999", reason="r", by="b")
    first = next(iter(entries(state_dir)))["seq"]
    bundle = next((state_dir / "log/3/tile/entries/000.p").iterdir())
    data = bundle.read_bytes()
    at = data.index(member.encode()) + len(member)
    bundle.write_bytes(data[:at] + (b"1" if data[at : at + 1] != b"1" else b"2") + data[at + 1 :])
    result = verify(str(state_dir))
    assert result.first_bad is not None and result.first_bad.seq == first
    assert {one.seq for one in result.findings} == {first} and problem in result.text()
    sound = f"sound    0 entries before the first bad one, {result.size - first - 1} after it"
    assert result.proven and sound in result.text()


def test_nothing_old_is_nothing_done(state_dir: Path) -> None:
    chain(state_dir)
    before = list(entries(state_dir))
    assert prune.prune(state_dir, "2000", reason="r", by="b") == []
    assert list(entries(state_dir)) == before


def test_a_forged_end_is_found(state_dir: Path) -> None:
    chain(state_dir)
    prune.prune(state_dir, "2999", reason="r", by="b")
    for number in range(3):
        path = state_dir / f"log/{number}/end"
        data = path.read_bytes()
        for at in range(0, len(data), 7):
            path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
            assert not verify(str(state_dir)).ok, (number, at)
        path.write_bytes(data)
    good(state_dir)


def pruning_at(monkeypatch: pytest.MonkeyPatch, state: Path, place: str, name: str, at: int) -> list[int]:
    """Prune all that is old just before the ``at``-th call of a function by whoever reads."""
    real, calls = getattr(importlib.import_module(place), name), [0]

    def call(*arguments: Any) -> Any:
        calls[0] += 1
        if calls[0] == at:
            prune.prune(state, "2999", reason="r", by="b")
        return real(*arguments)

    monkeypatch.setattr(f"{place}.{name}", call)
    return calls


@pytest.mark.parametrize("name", ["read_raw", "read_openings"])
@pytest.mark.parametrize("at", [1, 2, 3])
def test_a_reader_goes_on_where_it_is_pruned_meanwhile(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch, name: str, at: int
) -> None:
    """It is no damage: what was not read yet is left out, and no name that is there looks redacted."""
    chain(state_dir)
    before = list(entries(state_dir))
    pruning_at(monkeypatch, state_dir, "anchorhold.audit.read", name, at)
    found = list(entries(state_dir))
    assert found and all(entry in before for entry in found)
    assert [entry["seq"] for entry in found[-20:]] == [entry["seq"] for entry in before[-20:]]
    assert not any("redacted" in entry for entry in found)


def test_one_entry_a_session_and_the_plan_where_it_is_pruned_meanwhile(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain(state_dir)
    log = str(state_dir / "log")
    snapshot, old = Snapshot(log), Snapshot(log)
    assert len(snapshot.epochs) == len(old.epochs) == 4
    prune.prune(state_dir, "2999", reason="r", by="b")
    assert snapshot.one(0) is None
    assert [one.fields["n"] for one in of_session(snapshot, f"{1:016x}")] == [25]
    assert of_session(snapshot, f"{0:016x}") == []
    assert prune._old(old, "2999") == []
    with pytest.raises(AuditError, match="is being pruned"):
        read_bundle(snapshot.epochs[0], 0)
    shutil.rmtree(state_dir / "log/3/tile")  # but what is missing is told
    with pytest.raises(AuditError, match="cannot be read"):
        read_bundle(snapshot.epochs[3], 0)


@pytest.mark.parametrize("name", ["seal_time", "fsync_path", "seal"])
def test_an_index_is_made_again_where_it_is_pruned_meanwhile(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    chain(state_dir)
    with monkeypatch.context() as patch:
        calls = pruning_at(patch, state_dir, "anchorhold.audit.index.build", name, 1)
        size = build.update(state_dir)
    assert size == log_size(state_dir) and calls[0] > 1
    (first,) = find(state_dir, Filter(), limit=1)
    assert first["kind"] == "epoch.start" and first["epoch"] == 3


@pytest.mark.parametrize("name", ["is_sealed", "seal"])
def test_an_index_that_is_pruned_while_it_grows(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    chain(state_dir)
    build.update(state_dir)
    with monkeypatch.context() as patch:
        pruning_at(patch, state_dir, "anchorhold.audit.index.build", name, 1)
        assert build.update(state_dir) == log_size(state_dir)
    assert next(find(state_dir, Filter()))["epoch"] == 3


def test_an_index_that_is_taken_away_each_time(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chain(state_dir)
    monkeypatch.setattr("anchorhold.audit.index.build.seal", lambda path, _: os.unlink(path))
    with pytest.raises(Unusable, match="pruned just now"):
        build.update(state_dir)
    assert len(list(find(state_dir, Filter()))) == log_size(state_dir)


def test_an_index_of_a_log_that_is_gone(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not taken for a pruning."""
    chain(state_dir)
    build.update(state_dir)

    def gone(*_: object) -> None:
        raise FileNotFoundError(2, "gone", "log")

    monkeypatch.setattr("anchorhold.audit.index.build.Snapshot", gone)
    for make in (build.update, build.rebuild):
        with pytest.raises(FileNotFoundError):
            make(state_dir)
