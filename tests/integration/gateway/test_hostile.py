"""A gateway that was taken over and speaks for itself: it gets what its callers get, no more."""

from __future__ import annotations

import json
import os
import select
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from anchorhold.errors import WorkerError
from anchorhold.supervisor.service import front as front_module
from anchorhold.supervisor.service import gate
from anchorhold.supervisor.service.front import Front
from tests.integration.gateway.raw import connected
from tests.integration.gateway.scripted import Scripted, policy
from tests.integration.lifecycle.processes import children

SOURCE = """
import json, os, socket, sys
from anchorhold.channel import frames, gateway
MESSAGES = json.loads({messages!r})

def attempt():
    channel = socket.socket(fileno=CHANNEL)
    channel.sendall(frames.frame(b'{{"type":"ready"}}'))
    handed = socket.socket(fileno=HANDOVER)
    if {wait!r}:
        handed.recvmsg(64, 64)
    for message in MESSAGES:
        data = message.encode() if isinstance(message, str) else json.dumps(message).encode()
        channel.sendall(frames.frame(data))
    reader = frames.FrameReader(gateway.TO_GATEWAY_LIMIT)
    while data := channel.recv(65536):
        for frame in reader.feed(data):
            os.write(2, frame[:300] + b"\\n")
    return "end"
"""
CHAT: dict[str, Any] = {
    "type": "chat", "id": 1, "policy": "test", "principal": "uid:0",
    "messages": [{"role": "user", "content": "x"}],
    "sampling": {"max_tokens": 5, "temperature": 1.0, "top_p": 1.0, "seed": None, "stop": [],
                 "logprobs": None},
    "tools": None, "tool_choice": None, "format": None, "files": [], "receipt": False,
}  # fmt: skip


@pytest.fixture
def hostile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Starts a front whose gateway says these messages; one that waits speaks when somebody has come in."""
    fronts: list[Front] = []

    def start(backend: Scripted, *messages: Any, wait: bool = False) -> Front:
        source = SOURCE.format(messages=json.dumps(messages), wait=wait)
        monkeypatch.setattr(front_module, "ENTRY", "anchorhold.gateway.probe")
        plain = Front._gateway_config

        def config(self: Front) -> Any:
            return {**plain(self), "source": source}

        monkeypatch.setattr(Front, "_gateway_config", config)
        (tmp_path / "run").mkdir()
        (tmp_path / "state").mkdir()
        front = Front([policy()], backend, runtime=str(tmp_path / "run"), state_dir=tmp_path / "state")
        front.start()
        fronts.append(front)
        return front

    yield start
    for front in fronts:
        front.close()


def until(condition: Any) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize(
    "message",
    [
        "{}", "x", '{"type":"chat"}', '{"type":"quit"}', {**CHAT, "more": 1}, {**CHAT, "policy": "../x"},
        {**CHAT, "principal": "root"}, {**CHAT, "files": ["relative"]}, {**CHAT, "id": -1},
        {**CHAT, "messages": [{"role": "root", "content": ""}]}, {**CHAT, "sampling": {}},
        {"type": "done", "id": 1}, {"type": "cancel", "id": "1"},
    ],
    ids=lambda value: str(value)[:40],
)  # fmt: skip
def test_what_is_not_of_the_protocol_ends_it(hostile: Any, message: Any) -> None:
    backend = Scripted()
    front = hostile(backend, message)
    until(lambda: not front.alive())
    assert "was ended" in front.problem and backend.asked == []


def test_it_cannot_make_up_a_caller(hostile: Any) -> None:
    """Nobody has come in: so nobody asks, whatever it says."""
    backend = Scripted()
    others = [{**CHAT, "id": 2, "principal": "token:00000000"}, {**CHAT, "id": 3, "policy": "other"}]
    front = hostile(backend, CHAT, *others)
    until(lambda: front._gate.said().count("wrong_user") == 3)
    assert backend.asked == [] and front.alive()


def test_the_same_with_a_caller_is_served(hostile: Any, tmp_path: Path) -> None:
    """The control: that message is what a request is, when somebody is there whose it can be."""
    backend = Scripted()
    front = hostile(backend, {**CHAT, "principal": f"uid:{os.geteuid()}"}, wait=True)
    with connected(tmp_path / "run/test.sock"):
        until(lambda: len(backend.asked) == 1 and '"done"' in front._gate.said())


def test_a_number_twice_ends_it(hostile: Any, tmp_path: Path) -> None:
    from tests.integration.gateway.scripted import endless

    backend = Scripted(script=endless)
    front = hostile(backend, CHAT, CHAT, wait=True)
    with connected(tmp_path / "run/test.sock"):
        until(lambda: not front.alive())
    assert len(backend.asked) == 1 and backend.tickets[0].cancelled.wait(1)


@pytest.mark.parametrize("where", ["before its cell", "in its cell"])
def test_one_that_hangs_at_its_start_is_ended_in_time(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two waits in a row, each as long as the service manager's patience, took the workers down with it."""
    plain = Front._gateway_config
    if where == "before its cell":
        (tmp_path / "hang.py").write_text("import time\ntime.sleep(60)\n")
        monkeypatch.setattr(gate, "LAUNCHER", str(tmp_path / "hang.py"))
    else:
        source = "import time\ndef attempt():\n    time.sleep(60)\n"
        monkeypatch.setattr(front_module, "ENTRY", "anchorhold.gateway.probe")
        monkeypatch.setattr(Front, "_gateway_config", lambda self: {**plain(self), "source": source})
    front = Front([policy()], Scripted(), runtime=str(tmp_path), state_dir=tmp_path)
    began = time.monotonic()
    with pytest.raises(WorkerError, match="did not start"):
        front.start(2.0)
    assert time.monotonic() - began < 2.0 + 4.0, "its start, and what its end may take"
    assert front.gateway_pid == -1


@pytest.mark.parametrize("stopped", ["gateway", "its launcher", "nothing"])
def test_one_that_gives_no_sign_of_life_is_ended(
    stopped: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was there for ever, with all its clients, as long as it did not die."""
    monkeypatch.setattr(front_module, "SILENT_SECONDS", 1.0)
    front = Front([policy()], Scripted(), runtime=str(tmp_path), state_dir=tmp_path)
    try:
        front.start(20.0)
        (gateway,) = children(front.gateway_pid)
        dead = os.pidfd_open(gateway)
        if stopped != "nothing":
            os.kill(gateway if stopped == "gateway" else front.gateway_pid, signal.SIGSTOP)
        began = time.monotonic()
        while front.alive() and time.monotonic() - began < 6.0:
            time.sleep(0.05)
        assert front.alive() is (stopped != "gateway")
        assert front.alive() or "no sign of life" in front.problem
    finally:
        began = time.monotonic()
        front.close()
    assert time.monotonic() - began < 8.0, "nobody waits for a launcher that was stopped"
    assert select.select([dead], [], [], 0)[0], "the gateway is gone"
    os.close(dead)
