"""The daemon: several policies, each with its keeper; a door for the API, a control socket, one main loop.

Constraint: the main thread waits and decides, and does nothing that can block for long: it answers signals,
tells the service manager that it lives, and reloads. Workers belong to their keepers' threads.
"""

from __future__ import annotations

import hashlib
import os
import queue
import time
from pathlib import Path

from anchorhold.audit.log import Log
from anchorhold.errors import AnchorholdError, AuditError, LatchedError, PolicyError, WorkerError
from anchorhold.policy import find, load
from anchorhold.policy.compare import NARROWER, SAME, compare
from anchorhold.supervisor.service import hooks, status
from anchorhold.supervisor.service.backend import Refused
from anchorhold.supervisor.service.control import Control
from anchorhold.supervisor.service.keeper import Keeper
from anchorhold.supervisor.service.notify import Notifier
from anchorhold.supervisor.service.peers import Peer
from anchorhold.supervisor.service.watch import Watch
from anchorhold.switch import latch, places

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Protocol

    from anchorhold.policy.schema import Policy
    from anchorhold.supervisor.requests import Asked
    from anchorhold.supervisor.service.backend import Sink
    from anchorhold.supervisor.service.documents import Documents
    from anchorhold.supervisor.service.job import Job

    class Door(Protocol):
        """The way in over HTTP (`anchorhold.supervisor.service.front`)."""

        def start(self, seconds: float = ...) -> None: ...
        def policies_changed(self) -> None: ...
        def alive(self) -> bool: ...
        def drain(self, reason: str, seconds: float) -> None: ...
        def close(self) -> None: ...


TICK_SECONDS = 0.5
DRAIN_SECONDS = 2.0
DOOR_SECONDS = 5.0
"""How long after a door that closed by itself a new one is opened."""

AGAIN_SECONDS = 8.0
"""How long a new door may take: meanwhile the main loop tells nobody that it lives, and reads no policy.
With the seconds that its end may take this stays below the 30 after which systemd replaces the service."""

DEAD_SECONDS = 10.0
NOTEWORTHY = ("breach", "limit", "kill", "crash", "given up", "log")


class Ticket:
    """What `Service.cancel` takes."""

    __slots__ = ("job", "keeper")

    def __init__(self, keeper: Keeper, job: Job) -> None:
        self.keeper, self.job = keeper, job


class Service:
    """All of one daemon. ``start``, then `run` in the main thread, then ``close``."""

    def __init__(
        self,
        policies: list[Policy],
        state_dir: Path,
        *,
        say: Callable[[str], None],
        make_door: Callable[[Service], Door] | None = None,
    ) -> None:
        """say: one line for who reads the journal. make_door: called at the start; None: no API."""
        names = [policy.name for policy in policies]
        if len(set(names)) < len(names):
            raise PolicyError(
                "two policies have one name", hint="Each name once: the kill switch goes by it."
            )
        self.state_dir = Path(os.path.abspath(state_dir))
        self.say = say
        self.created = int(time.time())
        self.notifier = Notifier()
        self.runtime = places.runtime_dir(os.fspath(self.state_dir))
        self._events: queue.SimpleQueue[tuple[str, str]] = queue.SimpleQueue()
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.keepers = {policy.name: Keeper(policy, self.state_dir, self._told) for policy in policies}
        self._problems: dict[str, AnchorholdError] = {}
        self._documents: dict[str, Documents] = {}
        self._make_door = make_door
        self._door: Door | None = None
        self._door_at = 0.0
        self._control: Control | None = None
        self._watch: Watch | None = None
        self._log: Log | None = None
        self._stopping = ""

    # ---- start and end ------------------------------------------------------------------------

    def start(self) -> None:
        """Raises LatchedError if all policies are latched, PolicyError, AuditError, WorkerError, OSError."""
        self._refuse_if_latched()
        places.make(self.runtime)
        self._log = Log.open(self.state_dir)
        self._control = Control(
            self.runtime,
            {
                "status": self._status,
                "policies": self._policies,
                "kill": self._kill,
                "rearm": self._rearm,
                "reload": self._reload_command,
            },
            group=next(
                (k.policy.control.group for k in self.keepers.values() if k.policy.control.group), None
            ),
        )
        self._watch = Watch(lambda path: self._post("changed", path))
        for keeper in self.keepers.values():
            self._record_load(keeper.policy, "first")
            self._follow(keeper.policy)
            keeper.start()
        self._control.start()
        if self._make_door is not None:
            self._door = self._make_door(self)
            self._door.start()

    def _refuse_if_latched(self) -> None:
        state = os.fspath(self.state_dir)
        held = [name for name in self.keepers if latch.latched(state, name) is not None]
        if len(held) == len(self.keepers):
            name = held[0] if len(held) == 1 else ""
            raise LatchedError(
                f"{', '.join(held)}: killed and latched",
                hint=f"When it may start again: {self._command()} rearm {name}".rstrip(),
            )

    def _command(self) -> str:
        """``anchorhold`` as a person has to type it: systemd's service has a state of its own."""
        ours = os.environ.get("STATE_DIRECTORY", "").split(":")[0] == os.fspath(self.state_dir)
        return f"anchorhold --state-dir {self.state_dir}" if ours else "anchorhold"

    def wait_ready(self, seconds: float) -> None:
        """Until each policy serves, or will not. Raises what keeps the last one back, if none serves."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not self._stopping:
            if all(keeper.state != "starting" for keeper in self.keepers.values()):
                break
            time.sleep(0.02)
        errors = [keeper.error for keeper in self.keepers.values() if keeper.state == "failed"]
        if len(errors) == len(self.keepers) and errors[-1] is not None:
            raise errors[-1]

    def run(self, wait: Callable[[float], str]) -> None:
        """The main loop, until a stop. wait: waits so many seconds at most; "" or the word of a signal:
        "stop" or "reload". Raises the error of the last policy when all of them are given up."""
        beat = self.notifier.interval
        next_beat = 0.0
        self._tell_state()
        while not self._stopping:
            signal = wait(min(TICK_SECONDS, beat or TICK_SECONDS))
            now = time.monotonic()
            if signal == "stop":
                return
            if signal == "reload":
                self.reload(None)
            while not self._events.empty():
                what, name = self._events.get()
                if what == "changed":
                    self._file_changed(name)
            for keeper in self.keepers.values():
                keeper.look()
            self._look_at_door(now)
            if beat is not None and now >= next_beat and self._is_well():
                next_beat = now + beat
                self.notifier.alive()
            self._tell_state()
            given_up = [keeper for keeper in self.keepers.values() if keeper.state == "failed"]
            if len(given_up) == len(self.keepers):
                raise given_up[-1].error or WorkerError("it was given up")

    def _is_well(self) -> bool:
        return all(keeper.is_alive() for keeper in self.keepers.values())

    def stop(self) -> None:
        """Workers are dead when this returns. From a signal handler: no lock, no log. `close` must follow."""
        self._stopping = "stop"
        for keeper in self.keepers.values():
            keeper.stop()

    def close(self) -> None:
        """Answers in flight end with an error, workers die, logs are closed."""
        self.stop()
        self.notifier.stopping()
        door, self._door = self._door, None
        for keeper in self.keepers.values():
            keeper.close()
        if door is not None:
            door.drain("the service is stopping", DRAIN_SECONDS)
            door.close()
        if self._control is not None:
            self._control.close()
        if self._watch is not None:
            self._watch.close()
        if self._log is not None:
            self._log.close()
            self._log = None
        self.notifier.close()

    @property
    def wake_fd(self) -> int:
        """Readable when there is something to do at once."""
        return self._wake_read

    def _post(self, what: str, name: str) -> None:
        self._events.put((what, name))
        try:
            os.write(self._wake_write, b"x")
        except BlockingIOError:
            return

    def _look_at_door(self, now: float) -> None:
        """The gateway parses what strangers send: if it dies, workers live on, and it is started again."""
        if self._make_door is None or (self._door is not None and self._door.alive()) or now < self._door_at:
            return
        if self._is_well():
            self.notifier.alive()  # this may take as long as a gateway hangs, and none of the workers does
        if self._door is not None:
            self.say("the gateway ended and is started again")
            self._door.close()
            self._door = None
        try:
            door = self._make_door(self)
            door.start(AGAIN_SECONDS)
            self._door = door
        except (AnchorholdError, OSError) as error:
            self.say(f"the gateway cannot be started: {error}")
        self._door_at = time.monotonic() + DOOR_SECONDS

    # ---- what keepers tell --------------------------------------------------------------------

    def _told(self, keeper: Keeper, what: str, error: AnchorholdError | None) -> None:
        """From a keeper's thread."""
        if what == "state":
            self.say(f"{keeper.policy.name}: {keeper.state}")
        else:
            self.say(f"{keeper.policy.name}: {what}: {error}")
        if what in NOTEWORTHY:
            facts: dict[str, object] = {
                "what": what,
                "policy": keeper.policy.name,
                "error": str(error),
                "exit_code": None if error is None else error.exit_code,
                "time": time.time(),
                "state_dir": str(self.state_dir),
            }
            if what == "breach":
                hooks.run(keeper.policy.breach.command, facts, self.say)
            hooks.run(keeper.policy.breach.notify, facts, self.say)
        door = self._door
        if door is not None:
            door.policies_changed()

    def _tell_state(self) -> None:
        self.notifier.status(", ".join(f"{name}: {keeper.state}" for name, keeper in self.keepers.items()))

    # ---- the backend of the door ----------------------------------------------------------------

    def describe(self) -> list[dict[str, Any]]:
        found = []
        for name, keeper in self.keepers.items():
            model = keeper.policy.model
            session = keeper.session
            used = status.usage(-1 if session is None else session.worker_pid, "")
            found.append(
                {
                    "name": name,
                    "state": keeper.state,
                    "model": os.path.basename(model.path),
                    "model_sha256": model.sha256,
                    "context": model.context if session is None else session.context or model.context,
                    "created": self.created,
                    # Known when the model is loaded; until then a request finds out.
                    "embeddings": session is None or not session.context or session.embeddings,
                    "figures": {
                        "memory": used["mapped"] or 0,
                        "restarts": keeper.restarts,
                        "denials": 0 if session is None else session.recorder.denied,
                        "shown": 0 if session is None else len(session.recorder.shown),
                        "requests": keeper.served,
                        "waiting": keeper.waiting,
                        "output_tokens": keeper.output_tokens,
                    },
                }
            )
        return found

    def submit(self, policy: str, request: Asked, sink: Sink, *, receipt: bool = False) -> object:
        keeper = self.keepers.get(policy)
        if keeper is None:
            raise Refused(404, "model_not_found", f"there is no model {policy!r} here")
        return Ticket(keeper, keeper.submit(request, sink, receipt=receipt))

    def cancel(self, ticket: object) -> None:
        assert isinstance(ticket, Ticket)
        ticket.keeper.cancel(ticket.job)

    # ---- policies -----------------------------------------------------------------------------

    def _follow(self, policy: Policy) -> None:
        assert self._watch is not None
        if policy.source is not None:
            self._watch.policy_file(policy.source)
        self._documents[policy.name] = self._watch.data(policy)

    def _file_changed(self, path: str) -> None:
        for name, keeper in self.keepers.items():
            if keeper.policy.source == path:
                self.reload(name)

    def reload(self, name: str | None) -> dict[str, str]:
        """Read policy files again. Returns for each name what became of it."""
        self.notifier.reloading()
        try:
            return {
                each: self._reload_one(keeper)
                for each, keeper in self.keepers.items()
                if name in (None, each) and keeper.policy.source is not None
            }
        finally:
            self.notifier.ready()

    def _reload_one(self, keeper: Keeper) -> str:
        name, old = keeper.policy.name, keeper.policy
        assert old.source is not None
        try:
            new = load.load(old.source, self.state_dir)
            if new.name != name:
                raise PolicyError(
                    f"the policy calls itself {new.name!r} now; a name is not changed by a reload"
                )
        except PolicyError as error:
            self._problems[name] = error
            try:
                self._record_load(old, "refused")
            except AuditError as unwritten:
                return self._unrecorded(keeper, unwritten)
            self.say(f"{name}: the changed policy is refused, the old one goes on: {error}")
            return f"refused: {error}"
        self._problems.pop(name, None)
        change = compare(old, new)
        if change == SAME:
            if keeper.state == "failed":
                keeper.again()
            return change
        try:
            self._record_load(new, change)
        except AuditError as unwritten:
            return self._unrecorded(keeper, unwritten)
        self.say(f"{name}: its policy was replaced ({change})")
        keeper.replace(new, at_once=change == NARROWER)
        self._follow(new)
        if new.api != old.api:
            self.say(f"{name}: [api] takes effect when the service is restarted")
        return change

    def _unrecorded(self, keeper: Keeper, error: AuditError) -> str:
        """A policy that cannot be put on record is not taken; what it may take away must not go on either."""
        name = keeper.policy.name
        self._problems[name] = error
        self.say(f"{name}: given up: the changed policy cannot be put on record: {error}")
        keeper.give_up(error)
        return f"failed: {error}"

    def _record_load(self, policy: Policy, change: str) -> None:
        """Raises AuditError: a policy that is not on record is not taken."""
        assert self._log is not None
        fields: dict[str, object] = {"policy": policy.name, "policy_sha256": policy.digest, "change": change}
        if policy.source is not None:
            try:
                text = find.read(policy.source)
                fields["text_sha256"] = hashlib.sha256(text.encode("utf-8")).hexdigest()
            except PolicyError:
                fields["text_sha256"] = None  # it cannot be read: that is why it is refused
        self._log.append("policy.load", "", fields)

    # ---- the control socket's commands ----------------------------------------------------------

    def _chosen(self, name: str | None) -> list[Keeper]:
        if name is None:
            return list(self.keepers.values())
        if name not in self.keepers:
            raise PolicyError(f"there is no policy {name!r} here; there are: {', '.join(self.keepers)}")
        return [self.keepers[name]]

    def _status(self, name: str | None, _peer: Peer) -> dict[str, Any]:
        return {
            "service": {
                "pid": os.getpid(),
                "since": self.created,
                "state_dir": str(self.state_dir),
                "runtime_dir": self.runtime,
                "gateway": None if self._make_door is None else self._door is not None and self._door.alive(),
                "unwatched": {} if self._watch is None else self._watch.problems,
            },
            "policies": [
                status.of_keeper(
                    keeper, self._documents.get(keeper.policy.name), self._problems.get(keeper.policy.name)
                )
                for keeper in self._chosen(name)
            ],
        }

    def _policies(self, name: str | None, _peer: Peer) -> list[dict[str, Any]]:
        return [keeper.policy.as_dict() for keeper in self._chosen(name)]

    def _kill(self, name: str | None, peer: Peer) -> dict[str, Any]:
        """Kill first, latch then: what dies is dead before the disk is asked anything."""
        asked = time.monotonic()
        chosen = self._chosen(name)
        found: dict[str, Any] = {}
        for keeper in chosen:
            keeper.hold()
        try:
            for keeper in chosen:
                session = keeper.session
                keeper.kill(f"the control socket: uid {peer.uid}, pid {peer.pid}")
                dead = session is None or session.wait_ended(DEAD_SECONDS)
                found[keeper.policy.name] = {
                    "dead": dead,
                    "ran": session is not None,
                    "microseconds": round((time.monotonic() - asked) * 1e6),
                }
            latched: str | None = None
            try:
                latch.latch(os.fspath(self.state_dir), name)
            except OSError as error:
                latched = error.strerror or str(error)
        finally:
            for keeper in chosen:
                keeper.release()
        return {"killed": found, "latched": latched is None, "problem": latched}

    def _rearm(self, name: str | None, peer: Peer) -> list[str]:
        try:
            taken = latch.rearm(os.fspath(self.state_dir), name)
        except OSError as error:
            raise WorkerError(f"the latch cannot be taken away: {error}") from None
        self.say(f"rearmed by uid {peer.uid}: {', '.join(taken) or 'nothing was latched'}")
        for keeper in self._chosen(name):
            keeper.again()
        return taken

    def _reload_command(self, name: str | None, _peer: Peer) -> dict[str, str]:
        self._chosen(name)
        return self.reload(name)
