"""Ctrl-C, SIGTERM, SIGHUP and a closed pipe: the worker dies at once, then the log is closed.

The first signal kills the worker inside the handler, before anything else is done, and raises
`Stop` in the main thread, wherever that is: waiting for a token, for the user, or in a write
into a full pipe. The second leaves at once with 130; the worker, had it lived, would die with us.

A closed standard output is made into one more signal. A thread that sleeps in poll(2) sees the reader
go while the model still reads the prompt, and sends SIGPIPE to the main thread. The kernel sends
SIGPIPE for other pipes as well, so the handler believes it only if standard output really is closed.

A signal that comes just before a wait begins (for a key, for a token) would be noticed only when that wait
ends: Python runs handlers between its own instructions. The same thread hears of every signal at once, by
a pipe (signal.set_wakeup_fd), and sends it to the main thread again until the handler has run.

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

DEADLY = frozenset((signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
SIGNALS = (*sorted(DEADLY), signal.SIGPIPE)
INTERRUPTED = 130

_OUTPUT, _END = 255, 254  # what the watcher is told beside the numbers of signals
_RETRY = 20  # milliseconds between two interruptions of a main thread that has not noticed
_RETRIES = 100

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
        self._pipe: tuple[int, int] = (-1, -1)
        self._watcher: threading.Thread | None = None
        self._watches_output = False
        self._handled = self._repeated = 0
        self._wakeup = -1

    def __enter__(self) -> Guard:
        for number in SIGNALS:
            before = signal.getsignal(number)
            ignored = before == signal.SIG_IGN and number != signal.SIGPIPE  # Python itself ignores SIGPIPE
            if not ignored:
                self._before[number] = before
                signal.signal(number, self._handle)
        self._pipe = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._wakeup = signal.set_wakeup_fd(self._pipe[1], warn_on_full_buffer=False)
        self._watcher = threading.Thread(target=self._watch, args=(self._pipe[0],), daemon=True)
        self._watcher.start()
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
        if not self._watches_output and not os.isatty(STDOUT):
            self._watches_output = True
            self._tell(_OUTPUT)

    def _tell(self, what: int) -> None:
        with contextlib.suppress(BlockingIOError):  # full of signals: it is awake
            os.write(self._pipe[1], bytes((what,)))

    def _watch(self, told: int) -> None:
        poll = select.poll()
        poll.register(told, select.POLLIN)
        received = tries = missed = sent = 0
        while True:
            waiting = poll.poll(_RETRY if tries else None)
            for fd, _event in waiting:
                if fd == STDOUT:
                    poll.unregister(STDOUT)
                    if stdout_is_closed():
                        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGPIPE)
                    continue
                news = os.read(told, 256)
                if _END in news:
                    return
                if _OUTPUT in news:
                    poll.register(STDOUT, 0)
                for number in DEADLY.intersection(news):
                    come = news.count(number)
                    ours = min(come, sent)
                    sent -= ours
                    if come > ours:
                        received += come - ours
                        missed, tries = number, _RETRIES
            if self._handled >= received or not tries:
                tries, received = 0, self._handled
            elif not waiting:  # it has had the time
                tries -= 1
                sent += 1
                self._repeated += 1
                signal.pthread_kill(threading.main_thread().ident or 0, missed)

    def _end_watch(self) -> None:
        signal.set_wakeup_fd(self._wakeup, warn_on_full_buffer=False)
        self._tell(_END)
        if self._watcher is not None:
            self._watcher.join(1.0)
            self._watcher = None
        for fd in self._pipe:
            os.close(fd)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGPIPE and (self.stopped or not stdout_is_closed()):
            return
        self._handled += number != signal.SIGPIPE
        if self.stopped and self._repeated and number != signal.SIGPIPE:
            self._repeated = 0
            return  # the watcher's, which came just too late
        self._repeated = 0
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
