"""Where text goes: the answer to standard output, all else to standard error.

Written with write(2), unbuffered: a token appears when it comes, nothing is left in a buffer that a
signal would lose or that would block at exit, and a write into a full pipe can be interrupted.

Standard output that is a terminal gets safe text (`anchorhold.cli.terminal`); a file or pipe gets the
model's text unchanged, as UTF-8. There is no option that sends raw text to a terminal: whoever
wants that can say ``| cat``. Standard error is always safe text, since logs of it are read on terminals.
"""

from __future__ import annotations

import os
import select
import sys

from anchorhold.cli.terminal import MARK, Filter, clean_lines

STDIN, STDOUT, STDERR = 0, 1, 2


def open_standard_descriptors() -> None:
    """Fill the places of closed standard descriptors, as glibc does for privileged programs.

    Else the next file opened, the log for one, would become standard output and receive the answer.
    Standard output is opened the wrong way round, so that writing to it fails and is noticed.
    """
    for fd in (STDIN, STDOUT, STDERR):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_WRONLY if fd == STDERR else os.O_RDONLY)


def write_all(fd: int, data: bytes) -> None:
    """write(2) until all is written. Waits where whoever shares the descriptor made it non-blocking."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            select.select([], [fd], [])


def encode_raw(text: str) -> bytes:
    """UTF-8; escaped bytes become those bytes again; other lone surrogates, which UTF-8 lacks, U+FFFD."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return "".join("\ufffd" if "\ud800" <= c <= "\udbff" else c for c in text).encode(
            "utf-8", "surrogatepass"
        )


def locale_encoding() -> str:
    """What a terminal is sent. Anything but the locale's own encoding could form C1 bytes there."""
    return getattr(sys.__stderr__, "encoding", None) or "utf-8"


class Answer:
    """Standard output for one answer. `text()` may raise OSError: BrokenPipeError, or no space left."""

    def __init__(self, fd: int = STDOUT) -> None:
        self.fd = fd
        self.terminal = os.isatty(fd)
        self._encoding = locale_encoding()
        self._filter = Filter()
        self._open_line = False

    def text(self, text: str) -> None:
        if self.terminal:
            text = self._filter.feed(text)
        self._write(text)

    def end(self) -> None:
        """End the last line, if it is not ended."""
        if self.terminal:
            self._write(self._filter.end())
        if self._open_line:
            self._write("\n")

    def blocked(self) -> bool:
        """Whether a write would wait: for a reader that stopped reading, perhaps for ever."""
        poll = select.poll()
        poll.register(self.fd, select.POLLOUT)
        return not poll.poll(0)

    def _write(self, text: str) -> None:
        if text:
            data = text.encode(self._encoding, "backslashreplace") if self.terminal else encode_raw(text)
            write_all(self.fd, data)
            self._open_line = not text.endswith("\n")


class Notes:
    """Standard error: lines of anchorhold's own. Never raises: losing them must not lose the answer."""

    def __init__(self, fd: int = STDERR) -> None:
        self.fd = fd
        self.terminal = os.isatty(fd)
        dumb = os.environ.get("TERM", "dumb") in ("dumb", "")
        self.moves = self.terminal and not dumb
        self.colour = self.moves and not os.environ.get("NO_COLOR")
        self._encoding = locale_encoding()

    def line(self, text: str) -> None:
        """One line (or several) in plain type."""
        self.write(clean_lines(text) + "\n")

    def mark(self, text: str) -> None:
        """A line that the model cannot forge, since `MARK` is escaped in what it says. Dim, with colour."""
        safe = f"{MARK} {clean_lines(text)}"
        self.write(f"\x1b[2m{safe}\x1b[22m\n" if self.colour else safe + "\n")

    def write(self, text: str) -> None:
        """Already safe text, as it is."""
        try:
            write_all(self.fd, text.encode(self._encoding, "backslashreplace"))
        except OSError:
            return


def discard_standard_output() -> None:
    """After a broken pipe: what Python still holds in its buffer goes nowhere, without a message at exit."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, STDOUT)
    os.close(null)
