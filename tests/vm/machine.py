"""What the checks of the service have in common: commands, units, cells by their cgroup, HTTP, the log."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

STATE = Path("/var/lib/anchorhold/taxes")
ODD = "/srv/notes: 100% odd \\ €"
POLICY = """\
version = 1
name = "{name}"
[model]
path = "/srv/models/demo.gguf"
context = 1024
[data]
read = [{read}]
[limits]
memory = "1GiB"
tasks = 40
[api]
listen = "unix:/run/anchorhold/{name}.sock"
"""
BAR = 1.5
PATIENCE = 150.0  # seconds: emulated, a cell takes some twenty times longer to start
DEAD = 2.0
failed: list[str] = []


def run(*command: str, check: bool = True, env: dict[str, str] | None = None) -> str:
    """What a command says on standard output. Raises AssertionError with all it said."""
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        env={**os.environ, **(env or {})},
    )
    assert not check or done.returncode == 0, f"{' '.join(command)} ended with {done.returncode}: " + (
        done.stdout + done.stderr
    )
    return done.stdout


def check(words: str, test: Callable[[], object]) -> None:
    start = time.monotonic()
    try:
        said = test()
        print(f"ok      {words}{f': {said}' if said else ''} ({time.monotonic() - start:.1f} s)", flush=True)
    except Exception as error:
        failed.append(words)
        print(
            f"FAILED  {words}: {type(error).__name__}: {error} ({time.monotonic() - start:.1f} s)", flush=True
        )
        print(run("journalctl", "-q", "-n", "9", "-o", "cat", "-u", "anchorhold@*", check=False), flush=True)


def shown(unit: str, *properties: str) -> dict[str, str]:
    text = run("systemctl", "show", unit, *(f"-p{one}" for one in properties))
    return dict(line.split("=", 1) for line in text.splitlines())


def until(what: str, test: Callable[[], Any], seconds: float = PATIENCE) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := test()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.1)
    return found


def workers(unit: str = "taxes") -> list[int]:
    """Every process of the cells of a service, by its cgroup."""
    top = Path(f"/sys/fs/cgroup/system.slice/system-anchorhold.slice/anchorhold@{unit}.service")
    found: list[int] = []
    for path in top.rglob("cgroup.procs"):
        if path.parent.name.startswith("anchorhold-"):
            found += [int(pid) for pid in path.read_text().split()]
    return found


def main_pid(unit: str = "taxes") -> int:
    return int(shown(f"anchorhold@{unit}", "MainPID")["MainPID"])


def running(unit: str = "taxes") -> int:
    """The supervisor, which must be there: number 0 would be ourselves, for kill(2)."""
    pid = main_pid(unit)
    assert pid > 1, "it does not run"
    return pid


def serving(unit: str = "taxes") -> bool:
    return shown(f"anchorhold@{unit}", "ActiveState")["ActiveState"] == "active" and bool(workers(unit))


def lives(pid: int) -> bool:
    """Not so a zombie, which nobody has waited for yet: a stopped supervisor cannot."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def gone(pids: list[int]) -> bool:
    return not any(map(lives, pids))


def entries(state: Path = STATE, **fields: str) -> list[dict[str, Any]]:
    text = run("anchorhold", "--state-dir", str(state), "audit", "list", "--json")
    found = [json.loads(line) for line in text.splitlines()]
    return [one for one in found if all(one.get(key) == value for key, value in fields.items())]


def verifies(state: Path = STATE) -> str:
    return run("anchorhold", "--state-dir", str(state), "audit", "verify").splitlines()[0]


class Connection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str, seconds: float) -> None:
        super().__init__("localhost")
        self.path, self.seconds = path, seconds

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.seconds)
        self.sock.connect(self.path)


def has_gateway() -> bool:
    return any(Path("/usr/lib/anchorhold/lib").glob("python3*/site-packages/anchorhold/gateway/__init__.py"))


def post(
    body: dict[str, Any], path: str = "/run/anchorhold/taxes.sock", seconds: float = PATIENCE
) -> http.client.HTTPResponse:
    """Raises OSError, http.client.HTTPException."""
    connection = Connection(path, seconds)
    connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
    return connection.getresponse()


def question(tokens: int, **more: object) -> dict[str, Any]:
    words = "Tell me of the sea, at length."
    return {"model": "taxes", "max_tokens": tokens, "messages": [{"role": "user", "content": words}], **more}


def write_policy(name: str, *read: str, folder: str = "/root") -> str:
    path = Path(folder) / f"{name}.toml"
    path.write_text(
        POLICY.format(name=name, read=", ".join(json.dumps(one, ensure_ascii=False) for one in read))
    )
    path.chmod(0o644)
    return str(path)


def goes_on_when_rearmed() -> None:
    run("anchorhold", "--state-dir", str(STATE), "rearm", "taxes")
    run("systemctl", "reset-failed", "anchorhold@taxes")
    run("systemctl", "start", "anchorhold@taxes")
    until("it serves", serving)
