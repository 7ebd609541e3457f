"""``anchorhold audit index``, and the commands below ``audit``."""

from __future__ import annotations

import importlib
import os
import stat
from pathlib import Path

import click
import pytest

from anchorhold.audit.index import find
from anchorhold.audit.index.build import Only
from anchorhold.audit.index.schema import path_of
from anchorhold.cli.audit import audit
from anchorhold.cli.main import main
from tests.unit.cli.runs import runner, two_runs


def test_index_and_rebuild(state_dir: Path, capfd: pytest.CaptureFixture[str]) -> None:
    two_runs(state_dir)
    run = runner(state_dir, capfd)
    for arguments in ([], [], ["--rebuild"]):
        code, out, err = run("index", *arguments)
        assert (code, err) == (0, "") and out.startswith("18 entries in the index, ")
    assert stat.S_IMODE(os.stat(path_of(state_dir)).st_mode) == 0o600
    assert sorted(os.listdir(state_dir)) == ["index.sqlite", "log"]
    Path(path_of(state_dir)).write_bytes(b"damaged")
    assert run("index")[0] == 0
    assert run("list", "--json")[1] == run("list", "--json", "--no-index")[1]


def test_it_comes_by_itself_when_the_page_says(
    state_dir: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (Path(__file__).parents[3] / "docs/cli.md").read_text()
    words = " ".join(page.partition("use an index,")[2].partition("\n\n")[0].split())
    assert f"by themselves where more than {find.FEW:,} entries are not in it yet." in words
    two_runs(state_dir)
    for few, made in ((18, False), (17, True)):
        monkeypatch.setattr(find, "FEW", few)
        for command in ("list", "diff", "top"):
            assert runner(state_dir, capfd)(command)[0] == 0
            assert os.path.lexists(path_of(state_dir)) == made
            if made:
                os.unlink(path_of(state_dir))


def test_no_log_no_index(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code, out, err = runner(tmp_path, capfd)("index")
    assert (code, out) == (1, "") and "there is no audit log" in err
    assert os.listdir(tmp_path) == []


def test_one_at_a_time(state_dir: Path, capfd: pytest.CaptureFixture[str]) -> None:
    two_runs(state_dir)
    with Only(str(state_dir)) as only:
        assert only
        code, out, err = runner(state_dir, capfd)("index")
    assert (code, out) == (1, "") and "cannot be made now" in err


def test_no_space(
    state_dir: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    two_runs(state_dir)
    run = runner(state_dir, capfd)

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "rename", full)
    code, out, err = run("index")
    assert (code, out) == (1, "") and "No space left" in err and "Nothing needs it" in err
    assert sorted(os.listdir(state_dir)) == ["log"]


@pytest.mark.parametrize("name", audit.list_commands(click.Context(audit)))
def test_every_command_exists_and_its_help_is_the_tables(
    name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    command = audit.get_command(click.Context(audit), name)
    assert command is not None and command.name == name
    assert main(["audit", name, "-h"]) == 0
    assert f"audit {name}" in capfd.readouterr().out
    if name in audit.table:
        module, words = audit.table[name]
        assert command in vars(importlib.import_module(module)).values()
        assert command.help is not None
        first = " ".join(command.help.split("\n\n")[0].split())
        assert first.startswith(words.rstrip(".")), (first, words)


def test_help_and_completion_know_all_of_them(
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert main(["audit", "-h"]) == 0
    out = capfd.readouterr().out
    assert all(f"  {name} " in out for name in audit.list_commands(click.Context(audit)))
    found = audit.shell_complete(click.Context(audit), "ver")
    assert {item.value for item in found} == {"verify", "verify-receipt"}
    assert main(["audit", "nope"]) == 2
