"""A real ``anchorhold serve`` as a child process, and plain clients of its API. For load and for chaos.

Nothing here stands in for anything: the program, its workers, its gateway and the sockets are the real ones.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from anchorhold.audit.query import entries
from anchorhold.errors import AnchorholdError
from anchorhold.supervisor.service import control
from tests.integration.lifecycle.processes import children, fields

PAPER = "The harbour of Wick froze in January. The boats stayed out.\n"
START_SECONDS = 90.0
STOP_SECONDS = 40.0


@dataclass(frozen=True)
class Door:
    """Where one policy is reached: a Unix socket's path, or a port of this machine with its token."""

    policy: str
    place: Path | int
    token: str = ""

    @property
    def word(self) -> str:
        return "tcp" if isinstance(self.place, int) else "unix"


@dataclass
class Said:
    """What a client got. status 0: no whole answer came, for the reason in ``error``."""

    status: int = 0
    request: str = ""
    """The request's name in the log, as soon as the answer's header told it."""
    text: str = ""
    whole: bool = False
    """The answer came to its end: it is acknowledged, and must be in the log."""
    error: str = ""
    retry_after: str | None = None
    wait: float = 0.0
    """Seconds to the first byte of the answer."""
    shown: list[tuple[str, str]] = field(default_factory=list)
    """Path and SHA-256 of each file that the answer says was shown."""


class _Unix(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def connection(door: Door, timeout: float) -> http.client.HTTPConnection:
    """Not connected yet. timeout: seconds for each step."""
    if isinstance(door.place, int):
        return http.client.HTTPConnection("127.0.0.1", door.place, timeout=timeout)
    return _Unix(door.place, timeout)


def body(door: Door, text: str, most: int, *, stream: bool, files: list[str] | None = None) -> bytes:
    """A chat request. most: tokens of the answer; files: documents that must be shown."""
    asked: dict[str, Any] = {
        "model": door.policy, "messages": [{"role": "user", "content": text}], "max_tokens": most,
        "stream": stream, "anchorhold": {"files": files or []},
    }  # fmt: skip
    return json.dumps(asked).encode()


def headers(door: Door) -> dict[str, str]:
    found = {"Content-Type": "application/json"}
    if door.token:
        found["Authorization"] = f"Bearer {door.token}"
    return found


def ask(door: Door, data: bytes, *, timeout: float = 120.0, leave: bool = False, after: float = 0.0) -> Said:
    """One request, and all of its answer; never raises for what the service or the network does.

    leave: go away in the middle: of a stream at its first piece, of a whole answer ``after`` seconds.
    """
    said = Said()
    way = connection(door, timeout)
    began = time.monotonic()
    streamed = json.loads(data)["stream"]
    try:
        way.request("POST", "/v1/chat/completions", data, headers(door))
        if leave and not streamed:
            time.sleep(after)
            return said
        answer = way.getresponse()
        said.status = answer.status
        said.request = answer.headers.get("x-request-id", "")
        said.retry_after = answer.headers.get("retry-after")
        if answer.status != 200 or not streamed:
            found = json.loads(answer.read())
            said.wait = time.monotonic() - began
            _whole(said, found)
            return said
        for piece in _events(answer):
            said.wait = said.wait or time.monotonic() - began
            if piece == "[DONE]":
                said.whole = not said.error
                return said
            _piece(said, json.loads(piece))
            if leave:
                return said
        said.error = said.error or "the stream ended without its end"
    except (OSError, http.client.HTTPException, ValueError) as error:
        said.error = f"{type(error).__name__}: {error}"
    finally:
        way.close()
    return said


def _whole(said: Said, found: dict[str, Any]) -> None:
    if "error" in found:
        said.error = f"{found['error'].get('code')}: {found['error'].get('message')}"
        return
    said.text = found["choices"][0]["message"]["content"] or ""
    said.whole = True
    _shown(said, found)


def _piece(said: Said, found: dict[str, Any]) -> None:
    if "error" in found:
        said.error = f"{found['error'].get('code')}: {found['error'].get('message')}"
        return
    for choice in found.get("choices", []):
        said.text += choice.get("delta", {}).get("content") or ""
    _shown(said, found)


def _shown(said: Said, found: dict[str, Any]) -> None:
    for one in found.get("anchorhold", {}).get("shown", []):
        said.shown.append((one["path"], one["sha256"]))


def _events(answer: http.client.HTTPResponse) -> Iterator[str]:
    """The data of each server-sent event."""
    while line := answer.readline():
        if line.startswith(b"data: "):
            yield line[6:].strip().decode()


class Daemon:
    """One ``anchorhold serve`` over two policies in ``place``: ``unix`` on a socket and ``tcp`` on a port."""

    def __init__(self, place: Path, model: Path, more: str = "") -> None:
        """more: what else each policy says, as TOML tables without ``[api]``."""
        self.place, self.model, self.more = place, model, more
        self.state, self.runtime = place / "state", place / "runtime"
        self.conf, self.papers = place / "conf", place / "papers"
        for folder in (self.state, self.runtime, self.conf):
            folder.mkdir(mode=0o700, exist_ok=True)
        self.papers.mkdir(exist_ok=True)
        (self.papers / "paper.txt").write_text(PAPER)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.child: subprocess.Popen[bytes] | None = None
        self.files = [self.policy("unix"), self.policy("tcp")]

    def text(self, name: str, more: str = "", read: list[str] | None = None) -> str:
        """A policy's text. read: folders that it grants; None: that of the papers."""
        roots = json.dumps([str(self.papers)] if read is None else read)
        api = f'[api]\nlisten = "127.0.0.1:{self.port}"\n' if name == "tcp" else ""
        return (
            f'version = 1\nname = "{name}"\n[model]\npath = {json.dumps(str(self.model))}\ncontext = 2048\n'
            f"[data]\nread = {roots}\n{api}{self.more}{more}"
        )

    def policy(self, name: str, text: str | None = None) -> Path:
        """Write it so that no reader ever sees half of it."""
        file, new = self.conf / f"{name}.toml", self.conf / f"{name}.new"
        new.write_text(self.text(name) if text is None else text)
        new.chmod(0o600)
        new.rename(file)
        return file

    @property
    def doors(self) -> list[Door]:
        token = self.state / "token-tcp"
        return [
            Door("unix", self.runtime / "unix.sock"),
            Door("tcp", self.port, token.read_text().strip() if token.exists() else ""),
        ]

    @property
    def pid(self) -> int:
        assert self.child is not None
        return self.child.pid

    def start(self) -> None:
        """Spawn it. What it says goes to ``serve.log`` of the place."""
        command = [sys.executable, "-m", "anchorhold", "--state-dir", str(self.state), "serve"]
        for file in self.files:
            command += ["--policy", str(file)]
        with open(self.place / "serve.log", "ab") as log:
            self.child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/",
                env={**os.environ, "RUNTIME_DIRECTORY": str(self.runtime)},
            )  # fmt: skip

    def runs(self) -> bool:
        return self.child is not None and self.child.poll() is None

    def status(self, seconds: float = 5.0) -> dict[str, Any] | None:
        """What the control socket says; None where it does not answer."""
        try:
            found: dict[str, Any] = control.ask(self.runtime, "status", seconds=seconds)
        except (OSError, AnchorholdError):
            return None
        return found

    def serves(self) -> bool:
        """Whether every policy serves or is idle, and the gateway lives."""
        found = self.status()
        return (
            found is not None
            and bool(found["service"]["gateway"])
            and all(one["state"] in ("serving", "idle") for one in found["policies"])
        )

    def wait_serving(self, seconds: float = START_SECONDS) -> bool:
        """False where it ended, or does not serve in time."""
        deadline = time.monotonic() + seconds
        while self.runs() and time.monotonic() < deadline:
            if self.serves():
                return True
            time.sleep(0.05)
        return False

    def stop(self) -> int:
        """SIGTERM, and its exit status. Raises TimeoutExpired."""
        assert self.child is not None
        with contextlib.suppress(ProcessLookupError):
            self.child.send_signal(signal.SIGTERM)
        return self.child.wait(STOP_SECONDS)

    def kill(self) -> None:
        if self.child is not None and self.child.poll() is None:
            self.child.kill()
            self.child.wait(STOP_SECONDS)

    def processes(self) -> dict[str, list[int]]:
        """Process ids by kind: ``daemon``, ``gateway launcher``, ``gateway``, ``launcher``, ``worker``.

        A launcher is the daemon's child and what it becomes the parent of is the cell's first process.
        """
        found: dict[str, list[int]] = {"daemon": [self.pid] if self.runs() else []}
        for pid in children(self.pid):
            try:
                line = Path(f"/proc/{pid}/cmdline").read_bytes()
            except OSError:
                continue
            kind = (
                "gateway" if b"cell/gateway.py" in line else "worker" if b"cell/launcher.py" in line else ""
            )
            if kind:
                found.setdefault(f"{kind} launcher".removeprefix("worker "), []).append(pid)
                found.setdefault(kind, []).extend(children(pid))
        return found

    def said(self) -> str:
        """The end of what the daemon wrote."""
        return (self.place / "serve.log").read_text(errors="replace")[-2000:]


def pss(pid: int) -> float:
    """MiB of proportional set size (proc_pid_smaps(5)); 0 where it is gone."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1024
    return 0.0


def unended(state: Path) -> tuple[int, set[str]]:
    """How many requests the log says were asked, and the names of those whose end is not there just once."""
    asked: dict[str, int] = {}
    ends: dict[str, int] = {}
    for one in entries(state):
        if one["kind"] in ("request.start", "request.end"):
            counted = asked if one["kind"] == "request.start" else ends
            name = str(one["request"])
            counted[name] = counted.get(name, 0) + 1
    names = asked.keys() | ends.keys()
    return len(asked), {name for name in names if asked.get(name) != 1 or ends.get(name) != 1}


def is_stopped(pid: int) -> bool:
    return fields(Path(f"/proc/{pid}"))[:1] == ["T"]
