"""``anchorhold kill`` and ``rearm``: words and exit codes. What they do to cells: integration/lifecycle."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from anchorhold.cli.main import main
from anchorhold.switch import kill as program
from anchorhold.switch import latch
from anchorhold.switch.cells import Cell


@pytest.fixture
def state(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    state_dir.mkdir()
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(state_dir / "runtime"))
    return str(state_dir)


def test_what_does_not_run_is_latched_all_the_same(state: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["--state-dir", state, "kill", "taxes", "notes"]) == 0
    out, err = capfd.readouterr()
    assert "nothing of that name runs" in out and "anchorhold rearm taxes notes" in out and err == ""
    assert latch.held(state) == ["notes", "taxes"]
    assert main(["--state-dir", state, "rearm", "taxes"]) == 0
    assert main(["--state-dir", state, "rearm", "taxes"]) == 0
    out, _ = capfd.readouterr()
    assert out == "rearmed: taxes\ntaxes was not latched\n" and latch.held(state) == ["notes"]


def test_all(state: str, capfd: pytest.CaptureFixture[str]) -> None:
    for words in ([], ["--all"]):
        assert main(["--state-dir", state, "kill", *words]) == 0
        assert latch.held(state) == [latch.ALL] and "latched: everything" in capfd.readouterr().out
    assert main(["--state-dir", state, "rearm", "taxes"]) == 1
    assert "everything is still latched" in capfd.readouterr().err
    assert main(["--state-dir", state, "ask", "--model", "demo", "hello"]) == 7
    assert "anchorhold rearm" in capfd.readouterr().err
    assert main(["--state-dir", state, "rearm"]) == 0 and main(["--state-dir", state, "rearm"]) == 0
    assert capfd.readouterr().out == "rearmed: everything\nnothing was latched\n"


@pytest.mark.parametrize("option", ["--no-latch", "--freeze", "--thaw"])
def test_no_latch(state: str, capfd: pytest.CaptureFixture[str], option: str) -> None:
    assert main(["--state-dir", state, "kill", option]) == 0
    assert capfd.readouterr().out == "no cell runs\n" and latch.held(state) == []


@pytest.mark.parametrize("words", [["--freeze", "--thaw"], ["--all", "taxes"], ["a/b"], ["--nope"]])
def test_wrong_words(state: str, capfd: pytest.CaptureFixture[str], words: list[str]) -> None:
    assert main(["--state-dir", state, "kill", *words]) == 2
    assert capfd.readouterr().err and latch.held(state) == []


def test_a_latch_that_cannot_be_set_is_told(state: str, capfd: pytest.CaptureFixture[str]) -> None:
    Path(state, "latch").write_text("in the way")
    assert main(["--state-dir", state, "kill", "taxes"]) == 1
    assert "NOT LATCHED: taxes" in capfd.readouterr().err
    assert main(["--state-dir", state, "rearm"]) == 1
    assert "cannot be taken away" in capfd.readouterr().err


def test_the_programs_own_words(state: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert program.main(["--help"]) == 0 and "--no-latch" in capfd.readouterr().out
    for words in (["--nope"], ["a/b"], ["--state-dir"], [""]):
        assert program.main(words) == 2 and "Usage" in capfd.readouterr().err
    assert program.main([f"--state-dir={state}", "taxes"]) == 0 and latch.held(state) == ["taxes"]
    assert program.main(["--state-dir", state, "--no-latch"]) == 0
    assert program.main(["--state-dir", state, "--thaw", "taxes"]) == 0


def test_where_the_state_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for environ, wanted in (
        ({"ANCHORHOLD_STATE_DIR": "/a", "STATE_DIRECTORY": "/b"}, "/a"),
        ({"STATE_DIRECTORY": "/b:/c", "XDG_STATE_HOME": "/d"}, "/b"),
        ({"XDG_STATE_HOME": "/d", "HOME": "/e"}, "/d/anchorhold"),
        ({"XDG_STATE_HOME": "d", "HOME": "/e"}, "/e/.local/state/anchorhold"),
        ({}, ""),
    ):
        assert program.state_of(environ) == wanted


def test_a_service_is_rearmed_where_its_own_state_is() -> None:
    """Not where root's own is, in which `rearm` looks unless told."""
    told, tell = os.pipe()
    os.write(tell, b"latched")
    os.close(tell)
    cell = cast("Cell", SimpleNamespace(state_dir="/var/lib/anchorhold/taxes"))
    said: list[str] = []
    plan = program.Plan(("taxes",), default_state_dir="/home/a/state")
    assert program._end_latch(plan, told, {"1": cell}, lambda line, _failed: said.append(line))
    assert said[0].endswith("until: anchorhold rearm taxes")
    assert said[1].endswith("until: anchorhold --state-dir /var/lib/anchorhold/taxes rearm taxes")
    assert len(said) == 2
