"""What `status` and `reload` say, of services that answer and of cells that left a record."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from anchorhold.cli import main as entry
from anchorhold.cli import status
from anchorhold.supervisor.service.control import Control, path_of
from anchorhold.switch import latch, places, processes, records

POLICY: dict[str, Any] = {
    "name": "taxes",
    "state": "serving",
    "since": 1_795_000_000.0,
    "policy": {"file": "/p.toml", "sha256": "ab" * 32, "problem": None},
    "model": {"path": "/models/a\x1b[31m.gguf"},
    "waiting": 0,
    "busy": False,
    "served": 3,
    "output_tokens": 40,
    "restarts": 1,
    "error": None,
    "exit_code": None,
    "listen": "127.0.0.1:8765",
    "documents": {"new": 1, "changed": 0, "removed": 0, "newest": [], "unwatched": {"/big": "No space left"}},
    "session": {
        "name": "00000000000000aa",
        "phase": "serving",
        "layers": {"seccomp": "…"},
        "missing": {"userns": "…"},
        "limits": {},
        "pid": 4,
        "memory": 1 << 20,
        "mapped": 1 << 22,
        "cpu_seconds": 1.5,
        "threads": 4,
        "exposure": {"files": 2, "bytes": 2048, "newest": []},
        "refused": 1,
        "hidden": 0,
    },
}


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "run"
    folder.mkdir(mode=0o700)
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(folder))
    for name in ("SYSTEM", "USERS"):  # what runs on this machine is another matter
        monkeypatch.setattr(places, name, str(tmp_path / name))
    return folder


@pytest.fixture
def service(runtime: Path) -> Iterator[dict[str, Any]]:
    """A service that answers with what the test wants."""
    says: dict[str, Any] = {
        "status": {"service": {"pid": 1, "runtime_dir": str(runtime), "gateway": True}, "policies": [POLICY]},
        "reload": {"taxes": "wider"},
    }
    made = Control(
        str(runtime),
        {"status": lambda _name, _peer: says["status"], "reload": lambda _name, _peer: says["reload"]},
    )
    made.start()
    yield says
    made.close()


def run(tmp_path: Path, *arguments: str) -> int:
    return entry.main(["--state-dir", str(tmp_path / "state"), *arguments])


def test_nothing_runs(tmp_path: Path, runtime: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, "status") == 0
    assert capfd.readouterr().out == "nothing runs\n"
    assert run(tmp_path, "reload") == 1
    assert "no service answers" in capfd.readouterr().err


def test_a_service(tmp_path: Path, service: dict[str, Any], capfd: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, "status") == 0
    out = capfd.readouterr().out
    assert "taxes: serving since" in out and "127.0.0.1:8765" in out and "\x1b" not in out
    for words in ("2 files, ", "missing    userns", "3 requests; 0 waiting; 1 restart", "1 new", "/big"):
        assert words in out, (words, out)
    assert run(tmp_path, "status", "nobody") == 0
    assert "nothing runs" in capfd.readouterr().out
    assert run(tmp_path, "status", "--json", "taxes") == 0
    found = json.loads(capfd.readouterr().out)
    assert (
        found["v"] == 1 and found["policies"] == [POLICY] and found["cells"] == [] and found["latched"] == []
    )
    assert run(tmp_path, "status", "--frozen") == 0
    assert capfd.readouterr().out == "nothing runs\n"
    assert run(tmp_path, "status", "--json", "--watch") == 2


def test_what_is_wrong_is_said(
    tmp_path: Path, service: dict[str, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    failed = {**POLICY, "state": "failed", "session": None, "error": "the worker died", "documents": None}
    failed["policy"] = {**POLICY["policy"], "problem": "unknown key"}
    service["status"]["policies"] = [failed]
    service["status"]["service"]["gateway"] = False
    latch.prepare(str(tmp_path / "state"))
    latch.latch(str(tmp_path / "state"), "taxes")
    latch.latch(str(tmp_path / "state"), None)
    assert run(tmp_path, "status") == 0
    out = capfd.readouterr().out
    for words in (
        "the worker died",
        "unknown key",
        "gateway is down",
        "latched: taxes (anchorhold rearm taxes)",
    ):
        assert words in out, (words, out)
    assert "latched: everything (anchorhold rearm)" in out


def test_reload(tmp_path: Path, service: dict[str, Any], capfd: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, "reload") == 0
    assert capfd.readouterr().out == "taxes: wider\n"
    service["reload"] = {"taxes": "refused: unknown key"}
    assert run(tmp_path, "reload", "taxes") == 1
    told = capfd.readouterr()
    assert "refused: unknown key" in told.out and "the old one goes on" in told.err


def test_a_service_that_does_not_answer(
    tmp_path: Path, runtime: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(status, "SECONDS", 0.2)
    with socket.socket(socket.AF_UNIX) as hangs:
        hangs.bind(path_of(str(runtime)))
        hangs.listen(1)
        assert run(tmp_path, "status") == 0
        assert "does not answer" in capfd.readouterr().out
    assert run(tmp_path, "status") == 0, "a socket that a killed service left"
    assert capfd.readouterr().out == "nothing runs\n"


def test_a_cell_without_a_service(tmp_path: Path, runtime: Path, capfd: pytest.CaptureFixture[str]) -> None:
    own = processes.stat_of(os.getpid())
    assert own is not None
    records.begin(
        str(runtime), "00000000000000bb", name="notes", state=str(tmp_path / "state"), cgroup="",
        supervisor=os.getpid(), supervisor_start=own[2], launcher=os.getpid(), launcher_start=own[2],
        worker=os.getpid(), worker_start=own[2],
    )  # fmt: skip
    assert run(tmp_path, "status") == 0
    assert "notes: running (session 00000000000000bb)" in capfd.readouterr().out
    assert run(tmp_path, "status", "--json", "taxes") == 0
    assert json.loads(capfd.readouterr().out)["cells"] == []
