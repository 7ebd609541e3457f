"""``anchorhold serve``: the daemon in the foreground; what systemd runs."""

from __future__ import annotations

import os
import select
import signal
from typing import TYPE_CHECKING

import click

from anchorhold.cli.options import Unchecked
from anchorhold.cli.output import Notes
from anchorhold.cli.state import state_dir
from anchorhold.errors import Interrupted, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from anchorhold.supervisor.service.service import Door, Service

READY_SECONDS = 600.0
"""A large model on a slow disk takes minutes."""

EPILOG = """\
Runs until SIGTERM or Ctrl-C. SIGHUP reads the policies again, as does a change of their files. `anchorhold
status` tells what runs, `anchorhold kill` ends it at once.

Under systemd it says when it is ready, and that it lives. It ends with 7 if what it should serve is latched,
with 6 if a required layer is missing, with 2 for a policy that cannot be used, and with the reason of the
last failure when everything that it served was given up.
"""


@click.command(epilog=EPILOG)
@click.option(
    "--policy", "policies", metavar="P", multiple=True, required=True, type=Unchecked(),
    help="Policy file, or its name. Repeatable: one model each.",
)  # fmt: skip
@click.option("--no-api", is_flag=True, help="Serve no HTTP, whatever the policies say.")
@click.pass_context
def serve(ctx: click.Context, policies: tuple[str, ...], no_api: bool) -> None:
    """Keep models running, each in its cell."""
    from anchorhold.policy import load
    from anchorhold.supervisor.service.service import Service

    state = state_dir(ctx)
    found = [load.load(one, state) for one in policies]
    if len({policy.name for policy in found}) < len(found):
        raise UsageError("two of these policies have one name", hint="The kill switch goes by the name.")
    notes = Notes()
    service = Service(found, state, say=notes.line, make_door=None if no_api else doors())
    with Signals(service) as signals:
        try:
            service.start()
            service.wait_ready(READY_SECONDS)
            if not signals.stopped:
                service.notifier.ready()
                service.run(signals.wait)
        finally:
            service.close()
    if signals.stopped == signal.SIGINT:
        raise Interrupted("interrupted")


def doors() -> Callable[[Service], Door]:
    """Makes the way in over HTTP, once more where a gateway ended."""
    from anchorhold.supervisor.service import notify

    given = notify.inherited()

    def make(service: Service) -> Door:
        from anchorhold.supervisor.service.front import Front

        return Front(
            [keeper.policy for keeper in service.keepers.values()],
            service,
            runtime=service.runtime,
            state_dir=service.state_dir,
            inherited=given,
        )

    return make


class Signals:
    """SIGTERM and SIGINT kill the workers in the handler itself; SIGHUP asks for a reload. A second deadly
    signal leaves at once; the workers die with this process."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._reload = False
        self.stopped = 0
        self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._poll = select.poll()
        for fd in (self._read, service.wake_fd):
            self._poll.register(fd, select.POLLIN)

    def __enter__(self) -> Signals:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._handle)
        signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        return self

    def __exit__(self, *_exc: object) -> None:
        signal.set_wakeup_fd(-1)
        for fd in (self._read, self._write):
            os.close(fd)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            self._reload = True
            return
        if self.stopped:
            os._exit(128 + number)
        self.stopped = number
        self._service.stop()

    def wait(self, seconds: float) -> str:
        """As `Service.run` wants it."""
        if not (self.stopped or self._reload):
            for fd, _event in self._poll.poll(seconds * 1000):
                try:
                    os.read(fd, 4096)
                except BlockingIOError:
                    continue
        if self.stopped:
            return "stop"
        reload, self._reload = self._reload, False
        return "reload" if reload else ""
