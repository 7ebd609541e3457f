"""A redaction or pruning takes the index away while it is asked: the answer is right, nothing is damaged."""

from __future__ import annotations

import os
import sqlite3
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from anchorhold.audit import redact
from anchorhold.audit.index import find as finding
from anchorhold.audit.index.build import rebuild
from anchorhold.audit.index.filters import Filter, scan
from anchorhold.audit.index.find import find
from anchorhold.audit.index.rows import Rows
from anchorhold.audit.index.schema import open_to_read, path_of
from tests.unit.audit.logs import filled


@pytest.fixture
def indexed(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(finding, "FEW", 0)
    filled(state_dir, 3000).close()
    rebuild(state_dir)
    return state_dir


def shred(state: Path) -> None:
    """What `redact` does to the index."""
    redact._shred(path_of(state))


def numbers(found: Any) -> list[int]:
    return [entry["seq"] for entry in found]


@pytest.mark.parametrize("given", [1, 5, 700, 2999])
@pytest.mark.parametrize("anew", [False, True])
def test_between_two_entries(indexed: Path, given: int, anew: bool) -> None:
    notes: list[str] = []
    found = find(indexed, Filter(kinds=("grant",)), note=notes.append)
    wanted = numbers(scan(indexed, Filter(kinds=("grant",))))
    first = numbers(islice(found, given))
    shred(indexed)
    if anew:
        rebuild(indexed)
    assert first + numbers(found) == wanted
    assert notes == [] and os.path.exists(path_of(indexed)) == anew


@pytest.mark.parametrize("last", [None, 400])
def test_while_rows_are_read(indexed: Path, last: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest of a page that SQLite has taken apart already is zeros, and it does not notice."""
    wanted = numbers(scan(indexed, Filter()))[-(last or 0) :]
    entry, read = Rows._entry, 0

    def slowly(self: Rows, row: Any) -> Any:
        nonlocal read
        read += 1
        if read == 30:
            shred(indexed)
        return entry(self, row)

    monkeypatch.setattr(Rows, "_entry", slowly)
    notes: list[str] = []
    assert numbers(find(indexed, Filter(), last=last, note=notes.append)) == wanted
    assert read >= 30 and notes == []


def test_while_it_is_opened(indexed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = numbers(scan(indexed, Filter()))
    opened = open_to_read
    shredded: list[str] = []

    def slowly(path: str) -> sqlite3.Connection:
        base = opened(path)
        if not shredded:
            shredded.append(path)
            shred(indexed)
        return base

    monkeypatch.setattr(finding, "open_to_read", slowly)
    notes: list[str] = []
    assert numbers(find(indexed, Filter(), note=notes.append)) == wanted
    assert shredded and notes == []


def test_real_damage_is_still_told(indexed: Path) -> None:
    status = os.stat(path_of(indexed))
    with open(path_of(indexed), "r+b") as file:
        file.seek(16_384)
        file.write(bytes(status.st_size - 16_384))
    os.utime(path_of(indexed), ns=(status.st_atime_ns, status.st_mtime_ns))
    notes: list[str] = []
    assert numbers(find(indexed, Filter(), note=notes.append)) == numbers(scan(indexed, Filter()))
    assert len(notes) == 1 and "damaged" in notes[0]
