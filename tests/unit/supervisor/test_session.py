"""A session whose launcher is a program of the test: whatever it does, the start fails and nothing stays.

And one whose worker runs the test's own code in a real cell, for what a real engine does not do.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from anchorhold.audit.log import Log
from anchorhold.audit.query import entries
from anchorhold.errors import BreachError, Interrupted, LayerError, PolicyError, WorkerError
from anchorhold.policy.schema import Audit, DataPolicy, ModelPolicy, Policy
from anchorhold.supervisor import events, session, spawn
from anchorhold.supervisor.session import Request, Session
from anchorhold.verify.check import verify

PROBE = "anchorhold.worker.probe"
START = """
import os, socket, signal, sys, time
while os.read(3, 65536): pass
setup = socket.socket(fileno=4)
"""
SPEAK = """
import os
from anchorhold.channel import frames, messages
def say(**message): frames.write_frame(6, messages.encode(message))
def attempt():
"""


class Stage:
    """Sessions in one state directory; all of them are closed at the end."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.monkeypatch = folder, monkeypatch
        self.state = folder / "state"
        self.model = folder / "model.gguf"
        self.model.write_bytes(b"no model")
        self.opened: list[tuple[Session, Log]] = []

    def session(self, source: str = "", *, prompts: str = "none", read: tuple[str, ...] = ()) -> Session:
        rules = Policy(
            "test", ModelPolicy(str(self.model)), data=DataPolicy(read=read), audit=Audit(prompts=prompts)
        )
        log = Log.open(self.state)
        made = Session(rules, log, state_dir=self.state, entry=PROBE, config={"source": source})
        self.opened.append((made, log))
        return made

    def serving(self, lines: str, **options: Any) -> Session:
        """A sealed worker with these lines as the body of ``attempt``."""
        made = self.session(SPEAK + "".join(f"    {line}\n" for line in lines.splitlines()), **options)
        made.start()
        return made

    def launched_by(self, text: str) -> Session:
        """A session whose launcher is this program."""
        program = self.folder / "launcher.py"
        program.write_text(START + text)
        self.monkeypatch.setattr(spawn, "LAUNCHER", str(program))
        return self.session()

    def close(self) -> None:
        for made, log in self.opened:
            made.close()
            made.close()
            log.close()
            assert made._loop is None or not made._loop.is_alive()
        result = verify(str(self.state))
        assert result.ok and result.signed == result.size, result.text()

    def log(self, kind: str) -> list[dict[str, Any]]:
        return list(entries(self.state, kinds=(kind,)))


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    before = set(os.listdir("/proc/self/fd"))
    made = Stage(tmp_path, monkeypatch)
    yield made
    made.close()
    left = set(os.listdir("/proc/self/fd")) - before
    assert len(left) <= 1, "descriptors stay open"  # listdir's own


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


# What a worker may say.


def test_asked_before_it_was_started(stage: Stage) -> None:
    with pytest.raises(WorkerError, match="not started"):
        list(stage.session().ask(Request("?")))


def test_a_word_of_another_request(stage: Stage) -> None:
    with pytest.raises(WorkerError, match="request 2, which is not the one being served"):
        list(stage.serving("say(type='token', id=2, text='x')").ask(Request("?")))


def test_the_first_end_of_a_request_is_believed_the_second_is_that_of_the_worker(stage: Stage) -> None:
    done = "say(type='done', id=1, reason='stop', prompt_tokens=0, output_tokens=0, prompt_seconds=0.0,"
    asked = stage.serving(f"for _time in range(2): {done} output_seconds=0.0, files=[])\nos.read(5, 1)")
    assert [type(event) for event in asked.ask(Request("?"))][-1] is events.Done
    assert asked._loop is not None and asked._loop.ended.wait(5)
    assert len(stage.log("request.end")) == 1
    with pytest.raises(WorkerError, match="ended a request that has ended"):
        list(asked.ask(Request("?")))


def test_every_kind_of_message_becomes_an_event(stage: Stage) -> None:
    asked = stage.serving(
        "say(type='loaded', context=1, trained_context=1, threads=1, description='m')\n"
        "say(type='progress', stage='read', done=1, total=2)\n"
        "say(type='document', path='/a', outcome='skipped', reason='empty', tokens=0)\n"
        "return 'end'"
    )
    seen = list(asked.ask(Request("?", material="from a pipe")))
    kinds = [type(event).__name__ for event in seen]
    assert kinds == ["Phase", "Progress", "Document", "Token", "Done"]
    (grant,) = [entry for entry in stage.log("grant") if entry["class"] == "stdin"]
    assert grant["size"] == len("from a pipe")


def test_a_failure_is_raised_and_on_record(stage: Stage) -> None:
    asked = stage.serving(
        "say(type='failed', id=1, code='no_documents', message='nothing to read', detail={'a': 'b'})\n"
        "os.read(5, 1)"
    )
    with pytest.raises(WorkerError, match="nothing to read") as caught:
        list(asked.ask(Request("?")))
    assert caught.value.detail == "a: b"
    assert [entry["reason"] for entry in stage.log("request.end")] == ["failed: no_documents"]


def test_who_stops_listening_stops_the_answer(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "STOP_SECONDS", 0.3)
    deaf = stage.serving("say(type='token', id=1, text='x')\nimport time; time.sleep(20)")
    answers = deaf.ask(Request("?"))
    assert isinstance(next(answers), events.Token)
    answers.close()
    assert deaf._loop is not None and deaf._loop.ended.wait(5)
    assert [entry["reason"] for entry in stage.log("kill")] == ["it did not stop its answer when told to"]
    ready = stage.serving(
        "if QUESTION != '?': return 'new'\nsay(type='token', id=1, text='x')\n"
        "import time; time.sleep(0.1)\nreturn 'late'"
    )
    answers = ready.ask(Request("?"))
    next(answers)
    answers.close()
    seen = list(ready.ask(Request("again")))  # nothing of the first answer is left over
    assert [event.text for event in seen if isinstance(event, events.Token)] == ["new"]


def test_a_reader_that_is_slow_holds_the_worker_back(stage: Stage) -> None:
    asked = stage.serving("for n in range(3000): say(type='token', id=1, text='x' * 1000)\nreturn 'end'")
    text = ""
    for number, event in enumerate(asked.ask(Request("?"))):
        if number < 5:
            time.sleep(0.05)
            assert asked._loop is not None and asked._loop.events.qsize() < 300
        text += event.text if isinstance(event, events.Token) else ""
    assert text == "x" * 3_000_000 + "end"


def test_more_to_say_than_a_pipe_holds(stage: Stage) -> None:
    asked = stage.serving("return str(len(QUESTION))")
    question = "q" * 300_000
    seen = list(asked.ask(Request(question)))
    assert "".join(event.text for event in seen if isinstance(event, events.Token)) == "300000"


@pytest.mark.parametrize("prompts", ["none", "text", "commitment"])
def test_what_the_log_keeps_of_a_question(stage: Stage, prompts: str) -> None:
    list(stage.serving("return 'x'", prompts=prompts).ask(Request("a secret", system="be brief")))
    (start,) = stage.log("request.start")
    if prompts == "text":
        assert start["prompt"] == {"text": "a secret", "system": "be brief"}
    else:
        assert "secret" not in str(start)
        assert (start["prompt"] is None) == (prompts == "none")


def test_a_worker_that_ends_between_questions(stage: Stage) -> None:
    asked = stage.serving("return 'x'")
    list(asked.ask(Request("?")))
    asked.kill("by hand")
    assert asked._loop is not None and asked._loop.ended.wait(5)
    with pytest.raises(Interrupted, match="by hand"):
        list(asked.ask(Request("?")))
