"""The control socket's words, and who may speak there."""

from __future__ import annotations

import json
import os
import socket
import stat
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anchorhold.channel import frames
from anchorhold.channel.errors import ProtocolError
from anchorhold.errors import PolicyError, WorkerError
from anchorhold.supervisor.service import control
from anchorhold.supervisor.service.control import Control, ask, parse
from anchorhold.supervisor.service.peers import Peer
from tests.support import Runner

GOOD = {"v": 1, "command": "status", "name": None}


def fails(_name: str | None, _peer: Peer) -> None:
    raise PolicyError("no such policy")


def breaks(_name: str | None, _peer: Peer) -> None:
    raise ZeroDivisionError("a defect")


@pytest.fixture
def served(open_tmp: Path) -> Iterator[Path]:
    made = Control(
        str(open_tmp),
        {"status": lambda name, peer: [name, peer.uid, peer.pid], "fails": fails, "breaks": breaks},
    )
    made.start()
    yield open_tmp
    made.close()


def test_a_request_and_its_answer(served: Path) -> None:
    assert ask(served, "status", "taxes") == ["taxes", os.getuid(), os.getpid()]


def test_errors_are_told_and_end_nothing(served: Path) -> None:
    with pytest.raises(WorkerError, match="no such policy"):
        ask(served, "fails")
    with pytest.raises(WorkerError, match="ZeroDivisionError"):
        ask(served, "breaks")
    with pytest.raises(WorkerError, match="there are: status, fails, breaks"):
        ask(served, "unheard")
    assert ask(served, "status")


def test_the_socket_is_its_owners(served: Path) -> None:
    assert stat.S_IMODE(os.stat(control.path_of(str(served))).st_mode) == 0o600


def test_another_user_is_told_no(served: Path, unprivileged: Runner) -> None:
    if os.geteuid():
        pytest.skip("needs root, to be another user")
    program = (
        "import sys; sys.path.insert(0, 'daemon')\n"
        "from anchorhold.supervisor.service.control import ask\n"
        f"print(ask({str(served)!r}, 'status'))"
    )
    closed = unprivileged(sys.executable, "-c", program)
    assert closed.returncode and "PermissionError" in closed.stderr, "the mode alone refuses"
    os.chmod(control.path_of(str(served)), 0o666)
    opened = unprivileged(sys.executable, "-c", program)
    assert "may not control this service" in opened.stderr, "and so does the service, by who asks"


def test_a_member_of_the_group_may() -> None:
    mine = os.getgid()
    import grp

    name = grp.getgrgid(mine).gr_name
    assert Peer(1, 12345, mine).may(name) and not Peer(1, 12345, mine + 12345).may(name)
    assert not Peer(1, 12345, mine).may(None) and not Peer(1, 12345, mine).may("no-such-group")
    assert Peer(1, 0, 0).may(None) and Peer(1, os.geteuid(), 0).may(None)


def test_a_group_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(WorkerError, match="no group"):
        Control(str(tmp_path), {}, group="no-such-group")


def test_a_socket_that_was_left_is_replaced_and_a_living_one_is_not(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(control.path_of(str(tmp_path)))
    made = Control(str(tmp_path), {})
    with pytest.raises(WorkerError, match="another service"):
        Control(str(tmp_path), {})
    made.close()
    assert not os.path.exists(control.path_of(str(tmp_path)))


@pytest.mark.parametrize(
    "said",
    [
        b"", b"x", b"[]", b"1", b"{}", b'{"v":1,"command":"status"}',
        b'{"v":2,"command":"status","name":null}',
        b'{"v":true,"command":"status","name":null}', b'{"v":1,"command":1,"name":null}',
        b'{"v":1,"command":"status","name":1}', b'{"v":1,"command":"status","name":null,"more":1}',
        b'{"v":1,"v":1,"command":"status","name":null}', b"\xff", b"[" * 4000,
    ],
)  # fmt: skip
def test_what_is_no_request(said: bytes) -> None:
    with pytest.raises(ProtocolError):
        parse(said)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_protocol_error_or_a_request(said: bytes) -> None:
    try:
        command, name = parse(said)
    except ProtocolError:
        return
    assert command == json.loads(said)["command"] and name == json.loads(said)["name"]


@pytest.mark.parametrize(
    "sent",
    [
        struct.pack(">I", control.MOST + 1) + b"x",
        struct.pack(">I", 0),
        frames.frame(json.dumps(GOOD).encode()) * 2,
        frames.frame(json.dumps(GOOD).encode())[:-1],
    ],
)
def test_frames_that_are_none(served: Path, sent: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(5)
        client.connect(control.path_of(str(served)))
        client.sendall(sent)
        client.shutdown(socket.SHUT_WR)
        answer = client.recv(4096)
        assert b'"ok":false' in answer, answer
    assert ask(served, "status")


def test_one_who_says_nothing_holds_up_nobody(served: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "SECONDS", 0.2)
    silent = [socket.socket(socket.AF_UNIX) for _each in range(control.CLIENTS - 1)]
    for client in silent:
        client.connect(control.path_of(str(served)))
    assert ask(served, "status")
    for client in silent:
        client.settimeout(5)
        assert client.recv(100) == b"", "it was hung up on"
        client.close()


def test_no_more_clients_than_there_is_room_for(served: Path) -> None:
    silent = [socket.socket(socket.AF_UNIX) for _each in range(control.CLIENTS + 3)]
    for client in silent:
        client.connect(control.path_of(str(served)))
        client.settimeout(5)
    assert [client.recv(1) for client in silent[control.CLIENTS :]] == [b""] * 3
    for client in silent:
        client.close()
