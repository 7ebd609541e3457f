"""Clients that are slow, gone, many or malicious: bounded, and of no harm to others."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from anchorhold.supervisor.events import Token
from anchorhold.supervisor.requests import Asked
from anchorhold.supervisor.service.front import Front
from tests.integration.gateway.raw import connected, rest, said
from tests.integration.gateway.scripted import Scripted, Step, done, endless, policy, serving

HELLO = [{"role": "user", "content": "hello"}]
CHAT: dict[str, Any] = {"model": "test", "messages": HELLO}


def request(body: dict[str, Any], *extra: str, path: str = "/v1/chat/completions") -> bytes:
    data = json.dumps(body).encode()
    head = [f"POST {path} HTTP/1.1", "host: x", "content-type: application/json", *extra]
    return ("\r\n".join([*head, f"content-length: {len(data)}"]) + "\r\n\r\n").encode() + data


@contextmanager
def client_of(tmp: Path) -> Iterator[httpx.Client]:
    transport = httpx.HTTPTransport(uds=str(tmp / "run/test.sock"))
    with httpx.Client(transport=transport, base_url="http://x", timeout=20) as client:
        yield client


def works(tmp: Path) -> bool:
    with client_of(tmp) as client:
        return client.post("/v1/chat/completions", json=CHAT).status_code == 200


@pytest.mark.parametrize("stream", [False, True])
def test_leaving_stops_within_100_ms(tmp_path: Path, stream: bool) -> None:
    """Also where nothing is sent that could fail: in the prompt phase, or when the whole is waited for."""

    def silent(_request: Asked) -> Iterator[Step]:
        while True:
            yield 0.01

    backend = Scripted(script=silent)
    times = []
    with serving(tmp_path, backend):
        for _round in range(10):
            with connected(tmp_path / "run/test.sock") as client:
                client.sendall(request({**CHAT, "stream": stream}))
                while len(backend.tickets) <= _round:
                    time.sleep(0.002)
                time.sleep(0.02)
                left = time.monotonic()
            assert backend.tickets[-1].cancelled.wait(2)
            times.append(backend.tickets[-1].cancelled_at - left)
    assert sorted(times)[8] < 0.1, times


def test_leaving_with_a_next_request_on_its_way(tmp_path: Path) -> None:
    """What uvicorn alone would not see: it stops reading where two requests come as one piece."""
    backend = Scripted(script=endless)
    with serving(tmp_path, backend):
        with connected(tmp_path / "run/test.sock") as client:
            client.sendall(request(CHAT) + request(CHAT))
            while not backend.tickets:
                time.sleep(0.002)
            time.sleep(0.05)
        assert backend.tickets[0].cancelled.wait(1)
        assert len(backend.tickets) == 1


def test_requests_one_after_the_other_on_one_connection(tmp_path: Path) -> None:
    with serving(tmp_path, Scripted()), connected(tmp_path / "run/test.sock") as client:
        client.sendall(request(CHAT) + request(CHAT))
        time.sleep(0.1)
        client.sendall(request(CHAT, "connection: close"))
        assert rest(client).count(b"HTTP/1.1 200") == 3


def test_slow_at_asking(tmp_path: Path) -> None:
    with serving(tmp_path, Scripted(), policy(read_timeout=1.0)):
        for piece in (b"", b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n", request(CHAT)[:-5]):
            began = time.monotonic()
            with connected(tmp_path / "run/test.sock") as client:
                client.sendall(piece)
                answer = rest(client)
            assert 0.8 < time.monotonic() - began < 3
            assert answer.startswith(b"HTTP/1.1 408")
        began = time.monotonic()
        with connected(tmp_path / "run/test.sock") as client:  # a byte now and then makes it no longer
            for byte in request(CHAT):
                try:
                    client.sendall(bytes([byte]))
                except OSError:
                    break
                time.sleep(0.05)
            assert time.monotonic() - began < 3
        assert works(tmp_path)


def test_slow_at_taking(tmp_path: Path) -> None:
    def much(_request: Asked) -> Iterator[Step]:
        while True:
            yield Token("x" * 10_000)
            yield 0.001

    backend = Scripted(script=much)
    with serving(tmp_path, backend, policy(write_timeout=1.0)):
        with connected(tmp_path / "run/test.sock") as client:
            client.sendall(request({**CHAT, "stream": True}))
            assert backend_cancelled(backend, 10)
        backend.script = Scripted().script
        assert works(tmp_path)


def backend_cancelled(backend: Scripted, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not backend.tickets and time.monotonic() < deadline:
        time.sleep(0.01)
    return backend.tickets[0].cancelled.wait(seconds)


def test_idle_between_requests(tmp_path: Path) -> None:
    with (
        serving(tmp_path, Scripted(), policy(idle_timeout=1.0)),
        connected(tmp_path / "run/test.sock") as client,
    ):
        client.sendall(request(CHAT))
        began = time.monotonic()
        assert rest(client).startswith(b"HTTP/1.1 200")
        assert 0.8 < time.monotonic() - began < 3


def test_too_many_connections(tmp_path: Path) -> None:
    with serving(tmp_path, Scripted(), policy(concurrency=3)):
        path = tmp_path / "run/test.sock"
        held = [socket.socket(socket.AF_UNIX) for _one in range(3)]
        for one in held:
            one.connect(str(path))
        time.sleep(0.2)
        answer = said(path, b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
        assert answer == b"" or answer.startswith(b"HTTP/1.1 503")
        for one in held:
            one.close()
        time.sleep(0.2)
        assert works(tmp_path)


def test_a_queue_with_an_end(tmp_path: Path) -> None:
    backend = Scripted(script=endless)
    with serving(tmp_path, backend, policy(queue=2)):
        path = tmp_path / "run/test.sock"
        held = [socket.socket(socket.AF_UNIX) for _one in range(3)]
        for one in held:
            one.connect(str(path))
            one.sendall(request(CHAT))
        while len(backend.tickets) < 3:
            time.sleep(0.01)
        with client_of(tmp_path) as client:
            answer = client.post("/v1/chat/completions", json=CHAT)
            assert answer.status_code == 429 and 1 <= int(answer.headers["retry-after"]) <= 60
            assert answer.json()["error"]["type"] == "rate_limit_error"
            held[0].close()
            backend.tickets[0].cancelled.wait(2)
            backend.script = Scripted().script
            assert client.post("/v1/chat/completions", json=CHAT).status_code == 200
        for one in held:
            one.close()


def test_a_head_that_never_ends(tmp_path: Path) -> None:
    with serving(tmp_path, Scripted()):
        path = tmp_path / "run/test.sock"
        for data in (
            b"GET / HTTP/1.1\r\nhost: x\r\nx: " + b"a" * 20_000 + b"\r\n\r\n",
            b"GET /" + b"a" * 20_000,
            b"GET / HTTP/1.1\r\nhost: x\r\n" + b"a: b\r\n" * 5_000 + b"\r\n",
        ):
            answer = said(path, data)
            assert answer[:12] in (b"HTTP/1.1 400", b"HTTP/1.1 431") and b'"bad_http"' in answer
        assert works(tmp_path)


def test_lengths_that_disagree(tmp_path: Path) -> None:
    """Request smuggling: where two lengths could be read, nothing is."""
    backend = Scripted()
    with serving(tmp_path, backend):
        last = request(CHAT, "connection: close")
        head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        for more in (
            b"content-length: 5\r\ncontent-length: 6\r\n",
            b"content-length: 5\r\ntransfer-encoding: chunked\r\n",
            b"content-length: -1\r\n",
            b"transfer-encoding: gzip, chunked\r\n",
            b"transfer-encoding : chunked\r\n",
            b"content-length: 0x5\r\n",
        ):
            answer = said(tmp_path / "run/test.sock", head + more + b"\r\n0\r\n\r\n" + last)
            assert answer.count(b"HTTP/1.1 4") <= 1 and b"HTTP/1.1 200" not in answer, more
        assert backend.asked == [] and works(tmp_path)


PIECES = some.lists(
    some.sampled_from(
        [b"GET ", b"POST ", b"/v1/models", b"/v1/chat/completions", b" HTTP/1.1", b" HTTP/1.0", b"\r\n",
         b"\n",
         b"host: x", b"content-length: ", b"content-type: application/json", b"transfer-encoding: chunked",
         b"connection: upgrade", b"upgrade: websocket", b"upgrade: h2c", b"expect: 100-continue",
         b"5", b"-1",
         b"\r\n\r\n", b"0\r\n\r\n", b"{}", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\x16\x03\x01", b"%00",
         b"%ff", b":"]
    )
    | some.binary(max_size=12),
    max_size=24,
)  # fmt: skip


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Front, Scripted]]:
    tmp = tmp_path_factory.mktemp("gw")
    backend = Scripted()
    with serving(tmp, backend, policy(read_timeout=1.0)) as front:
        yield tmp, front, backend


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(pieces=PIECES)
def test_no_bytes_break_it(fuzzed: tuple[Path, Front, Scripted], pieces: list[bytes]) -> None:
    tmp, front, _backend = fuzzed
    with connected(tmp / "run/test.sock") as client:
        client.sendall(b"".join(pieces))
        client.shutdown(socket.SHUT_WR)
        rest(client)
    assert front.alive()
    with connected(tmp / "run/test.sock") as client:
        client.sendall(b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        assert rest(client).startswith(b"HTTP/1.1 200")


def test_many_who_leave_in_the_middle(tmp_path: Path) -> None:
    """Nothing is left over: no request in flight, no connection, no descriptor."""
    chance = random.Random(5)

    def script(_request: Asked) -> Iterator[Step]:
        for _token in range(20):
            yield Token("x")
            yield 0.001
        yield done()

    backend = Scripted(script=script)
    with serving(tmp_path, backend, policy(queue=100)) as front:
        path = tmp_path / "run/test.sock"
        descriptors = len(os.listdir(f"/proc/{os.getpid()}/fd"))

        def come_and_go(seed: int) -> None:
            own = random.Random(seed)
            for _request in range(10):
                with connected(path) as client:
                    client.sendall(request({**CHAT, "stream": own.random() < 0.5}))
                    if own.random() < 0.5:
                        time.sleep(own.random() * 0.02)
                    else:
                        client.recv(100)

        threads = [threading.Thread(target=come_and_go, args=(chance.random(),)) for _one in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with client_of(tmp_path) as client:
            deadline = time.monotonic() + 5
            while 'in_flight{policy="test"} 0' not in (page := client.get("/metrics").text):
                assert time.monotonic() < deadline, page
            assert "anchorhold_http_connections 1\n" in page
        time.sleep(0.1)
        assert front._answers == {} and front.alive()
        assert len(os.listdir(f"/proc/{os.getpid()}/fd")) <= descriptors + 1


def test_metrics_name_no_path_and_no_prompt(tmp_path: Path) -> None:
    with serving(tmp_path, Scripted()), client_of(tmp_path) as client:
        secret = "xyzzy"
        for path in (f"/{secret}", f"/v1/models/{secret}", f"/health?{secret}"):
            client.get(path)
        body = {**CHAT, "messages": [{"role": "user", "content": secret}], "user": secret}
        body["anchorhold"] = {"files": [f"/{secret}"]}
        assert client.post("/v1/chat/completions", json=body).status_code == 200
        client.request(secret.upper(), "/")
        page = client.get("/metrics")
        assert secret not in page.text.lower() and page.headers["content-type"].startswith("text/plain")
        assert 'anchorhold_http_answers_total{endpoint="/v1/chat/completions",status="200"} 1' in page.text
        assert 'anchorhold_first_token_seconds_count{policy="test"} 1' in page.text
        assert 'anchorhold_worker_memory_bytes{policy="test"} 268435456' in page.text
        for line in page.text.splitlines():
            assert line.startswith("#") or len(line.rsplit(" ", 1)) == 2


def test_ready(tmp_path: Path) -> None:
    backend = Scripted()
    with serving(tmp_path, backend) as front, client_of(tmp_path) as client:
        assert client.get("/ready").status_code == 200
        backend.state = "latched"
        front.policies_changed()
        deadline = time.monotonic() + 2
        while client.get("/ready").status_code != 503:
            assert time.monotonic() < deadline
        assert client.get("/health").status_code == 200


def test_draining(tmp_path: Path) -> None:
    backend = Scripted(script=endless)
    with serving(tmp_path, backend) as front, connected(tmp_path / "run/test.sock") as client:
        client.sendall(request({**CHAT, "stream": True}))
        client.recv(65536)
        front.drain("the service is stopping", 0.2)
        answer = rest(client)
        assert b'"code":"stopping"' in answer and b"[DONE]" not in answer
        assert backend.tickets[0].cancelled.wait(1)
        later = said(tmp_path / "run/test.sock", request(CHAT, "connection: close"))
        assert later == b"" or b"the service is stopping" in later


def test_a_gateway_that_dies(tmp_path: Path) -> None:
    """Workers are told that nobody waits any more; the service sees it and starts another."""
    backend = Scripted(script=endless)
    with serving(tmp_path, backend) as front, connected(tmp_path / "run/test.sock") as client:
        client.sendall(request({**CHAT, "stream": True}))
        client.recv(65536)
        os.kill(front.gateway_pid, signal.SIGKILL)
        assert backend.tickets[0].cancelled.wait(2)
        deadline = time.monotonic() + 2
        while front.alive():
            assert time.monotonic() < deadline
        assert rest(client) is not None  # the connection has ended
        front.policies_changed()  # harmless
    with serving(tmp_path, Scripted()):
        assert works(tmp_path)
