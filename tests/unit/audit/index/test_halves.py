"""An index that two processes make is the one that a single process makes."""

from __future__ import annotations

import os
import sqlite3
import threading
from pathlib import Path
from typing import Any

import pytest

from anchorhold.audit.index import halves
from anchorhold.audit.index.build import rebuild
from anchorhold.audit.index.filters import Filter, scan
from anchorhold.audit.index.find import find
from anchorhold.audit.index.schema import NAME
from anchorhold.audit.index.writer import Writer
from anchorhold.audit.log import Log
from anchorhold.audit.read import Bundle, Snapshot, log_folder

SESSIONS = [f"{number:016x}" for number in range(1, 8)]


@pytest.fixture
def long_log(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two epochs; seven sessions that go on in both halves; paths of both and of one; what no row is for."""
    log = Log.open(state_dir)
    for number in range(1200):
        if number % 160 == 0:
            run = number // 160
            model = {"sha256": f"{run % 3:02x}" * 32, "size": 1}
            fields: dict[str, object] = {"model": model, "model_path": f"/m/{run % 2}"}
            log.append("session.start", SESSIONS[run % 7], fields)
        path = f"/home/somebody/{number}.txt" if number % 5 else "/home/somebody/again.txt"
        given = {"class": "data", "size": number, "mode": "snapshot", "phase": "sealed", "path": path}
        log.append("grant", SESSIONS[number % 7], {**given, "resolved": path, "sha256": f"{number:064x}"})
        if number % 100 == 0:
            log.append("denial", SESSIONS[number % 7], {"path": "/etc/shadow", "count": number})
            log.append("limit", SESSIONS[0], {"path": "/a\0b"})  # no row can stand for it
        if number == 500:
            log.checkpoint(rotate=True)
    log.checkpoint()
    log.close()
    monkeypatch.setattr(halves, "ENOUGH", 1000)
    monkeypatch.setattr(halves, "_is_alone", lambda: True)
    return state_dir


def same(state: Path) -> None:
    told: list[str] = []
    asked: tuple[dict[str, Any], ...] = (
        {}, {"session": SESSIONS[3]}, {"path": "*again.txt"}, {"path": "/home/somebody/1199.txt"},
        {"model": "/m/1"}, {"digest": f"{7:064x}"}, {"refused": True}, {"kinds": ("limit",)}, {"cls": "data"},
    )  # fmt: skip
    for wanted in asked:
        whole = list(scan(state, Filter(**wanted)))
        assert whole, wanted
        assert list(find(state, Filter(**wanted), note=told.append)) == whole
    assert told == []
    assert [name for name in os.listdir(state) if name.startswith(NAME)] == [NAME]


def test_it_says_the_same(long_log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    joined: list[bool] = []
    real = halves.SecondHalf.join

    def join(half: halves.SecondHalf, base: sqlite3.Connection, shift: int) -> bool:
        joined.append(real(half, base, shift))
        return joined[-1]

    monkeypatch.setattr(halves.SecondHalf, "join", join)
    rebuild(long_log)
    assert joined == [True]
    same(long_log)


@pytest.mark.parametrize("moment", ["at once", "in the middle"])
def test_what_the_other_process_does_not_finish_is_done_here(
    long_log: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    real = Writer.add
    ours = os.getpid()

    def add(writer: Writer, bundle: Bundle) -> None:
        if os.getpid() != ours:
            if moment == "in the middle":
                real(writer, bundle)
                writer.flush()
            os.kill(os.getpid(), 9)
        real(writer, bundle)

    monkeypatch.setattr(Writer, "add", add)
    rebuild(long_log)
    same(long_log)


def test_the_second_half_begins_with_a_bundle(long_log: Path) -> None:
    snapshot = Snapshot(log_folder(long_log))
    first = halves.middle(snapshot)
    assert 0 < first < snapshot.total
    assert first in [bundle.first for bundle in snapshot.bundles()]


def test_a_process_of_several_threads_does_not_fork(long_log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(halves, "ENOUGH", 1000)
    snapshot, go_on = Snapshot(log_folder(long_log)), threading.Event()
    other = threading.Thread(target=go_on.wait)
    other.start()
    try:
        assert halves.middle(snapshot) == snapshot.total
    finally:
        go_on.set()
        other.join()
