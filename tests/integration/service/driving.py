"""The daemon with real workers, as each kind of user: JSON in says which scene, JSON out what was seen."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from anchorhold.audit.query import entries
from anchorhold.cli.serve import doors
from anchorhold.errors import AnchorholdError, AuditError
from anchorhold.policy import load
from anchorhold.supervisor.events import Done, Event, Token
from anchorhold.supervisor.requests import Asked, Request
from anchorhold.supervisor.service import control
from anchorhold.supervisor.service.backend import Refused
from anchorhold.supervisor.service.backoff import Backoff
from anchorhold.supervisor.service.service import Service
from anchorhold.supervisor.session import Session
from anchorhold.verify.check import verify

LONG = "Tell a very long story about a harbour, with many people in it."


class Sink:
    """Keeps what comes."""

    def __init__(self) -> None:
        self.text = ""
        self.name = ""
        self.reason = ""
        self.error = ""
        self.exit_code = -1
        self.shown: list[tuple[str, str, int]] = []
        self.receipt: str | None = None
        self.first = threading.Event()
        self.ended = threading.Event()
        self.ends = 0

    def started(self, name: str) -> None:
        self.name = name

    def event(self, event: Event) -> None:
        if isinstance(event, Token):
            self.text += event.text
            self.first.set()

    def done(self, done: Done, shown: list[tuple[str, str, int]], receipt: str | None) -> None:
        self.reason, self.shown, self.receipt = done.reason, shown, receipt
        self._end()

    def failed(self, error: AnchorholdError) -> None:
        self.error, self.exit_code = str(error), error.exit_code
        self._end()

    def _end(self) -> None:
        self.ends += 1
        self.first.set()
        self.ended.set()


class Scene:
    """One daemon over policy files of its own."""

    def __init__(self, given: dict[str, Any]) -> None:
        self.place = Path(given["state"]).parent
        self.state, self.model, self.papers = Path(given["state"]), given["model"], Path(given["papers"])
        self.runtime = self.place / "runtime"
        self.conf = self.place / "conf"  # of whoever runs this, as a folder with policies must be
        self.conf.mkdir(mode=0o700)
        os.environ["RUNTIME_DIRECTORY"] = str(self.runtime)
        self.said: list[str] = []
        self.seen: dict[str, Any] = {}
        self.error: BaseException | None = None
        self.service: Service | None = None
        self._thread: threading.Thread | None = None
        self._stop = False

    def policy(self, name: str = "taxes", more: str = "", read: list[str] | None = None) -> Path:
        file = self.conf / f"{name}.toml"
        new = self.conf / f"{name}.new"
        roots = json.dumps([str(self.papers)] if read is None else read)
        new.write_text(
            f'version = 1\nname = "{name}"\n[model]\npath = {json.dumps(self.model)}\ncontext = 2048\n'
            f"[data]\nread = {roots}\n{more}"
        )
        new.chmod(0o600)
        new.rename(file)
        return file

    def start(self, *files: Path, backoff: Backoff | None = None, api: bool = False) -> Service:
        service = Service(
            [load.load(file, self.state) for file in files], self.state, say=self.said.append,
            make_door=doors() if api else None,
        )  # fmt: skip
        self.service = service
        if backoff is not None:
            for keeper in service.keepers.values():
                keeper._backoff = backoff
        service.start()
        service.wait_ready(60)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return service

    def _run(self) -> None:
        def wait(seconds: float) -> str:
            time.sleep(min(seconds, 0.02))
            return "stop" if self._stop else ""

        assert self.service is not None
        try:
            self.service.run(wait)
        except BaseException as error:
            self.error = error

    def session(self, name: str = "taxes") -> Session:
        assert self.service is not None
        found = self.service.keepers[name].session
        assert found is not None
        return found

    def ask(self, request: Asked | None = None, name: str = "taxes", *, receipt: bool = False) -> Sink:
        assert self.service is not None
        sink = Sink()
        self.service.submit(name, request or Request("Say hello.", max_tokens=8), sink, receipt=receipt)
        return sink

    def until(self, what: Callable[[], bool], seconds: float = 30.0) -> bool:
        deadline = time.monotonic() + seconds
        while not what():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)
        return True

    def is_in(self, state: str, name: str = "taxes", seconds: float = 30.0) -> bool:
        assert self.service is not None
        keeper = self.service.keepers[name]
        return self.until(lambda: keeper.state == state, seconds)

    def answered(self) -> bool:
        sink = self.ask()
        return sink.ended.wait(30) and sink.reason in ("stop", "length")

    def worker(self, name: str = "taxes") -> int:
        assert self.service is not None
        session = self.service.keepers[name].session
        return -1 if session is None else session.worker_pid

    def program(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "anchorhold.switch.kill", "--state-dir", self.state, *arguments],
            capture_output=True, text=True, timeout=20, check=False,
        )  # fmt: skip

    def finish(self) -> dict[str, Any]:
        self._stop = True
        if self._thread is not None:
            self._thread.join(10)
        if self.service is not None:
            self.service.close()
        self.seen["said"] = self.said
        self.seen["error"] = None if self.error is None else f"{type(self.error).__name__}: {self.error}"
        found = list(entries(self.state))
        self.seen["ends"] = [one.get("reason", "") for one in found if one["kind"] == "session.end"]
        self.seen["starts"] = sum(one["kind"] == "session.start" for one in found)
        self.seen["kills"] = [one for one in found if one["kind"] == "kill"]
        self.seen["loads"] = [one.get("change") for one in found if one["kind"] == "policy.load"]
        asked = {(one["session"], one["request"]) for one in found if one["kind"] == "request.start"}
        over = {(one["session"], one["request"]) for one in found if one["kind"] == "request.end"}
        self.seen["asked"], self.seen["unended"] = len(asked), len(asked - over)
        self.seen["verifies"] = verify(str(self.state)).ok
        return self.seen


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


# ---- scenes ---------------------------------------------------------------------------------------


def answers(scene: Scene) -> None:
    scene.start(scene.policy())
    sink = scene.ask(Request("When did the harbour freeze?", max_tokens=24), receipt=True)
    scene.seen["ended"] = sink.ended.wait(60)
    again = scene.ask(Request("Say hello.", files=[], max_tokens=4, history=[]))
    again.ended.wait(60)
    scene.seen.update(
        text=sink.text, reason=sink.reason, shown=[path for path, _digest, _size in sink.shown],
        name=sink.name, error_of=sink.error, second=again.name, ends_of=sink.ends,
    )  # fmt: skip
    receipt = json.loads(sink.receipt or "{}")
    scene.seen["receipt"] = receipt.get("request")
    status = control.ask(scene.runtime, "status")
    scene.seen["status"] = status["policies"][0]


def cancels(scene: Scene) -> None:
    service = scene.start(scene.policy())
    sink = Sink()
    ticket = service.submit("taxes", Request(LONG, max_tokens=1500), sink)
    waiting = Sink()
    second = service.submit("taxes", Request(LONG, max_tokens=1500), waiting)
    service.cancel(second)
    sink.first.wait(60)
    asked = time.monotonic()
    service.cancel(ticket)
    sink.ended.wait(30)
    scene.seen["seconds"] = time.monotonic() - asked
    scene.seen.update(reason=sink.reason, waiting=waiting.error, next=scene.answered(), ends_of=sink.ends)


def crashes(scene: Scene) -> None:
    scene.start(scene.policy())
    sink = scene.ask(Request(LONG, max_tokens=1500))
    sink.first.wait(60)
    first = scene.worker()
    os.kill(first, signal.SIGKILL)  # the one that reaches the first process of a namespace from outside
    sink.ended.wait(30)
    scene.is_in("starting")
    scene.seen.update(error_of=sink.error, again=scene.is_in("serving"), first=first)
    scene.seen["other"] = scene.worker() != first
    scene.seen["next"] = scene.answered()
    assert scene.service is not None
    scene.seen["restarts"] = scene.service.keepers["taxes"].restarts


def gives_up(scene: Scene) -> None:
    service = scene.start(scene.policy(), backoff=Backoff(most=2))
    for _time in range(2):
        scene.is_in("serving")
        scene.until(lambda: scene.worker() > 0)
        os.kill(scene.worker(), signal.SIGKILL)
        scene.until(lambda: service.keepers["taxes"].state != "serving")
    scene.seen["failed"] = scene.is_in("failed")
    try:
        scene.ask()
    except Refused as refused:
        scene.seen["refused"] = [refused.status, refused.code]
    scene.until(lambda: scene.error is not None)


def killed_by_socket(scene: Scene) -> None:
    service = scene.start(scene.policy())
    sink = scene.ask(Request(LONG, max_tokens=1500))
    behind = scene.ask()
    sink.first.wait(60)
    worker = scene.worker()
    scene.seen["told"] = control.ask(scene.runtime, "kill", "taxes")
    scene.seen["alive"] = alive(worker)
    sink.ended.wait(30)
    behind.ended.wait(30)
    scene.seen.update(error_of=sink.error, behind=behind.error, latched=scene.is_in("latched"))
    try:
        scene.ask()
    except Refused as refused:
        scene.seen["refused"] = [refused.status, refused.code]
    scene.seen["starts before"] = sum(one["kind"] == "session.start" for one in entries(scene.state))
    time.sleep(1.0)
    scene.seen["still"] = service.keepers["taxes"].state
    scene.seen["rearmed"] = control.ask(scene.runtime, "rearm", "taxes")
    scene.seen["again"] = scene.is_in("serving")
    scene.seen["next"] = scene.answered()


def killed_by_program(scene: Scene) -> None:
    scene.start(scene.policy(), scene.policy("notes"))
    sink = scene.ask(Request(LONG, max_tokens=1500))
    sink.first.wait(60)
    worker = scene.worker()
    done = scene.program("taxes")
    scene.seen["kill"] = {"code": done.returncode, "out": done.stdout}
    scene.seen["alive"] = alive(worker)
    sink.ended.wait(30)
    scene.seen.update(error_of=sink.error, exit_code=sink.exit_code, latched=scene.is_in("latched"))
    other = scene.ask(name="notes")
    other.ended.wait(30)
    scene.seen["other"] = other.reason
    done = scene.program("--no-latch", "notes")
    scene.seen["idle"] = scene.is_in("idle", "notes")
    other = scene.ask(name="notes")
    other.ended.wait(30)
    scene.seen["brought back"] = other.reason


def latched_before(scene: Scene) -> None:
    from anchorhold.switch import latch

    file = scene.policy()
    scene.state.mkdir(mode=0o700)
    latch.prepare(str(scene.state))
    latch.latch(str(scene.state), "taxes")
    try:
        scene.start(file)
    except AnchorholdError as error:
        scene.seen["exit_code"] = error.exit_code
    scene.start(file, scene.policy("notes"))
    scene.seen["latched"] = scene.is_in("latched")
    scene.seen["notes"] = scene.is_in("serving", "notes")


def idles(scene: Scene) -> None:
    service = scene.start(scene.policy(more='[limits]\nidle = "1s"\n'))
    worker = scene.worker()
    scene.seen["idle"] = scene.is_in("idle")
    scene.seen["alive"] = alive(worker)
    scene.seen["next"] = scene.answered()
    scene.seen["state"] = service.keepers["taxes"].state


def freezes(scene: Scene) -> None:
    service = scene.start(scene.policy())
    sink = scene.ask(Request(LONG, max_tokens=400))
    sink.first.wait(60)
    scene.program("--freeze", "taxes")
    scene.seen["frozen"] = scene.is_in("frozen")
    size = len(sink.text)
    time.sleep(0.5)
    scene.seen["stands"] = len(sink.text) - size
    try:
        scene.ask()
    except Refused as refused:
        scene.seen["refused"] = [refused.status, refused.code]
    scene.program("--thaw", "taxes")
    scene.seen["goes on"] = sink.ended.wait(60) and sink.reason
    scene.seen["state"] = service.keepers["taxes"].state


def reloads(scene: Scene) -> None:
    file = scene.policy()
    service = scene.start(file)
    keeper = service.keepers["taxes"]
    more = scene.place / "more"
    more.mkdir()
    (more / "more.txt").write_text("The mill burned in May.\n")
    # Wider: what is being answered is finished.
    sink = scene.ask(Request(LONG, max_tokens=120))
    sink.first.wait(60)
    scene.policy(read=[str(scene.papers), str(more)])
    scene.seen["wider"] = scene.until(lambda: len(keeper.policy.data.read) == 2)
    sink.ended.wait(60)
    scene.seen["finished"] = sink.reason
    scene.is_in("serving")
    asked = scene.ask(Request("When did the mill burn?", files=[str(more / "more.txt")], max_tokens=16))
    asked.ended.wait(60)
    scene.seen["granted"] = [path for path, _digest, _size in asked.shown] or asked.error
    # Wrong: the old one goes on.
    file.write_text("version = 1\nname = 'taxes'\nnonsense = 3\n")
    scene.until(lambda: "taxes" in service._problems)
    status = control.ask(scene.runtime, "status")["policies"][0]
    scene.seen.update(problem=status["policy"]["problem"], state_then=status["state"])
    # Narrower: cut off at once.
    sink = scene.ask(Request(LONG, max_tokens=1500))
    sink.first.wait(60)
    worker = scene.worker()
    scene.policy(read=[str(scene.papers)])
    sink.ended.wait(30)
    scene.seen.update(cut=sink.error, alive=alive(worker))
    scene.until(lambda: len(keeper.policy.data.read) == 1)
    scene.is_in("serving")
    try:
        scene.ask(Request("When did the mill burn?", files=[str(more / "more.txt")], max_tokens=16))
    except Refused as refused:
        scene.seen["refused"] = [refused.status, refused.code]
    scene.seen["next"] = scene.answered()
    # A document that comes is told, and shown to nobody.
    (scene.papers / "new.txt").write_text("new\n")
    (scene.papers / "secret.key").write_text("hidden by the policy\n")
    scene.until(lambda: (service._documents["taxes"].as_dict()["new"]) > 0)
    scene.seen["documents"] = control.ask(scene.runtime, "status")["policies"][0]["documents"]


def reloads_without_a_record(scene: Scene) -> None:
    """The log takes no entry while a policy becomes narrower."""
    more = scene.place / "more"
    more.mkdir()
    service = scene.start(scene.policy(read=[str(scene.papers), str(more)]), scene.policy("other"))
    scene.is_in("serving", "other")
    worker, other = scene.worker(), scene.worker("other")
    log = service._log
    assert log is not None
    real = log.append

    def full(*_arguments: object, **_words: object) -> None:
        raise AuditError("the audit log cannot be written: No space left on device")

    log.append = full  # type: ignore[method-assign]  # what a full disk comes to
    scene.policy(read=[str(scene.papers)])
    scene.seen["failed"] = scene.is_in("failed")
    scene.seen["cut"] = not alive(worker)
    status = {one["name"]: one for one in control.ask(scene.runtime, "status")["policies"]}
    scene.seen.update(problem=status["taxes"]["policy"]["problem"], other=status["other"]["state"])
    scene.seen["other lives"] = alive(other)
    log.append = real  # type: ignore[method-assign]  # there is room again
    scene.seen["again"] = control.ask(scene.runtime, "reload", "taxes")
    scene.seen["back"] = scene.is_in("serving")
    scene.seen["roots"] = len(service.keepers["taxes"].policy.data.read)
    scene.seen["next"] = scene.answered()


def fills(scene: Scene) -> None:
    service = scene.start(scene.policy())
    first = scene.ask(Request(LONG, max_tokens=1500))
    first.first.wait(60)
    sinks = [scene.ask() for _each in range(service.keepers["taxes"].policy.api.queue)]
    try:
        scene.ask()
    except Refused as refused:
        scene.seen["refused"] = [refused.status, refused.code, refused.retry_after]
    scene.finish()
    scene.seen["each ended once"] = all(sink.ends == 1 for sink in [first, *sinks])
    scene.seen["words"] = sorted({sink.error for sink in [first, *sinks]})


def fuzzed(scene: Scene) -> None:
    import random

    scene.start(scene.policy())
    chance = random.Random(5)
    path = control.path_of(str(scene.runtime))
    good = json.dumps({"v": 1, "command": "status", "name": None}).encode()
    answers: dict[str, int] = {}
    for number in range(300):
        data = bytearray(len(good).to_bytes(4, "big") + good)
        for _flip in range(chance.randint(1, 4)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        if number % 3 == 0:
            data = bytearray(chance.randbytes(chance.randint(0, 64)))
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(5)
            try:
                client.connect(path)
                client.sendall(data)
                client.shutdown(socket.SHUT_WR)
                answer = client.recv(1 << 16)
            except OSError as error:
                answer = type(error).__name__.encode()
        word = "ok" if b'"ok":true' in answer else "no" if b'"ok":false' in answer else "closed"
        answers[word] = answers.get(word, 0) + 1
    held = [socket.socket(socket.AF_UNIX) for _each in range(40)]
    for client in held:
        client.settimeout(1)
        try:
            client.connect(path)
        except OSError:
            break
    for client in held:
        client.close()
    scene.until(lambda: _asks(scene))
    scene.seen.update(answers=answers, state=control.ask(scene.runtime, "status")["policies"][0]["state"])
    scene.seen["next"] = scene.answered()


def _asks(scene: Scene) -> bool:
    try:
        return bool(control.ask(scene.runtime, "status"))
    except (OSError, AnchorholdError):
        return False


def second_service(scene: Scene) -> None:
    file = scene.policy()
    scene.start(file)
    other = Service([load.load(file, scene.state)], scene.state, say=print)
    try:
        other.start()
    except AnchorholdError as error:
        scene.seen["second"] = str(error)
    scene.seen["next"] = scene.answered()


def as_program(scene: Scene) -> None:
    """``anchorhold serve`` itself, with a service manager that listens."""
    file = scene.policy()
    scene.runtime.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(scene.place / "notify"))
        manager.settimeout(60)
        heard: list[str] = []

        def hear(word: str) -> bool:
            while not any(line.startswith(word) for line in heard):
                heard.append(manager.recv(4096).decode())
            return True

        def anchorhold(*arguments: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [sys.executable, "-m", "anchorhold", "--state-dir", scene.state, *arguments],
                capture_output=True, text=True, timeout=30, check=False,
            )  # fmt: skip

        def serve() -> subprocess.Popen[str]:
            heard.clear()
            return subprocess.Popen(
                [sys.executable, "-m", "anchorhold", "--state-dir", scene.state, "serve", "--policy", file,
                 "--no-api"],
                env={**os.environ, "NOTIFY_SOCKET": str(scene.place / "notify"), "WATCHDOG_USEC": "1000000"},
                stderr=subprocess.PIPE, text=True,
            )  # fmt: skip

        child = serve()
        scene.seen["ready"] = hear("READY=1") and hear("WATCHDOG=1") and hear("STATUS=taxes: serving")
        status = anchorhold("status")
        scene.seen["status"] = status.stdout
        as_json = json.loads(anchorhold("status", "--json").stdout)
        scene.seen["states"] = [one["state"] for one in as_json["policies"]]
        worker = as_json["policies"][0]["session"]["pid"]
        scene.policy(more="[limits]\ntasks = 300\n")
        child.send_signal(signal.SIGHUP)
        hear("RELOADING=1")
        scene.seen["reload"] = [anchorhold("reload").returncode, anchorhold("reload", "nobody").returncode]
        scene.until(lambda: not alive(worker))
        heard.clear()
        hear("STATUS=taxes: serving")
        child.send_signal(signal.SIGTERM)
        child.wait(30)
        scene.seen["stopping"] = hear("STOPPING=1")
        scene.seen["term"] = child.returncode
        child = serve()
        hear("READY=1")
        child.send_signal(signal.SIGINT)
        child.wait(30)
        scene.seen["int"] = child.returncode
        child = serve()
        hear("READY=1")
        scene.seen["kill"] = anchorhold("kill", "taxes").stdout
        hear("STATUS=taxes: latched")
        scene.seen["killed"] = anchorhold("status").stdout
        child.send_signal(signal.SIGTERM)
        child.wait(30)
        child = serve()
        scene.seen["latched"] = [child.wait(30), child.stderr.read() if child.stderr else ""]
        scene.seen["rearm"] = anchorhold("rearm", "taxes").returncode
        child = serve()
        hear("READY=1")
        child.kill()
        child.wait(30)
        left = anchorhold("status")
        scene.seen["left"] = [left.returncode, left.stdout]
        child = serve()
        scene.seen["after kill -9"] = hear("READY=1")
        child.send_signal(signal.SIGTERM)
        child.wait(30)


def over_http(scene: Scene) -> None:
    """The real openai package, over TCP with the token and over the Unix socket without one."""
    import httpx2 as httpx
    from openai import OpenAI, PermissionDeniedError

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    scene.start(scene.policy(more=f'[api]\nlisten = "127.0.0.1:{port}"\n'), scene.policy("notes"), api=True)
    token = (scene.state / "token-taxes").read_text().strip()
    client = OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key=token, max_retries=0, timeout=60)
    scene.seen["models"] = [model.id for model in client.models.list()]
    hello: Any = {"model": "taxes", "messages": [{"role": "user", "content": "Say hello."}], "temperature": 0}
    answer = client.chat.completions.create(
        **hello, max_tokens=8,
        extra_body={"anchorhold": {"files": [str(scene.papers / "paper.txt")], "receipt": True}},
    )  # fmt: skip
    more: Any = answer.model_extra
    scene.seen["shown"] = more["anchorhold"]["shown"]
    scene.seen["request"] = more["anchorhold"]["request"]
    receipt = more["anchorhold"]["receipt"]
    scene.seen["receipt"] = (json.loads(receipt) if isinstance(receipt, str) else receipt)["request"]
    pieces = list(client.chat.completions.create(**hello, max_tokens=8, stream=True))
    scene.seen["pieces"] = len(pieces)
    json_answer = client.chat.completions.create(
        model="taxes", messages=[{"role": "user", "content": "Name a town and its year as JSON."}],
        max_tokens=60, temperature=0,
        response_format={"type": "json_schema", "json_schema": {"name": "t", "schema": {
            "type": "object",
            "properties": {"town": {"type": "string", "maxLength": 12}, "year": {"type": "integer"}},
            "required": ["town", "year"], "additionalProperties": False}}},
    )  # fmt: skip
    scene.seen["json"] = json_answer.choices[0].message.content
    try:
        client.chat.completions.create(
            **hello, max_tokens=8, extra_body={"anchorhold": {"files": ["/etc/passwd"]}}
        )
    except PermissionDeniedError as error:
        scene.seen["denied"] = [error.status_code, error.code]
    # A client that goes away in the middle of an answer.
    long: Any = {"model": "taxes", "messages": [{"role": "user", "content": LONG}], "stream": True}
    stream = client.chat.completions.create(**long, max_tokens=1500)
    next(iter(stream))
    time.sleep(0.5)
    assert scene.service is not None
    keeper = scene.service.keepers["taxes"]
    scene.seen["busy"] = keeper.busy
    left = time.monotonic()
    stream.response.close()
    scene.until(lambda: not keeper.busy)
    scene.seen["stopped after"] = time.monotonic() - left
    unix = httpx.HTTPTransport(uds=str(scene.runtime / "notes.sock"))
    with httpx.Client(transport=unix, base_url="http://localhost", timeout=60) as plain:
        said = plain.post("/v1/chat/completions", json={**hello, "model": "notes", "max_tokens": 4})
        scene.seen["unix"] = [said.status_code, said.headers.get("x-request-id", "")]
        scene.seen["other"] = plain.post("/v1/chat/completions", json={**hello, "max_tokens": 4}).status_code
    scene.seen["no token"] = httpx.get(f"http://127.0.0.1:{port}/v1/models").status_code
    # The gateway dies: the workers live on, and it comes back.
    worker = scene.worker()
    pid = scene.service._door.gateway_pid  # type: ignore[union-attr]
    os.kill(pid, signal.SIGKILL)
    scene.until(lambda: _lists(client), 40)
    scene.seen["gateway back"] = _lists(client)
    scene.seen["same worker"] = scene.worker() == worker


def _lists(client: Any) -> bool:
    import openai

    try:
        return bool(client.models.list().data)
    except openai.APIError:
        time.sleep(0.2)
        return False


def main() -> None:
    given = json.load(sys.stdin)
    scene = Scene(given)
    out = os.dup(1)
    os.dup2(2, 1)
    try:
        globals()[given["what"]](scene)
    except BaseException:
        if scene.service is not None:
            scene.service.close()
        raise
    os.write(out, json.dumps(scene.finish(), default=str).encode())


if __name__ == "__main__":
    main()
