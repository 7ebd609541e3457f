"""One thread per worker: answers its calls, reads what it says, holds its limits, ends it.

Everything that this thread waits for is one poll(2). The kill does not go through here: whoever calls
``kill`` sends the signal itself, and this thread finds the worker dead.
"""

from __future__ import annotations

import contextlib
import os
import queue
import select
import signal
import threading
import time

from anchorhold.broker.broker import Breach, Broker
from anchorhold.broker.memory import Memory
from anchorhold.channel import frames, messages
from anchorhold.channel.errors import ProtocolError
from anchorhold.errors import AnchorholdError, Interrupted, KilledError, WorkerError
from anchorhold.kernel import pidfd, seccomp, syscalls
from anchorhold.supervisor import ending
from anchorhold.supervisor.heartbeat import Heartbeat
from anchorhold.supervisor.limits import Exceeded
from anchorhold.supervisor.pipes import Pipes
from anchorhold.supervisor.spawn import Message
from anchorhold.supervisor.starting import remember
from anchorhold.supervisor.switched import kill_words, since
from anchorhold.supervisor.together import Together

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from anchorhold.broker.handlers import Handlers
    from anchorhold.broker.record import Recorder
    from anchorhold.supervisor.limits import Limits
    from anchorhold.supervisor.spawn import Launched
    from anchorhold.supervisor.switched import Switched

PROT_EXEC = 4
BATCH = 64
"""Questions answered in a row before the other descriptors are looked at."""


class Loop(threading.Thread):
    """Serves one worker from its first message to its last breath."""

    def __init__(
        self,
        launched: Launched,
        recorder: Recorder,
        limits: Limits,
        *,
        make_handlers: Callable[[Memory], Handlers],
        on_cell: Callable[[dict[str, str], dict[str, str]], None],
        on_seal: Callable[[dict[str, str], dict[str, str]], None],
        on_message: Callable[[messages.Message], None],
        switched: Switched,
        kills: frozenset[str],
        heartbeat: float | None = None,
        on_end: Callable[[], None] | None = None,
    ) -> None:
        """on_cell: called with the layers that hold and those missing; raises to refuse the start.

        heartbeat: seconds after which a worker that gives no sign of life is taken for lost.
        on_end: called when the worker is dead and all is known of its end.
        """
        super().__init__(name="supervisor", daemon=True)
        self.launched = launched
        self.recorder = recorder
        self.limits = limits
        self.make_handlers = make_handlers
        self.on_cell = on_cell
        self.on_seal = on_seal
        self.on_message = on_message
        self.on_end = on_end
        self.switched = switched
        self.kills = kills
        self.heartbeat = Heartbeat(heartbeat)
        self.child_fd = -1
        self.child_pid = -1
        self.versions: dict[str, str] = {}
        self.seal_layers: dict[str, str] = {}
        self.stage = "spawned"
        self.sealed = threading.Event()
        self.ended = threading.Event()
        self.error: AnchorholdError | None = None
        self.kill_reason: str | None = None
        self.killed_at = 0.0
        self.status: int | None = None
        self.frozen = False
        self.events: queue.SimpleQueue[object] = queue.SimpleQueue()
        self._broker: Broker | None = None
        self._handlers: Handlers | None = None
        self._memory: Memory | None = None
        self._together: Together | None = None
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._poll = select.poll()
        self._pipes = Pipes(launched, self._poll, self.events, self._take)
        self._closing = False

    # ---- from other threads -------------------------------------------------------------------

    def send(self, message: messages.Message) -> None:
        """Queue a message to the worker; it goes out when the pipe takes it."""
        self.send_bytes(frames.frame(messages.encode(message), frames.TO_WORKER_LIMIT))

    def send_bytes(self, frame: bytes) -> None:
        """The same for a message that is a frame already."""
        self._pipes.put(frame)
        self.wake()

    def taken(self) -> None:
        """The reader of the events has taken one."""
        if self._pipes.is_awaited():
            self.wake()

    def wake(self) -> None:
        with contextlib.suppress(OSError):
            os.write(self._wake_write, b"x")

    def kill(self, reason: str | None) -> None:
        """SIGKILL, from whatever thread or signal handler; returns when the worker is dead (2 s at most)."""
        if self.kill_reason is None and reason is not None:
            self.kill_reason = reason
            self.killed_at = time.monotonic()
        child = self.child_fd
        if child >= 0:
            with contextlib.suppress(OSError):
                pidfd.pidfd_send_signal(child, signal.SIGKILL)
        if self.launched.pid > 0 and self.status is None:
            # Our own child and not reaped yet, so the number is still its own; the worker dies with it.
            with contextlib.suppress(OSError):
                os.kill(self.launched.pid, signal.SIGKILL)
        if child >= 0:
            with contextlib.suppress(OSError):
                pidfd.wait(child, 2.0)

    # ---- the thread ---------------------------------------------------------------------------

    def run(self) -> None:
        try:
            self._serve()
        except Breach as breach:
            self.kill(None)
            self._end_with(ending.by_breach(self.recorder, self.stage, breach))
        except Exceeded as exceeded:
            self.kill(None)
            self._end_with(ending.by_limit(self.recorder, exceeded))
        except ProtocolError as error:
            self.kill(None)
            self._end_with(ending.by_message(self.recorder, self.stage, error))
        except AnchorholdError as error:
            self._end_with(error)
        except BaseException as error:  # a defect of ours: the worker dies, and it is said
            self._end_with(WorkerError(f"the supervisor failed: {type(error).__name__}: {error}"))
        finally:
            self._finish()

    def _end_with(self, error: AnchorholdError) -> None:
        if self.error is None:
            self.error = error
        self.kill(None)

    def _serve(self) -> None:
        launched = self.launched
        setup = launched.setup.fileno()
        for fd in (setup, launched.stderr, launched.from_worker, self._wake_read):
            self._poll.register(fd, select.POLLIN)
        while True:
            wait = self.limits.check(self._held)
            for words in self.switched.done_to_it():
                self.recorder.event("kill", **kill_words(words))
                self.frozen = words["action"] == "freeze"
            due = self.recorder.flush_due()
            if due is not None:
                wait = min(wait, due)
            self._pipes.write()
            self._pipes.hold_back()
            if self.stage == "serving":
                wait = min(wait, self._feel_the_pulse())
            if self._together is not None and (quiet := self._together.wait()) is not None:
                if not quiet:
                    self._together.release()
                else:
                    wait = min(wait, quiet)
            ready = self._poll.poll(max(1, int(wait * 1000)))
            if due == 0.0:
                self.recorder.flush()
            self.recorder.settle(quiet=not ready)
            for fd, events in ready:
                if self._broker is not None and fd == self._broker.listener:
                    self._answer(events)
                elif fd == setup:
                    self._setup()
                elif fd == launched.from_worker:
                    self._pipes.readable(events)
                elif fd == launched.stderr:
                    self._pipes.read_stderr()
                elif fd == self._wake_read:
                    with contextlib.suppress(BlockingIOError):
                        os.read(self._wake_read, 4096)
                elif fd == self.child_fd:
                    self._pipes.drain(channel=self.stage == "serving")
                    self._hear_the_launcher()
                    return
            if self.child_fd < 0 and self._launcher_is_gone():
                self._pipes.drain(channel=self.stage == "serving")
                return

    def _feel_the_pulse(self) -> float:
        """Ask for a sign of life where it is time to; seconds until there is something to do again."""
        if self.frozen or self._pipes.held_back or self._pipes.closed:
            self.heartbeat.rest()
        elif self.heartbeat.missed():
            self._pipes.read()  # we may be those who did not look
            if self.heartbeat.missed():
                self._lost()
        elif self.heartbeat.due():
            self.send({"type": "ping"})
            self._pipes.write()
        return self.heartbeat.wait()

    def _lost(self) -> None:
        """No sign of life came. Raises Breach where the policy says so."""
        reason = f"no sign of life for {self.heartbeat.most:g} s"
        self.recorder.denial("heartbeat", b"", reason)
        self.heartbeat.rest()
        if "on_missing_heartbeat" in self.kills:
            raise Breach("heartbeat", b"", reason)

    def _take(self, frame: bytes) -> None:
        """One message of the worker. Raises ProtocolError."""
        if self.stage != "serving":
            raise ProtocolError("it spoke before it was sealed")
        message = messages.decode_from_worker(frame)
        if message["type"] == "pong":
            self.heartbeat.heard()
        else:
            self.on_message(message)

    def _held(self) -> int:
        return 0 if self._handlers is None else self._handlers.snapshots.held()

    def _hear_the_launcher(self) -> None:
        """The worker is dead; its parent alone knows how it ended, and ends the same way: let it."""
        with contextlib.suppress(OSError):
            launcher = pidfd.pidfd_open(self.launched.pid)
            try:
                pidfd.wait(launcher, 1.0)
            finally:
                os.close(launcher)
            self._launcher_is_gone()

    def _launcher_is_gone(self) -> bool:
        pid, status = os.waitpid(self.launched.pid, os.WNOHANG)
        if pid:
            self.status = status
        return bool(pid)

    def _answer(self, events: int) -> None:
        broker = self._broker
        assert broker is not None
        if not events & select.POLLIN:
            self._poll.unregister(broker.listener)  # nobody is left who could ask
            return
        if self.stage == "sealing":
            self._see_the_trial(broker)
            return
        self._answer_one(broker)
        listener = select.poll()
        listener.register(broker.listener, select.POLLIN)
        for _more in range(BATCH):
            waiting = listener.poll(0)
            if not waiting or not waiting[0][1] & select.POLLIN:
                return
            self._answer_one(broker)

    def _answer_one(self, broker: Broker) -> None:
        thread = broker.handle_one()
        if self._together is not None:
            self._together.asked(thread)

    def _see_the_trial(self, broker: Broker) -> None:
        """The launcher's own trial must come as a question on the sealed listener: so the seal holds.

        A thread that the engine began may be quicker; nothing is granted before the seal is on record.
        """
        try:
            asked = broker.receive()
        except OSError:
            return  # that thread is gone
        if asked.nr != syscalls.NR["mmap"] or not asked.args[2] & PROT_EXEC:
            broker.refuse(asked, "asked before the seal was seen to hold")
            return
        self.recorder.event(
            "session.sealed",
            versions=self.versions,
            layers=self.seal_layers,
            trial="executable mapping refused",
        )
        seccomp.respond(broker.listener, asked.id, 0, 1)
        # Not in boot: libraries count the processors when they are loaded, and plan for as many.
        self._together = Together(self.child_pid, self.limits.processors)
        self.stage = "serving"
        self.sealed.set()

    # ---- the launcher's messages, in the only order that there is ---------------------------------

    def _setup(self) -> None:
        message = self.launched.receive()
        if message is None:
            self._poll.unregister(self.launched.setup.fileno())
            return
        if message.kind == "child" and self.child_fd < 0:
            self.child_fd = message.fds[0]
            self.child_pid = int(message.words["pid"])
            try:
                self.switched.cell(self.child_pid)
            except OSError as error:
                raise WorkerError(f"the kill switch cannot be told of the worker: {error}") from None
            self.limits.watch(self.child_pid)
            self._poll.register(self.child_fd, select.POLLIN)
            if self.kill_reason is not None:
                self.kill(None)
        elif message.kind == "cell" and self.stage == "spawned":
            self._boot(message)
        elif message.kind == "ready" and self.stage == "boot":
            self._seal(message)
        elif message.kind == "sealed" and self.stage == "ready":
            self._sealed(message)
        elif message.kind == "failed":
            raise ending.of_launcher(message)
        else:
            for fd in message.fds:
                os.close(fd)
            raise WorkerError(f"the launcher sent {message.kind!r} in stage {self.stage!r}")

    def _boot(self, message: Message) -> None:
        listener, memory = message.fds
        self._memory = Memory(memory)
        try:
            self._handlers = self.make_handlers(self._memory)
            self._broker = Broker(
                self._memory,
                self.recorder,
                self._handlers,
                kills=self.kills,
            )
        except BaseException:
            os.close(listener)
            raise
        self._listen(listener, "boot")
        remember(message.words)
        self.on_cell(message.prefixed("held."), message.prefixed("missing."))
        self.stage = "boot"

    def _listen(self, listener: int, phase: str) -> None:
        broker = self._broker
        assert broker is not None and self._handlers is not None
        broker.listen(listener, phase)
        self._handlers.listener = listener
        self._poll.register(listener, select.POLLIN)

    def _seal(self, message: Message) -> None:
        assert self._broker is not None
        self.versions = message.words
        with contextlib.suppress(KeyError):
            self._poll.unregister(self._broker.listener)
        self._broker.stop_listening()
        self.stage = "ready"
        with contextlib.suppress(OSError):  # it has died; why is told when that is seen
            self.launched.setup.send(b"seal")

    def _sealed(self, message: Message) -> None:
        listener, maps = message.fds
        assert self._memory is not None
        try:
            with os.fdopen(maps, encoding="utf-8", errors="surrogateescape") as text:
                content = text.read()
            try:
                self._memory.protect_code(content)
            except ValueError as error:
                raise WorkerError(f"the worker cannot be sealed: {error}") from None
            self.seal_layers = message.prefixed("held.")
            self.on_seal(message.prefixed("held."), message.prefixed("missing."))
        except BaseException:
            os.close(listener)
            raise
        self._listen(listener, "sealed")
        self.stage = "sealing"

    # ---- the end ------------------------------------------------------------------------------

    def _finish(self) -> None:
        self.kill(None)
        if self.status is None and self.launched.pid > 0:
            with contextlib.suppress(ChildProcessError):
                _pid, self.status = os.waitpid(self.launched.pid, 0)
        try:
            with contextlib.suppress(AnchorholdError):
                self._explain_death()
            if self._broker is not None:
                self._broker.stop_listening()
            if self._memory is not None:
                self._memory.close()
            if self._handlers is not None:
                self._handlers.snapshots.close()
            self.launched.close()
            self.limits.close()
        finally:  # whatever else happens, nobody waits for a worker that is dead
            self.ended.set()
            self.sealed.set()
            self.events.put(None)
            if self.on_end is not None:
                self.on_end()

    def _explain_death(self) -> None:
        """Why the worker is dead, if nothing said so yet; a kill is on record with its time."""
        self.recorder.flush()
        for words in self.switched.done_to_it(at_once=True):
            self.recorder.event("kill", **kill_words(words))
        mark = self.switched.killed()
        if mark is not None and self.kill_reason is None:
            self.recorder.event(
                "kill", reason="the kill switch", microseconds=since(mark), **kill_words(mark)
            )
            if self.error is None:
                self.error = KilledError(
                    "killed by the kill switch", hint="anchorhold rearm lets it start again."
                )
            return
        if self.kill_reason is not None:
            self.recorder.event(
                "kill",
                reason=self.kill_reason,
                microseconds=round((time.monotonic() - self.killed_at) * 1_000_000),
            )
            if self.error is None:
                self.error = Interrupted(f"killed: {self.kill_reason}")
            return
        if self.error is not None or self._closing:
            return
        self.error = ending.by_itself(self.recorder, self.stage, self.status, self.limits, self._pipes.stderr)

    def close(self) -> None:
        """End the worker; it has nothing to do any more."""
        self._closing = True
        self.kill(None)
        if self.ident is not None:
            self.join(5.0)
        if not self.is_alive():
            for fd in (self.child_fd, self._wake_read, self._wake_write):
                if fd >= 0:
                    os.close(fd)
            self.child_fd = self._wake_read = self._wake_write = -1
