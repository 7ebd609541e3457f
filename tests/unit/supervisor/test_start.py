"""Whatever the launcher is or does: the start fails clearly, nothing was granted, and nothing stays."""

from __future__ import annotations

import os
import threading
import time
from typing import Any

import pytest

from anchorhold.broker.model import ModelFile
from anchorhold.errors import BreachError, Interrupted, LayerError, LimitError, PolicyError, WorkerError
from anchorhold.supervisor import session
from anchorhold.supervisor.limits import Limits
from anchorhold.supervisor.session import Request, Session
from tests.unit.supervisor.conftest import Stage

FILES = """
files = (0).to_bytes(4, sys.byteorder) * {count}
setup.sendmsg([{data!r}], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, files)])
"""
WAIT = "time.sleep(30)\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("setup.send(b'ready')\n" + WAIT, "sent 'ready' in stage 'spawned'"),
        ("setup.send(b'cell\\ntgid\\t1')\n" + WAIT, "not of the protocol"),
        ("setup.send(b'nonsense')\n" + WAIT, "not of the protocol"),
        ("setup.send(b'ready\\nno tab')\n" + WAIT, "not of the protocol"),
        ("setup.send(b'ready\\na\\t1\\na\\t2')\n" + WAIT, "not of the protocol"),
        (FILES.format(data=b"ready\nno tab", count=1) + WAIT, "not of the protocol"),
        (FILES.format(data=b"sealed", count=2) + WAIT, "sent 'sealed' in stage 'spawned'"),
        ("setup.send(b'failed\\nroot\\tno room')\n" + WAIT, "root: no room"),
        ("setup.send(b'failed')\n" + WAIT, "the launcher failed"),
        ("", "ended by itself .exit 0. in stage 'spawned'"),
        ("setup.close(); time.sleep(0.2); os._exit(7)", "exit 7"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "died of SIGSEGV"),
        ("os._exit(128 + 11)", "died of SIGSEGV"),
        ("os._exit(128 + 100)", "died of 100"),
        ("import os\nos.write(6, b'\\0\\0\\0\\2{}')\n" + WAIT, "before it was sealed"),
        ("os.close(6); os.close(1); os.close(2); time.sleep(0.2); os._exit(3)", "exit 3"),
    ],
)
def test_a_launcher_that_goes_its_own_way(stage: Stage, text: str, said: str) -> None:
    asked = stage.launched_by(text)
    with pytest.raises(WorkerError, match=said):
        asked.start()
    assert stage.log("grant") == [] and stage.log("session.start") == []
    with pytest.raises(WorkerError):
        list(asked.ask(Request("?")))


def test_what_it_said_is_kept_and_its_end(stage: Stage) -> None:
    asked = stage.launched_by("sys.stderr.write('x' * 20000 + 'the reason'); sys.stderr.flush(); os._exit(1)")
    with pytest.raises(WorkerError) as caught:
        asked.start()
    assert caught.value.detail.endswith("the reason") and len(caught.value.detail) <= 8192


def test_no_listener_is_a_missing_layer(stage: Stage) -> None:
    with pytest.raises(LayerError, match="seccomp layer cannot be had: busy"):
        stage.launched_by("setup.send(b'failed\\nseccomp\\tbusy')\n" + WAIT).start()


def test_a_foreign_system_call_is_a_breach(stage: Stage) -> None:
    with pytest.raises(BreachError, match="foreign architecture"):
        stage.launched_by("os.kill(os.getpid(), signal.SIGSYS)").start()
    assert [entry["call"] for entry in stage.log("breach")] == ["?"]


def test_a_launcher_that_never_gets_there(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "START_SECONDS", 0.3)
    asked = stage.launched_by(WAIT)
    with pytest.raises(WorkerError, match="did not start in time"):
        asked.start()
    assert [entry["reason"] for entry in stage.log("kill")] == ["the engine did not start in time"]


def test_killed_before_and_while_it_starts(stage: Stage) -> None:
    asked = stage.launched_by(WAIT)
    asked.kill("at once")
    with pytest.raises(Interrupted, match="at once"):
        asked.start()
    asked = stage.launched_by(WAIT)
    threading.Timer(0.2, asked.kill, ("a little later",)).start()
    started = time.monotonic()
    with pytest.raises(Interrupted, match="a little later"):
        asked.start()
    assert time.monotonic() - started < 5


def test_no_model_no_start(stage: Stage) -> None:
    asked = stage.launched_by(WAIT)
    stage.model.unlink()
    with pytest.raises(PolicyError, match="No such file"):
        asked.start()
    assert asked.summary.phase == "none"
    assert asked._launched is not None
    with pytest.raises(ChildProcessError):
        os.waitpid(asked._launched.pid, os.WNOHANG)


def test_a_launcher_that_cannot_be_started(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = stage.session()
    monkeypatch.setattr("sys.executable", "/nowhere/python")
    with pytest.raises(WorkerError, match="cannot be started: .*No such file"):
        asked.start()


def test_out_of_descriptors(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> Any:
        raise OSError(24, "Too many open files")

    asked = stage.session()
    monkeypatch.setattr(session, "Launched", none)
    with pytest.raises(WorkerError, match="cannot be prepared: .*Too many open files"):
        asked.start()


def test_killed_while_the_digest_of_the_model_is_taken(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = stage.launched_by(WAIT)
    take = ModelFile

    def interrupted(*given: Any) -> Any:
        asked.kill("in between")
        return take(*given)

    monkeypatch.setattr(session, "ModelFile", interrupted)
    with pytest.raises(Interrupted, match="in between"):
        asked.start()


def test_killed_by_the_kernel_for_its_memory(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = stage.launched_by("os.kill(os.getpid(), signal.SIGKILL)")
    monkeypatch.setattr(
        Limits, "killed_for_memory", lambda self: True
    )  # a controller that is not here says so
    with pytest.raises(LimitError, match="went over limits.memory"):
        asked.start()
    assert [entry["limit"] for entry in stage.log("limit")] == ["memory"]


def test_a_defect_of_ours_is_the_end_of_the_worker(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    def defect(*_given: object) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr(Session, "_on_seal", defect)
    with pytest.raises(WorkerError, match="the supervisor failed: RuntimeError: a defect"):
        stage.serving("return 'x'")
    assert stage.log("session.sealed") == []


def test_a_layer_of_the_seal_that_is_required(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = ("newest", "seccomp", "latest")
    monkeypatch.setattr(session, "SEAL_LAYERS", ("mdwe", "newest"))  # this kernel has mdwe
    with pytest.raises(LayerError, match="required layer is missing: latest: not available"):
        stage.session("def attempt(): return 'x'", require=wanted).start()
    monkeypatch.setattr(session, "SEAL_LAYERS", ("mdwe", "newest", "latest"))
    with pytest.raises(LayerError, match="required layers are missing: newest, latest: not "):
        stage.session("def attempt(): return 'x'", require=wanted).start()
    assert stage.log("session.sealed") == []


def test_an_engine_that_asks_for_more_while_it_starts(stage: Stage) -> None:
    with pytest.raises(WorkerError, match="the engine asked for /etc/shadow while it started"):
        stage.session("open('/etc/shadow')").start()
    assert stage.log("breach") == [] and [entry["path"] for entry in stage.log("denial")] == ["/etc/shadow"]


def test_old_folders_of_killed_supervisors_go(stage: Stage) -> None:
    asked = stage.session("def attempt(): return 'x'")
    old, young = stage.state / ".folder-1-a", stage.state / ".folder-2-b"
    for folder in (old, young):
        folder.mkdir()
    os.utime(old, (1, 1))
    asked.start()
    assert young.exists() and not old.exists()
    assert sorted(path.name for path in stage.state.glob(".folder-*")) == [young.name]
