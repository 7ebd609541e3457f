"""One worker from start to end, as the commands use it: start, ask, kill, close.

A session is one cell with its own id in the log. Its entries begin with ``session.start`` and end
with ``session.end``; a checkpoint is signed after that.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import queue
import threading
import time
from collections.abc import Callable, Generator, Iterable
from pathlib import Path

from anchorhold import __version__
from anchorhold.audit.digests import DigestCache
from anchorhold.audit.log import Log
from anchorhold.broker.handlers import Handlers
from anchorhold.broker.memory import Memory
from anchorhold.broker.model import ModelFile
from anchorhold.broker.record import Recorder, new_session, text
from anchorhold.broker.runtime import Runtime
from anchorhold.broker.snapshots import Snapshots
from anchorhold.broker.system import System
from anchorhold.broker.view import DataView
from anchorhold.channel import frames, messages
from anchorhold.channel.errors import ProtocolError
from anchorhold.errors import (
    AnchorholdError,
    AuditError,
    BreachError,
    Interrupted,
    KilledError,
    LimitError,
    WorkerError,
)
from anchorhold.policy.schema import BREACHES, Policy
from anchorhold.supervisor import events
from anchorhold.supervisor.limits import Limits
from anchorhold.supervisor.loop import Loop
from anchorhold.supervisor.requests import Asked, ChatRequest
from anchorhold.supervisor.requests import Request as Request  # where the commands look for it
from anchorhold.supervisor.spawn import Launched
from anchorhold.supervisor.starting import boot_id, demand, empty_folder, give_up, launch_config
from anchorhold.supervisor.summary import Summary
from anchorhold.supervisor.switched import Switched, record_kept
from anchorhold.supervisor.translate import error_of, event_of, output_of

WORKER = "anchorhold.worker.main"
SNAPSHOT_BUDGET = 1 << 30
"""Bytes of copies that a worker may hold at one time; half of its memory limit if that is less."""
START_SECONDS = 120.0
STOP_SECONDS = 2.0
"""How long a worker may take to stop an answer before it is killed for it."""
SEAL_LAYERS = ("mdwe",)
"""Layers that go on with the seal, after all others."""
MOST_NAMED = 10_000
"""Names left out of listings that a session tells of, each once."""


_WORDS: dict[type, str] = {
    BreachError: "breach",
    LimitError: "limit",
    KilledError: "killed",
    Interrupted: "interrupted",
    type(None): "interrupted",
}
"""Why a request that was not answered ended."""


class Session:
    """A worker in its cell. Not started until ``start``."""

    def __init__(
        self,
        policy: Policy,
        log: Log,
        *,
        state_dir: Path,
        suffixes: Iterable[str] = (),
        entry: str = WORKER,
        config: dict[str, object] | None = None,
        on_end: Callable[[], None] | None = None,
    ) -> None:
        """entry: the module whose prepare and serve run in the cell; config: more of its configuration.

        on_end: called when the worker is dead, from the thread that watched it.
        """
        self.policy = policy
        self.log = log
        self.state_dir = state_dir
        self.entry = entry
        self.config: dict[str, object] = {"suffixes": sorted(suffixes), **(config or {})}
        self._on_end = on_end
        self._copies = None
        if policy.audit.copy:
            from anchorhold.audit.copies import Copies

            self._copies = Copies(policy.audit.copy, names=policy.audit.copy_names)
        self.recorder = Recorder(log, new_session(), self._copies)
        self.layers: dict[str, str] = {}
        self.missing: dict[str, str] = {}
        self._switched = Switched(policy.name, self.recorder.session, state_dir)
        self._digests = DigestCache(state_dir)
        self._view: DataView | None = None
        self._model: ModelFile | None = None
        self._loop: Loop | None = None
        self._launched: Launched | None = None
        self._folder = -1
        self._limits: Limits | None = None
        self._started = False
        self._closed = False
        self._killed: str | None = None
        self.context = 0
        self.embeddings = False
        self._next_request = self._begun = self._answered = 0
        self._owner = 0
        self._principal = ""
        self._named: set[bytes] = set()
        self._hidden: set[bytes] = set()
        self._output_salt = b""
        self._output = hashlib.sha256()
        self._lock = threading.Lock()

    @property
    def copies_lost(self) -> int:
        """Copies of entries that reached nobody."""
        return self._copies.lost if self._copies is not None else 0

    @property
    def summary(self) -> Summary:
        phase = self._loop.stage if self._loop is not None else "none"
        return Summary(self.recorder, self.layers, self.missing, phase, len(self._hidden), len(self._named))

    @property
    def ended(self) -> bool:
        """Whether its worker is dead."""
        return self._loop is not None and self._loop.ended.is_set()

    def wait_ended(self, seconds: float) -> bool:
        """Whether the worker and its launcher are gone, by the kernel's word, within so many seconds."""
        return self._loop is None or self._loop.ended.wait(seconds)

    @property
    def error(self) -> AnchorholdError | None:
        """What ended it."""
        return None if self._loop is None else self._loop.error

    @property
    def frozen(self) -> bool:
        """Whether the kill switch stopped it without killing."""
        return self._loop is not None and self._loop.frozen

    @property
    def worker_pid(self) -> int:
        """The worker's process id; -1 where there is none."""
        return -1 if self._loop is None else self._loop.child_pid

    @property
    def launcher_pid(self) -> int:
        """The process id of the worker's waiting parent; -1 where there is none."""
        return -1 if self._launched is None else self._launched.pid

    @property
    def cgroup(self) -> str:
        """The path of the worker's own control group, or ""."""
        group = None if self._limits is None else self._limits.cgroup
        return "" if group is None else str(group.path)

    @property
    def mechanisms(self) -> dict[str, str]:
        """By which mechanism each limit is held, in words."""
        return {} if self._limits is None else self._limits.mechanisms

    @property
    def request_name(self) -> str:
        """The name of the last request in the log: ``<session>-<number>``."""
        return f"{self.recorder.session}-{self._next_request}"

    # ---- start --------------------------------------------------------------------------------

    def start(self) -> None:
        """Build the cell, boot the engine, seal. Returns when the worker is sealed and loads its model.

        Raises PolicyError, LayerError, AuditError, LimitError, WorkerError, LatchedError, KilledError,
        Interrupted; nothing runs then.
        """
        policy = self.policy
        record_kept(self.log, self.state_dir)
        self._view = DataView(policy.data)
        try:
            limits = self._limits = Limits(policy.limits, self.recorder.session)
            try:
                self._switched.begin(limits.cgroup.path if limits.cgroup is not None else "")
                launched = self._launched = Launched()
            except BaseException:
                limits.close()
                raise
        except OSError as error:
            raise WorkerError(f"the cell cannot be prepared: {error}") from None

        def before(pid: int) -> None:
            self._switched.launched(pid)
            limits.begin(pid)

        try:
            launched.start(launch_config(self.policy, limits, self.entry, self.config), before=before)
            # While the launcher starts: the model's digest, where it is not known yet.
            self._model = ModelFile(policy.model.path, policy.model.sha256, self._digests)
            self._folder = empty_folder(self.state_dir)
            runtime = Runtime.of_this_program()
        except OSError as error:
            give_up(launched)
            limits.close()
            raise WorkerError(f"the cell cannot be started: {error}") from None
        except BaseException:
            give_up(launched)
            limits.close()
            raise
        view, model = self._view, self._model
        processors = len(limits.processors)
        budget = min(SNAPSHOT_BUDGET, (policy.limits.memory or 2 * SNAPSHOT_BUDGET) // 2)

        def make_handlers(memory: Memory) -> Handlers:
            return Handlers(
                memory=memory,
                recorder=self.recorder,
                view=view,
                model=model,
                runtime=runtime,
                system=System(processors),
                snapshots=Snapshots(budget),
                digests=self._digests,
                folder=self._folder,
                total_memory=budget,
                skipped=self._skipped,
            )

        loop = self._loop = Loop(
            launched,
            self.recorder,
            limits,
            make_handlers=make_handlers,
            on_cell=self._on_cell,
            on_seal=self._on_seal,
            on_message=self._on_message,
            switched=self._switched,
            kills=frozenset(key for key in BREACHES if getattr(policy.breach, key) == "kill"),
            heartbeat=policy.limits.heartbeat,
            on_end=self._on_end,
        )
        if self._killed is not None:  # before it runs, or it would find a dead worker without a reason
            loop.kill(self._killed)
        loop.start()
        if not loop.sealed.wait(START_SECONDS):
            loop.error = loop.error or WorkerError("the engine did not start in time")
            loop.kill("the engine did not start in time")
        if loop.ended.is_set() or loop.stage != "serving":
            loop.ended.wait(5.0)
            raise loop.error or WorkerError("the worker did not start")
        # As many as may run; fewer than there may be, so that the engine's own helpers find room.
        threads = policy.model.threads or max(1, min(processors, policy.limits.tasks - 8))
        loop.send(
            {"type": "load", "path": policy.model.path, "context": policy.model.context, "threads": threads}
        )

    def wait_loaded(self) -> None:
        """Returns when the model is loaded. Raises what ended it instead."""
        loop = self._loop
        assert loop is not None
        while True:
            event = loop.events.get()
            loop.taken()
            if event is None:
                loop.events.put(None)
                raise loop.error or Interrupted("the worker was ended")
            if isinstance(event, AnchorholdError):
                raise event
            if isinstance(event, events.Phase) and event.name == "loaded":
                return

    def _on_cell(self, held: dict[str, str], missing: dict[str, str]) -> None:
        """The cell stands: recorded before the first answer, refused if it lacks what is required."""
        limits, model = self._limits, self._model
        assert limits is not None and model is not None
        if limits.cgroup_missing:
            missing["cgroup"] = limits.cgroup_missing
        self.layers, self.missing = held, missing
        policy = self.policy
        self.recorder.event(
            "session.start",
            policy=policy.name,
            policy_sha256=policy.digest,
            model={"sha256": model.sha256, "size": model.stat.st_size},
            model_path=policy.model.path,
            layers=held,
            missing=missing,
            limits=limits.mechanisms,
            versions={"anchorhold": __version__, "kernel": os.uname().release},
            supervisor_pid=os.getpid(),
            boot=boot_id(),
        )
        self._started = True
        demand([name for name in policy.require if name not in SEAL_LAYERS], held, missing)

    def _on_seal(self, held: dict[str, str], missing: dict[str, str]) -> None:
        """The layers that go on with the seal."""
        self.layers.update(held)
        self.missing.update(missing)
        demand([name for name in self.policy.require if name in SEAL_LAYERS], self.layers, self.missing)

    # ---- ask ----------------------------------------------------------------------------------

    def ask(self, request: Asked) -> Generator[events.Event, None, None]:
        """Serve one request. Yields events; ends after Done. Raises what ended it otherwise.

        A request that is none (AnchorholdError with code "bad_request") leaves no entry: nothing was sent.
        """
        loop = self._loop
        if loop is None:
            raise WorkerError("the session was not started")
        number = self._next_request + 1
        files, data = self._encoded(request, number)
        self._next_request = number
        self.recorder.request = number
        self._output_salt = os.urandom(16)
        self._output = hashlib.sha256(self._output_salt)
        if loop.ended.is_set():
            raise loop.error or WorkerError("the worker has ended")
        material = request.material if isinstance(request, Request) else None
        if material is not None:
            given = material.encode("utf-8", "surrogatepass")
            self.recorder.grant(
                b"-", b"-", "stdin", hashlib.sha256(given).hexdigest(), len(given), "snapshot"
            )
        self.recorder.event(
            "request.start",
            prompt=self._commitment(request),
            files=files,
            asked=request.kind,
            principal=request.principal,
            **request.public(),
        )
        self._begun = number
        loop.send_bytes(data)
        finished = False
        try:
            while True:
                event = loop.events.get()
                loop.taken()
                if event is None:
                    loop.events.put(None)
                    raise loop.error or Interrupted("the worker was ended")
                if isinstance(event, AnchorholdError):
                    finished = True
                    raise event
                assert isinstance(event, events.Event)
                finished = isinstance(event, events.Done)
                yield event
                if finished:
                    return
        finally:
            if not finished:
                self._stop(loop, number)
            self.recorder.request = None

    def stop_answer(self) -> None:
        """From any thread: what is being answered ends soon, with ``Done("cancelled")``."""
        loop = self._loop
        if loop is not None and not loop.ended.is_set():
            loop.send({"type": "stop", "id": self._next_request})

    def _encoded(self, request: Asked, number: int) -> tuple[list[str], bytes]:
        """The files named by a request, and its message. Raises WorkerError bad_request for what is none."""
        if request.principal != self._principal:
            # Also where the request is then refused: whoever asks next is told apart from who asked before.
            self._principal = request.principal
            self._owner += 1
        message = {"type": request.kind, "id": number, "owner": self._owner, **request.message()}
        files: list[str] = []
        if isinstance(request, (Request, ChatRequest)):
            files = message["files"] = [os.path.abspath(path) for path in request.files]
        if isinstance(request, Request):
            message["roots"] = [] if files else [*self.policy.data.read, *self.policy.data.files]
        try:
            return files, frames.frame(messages.encode(message), frames.TO_WORKER_LIMIT)
        except ProtocolError as error:
            raise WorkerError(f"no request that can be served: {error}", code="bad_request") from None

    def _stop(self, loop: Loop, number: int) -> None:
        """Whoever stops listening stops the answer. The worker is ready for another when this returns."""
        if loop.ended.is_set():
            return
        loop.send({"type": "stop", "id": number})
        deadline = time.monotonic() + STOP_SECONDS
        while True:
            try:
                event = loop.events.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                loop.kill("it did not stop its answer when told to")
                return
            loop.taken()
            if event is None:
                loop.events.put(None)
                return
            if isinstance(event, (events.Done, AnchorholdError)):
                return

    def _commitment(self, request: Asked) -> object:
        """What the log keeps of the question: its text, a salted digest, or nothing, as the policy says."""
        kept = self.policy.audit.prompts
        if kept == "none":
            return None
        said, as_text = request.said()
        if kept == "text":
            return as_text
        salt = os.urandom(16)
        data = said.encode("utf-8", "surrogatepass")
        return {"salt": salt.hex(), "sha256": hashlib.sha256(salt + data).hexdigest()}

    def _skipped(self, path: bytes, reason: str) -> None:
        """A name that a listing left out: the user hears of it; of those that a pattern hides, how many."""
        loop = self._loop
        if reason.startswith("data.deny"):
            if len(self._hidden) < MOST_NAMED:
                self._hidden.add(path)
            return
        if loop is None or path in self._named:
            return
        if len(self._named) < MOST_NAMED:
            self._named.add(path)
            loop.events.put(events.Document(text(path), "skipped", reason, 0))

    def _on_message(self, message: messages.Message) -> None:
        """One message of the worker; untrusted, but of the protocol."""
        loop = self._loop
        assert loop is not None
        kind = message["type"]
        if message.get("id") is not None and message["id"] != self._next_request:
            raise ProtocolError(f"it spoke of request {message['id']}, which is not the one being served")
        self._output.update(output_of(message))
        if kind == "done":
            self._request_end(
                message["reason"], message["prompt_tokens"], message["output_tokens"], message["files"]
            )
        elif kind == "failed":
            if message["id"] is not None:
                sent = message["detail"].get("needed", 0)
                self._request_end(
                    "failed: " + message["code"], 0, 0, [], sent=sent if type(sent) is int else 0
                )
            loop.events.put(error_of(message, self.policy.model.path))
            return
        elif kind == "loaded":
            self.context, self.embeddings = message["context"], message["embeddings"]
        event = event_of(message)
        if event is not None:
            loop.events.put(event)

    def _request_end(
        self, reason: str, prompt: int, output: int, files: list[str], *, sent: int | None = None
    ) -> None:
        """prompt: tokens that the model has seen; sent: those of the whole request, where they differ."""
        if self._answered == self._next_request:
            raise ProtocolError("it ended a request that has ended, or that nobody made")
        self._answered = self._next_request
        self.recorder.event(
            "request.end",
            reason=reason,
            prompt_tokens=prompt,
            sent_tokens=prompt if sent is None else sent,
            output_tokens=output,
            output={"salt": self._output_salt.hex(), "sha256": self._output.hexdigest()},
            files=files,
        )

    # ---- end ----------------------------------------------------------------------------------

    def kill(self, reason: str) -> None:
        """The worker is dead when this returns. From any thread or signal handler: no lock, no log."""
        self._killed = reason
        if self._loop is not None:
            self._loop.kill(reason)
        elif self._launched is not None and self._launched.pid > 0:
            with contextlib.suppress(OSError):
                os.kill(self._launched.pid, 9)  # still our own child: it is reaped by the loop, or in start

    def close(self, reason: str = "done") -> None:
        """End the worker, write ``session.end``, sign a checkpoint. May be called again.

        Raises AuditError if the end could not be recorded; the worker is dead all the same.
        """
        with self._lock:
            if self._closed:
                return
            self._closed = True
        loop = self._loop
        if loop is not None:
            loop.close()
        try:
            if self._started:
                error = loop.error if loop is not None else None
                if self._answered < self._begun:  # it died while it answered
                    self.recorder.request = self._begun
                    # No more than a word: this field is public, and an error's text can name a file.
                    self._request_end(f"failed: {_WORDS.get(type(error), 'worker')}", 0, 0, [])
                self.recorder.request = None
                self.recorder.event(
                    "session.end",
                    reason=reason if error is None else f"{reason}: {error}",
                    shown=len(self.recorder.shown),
                    denied=self.recorder.denied,
                )
            if loop is not None:  # a start that failed may have left entries as well
                self.log.checkpoint()
        finally:
            self._switched.end()
            if self._copies is not None:
                self._copies.close()
            with contextlib.suppress(OSError, AuditError):
                self._digests.save()
            if self._view is not None:
                self._view.close()
            if self._model is not None:
                self._model.close()
            if self._folder >= 0:
                os.close(self._folder)
                self._folder = -1
