"""Ctrl-C, SIGTERM, SIGHUP and a closed pipe: the worker dies at once, then the log is closed.

The first signal kills the worker inside the handler, before anything else is done, and raises
`Stop` in the main thread, wherever that is: waiting for a token, for the user, or in a write
into a full pipe. The second leaves at once with 130; the worker, had it lived, would die with us.

A closed standard output is made into one more signal. A thread that sleeps in poll(2) sees the reader
go while the model still reads the prompt, and sends SIGPIPE to the main thread. The kernel sends
SIGPIPE for other pipes as well, so the handler believes it only if standard output really is closed.

A signal that was ignored when we started (nohup, a background job of a script) stays ignored.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Protocol

from anchorhold.cli.output import STDIN, STDOUT
from anchorhold.errors import AnchorholdError, Interrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE)
INTERRUPTED = 130

WORDS = {
    signal.SIGINT: "interrupted",
    signal.SIGTERM: "told to stop (SIGTERM)",
    signal.SIGHUP: "the terminal went away (SIGHUP)",
    signal.SIGPIPE: "nobody reads the answer any more (closed pipe)",
}


class Stop(KeyboardInterrupt):
    """Raised in the main thread by the first signal. No `Exception`: nothing on the way may swallow it."""

    def __init__(self, number: int) -> None:
        super().__init__(WORDS.get(signal.Signals(number), "interrupted"))
        self.number = number

    @property
    def words(self) -> str:
        return str(self.args[0])


class Again(KeyboardInterrupt):
    """Ctrl-C on a line that was being typed: the line is dropped, nothing else."""


class Killable(Protocol):
    def kill(self, reason: str) -> None: ...


def stdout_is_closed() -> bool:
    """Whether the other end of standard output is gone: no reader of the pipe, no terminal."""
    poll = select.poll()
    poll.register(STDOUT, 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _fd, event in poll.poll(0))


class Guard:
    """Handlers for the time of one command. Use it as a context manager, in the main thread."""

    def __init__(self, leave: Callable[[int], object] = os._exit) -> None:
        self.stopped = 0  # number of the first signal, 0 while there was none
        self.typing: Callable[[], bool] | None = None  # whether Ctrl-C would only drop a typed line
        self._leave = leave
        self._session: Killable | None = None
        self._closing = False
        self._before: dict[int, object] = {}
        self._terminal = _terminal_settings()
        self._pipe: tuple[int, int] | None = None
        self._watcher: threading.Thread | None = None

    def __enter__(self) -> Guard:
        for number in SIGNALS:
            before = signal.getsignal(number)
            ignored = before == signal.SIG_IGN and number != signal.SIGPIPE  # Python itself ignores SIGPIPE
            if not ignored:
                self._before[number] = before
                signal.signal(number, self._handle)
        return self

    def __exit__(self, *_exc: object) -> None:
        self._end_watch()
        for number, before in self._before.items():
            signal.signal(number, before)  # type: ignore[arg-type]  # getsignal gave it
        self._session = None

    def watch(self, session: Killable | None) -> None:
        """From now on the first signal kills this one."""
        self._session = session
        self._closing = False

    def closing(self) -> None:
        """From here a first signal no longer raises, so that the log can be closed; a second one leaves."""
        self._closing = True

    def settle(self) -> None:
        """The signal was dealt with and the command goes on (`chat`): the next one is a first one again."""
        self.stopped = 0

    def watch_output(self) -> None:
        """Notice a closed standard output even while nothing is written."""
        if self._watcher is None and not os.isatty(STDOUT):
            self._pipe = os.pipe()
            self._watcher = threading.Thread(target=self._poll_output, args=(self._pipe[0],), daemon=True)
            self._watcher.start()

    def _poll_output(self, end: int) -> None:
        poll = select.poll()
        poll.register(STDOUT, 0)
        poll.register(end, select.POLLIN)
        for fd, _event in poll.poll():
            if fd == STDOUT and stdout_is_closed():
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGPIPE)

    def _end_watch(self) -> None:
        if self._pipe is not None and self._watcher is not None:
            os.close(self._pipe[1])
            self._watcher.join(1.0)
            os.close(self._pipe[0])
            self._pipe = self._watcher = None

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGPIPE and (self.stopped or not stdout_is_closed()):
            return
        if self.stopped:
            _restore_terminal(self._terminal)
            self._leave(INTERRUPTED)
        if number == signal.SIGINT and self.typing is not None and self.typing():
            raise Again
        self.stopped = number
        stop = Stop(number)
        if self._session is not None:
            self._session.kill(stop.words)
        if not self._closing:
            raise stop


@contextlib.contextmanager
def interruptions(guard: Guard) -> Iterator[None]:
    """Turn what a signal or a closed pipe brought about into `Interrupted`, whatever error it came out as."""
    try:
        yield
    except Stop as stop:
        raise interrupted(stop) from None
    except BrokenPipeError:
        raise interrupted(Stop(signal.SIGPIPE)) from None
    except AnchorholdError:
        if guard.stopped:
            raise interrupted(Stop(guard.stopped)) from None
        raise
    if guard.stopped:
        raise interrupted(Stop(guard.stopped))


def interrupted(stop: Stop) -> Interrupted:
    """The error for it: no words where nobody reads any more, as any filter in a pipe ends."""
    if stop.number == signal.SIGPIPE:
        return Interrupted("")
    return Interrupted(f"{stop.words}; the model is killed and the log closed")


def _terminal_settings() -> list[object] | None:
    """How the terminal is set now, for leaving in the middle of line editing."""
    if not os.isatty(STDIN):
        return None
    import termios

    return list(termios.tcgetattr(STDIN))


def _restore_terminal(settings: list[object] | None) -> None:
    if settings is not None:
        import termios

        termios.tcsetattr(STDIN, termios.TCSANOW, settings)  # type: ignore[arg-type]  # tcgetattr gave them
