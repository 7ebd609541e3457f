"""Takes one question at a time from the kernel and answers it: by the table, or with a refusal.

Whatever goes wrong in between is a refusal too. ``SECCOMP_USER_NOTIF_FLAG_CONTINUE`` appears nowhere:
a call is answered with a value, with an errno, or with a descriptor that was opened here.
Source: seccomp_unotify(2).
"""

from __future__ import annotations

import contextlib
import errno
import os

from anchorhold.broker.handlers import Handlers
from anchorhold.broker.memory import Fault, Memory
from anchorhold.broker.paths import PATH_ARGUMENTS
from anchorhold.broker.record import Recorder
from anchorhold.broker.refusal import Absent, Refusal
from anchorhold.broker.table import BOOT, BOTH, SEALED, TABLE
from anchorhold.kernel import seccomp, syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Handler = Callable[[seccomp.Notification], int | None]

_MOST_PATH = 512
"""Bytes of a path that a refused call of the table's outside is shown with in the log."""


class Breach(Exception):
    """The policy answers this refusal with a kill. No answer was sent; the worker is waiting in its call."""

    def __init__(self, call: str, path: bytes, reason: str) -> None:
        super().__init__(reason)
        self.call = call
        self.path = path
        self.reason = reason


class Broker:
    """Answers the calls of one worker on boot's listener, then on the sealed phase's."""

    def __init__(
        self,
        memory: Memory,
        recorder: Recorder,
        handlers: Handlers,
        kills: frozenset[str],
    ) -> None:
        """kills: the keys of the policy's ``[breach]`` that say "kill"."""
        self.memory = memory
        self.recorder = recorder
        self.handlers = handlers
        self.kills = kills
        self.listener = -1
        self.dispatch: dict[int, Handler] = {}
        self._buffer = seccomp.new_buffer()

    def listen(self, listener: int, phase: str) -> None:
        """From now on answer on this listener, by the table of this phase: "boot", then "sealed"."""
        if self.handlers.phase == "sealed" or (self.dispatch and phase != "sealed"):
            raise ValueError("a phase only goes forward")
        self.stop_listening()
        self.listener = listener
        self.recorder.phase = phase
        self.handlers.phase = phase
        wanted = (BOTH, BOOT if phase == "boot" else SEALED)
        self.dispatch = {
            syscalls.NR[name]: getattr(self.handlers, method)
            for name, (method, phases) in TABLE.items()
            if phases in wanted and name in syscalls.NR
        }
        # Wake the worker on this very processor (Linux 6.6): most of a question's price is the waking.
        with contextlib.suppress(OSError):
            seccomp.set_sync_wakeup(listener)

    def stop_listening(self) -> None:
        """Close the listener: every question that waits or comes is answered ENOSYS by the kernel."""
        if self.listener >= 0:
            os.close(self.listener)
            self.listener = -1

    def receive(self) -> seccomp.Notification:
        """The next question. Raises OSError if the thread that asked died between the wake-up and now."""
        return seccomp.receive(self.listener, self._buffer)

    def handle_one(self) -> int:
        """Receive one question and answer it. Returns the thread that asked, 0 if none is left.

        Raises Breach, AuditError; both mean that the worker must die. Nothing else.
        """
        try:
            asked = self.receive()
        except OSError:
            return 0
        self.answer(asked)
        return asked.pid

    def answer(self, asked: seccomp.Notification) -> None:
        """Answer one question. Raises as `handle_one`."""
        handler = self.dispatch.get(asked.nr)
        self.handlers.asked_path = b""
        try:
            if handler is None:
                self._refuse_call(asked)
            elif (value := handler(asked)) is not None:
                self._respond(asked.id, value, 0)
        except Absent as absent:
            self._respond(asked.id, 0, absent.errno)
        except Fault as fault:
            self._respond(asked.id, 0, fault.errno)
        except Refusal as refusal:
            self._refuse(asked, syscalls.name(asked.nr), self.handlers.asked_path, refusal)
        except OSError as error:
            # Out of descriptors or memory on our side, or an I/O error: refused, and it says so.
            failed = Refusal(errno.EACCES, f"the supervisor could not look: {error.strerror}", breach=False)
            self._refuse(asked, syscalls.name(asked.nr), self.handlers.asked_path, failed)

    def refuse(self, asked: seccomp.Notification, reason: str) -> None:
        """Refuse a question whatever it asks; no breach. Raises AuditError."""
        self._refuse(asked, syscalls.name(asked.nr), b"", Refusal(errno.EPERM, reason, breach=False))

    def _refuse_call(self, asked: seccomp.Notification) -> None:
        name = syscalls.name(asked.nr)
        path = b""
        for index in PATH_ARGUMENTS.get(name, ()):
            try:
                part = self.memory.path(asked.args[index])[:_MOST_PATH]
            except Fault:
                part = b"?"
            path = path + b" " + part if path else part
        refusal = Refusal(
            errno.EPERM, "this system call is not for the worker",
            breach=True, answer="on_forbidden_syscall",
        )  # fmt: skip
        self._refuse(asked, name, path, refusal)

    def _refuse(self, asked: seccomp.Notification, call: str, path: bytes, refusal: Refusal) -> None:
        self.recorder.denial(call, path, refusal.reason)
        if refusal.breach and refusal.answer in self.kills:
            raise Breach(call, path, refusal.reason)
        self._respond(asked.id, 0, refusal.errno)

    def _respond(self, id: int, value: int, code: int) -> None:
        with contextlib.suppress(OSError):  # the thread that asked has died meanwhile
            seccomp.respond(self.listener, id, value, code)
