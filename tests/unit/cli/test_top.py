"""``anchorhold audit top``: what was shown most often?"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from anchorhold.audit import redact
from anchorhold.audit.index import find
from anchorhold.audit.log import Log
from tests.unit.cli.runs import FIRST, SECOND, Run, runner, two_runs


@pytest.fixture(params=["scan", "index"])
def run(
    state_dir: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> Run:
    two_runs(state_dir)
    if request.param == "index":
        monkeypatch.setattr(find, "FEW", 0)
    return runner(state_dir, capfd)


def _rows(out: str, by: str) -> dict[str, tuple[int, int]]:
    return {row[by]: (row["times"], row["bytes"]) for row in map(json.loads, out.splitlines())}


def test_files(run: Run) -> None:
    code, out, _ = run("top", "--json")
    rows = list(_rows(out, "file").items())
    assert code == 0 and rows[0] == ("/home/a/taxes/2025/roof.pdf", (3, 3 * 12345))
    assert rows[1] == ("/home/a/letter", (2, 2 * 12345))
    assert run("top", "-n", "1")[1] == "3\t37035\t/home/a/taxes/2025/roof.pdf\n"


def test_folders_sessions_and_models(run: Run) -> None:
    assert _rows(run("top", "--by", "folder", "--json")[1], "folder")["/home/a"] == (3, 3 * 12345)
    sessions = _rows(run("top", "--by", "session", "--json")[1], "session")
    assert sessions == {FIRST: (4, 4 * 12345), SECOND: (3, 3 * 12345)}
    models = _rows(run("top", "--by", "model", "--json")[1], "model")
    assert models == {"?": (4, 4 * 12345), "/models/big.gguf": (3, 3 * 12345)}


def test_times(run: Run) -> None:
    assert run("top", "--until", "-1h") == (0, "", "no file was shown\n")
    assert run("top", "--since", "-1h")[1] == run("top")[1]


def test_a_class_that_is_no_word(run: Run, state_dir: Path) -> None:
    before = run("top", "--json")[1]
    log = Log.open(state_dir)
    none: list[object] = [[], {}, None, 1, ["data"]]
    for cls in none:
        log.append("grant", FIRST, {"class": cls, "path": "/x", "resolved": "/x", "size": 1})
    log.checkpoint()
    log.close()
    assert run("top", "--json") == (0, before, "")


def test_what_is_redacted_is_counted_without_its_name(
    state_dir: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    two_runs(state_dir)
    log = Log.open(state_dir)
    log.close()
    redact.redact(state_dir, lambda entry: True, ("names",), reason="r", by="b")
    out = runner(state_dir, capfd)("top", "--json")[1]
    assert _rows(out, "file") == {"(name redacted)": (7, 7 * 12345)}
