"""Which directory holds the state."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from anchorhold.cli.root import root
from anchorhold.cli.state import resolve, state_dir
from anchorhold.errors import UsageError

ALL = {
    "ANCHORHOLD_STATE_DIR": "/own",
    "STATE_DIRECTORY": "/systemd:/other",
    "XDG_STATE_HOME": "/xdg",
    "HOME": "/home/a",
}


def test_order() -> None:
    environ = dict(ALL)
    assert resolve("/option", environ) == Path("/option")
    assert resolve(None, environ) == Path("/own")
    del environ["ANCHORHOLD_STATE_DIR"]
    assert resolve(None, environ) == Path("/systemd")
    del environ["STATE_DIRECTORY"]
    assert resolve(None, environ) == Path("/xdg/anchorhold")
    del environ["XDG_STATE_HOME"]
    assert resolve(None, environ) == Path("/home/a/.local/state/anchorhold")


def test_relative_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert resolve("here", ALL) == tmp_path / "here"
    assert resolve(None, {"XDG_STATE_HOME": "relative", "HOME": "/h"}) == Path("/h/.local/state/anchorhold")


@pytest.mark.parametrize("environ", [{}, {"HOME": ""}, {"HOME": "relative"}])
def test_no_home_is_a_usage_error(environ: dict[str, str]) -> None:
    with pytest.raises(UsageError, match=r"\$HOME") as caught:
        resolve(None, environ)
    assert "--state-dir" in caught.value.hint


def test_from_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANCHORHOLD_STATE_DIR", "/own")
    with root.make_context("anchorhold", ["--state-dir", "/given", "ask"]) as outer:
        assert state_dir(click.Context(root, parent=outer)) == Path("/given")
    assert state_dir(click.Context(click.Command("alone"))) == Path("/own")
