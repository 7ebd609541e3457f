"""What a sealed worker may say and do, told by one that runs lines of the test in a real cell."""

from __future__ import annotations

import ast
import hashlib
import os
import time

import pytest

from anchorhold.errors import Interrupted, WorkerError
from anchorhold.supervisor import events, session
from anchorhold.supervisor.requests import (
    Asked,
    ChatRequest,
    CompletionRequest,
    EmbeddingRequest,
    Request,
    Sampling,
)
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
    asked = stage.serving(
        f"os.listdir({str(papers)!r})\nreturn str(os.listdir({str(papers)!r}))", read=(str(papers),)
    )
    seen = list(asked.ask(Request("?")))
    skipped = [event for event in seen if isinstance(event, events.Document)]
    assert [(event.path, event.outcome) for event in skipped] == [(str(papers / "pipe.txt"), "skipped")]
    assert [event.text for event in seen if isinstance(event, events.Token)] == ["['one.txt']"]


CHAT = [{"role": "user", "content": "a secret"}]


def test_every_kind_of_request_is_asked_numbered_and_logged(stage: Stage) -> None:
    asked = stage.serving("return QUESTION")
    sampling = Sampling(5, 0.5, seed=3)
    for number, request in enumerate(
        (
            Request("one", principal="uid:1"),
            ChatRequest(CHAT, sampling, principal="uid:2"),
            CompletionRequest("three", sampling, principal="uid:2"),
            EmbeddingRequest(["x", "four"]),
        ),
        start=1,
    ):
        seen = list(asked.ask(request))
        assert isinstance(seen[-1], events.Done)
        assert [event.text for event in seen if isinstance(event, events.Token)] == [
            ("one", "a secret", "three", "four")[number - 1]
        ]
        (start,) = [e for e in stage.log("request.start") if str(e["request"]).endswith(f"-{number}")]
        assert start["asked"] == request.kind
        assert start["principal"] == request.principal
        assert (start.get("temperature") == "0.5") == (number in (2, 3))
        assert "secret" not in str(start)
    assert [str(entry["request"])[-2:] for entry in stage.log("request.end")] == ["-1", "-2", "-3", "-4"]


@pytest.mark.parametrize(
    ("request_", "kept"),
    [
        (
            ChatRequest(CHAT, Sampling(1), tools="[]"),
            '{"format":null,"messages":[{"content":"a secret","role":"user"}],"tools":"[]"}',
        ),
        (CompletionRequest("a secret", Sampling(1)), "a secret"),
        (EmbeddingRequest(["a secret"]), '["a secret"]'),
    ],
)
def test_what_the_log_keeps_of_the_others(stage: Stage, request_: Asked, kept: str) -> None:
    list(stage.serving("return 'x'", prompts="text").ask(request_))
    list(stage.serving("return 'x'", prompts="commitment").ask(request_))
    text, commitment = (entry["prompt"] for entry in stage.log("request.start"))
    assert text == {"text": kept}
    salted = bytes.fromhex(commitment["salt"]) + kept.encode()
    assert hashlib.sha256(salted).hexdigest() == commitment["sha256"]


def test_another_principal_is_another_owner_and_not_named_to_the_worker(stage: Stage) -> None:
    asked = stage.serving("return repr(sorted(MESSAGE.items()))")
    owners = []
    for principal in ("uid:1", "uid:1", "uid:2", "uid:1", ""):
        seen = list(asked.ask(ChatRequest(CHAT, Sampling(1), principal=principal)))
        told = "".join(event.text for event in seen if isinstance(event, events.Token))
        assert "uid" not in told
        owners.append(dict(ast.literal_eval(told))["owner"])
    assert owners[0] == owners[1] != owners[2] != owners[3] != owners[4]
    assert len({owners[1], owners[2], owners[3], owners[4]}) == 4


@pytest.mark.parametrize(
    "request_",
    [
        Request("\ud800"),
        ChatRequest([{"role": "root", "content": "x"}], Sampling(1)),
        ChatRequest([{"role": "user", "content": "x"}] * 1_000_000, Sampling(1)),
        ChatRequest([{"role": "user", "content": "x" * (17 << 20)}], Sampling(1)),
        ChatRequest(CHAT, Sampling(1, float("nan"))),
        ChatRequest(CHAT, Sampling(1, top_p=float("nan"))),
        ChatRequest(CHAT, Sampling(1, top_p=0.0)),
        ChatRequest(CHAT, Sampling(1, frequency=float("nan"))),
        ChatRequest(CHAT, Sampling(1, presence=3.0)),
        ChatRequest(CHAT, Sampling(1, seed=-1)),
        ChatRequest(CHAT, Sampling(1, stop=["x"] * 17)),
        ChatRequest(CHAT, Sampling(1, stop=[""])),
        ChatRequest(CHAT, Sampling(1, logprobs=21)),
        ChatRequest(CHAT, Sampling(1), tools="x" * (2 << 20)),
        EmbeddingRequest(["x"] * 3000),
    ],
)
def test_what_is_no_request_is_refused_and_leaves_no_entry(stage: Stage, request_: Asked) -> None:
    asked = stage.serving("return 'x'")
    with pytest.raises(WorkerError) as caught:
        list(asked.ask(request_))
    assert caught.value.code == "bad_request"
    assert stage.log("request.start") == []
    assert list(asked.ask(Request("?")))  # and the next is served
    assert [str(entry["request"])[-2:] for entry in stage.log("request.start")] == ["-1"]


def test_what_the_worker_tells_of_tokens_calls_and_vectors(stage: Stage) -> None:
    asked = stage.serving(
        "say(type='token', id=1, text='x')\n"
        "say(type='chosen', id=1, text='x', logprob=-0.5, top=[['x', -0.5]], data=[120])\n"
        "say(type='call', id=1, index=0, call='c1', name='f', arguments='{}')\n"
        "say(type='embedding', id=1, index=0, values=[0.5, -1.0])\n"
        "say(type='done', id=1, reason='tool_calls', prompt_tokens=1, output_tokens=2, prompt_seconds=0.0,"
        " output_seconds=0.0, files=[])\nos.read(5, 1)"
    )
    _token, chosen, call, vector, done = asked.ask(Request("?"))
    assert isinstance(chosen, events.Chosen) and (chosen.top, chosen.data) == ([("x", -0.5)], [120])
    assert isinstance(call, events.Call) and (call.index, call.id, call.name, call.arguments) == (
        0,
        "c1",
        "f",
        "{}",
    )
    assert isinstance(vector, events.Embedding) and vector.values == [0.5, -1.0]
    assert isinstance(done, events.Done) and done.reason == "tool_calls"
    (end,) = stage.log("request.end")
    said = bytes.fromhex(end["output"]["salt"]) + b"xf{}[0.5, -1.0]"
    assert hashlib.sha256(said).hexdigest() == end["output"]["sha256"]


def test_the_code_of_a_failure_and_the_tokens_that_were_sent(stage: Stage) -> None:
    asked = stage.serving(
        "say(type='failed', id=1, code='context_exceeded', message='too long',"
        " detail={'needed': 77})\nos.read(5, 1)"
    )
    with pytest.raises(WorkerError) as caught:
        list(asked.ask(ChatRequest(CHAT, Sampling(1))))
    assert caught.value.code == "context_exceeded"
    (end,) = stage.log("request.end")
    assert (end["reason"], end["prompt_tokens"], end["sent_tokens"]) == ("failed: context_exceeded", 0, 77)
