"""Answers over HTTP, by the service and by ``llama_cpp.server``: one client, and eight at once, in turn.

The same engine, model, context and number of threads, temperature 0, a prompt of its own each time for both.
Tokens are those that each says it wrote, the time is that of the whole request.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
import urllib.request
import venv
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from itertools import count
from pathlib import Path

from tests.bench.measure import TOP, Missing, Row, compared, demo_model, environment, folder, in_turn
from tests.daemon import Daemon

TOKENS = 96
CLIENTS = 8
START = 60.0
_VENV = TOP / ".cache" / "bench-server"
PACKAGES = [
    "fastapi==0.115.12", "pydantic-settings==2.8.1", "sse-starlette==2.2.1", "starlette-context==0.4.0",
    "uvicorn==0.34.0", "PyYAML==6.0.2",
]  # fmt: skip
"""What the engine's own server needs beside the engine."""


def _python() -> Path:
    """A Python with that server: the engine of this project, the rest of its own. Raises Missing."""
    python = _VENV / "bin" / "python"
    if not python.exists():
        venv.create(_VENV, with_pip=True, symlinks=True)
    if subprocess.run(
        [python, "-c", "import llama_cpp.server.app"], capture_output=True, check=False
    ).returncode:
        command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *PACKAGES]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
        if done.returncode:
            raise Missing(f"llama_cpp.server's packages: {(done.stderr.strip().splitlines() or ['?'])[-1]}")
        engine = find_spec("llama_cpp")
        assert engine is not None and engine.origin is not None
        (site,) = (_VENV / "lib").glob("python*/site-packages")
        (site / "engine.pth").write_text(f"{Path(engine.origin).parent.parent}\n")
    return python


class Server:
    """Where one of them is: a port, a token if it wants one, the name of its model."""

    def __init__(self, port: int, model: str, token: str = "") -> None:
        self.url, self.model, self.token = f"http://127.0.0.1:{port}/v1/chat/completions", model, token

    def ask(self, text: str) -> int:
        """How many tokens it wrote."""
        asked = {
            "model": self.model, "messages": [{"role": "user", "content": text}], "max_tokens": TOKENS,
            "temperature": 0,
        }  # fmt: skip
        headers = {"content-type": "application/json", "authorization": f"Bearer {self.token}"}
        request = urllib.request.Request(self.url, json.dumps(asked).encode(), headers)
        with urllib.request.urlopen(request, timeout=300) as answer:
            tokens: int = json.load(answer)["usage"]["completion_tokens"]
        return tokens

    def rate(self, texts: list[str]) -> float:
        """Tokens a second with so many clients at once."""
        started = time.perf_counter()
        with ThreadPoolExecutor(len(texts)) as pool:
            tokens = sum(pool.map(self.ask, texts))
        return tokens / (time.perf_counter() - started)


def _theirs(model: Path, port: int) -> subprocess.Popen[bytes]:
    threads = str(len(os.sched_getaffinity(0)))
    command = [
        str(_python()), "-m", "llama_cpp.server", "--model", str(model), "--port", str(port),
        "--n_ctx", "2048", "--n_threads", threads, "--n_threads_batch", threads, "--verbose", "False",
    ]  # fmt: skip
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment()
    )
    deadline = time.monotonic() + START
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return process
        except OSError:
            time.sleep(0.1)
    process.kill()
    process.wait()
    raise Missing("llama_cpp.server, which did not start")


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
    return port


def _compared(both: dict[str, Server], clients: int, rounds: int, numbers: Iterator[int]) -> Row:
    """A row for so many clients at once. In each turn both are asked the same."""
    asked: dict[int, list[str]] = {}

    def measure(name: str) -> Callable[[], float]:
        turns = count()

        def once() -> float:
            turn = next(turns)
            if turn not in asked:
                asked[turn] = [f"Tell story number {next(numbers)} of a lighthouse." for _ in range(clients)]
            return both[name].rate(asked[turn])

        return once

    found = in_turn(rounds, {name: measure(name) for name in both})
    what = f"tokens per second over HTTP, {clients} client{'s at once' if clients > 1 else ''}"
    return compared(what, found["ours"], "llama_cpp.server", found["theirs"], unit="/s", least=1.0)


def rows(rounds: int) -> list[Row]:
    os.environ["PYTHONPATH"] = f"{TOP}:{TOP / 'daemon'}"
    port, numbers = _free_port(), count()
    with folder() as place:
        daemon = Daemon(place, demo_model())
        peer = _theirs(demo_model(), port)
        try:
            daemon.start()
            daemon.wait_serving()
            (door,) = (door for door in daemon.doors if isinstance(door.place, int))
            assert isinstance(door.place, int)
            both = {"ours": Server(door.place, door.policy, door.token), "theirs": Server(port, "model")}
            table = [_compared(both, clients, rounds, numbers) for clients in (1, CLIENTS)]
        finally:
            daemon.stop()
            peer.terminate()
            peer.wait(30)
    return table
