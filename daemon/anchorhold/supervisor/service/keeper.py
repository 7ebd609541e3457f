"""One policy's worker, kept alive: started, fed with requests, unloaded, replaced, given up.

Constraint: one thread for the whole life, since the kernel kills a worker when the *thread* that started it
ends (prctl(2), PR_SET_PDEATHSIG), and since what happens one after another in one thread can never leave two
workers of one policy. Other threads only queue, mark and kill.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import deque
from pathlib import Path

from anchorhold.audit.delivery import Delivery
from anchorhold.audit.log import Log
from anchorhold.broker.record import text
from anchorhold.errors import (
    AnchorholdError,
    AuditError,
    Interrupted,
    KilledError,
    LatchedError,
    PolicyError,
    WorkerError,
)
from anchorhold.policy.match import Matcher
from anchorhold.supervisor.events import Done
from anchorhold.supervisor.service.backend import Refused
from anchorhold.supervisor.service.backoff import Backoff
from anchorhold.supervisor.service.job import Job
from anchorhold.supervisor.session import Session
from anchorhold.switch import latch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from anchorhold.policy.schema import Policy
    from anchorhold.supervisor.requests import Asked
    from anchorhold.supervisor.service.backend import Sink

    Tell = Callable[["Keeper", str, AnchorholdError | None], None]

STATES = ("starting", "serving", "idle", "reloading", "frozen", "latched", "failed")
LATCH_SECONDS = 0.5
"""How often a latched one looks whether it was rearmed."""

STOP_SECONDS = 2.0
"""How long a worker may go on with an answer that nobody waits for before it is killed for it."""

RETRY_SECONDS = 1.0


class Keeper(threading.Thread):
    """Keeps one policy's worker. ``state`` is one of `STATES`."""

    def __init__(
        self, policy: Policy, state_dir: Path, tell: Tell, *, backoff: Backoff | None = None
    ) -> None:
        """tell: called with (this, what happened, error) from its thread: "state", "breach", "limit", "kill",
        "crash", "given up", "log"."""
        super().__init__(name=f"keeper {policy.name}", daemon=True)
        self.policy = policy
        self.state_dir = state_dir
        self.state = "starting"
        self.since = time.time()
        self.session: Session | None = None
        self.error: AnchorholdError | None = None
        """Why it is not serving, or the last reason why it was not."""
        self.restarts = self.served = self.output_tokens = 0
        self._tell = tell
        self._backoff = backoff or Backoff()
        self._cond = threading.Condition()
        self._jobs: deque[Job] = deque()
        self._current: Job | None = None
        self._next_policy: Policy | None = None
        self._held = False  # by a kill that is under way: nothing starts
        self._killed = False  # by a person, which was not seen yet
        self._closing = False
        self._given_up = False
        self._unloaded = False
        self._retry_at = 0.0
        self._log: Log | None = None
        self._delivery: Delivery | None = None

    # ---- from other threads -------------------------------------------------------------------

    def submit(self, request: Asked, sink: Sink, *, receipt: bool = False) -> Job:
        """Queue a request. Raises Refused, also for files that the policy does not grant: a client that could
        name any path could have the worker killed for asking for it."""
        self._check_files(getattr(request, "files", ()))
        with self._cond:
            self._check_open()
            if len(self._jobs) >= self.policy.api.queue:
                raise Refused(429, "queue_full", f"{len(self._jobs)} requests are waiting", RETRY_SECONDS)
            job = Job(request, sink, receipt=receipt)
            self._jobs.append(job)
            self._cond.notify_all()
            return job

    def _check_files(self, files: Iterable[str]) -> None:
        """By the text of each path alone."""
        if not files:
            return
        matcher = Matcher(self.policy.data)
        for path in files:
            if not os.path.isabs(path) or "\0" in path or not matcher.decide(os.fsencode(path)).allowed:
                raise Refused(403, "file_not_granted", f"{ascii(path)} is not within {self.policy.name}")

    def _check_open(self) -> None:
        if self._closing:
            raise Refused(503, "stopping", "the service is stopping")
        if self.state == "latched" or self._held:
            raise Refused(
                503,
                "latched",
                f"{self.policy.name} was killed and is latched: anchorhold rearm {self.policy.name}",
            )
        if self.state == "failed":
            raise Refused(503, "failed", f"{self.policy.name} was given up: {self.error}")
        if self.state == "frozen":
            raise Refused(503, "frozen", f"{self.policy.name} is frozen: anchorhold kill --thaw")

    def cancel(self, job: Job) -> None:
        """Nobody waits for this one any more."""
        with self._cond:
            if job.cancelled_at is not None:
                return
            job.cancelled_at = time.monotonic()
            if job is self._current:
                if self.session is not None:
                    self.session.stop_answer()
                return
            with contextlib.suppress(ValueError):
                self._jobs.remove(job)
        job.sink.failed(Interrupted("nobody waits for it"))

    def replace(self, policy: Policy, *, at_once: bool) -> None:
        """Go on with another policy of the same name. at_once: it takes something away, so the worker with
        what it was shown dies now; else what is being answered is finished first."""
        with self._cond:
            self._next_policy = policy
            self._backoff.reset()
            self._given_up = False
            self._retry_at = 0.0
            session = self.session
            self._cond.notify_all()
        if at_once and session is not None:
            session.kill("its policy became narrower")

    def give_up(self, error: AnchorholdError) -> None:
        """The worker dies, and none starts until a policy is taken or a person says so."""
        with self._cond:
            self._given_up, self.error = True, error
            session = self.session
            self._cond.notify_all()
        if session is not None:
            session.kill(f"given up: {error.message}")

    def hold(self) -> None:
        """Nothing starts until `release`: a kill is under way."""
        self._held = True

    def kill(self, reason: str) -> None:
        """The worker is dead when this returns."""
        session = self.session
        if session is not None:
            self._killed = True
            session.kill(reason)

    def release(self) -> None:
        with self._cond:
            self._held = False
            self._cond.notify_all()

    def again(self) -> None:
        """A person said that it may start: what was given up is tried again, a latch is looked for."""
        with self._cond:
            self._backoff.reset()
            self._given_up = self._unloaded = False
            self._retry_at = 0.0
            self._cond.notify_all()

    def look(self) -> None:
        """Called now and then: what waits without end is ended, and what stands still is seen."""
        session, job = self.session, self._current
        if session is None:
            return
        if session.frozen != (self.state == "frozen") and self.state in ("serving", "frozen"):
            self._say("frozen" if session.frozen else "serving")
        cancelled = None if job is None else job.cancelled_at
        if cancelled is None or session.frozen:
            return
        if time.monotonic() - cancelled > STOP_SECONDS:
            session.kill("it did not stop its answer when told to")

    def stop(self) -> None:
        """What answers or starts is dead when this returns; what is idle `close` ends without a kill. From a
        signal handler: no lock, no log."""
        self._closing = True
        if self._current is not None or self.state != "serving":
            self.kill("the service was stopped")

    def close(self) -> None:
        """End the worker and wait for the thread. Answers in flight end with an error."""
        self.stop()
        with self._cond:
            self._cond.notify_all()
        if self.ident is not None:
            self.join(10.0)

    @property
    def waiting(self) -> int:
        return len(self._jobs)

    @property
    def busy(self) -> bool:
        return self._current is not None

    # ---- the thread ---------------------------------------------------------------------------

    def run(self) -> None:
        try:
            while not self._closing:
                try:
                    self._turn()
                except AnchorholdError as error:
                    self._failed(error)
                except Exception as error:  # a defect of ours: the worker dies, and it is said
                    self._failed(WorkerError(f"the keeper failed: {type(error).__name__}: {error}"))
        finally:
            self._refuse_all(Interrupted("the service was stopped"))
            self._end("service stopped")
            self._close_log()

    def _turn(self) -> None:
        """One decision. Raises AnchorholdError for what ended or kept back the worker."""
        if self._next_policy is not None:
            self._take_policy()
        if self.session is None and not self._may_start():
            return
        if self.session is None:
            self._start()
        job = self._next_job()
        if job is not None:
            self._serve(job)

    def _may_start(self) -> bool:
        """Whether a worker may and should be started now; waits a while where not."""
        held = latch.latched(os.fspath(self.state_dir), self.policy.name)
        if held is not None:
            if self.state != "latched":
                self.error = self.error or LatchedError("it is latched")
                self._say("latched")
                self._refuse_all(LatchedError(f"{self.policy.name} was killed and is latched"))
            return self._wait(LATCH_SECONDS)
        if self._held:
            return self._wait(LATCH_SECONDS)
        if self.state == "latched":
            self._backoff.reset()
            self._given_up = self._unloaded = False
            self.error = None
        if self._given_up:
            if self.state != "failed":
                self._say("failed")
            return self._wait(None)
        rest = self._retry_at - time.monotonic()
        if rest > 0:
            return self._wait(rest)
        if self._unloaded and not self._jobs:
            if self.state != "idle":
                self._say("idle")
            return self._wait(None)
        return True

    def _wait(self, seconds: float | None) -> bool:
        with self._cond:
            if not self._closing and self._next_policy is None:
                self._cond.wait(seconds)
        return False

    def _take_policy(self) -> None:
        with self._cond:
            policy, self._next_policy = self._next_policy, None
        assert policy is not None
        self._say("reloading")
        self._end("its policy was replaced")
        if policy.audit != self.policy.audit:
            self._close_log()
        self.policy = policy

    def _open_log(self) -> Log:
        if self._log is None:
            audit = self.policy.audit
            self._log = Log.open(
                self.state_dir, durability=audit.durability,
                epoch_seconds=audit.epoch, epoch_entries=audit.epoch_entries,
            )  # fmt: skip
            if audit.witness:
                self._delivery = Delivery(self.state_dir, audit.witness)
                self._log.signed = self._delivery.wake
                self._delivery.wake()  # what was signed since the last run, and while the log was opened
        return self._log

    def _close_log(self) -> None:
        log, self._log = self._log, None
        delivery, self._delivery = self._delivery, None
        if log is not None:
            log.close()
        for problem in delivery.close() if delivery is not None else []:
            self._tell(self, "log", AuditError(str(problem)))

    def _start(self) -> None:
        if self.state != "reloading":
            self._say("starting")
        self._unloaded = False
        session = Session(
            self.policy, self._open_log(), state_dir=self.state_dir, config={"suffixes": None},
            on_end=self._wake,
        )  # fmt: skip
        self.session = session
        if self._closing or self._held:  # whoever set these has not seen this session
            session.kill("it was stopped while it started")
        session.start()
        session.wait_loaded()
        self.error = None
        self._say("serving")

    def _wake(self) -> None:
        with self._cond:
            self._cond.notify_all()

    def _next_job(self) -> Job | None:
        """The next request, or None when there is something else to do. Raises what ended the worker."""
        session = self.session
        assert session is not None
        idle = self.policy.limits.idle
        until = None if idle is None else time.monotonic() + idle
        with self._cond:
            while True:
                if session.ended:
                    break
                if self._closing or self._next_policy is not None:
                    return None
                if self._jobs:
                    self._current = self._jobs.popleft()
                    return self._current
                rest = None if until is None else until - time.monotonic()
                if rest is not None and rest <= 0:
                    break
                self._cond.wait(rest)
        if session.ended:
            raise session.error or WorkerError("the worker ended by itself")
        self._unloaded = True
        self._end("idle")
        return None

    def _serve(self, job: Job) -> None:
        session = self.session
        assert session is not None
        session.recorder.request_shown.clear()
        done: Done | None = None
        try:
            with contextlib.closing(session.ask(job.request)) as events:
                begun = False
                for event in events:
                    if not begun:  # numbered and on record since it was first asked for an event
                        begun = True
                        job.sink.started(session.request_name)
                        if job.cancelled_at is not None:
                            session.stop_answer()
                    if isinstance(event, Done):
                        done = event
                    elif job.cancelled_at is None:
                        job.sink.event(event)
            assert done is not None
        except AnchorholdError as error:
            self._finish(job, error)
            if session.ended or not isinstance(error, WorkerError):
                raise
            return  # it could not do that, and can do the next
        except BaseException:
            self._finish(job, WorkerError("the request failed for a defect of the service"))
            raise
        self.served += 1
        self.output_tokens += done.output_tokens
        shown = [(text(path), *known) for path, known in session.recorder.request_shown.items()]
        receipt = self._receipt(session.request_name) if job.receipt else None
        with self._cond:
            self._current = None
        job.sink.done(done, shown, receipt)

    def _finish(self, job: Job, error: AnchorholdError) -> None:
        with self._cond:
            self._current = None
        job.sink.failed(error)

    def _receipt(self, name: str) -> str:
        from anchorhold.audit.receipt import make

        self._open_log().checkpoint()
        return make(self.state_dir, name).decode("ascii")

    # ---- ends ---------------------------------------------------------------------------------

    def _failed(self, error: AnchorholdError) -> None:
        """The worker is gone, or could not be started. Decides what comes next."""
        self.error = error
        self._end("failed")
        if self._closing:
            return
        if self._next_policy is not None and isinstance(error, Interrupted):
            return  # it was killed for that
        if isinstance(error, (KilledError, LatchedError)):
            self._unloaded = True  # without a latch, the next request brings it back
            if isinstance(error, KilledError):
                self._tell(self, "kill", error)
            return
        if isinstance(error, Interrupted) and self._killed:
            self._killed, self._unloaded = False, True
            self._tell(self, "kill", error)
            return
        self._tell(self, _kind(error), error)
        # What a new start cannot mend: a wrong policy, a missing layer, a log that cannot be written.
        hopeless = isinstance(error, (PolicyError, AuditError)) or error.exit_code == 6
        wait = None if hopeless or self._given_up else self._backoff.failed(time.monotonic())
        if wait is None:
            self._given_up = True
            self._say("failed")
            self._refuse_all(error)
            self._tell(self, "given up", error)
        else:
            self.restarts += 1
            self._retry_at = time.monotonic() + wait
            self._say("starting")

    def _refuse_all(self, error: AnchorholdError) -> None:
        with self._cond:
            jobs = list(self._jobs)
            self._jobs.clear()
        for job in jobs:
            job.sink.failed(error)

    def _end(self, reason: str) -> None:
        """Close the session, if there is one. What cannot be recorded is told; the worker is dead anyway."""
        session = self.session
        if session is None:
            return
        try:
            session.close(reason)
        except AnchorholdError as error:
            self.error = error
            self._tell(self, "log", error)
        finally:
            self.session = None

    def _say(self, state: str) -> None:
        if state != self.state:
            self.state, self.since = state, time.time()
            self._tell(self, "state", None)


def _kind(error: AnchorholdError) -> str:
    """What happened, in a word."""
    from anchorhold.errors import BreachError, LimitError

    for kind, word in ((BreachError, "breach"), (LimitError, "limit"), (AuditError, "log")):
        if isinstance(error, kind):
            return word
    return "crash"
