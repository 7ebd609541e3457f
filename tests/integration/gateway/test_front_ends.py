"""Programs that people use, as they are installed, against `anchorhold serve` with the real model.

Each has an environment of its own (`tools/set-up front-ends`). What a program shows is compared with what the
log says about the request that it made.
"""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from anchorhold.audit.query import entries
from anchorhold.verify.check import verify
from tests.support import TOP

MODEL = "text-embedding-3-small"
"""`llm embed` knows OpenAI's names of models only, so the policy has one of those."""

COLOUR = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")

pytestmark = pytest.mark.timeout(240)  # the first test of a checkout waits for the environments


class Served:
    """A running service with one policy over TCP. home: of the person whose programs ask it."""

    def __init__(self, place: Path, port: int) -> None:
        self.state, self.home = place / "state", place / "home"
        self.url = f"http://127.0.0.1:{port}/v1"
        self.home.mkdir()

    @property
    def token(self) -> str:
        return (self.state / f"token-{MODEL}").read_text().strip()

    def run(self, *command: str, rc: int = 0, env: Mapping[str, str] | None = None) -> str:
        """What a program says. It finds nothing of the person who runs the tests."""
        done = subprocess.run(
            command, env=self.environment(env), cwd=self.home, stdin=subprocess.DEVNULL, timeout=60,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == rc, done.stdout + done.stderr
        return done.stdout if rc == 0 else done.stderr

    def environment(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        return {
            "HOME": str(self.home),
            "PATH": os.environ["PATH"],
            "TERM": "xterm",
            "LANG": "C.UTF-8",
            **(more or {}),
        }

    def answered(self) -> list[dict[str, Any]]:
        """The log's ends of requests; each was asked by the token."""
        found = list(entries(self.state, kinds=["request.start", "request.end"]))
        asked = [one for one in found if one["kind"] == "request.start"]
        assert all(one["principal"].startswith("token:") for one in asked)
        return [one for one in found if one["kind"] == "request.end"]


@pytest.fixture(scope="module")
def programs() -> Path:
    """The environments, made where they are missing."""
    made = subprocess.run(
        [TOP / "tools/set-up", "front-ends"], capture_output=True, text=True, timeout=220, check=False
    )
    if made.returncode:
        why = f"front ends cannot be installed: {made.stderr.strip()}"
        if os.environ.get("CI"):
            pytest.fail(why)
        pytest.skip(why)  # somebody without a network: nothing of anchorhold is needed for these programs
    return TOP / ".cache/front-ends"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, demo_model: Path, programs: Path) -> Iterator[Served]:
    place = tmp_path_factory.mktemp("fe")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    found = Served(place, port)
    policy = place / f"{MODEL}.toml"
    policy.write_text(
        f'version = 1\nname = "{MODEL}"\n[model]\npath = {json.dumps(str(demo_model))}\ncontext = 2048\n'
        f'[data]\nread = []\n[api]\nlisten = "127.0.0.1:{port}"\nmax_tokens = 48\n'
    )
    policy.chmod(0o600)
    with (place / "said").open("w") as said:
        service = subprocess.Popen(
            [sys.executable, "-m", "anchorhold", "--state-dir", found.state, "serve", "--policy", policy],
            env={**os.environ, "RUNTIME_DIRECTORY": str(place / "run")}, stdout=said, stderr=said,
        )  # fmt: skip
    try:
        _wait_ready(port, service, place / "said")
        yield found
    finally:
        service.send_signal(signal.SIGTERM)
        ended = service.wait(30)
    assert ended == 0, (place / "said").read_text()
    assert verify(str(found.state)).ok


def _wait_ready(port: int, service: subprocess.Popen[bytes], said: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert service.poll() is None, said.read_text()
        try:
            if httpx.get(f"http://127.0.0.1:{port}/ready").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    pytest.fail(f"not ready: {said.read_text()}")


# ---- llm ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def llm(served: Served, programs: Path) -> str:
    """The program, set up as docs/front-ends.md says."""
    program = str(programs / "llm/bin/llm")
    models = [
        {"model_id": f"anchorhold{suffix}", "model_name": MODEL, "api_base": served.url,
         "api_key_name": "anchorhold", **more}
        for suffix, more in (
            ("", {"supports_schema": True, "supports_tools": True}),
            ("-responses", {"responses": True}),
            ("-text", {"completion": True}),
        )
    ]  # fmt: skip
    folder = served.home / ".config/io.datasette.llm"
    folder.mkdir(parents=True)
    (folder / "extra-openai-models.yaml").write_text(json.dumps(models))  # JSON is YAML
    served.run(program, "keys", "set", "anchorhold", "--value", served.token)
    return program


def last(served: Served, llm: str) -> dict[str, Any]:
    """llm's own record of its last answer, which is the one that the log ends with."""
    (found,) = json.loads(served.run(llm, "logs", "-n", "1", "--json"))
    kept = served.answered()[-1]
    if found["response_json"] is None:  # llm keeps nothing of a streamed response that was cut short
        assert found["model"].endswith("-responses") and kept["reason"] == "length"
    else:
        assert found["response_json"]["id"].endswith(kept["request"])
    if found["input_tokens"] is not None:  # not told for llm's completions
        assert (found["input_tokens"], found["output_tokens"]) == (
            kept["prompt_tokens"],
            kept["output_tokens"],
        )
    return {**found, "kept": kept}


def test_llm_knows_the_models(served: Served, llm: str) -> None:
    assert "OpenAI Chat: anchorhold\n" in served.run(llm, "models", "list")
    listed = served.run(llm, "openai", "endpoint", served.url, "--models", "--key", "anchorhold")
    assert listed == f"{MODEL}\n"


@pytest.mark.parametrize("more", [[], ["--no-stream"]])
def test_llm_prompts(served: Served, llm: str, more: list[str]) -> None:
    options = ["-o", "temperature", "0", "-o", "max_tokens", "16", "-o", "seed", "7"]
    said = served.run(llm, "-m", "anchorhold", "-s", "Be brief.", *options, *more, "Say hello.")
    found = last(served, llm)
    assert said.rstrip("\n") == found["response"].rstrip("\n") != ""
    assert 0 < found["kept"]["output_tokens"] <= 16 and found["kept"]["reason"] in ("stop", "length")


def test_llm_streams(served: Served, llm: str) -> None:
    """What it shows comes in pieces, not at the end."""
    command = [llm, "-m", "anchorhold", "Tell a story about a harbour."]
    with subprocess.Popen(command, env=served.environment(), stdout=subprocess.PIPE) as program:
        assert program.stdout is not None
        pieces = list(iter(lambda: os.read(program.stdout.fileno(), 4096), b""))  # type: ignore[union-attr]  # above
    assert program.returncode == 0 and len(pieces) > 3
    assert b"".join(pieces).decode().rstrip("\n") == last(served, llm)["response"].rstrip("\n")


@pytest.mark.parametrize("model", ["anchorhold", "anchorhold-responses"])
def test_llm_goes_on(served: Served, llm: str, model: str) -> None:
    served.run(llm, "-m", model, "-o", "max_tokens", "12", "Say hello.")
    first = last(served, llm)
    served.run(llm, "-c", "-o", "max_tokens", "12", "And goodbye.")
    second = last(served, llm)
    assert first["conversation_id"] == second["conversation_id"]
    assert second["kept"]["prompt_tokens"] > first["kept"]["prompt_tokens"] + first["kept"]["output_tokens"]


def test_llm_completes_a_text(served: Served, llm: str) -> None:
    assert served.run(llm, "-m", "anchorhold-text", "-o", "max_tokens", "8", "Once upon a time").strip()
    assert last(served, llm)["kept"]["output_tokens"] <= 8


def test_llm_wants_a_schema_and_tools(served: Served, llm: str) -> None:
    said = served.run(llm, "-m", "anchorhold", "--schema", "town, year int", "Wick froze in 1890.")
    assert served.answered()[-1]["reason"] == "length" or isinstance(json.loads(said)["year"], int)
    served.run(llm, "-m", "anchorhold", "-T", "llm_version", "-o", "max_tokens", "12", "Say hello.")


def test_llm_embeds(served: Served, llm: str) -> None:
    keys = {"OPENAI_BASE_URL": served.url, "OPENAI_API_KEY": served.token}
    vector = json.loads(served.run(llm, "embed", "-m", "3-small", "-c", "The harbour froze.", env=keys))
    assert len(vector) > 100 and any(vector)


def test_llm_is_told_why(served: Served, llm: str) -> None:
    before = len(served.answered())
    assert "A token is needed" in served.run(llm, "-m", "anchorhold", "--key", "wrong", "x", rc=1)
    refused = served.run(llm, "-m", "anchorhold", "-o", "frequency_penalty", "0.5", "x", rc=1)
    assert "frequency_penalty: this is not done here" in refused
    assert len(served.answered()) == before


# ---- shell-gpt ------------------------------------------------------------------------------------


@pytest.fixture
def sgpt(served: Served, programs: Path, tmp_path: Path) -> tuple[str, dict[str, str]]:
    """The program and its environment. Its caches are of one test: a cached answer asks nobody."""
    environment = {
        "OPENAI_API_KEY": served.token, "API_BASE_URL": served.url, "DEFAULT_MODEL": MODEL,
        "CHAT_CACHE_PATH": str(tmp_path / "chats"), "CACHE_PATH": str(tmp_path / "answers"),
    }  # fmt: skip
    return str(programs / "shell-gpt/bin/sgpt"), environment


TIDE = """
from pydantic import BaseModel


class Function(BaseModel):
    @classmethod
    def execute(cls, town):
        return "at noon"

    @classmethod
    def openai_schema(cls):
        town = {"type": "string", "example": "Wick"}
        schema = {"type": "object", "properties": {"town": town}, "required": ["town"]}
        return {
            "type": "function",
            "function": {"name": "tide", "description": "Tells when it is high.", "parameters": schema},
        }
"""


def talk(command: list[str], environment: dict[str, str], lines: list[str]) -> str:
    """Types each line at the prompt of a terminal program, the last to leave it; returns what it showed."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(command[0], command, environment)
    shown = b""
    try:
        for line in lines:
            shown += _until(terminal, b">>> ")
            os.write(terminal, line.encode() + b"\r")
        shown += _until(terminal, None)
    finally:
        os.close(terminal)
        _pid, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0, shown.decode(errors="replace")
    return shown.decode()


def _until(terminal: int, prompt: bytes | None) -> bytes:
    """What comes until the prompt stands at the end; with None, until the program has closed its terminal."""
    shown = b""
    while select.select([terminal], [], [], 40)[0]:
        try:
            piece = os.read(terminal, 65536)
        except OSError:  # EIO: nobody has the other end any more
            piece = b""
        shown += piece
        if not piece or (prompt is not None and shown.endswith(prompt)):
            assert prompt is None or shown.endswith(prompt), shown.decode(errors="replace")
            return shown
    pytest.fail(f"it waits: {shown.decode(errors='replace')}")


def test_shell_gpt_talks_at_a_terminal(served: Served, sgpt: tuple[str, dict[str, str]]) -> None:
    program, more = sgpt
    before = len(served.answered())
    environment = served.environment({"COLUMNS": "200", **more})
    shown = talk([program, "--no-md", "--repl", "one"], environment, ["Say hello.", "And goodbye.", "exit()"])
    first, second = served.answered()[before:]
    assert first["reason"] in ("stop", "length") and second["reason"] in ("stop", "length")
    assert second["prompt_tokens"] > first["prompt_tokens"] + first["output_tokens"]
    kept = json.loads((Path(more["CHAT_CACHE_PATH"]) / "one").read_text())
    assert [one["role"] for one in kept] == ["system", "user", "assistant", "user", "assistant"]
    plain = "".join(COLOUR.sub("", shown).split())
    for one in kept[2::2]:
        assert one["content"] and "".join(one["content"].split()) in plain


def test_shell_gpt_asks_once(served: Served, sgpt: tuple[str, dict[str, str]]) -> None:
    program, more = sgpt
    before = len(served.answered())
    assert served.run(program, "--no-md", "Say hello.", env=more).strip()
    assert served.run(
        program, "--code", "print hello in Python", env={**more, "DISABLE_STREAMING": "true"}
    ).strip()
    assert len(served.answered()) == before + 2


def test_shell_gpt_offers_functions(served: Served, sgpt: tuple[str, dict[str, str]], tmp_path: Path) -> None:
    """It wants one call at a time: parallel_tool_calls is false."""
    program, more = sgpt
    functions = tmp_path / "functions"
    functions.mkdir()
    (functions / "tide.py").write_text(TIDE)
    more["OPENAI_FUNCTIONS_PATH"] = str(functions)
    before = len(served.answered())
    served.run(program, "--no-md", "--functions", "When is the tide high in Wick?", env=more)
    assert served.answered()[before]["reason"] in ("stop", "length", "tool_calls")
