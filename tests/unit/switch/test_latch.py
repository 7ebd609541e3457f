"""The latch: on the disk when it is set, there until somebody takes it away, and on a full disk too."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from anchorhold.errors import LatchedError
from anchorhold.policy.values import is_name
from anchorhold.supervisor.switched import check
from anchorhold.switch import kill, latch


@pytest.fixture
def state(state_dir: Path) -> str:
    state_dir.mkdir()
    latch.prepare(str(state_dir))
    return str(state_dir)


def test_one_name_and_all(state: str) -> None:
    assert latch.held(state) == [] and latch.latched(state, "taxes") is None
    latch.latch(state, "taxes")
    latch.latch(state, "taxes")
    assert latch.latched(state, "taxes") == "taxes" and latch.latched(state, "notes") is None
    latch.latch(state, None)
    assert latch.held(state) == [latch.ALL, "taxes"]
    assert latch.latched(state, "notes") == latch.ALL
    assert latch.rearm(state, "taxes") == ["taxes"] and latch.rearm(state, "taxes") == []
    assert latch.latched(state, "taxes") == latch.ALL
    latch.latch(state, "notes")
    assert latch.rearm(state, None) == [latch.ALL, "notes"] and latch.held(state) == []


@pytest.mark.parametrize("name", ["every", "ALL", "every.latched", ".spare", "-", "x" * 64])
def test_no_name_is_taken_for_all(state: str, name: str) -> None:
    latch.latch(state, name)
    assert latch.latched(state, "taxes") is None and latch.latched(state, name) == name
    assert latch.rearm(state, name) == [name]


def test_a_latched_name_does_not_start(state: str) -> None:
    check(state, "taxes")
    latch.latch(state, "taxes")
    with pytest.raises(LatchedError, match="'taxes' was killed and is latched") as raised:
        check(state, "taxes")
    assert raised.value.exit_code == 7 and raised.value.hint.endswith("anchorhold rearm taxes")
    latch.latch(state, None)
    with pytest.raises(LatchedError, match="everything") as raised:
        check(state, "notes")
    assert raised.value.hint.endswith("anchorhold rearm")


def test_a_latch_that_cannot_be_looked_for_holds(state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(path: str) -> os.stat_result:
        raise OSError(errno.EIO, os.strerror(errno.EIO), path)

    monkeypatch.setattr(os, "lstat", failing)
    with pytest.raises(LatchedError, match="cannot be told"):
        check(state, "taxes")


def test_where_no_file_can_be_made_the_spare_is_taken(state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def full(path: Any, flags: int, *rest: Any, **more: Any) -> int:
        if flags & os.O_CREAT:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        return real(path, flags, *rest, **more)

    monkeypatch.setattr(os, "open", full)
    latch.latch(state, "taxes")
    assert latch.held(state) == ["taxes"]
    with pytest.raises(FileNotFoundError):
        latch.latch(state, "notes")  # there was one spare
    monkeypatch.undo()
    latch.prepare(state)
    assert ".spare" in os.listdir(os.path.join(state, "latch"))


@pytest.mark.parametrize(
    "word",
    [
        "a",
        "taxes",
        "A.b-c_9",
        "x" * 64,
        "",
        "x" * 65,
        "-a",
        ".a",
        "_a",
        "a/b",
        "ä",
        "a b",
        "a\n",
        "²",
        "*",
        "a=",
    ],
)
def test_the_program_knows_names_as_policies_do(word: str) -> None:
    assert kill.is_name(word) is is_name(word)
