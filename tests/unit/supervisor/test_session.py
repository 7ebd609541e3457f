"""What a sealed worker may say and do, told by one that runs lines of the test in a real cell."""

from __future__ import annotations

import os
import time

import pytest

from anchorhold.errors import Interrupted, WorkerError
from anchorhold.supervisor import events, session
from anchorhold.supervisor.session import Request
from tests.unit.supervisor.conftest import Stage


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
        "say(type='loaded', context=1, trained_context=1, threads=1, description='m', embeddings=False)\n"
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


def test_a_worker_that_does_not_listen(stage: Stage) -> None:
    asked = stage.serving("os.close(5)\nimport time; time.sleep(0.3)\nos._exit(4)")
    with pytest.raises(WorkerError, match="ended by itself .exit 4. in stage 'serving'") as caught:
        for _event in asked.ask(Request("q" * 100)):
            pass
    assert "model file may be damaged" in caught.value.hint
    asked = stage.serving("os.close(5)\nsay(type='token', id=1, text='deaf')\nimport time; time.sleep(20)")
    answers = iter(asked.ask(Request("?")))
    assert isinstance(next(answers), events.Token)
    assert asked._loop is not None
    asked._loop.send({"type": "stop", "id": 1})  # into a pipe that nobody reads
    asked.kill("enough")
    with pytest.raises(Interrupted):
        list(answers)


def test_what_a_worker_said_before_it_died_still_counts(stage: Stage) -> None:
    asked = stage.serving(
        "for n in range(20): say(type='token', id=1, text='x')\nos.write(2, b'last words'); os._exit(5)"
    )
    said = []
    with pytest.raises(WorkerError) as caught:
        for event in asked.ask(Request("?")):
            said.append(event)
    assert len(said) == 20 and "last words" in caught.value.detail


def test_a_name_that_is_left_out_is_told_once(stage: Stage) -> None:
    papers = stage.folder / "papers"
    papers.mkdir()
    (papers / "one.txt").write_text("x")
    os.mkfifo(papers / "pipe.txt")
    (papers / ".git").mkdir()
    asked = stage.serving(f"os.listdir({str(papers)!r})\nreturn str(os.listdir({str(papers)!r}))",
                          read=(str(papers),))  # fmt: skip
    seen = list(asked.ask(Request("?")))
    skipped = [event for event in seen if isinstance(event, events.Document)]
    assert [(event.path, event.outcome) for event in skipped] == [(str(papers / "pipe.txt"), "skipped")]
    assert [event.text for event in seen if isinstance(event, events.Token)] == ["['one.txt']"]
