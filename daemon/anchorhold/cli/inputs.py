"""What a question is asked about: standard input, and the kinds of files below the folders.

Standard input is

- the question, where no QUESTION argument is given;
- material, where one is given and standard input is a pipe or a regular file that holds something, or
  where ``--file -`` asks for it, whatever it is;
- else left alone: a terminal, /dev/null or another device, a socket, a closed descriptor.

A pipe that was merely inherited may stay open and silent for ever, and a slow program at its other end
looks the same. So a pipe gets `PATIENCE` to show its first byte or its end; then the answer goes on
without it and says so on standard error. ``--file -`` waits as long as it takes. After the first byte, so
does a pipe.

Text must be UTF-8. Bytes that are not are replaced by U+FFFD, with a note: what the log then commits to
is exactly the text that the model was shown.
"""

from __future__ import annotations

import contextlib
import os
import select
import stat
import time
from collections.abc import Callable, Iterable

from anchorhold.cli.output import STDIN
from anchorhold.cli.terminal import human_size
from anchorhold.errors import UsageError

PATIENCE = 2.0  # seconds, from the start of the command
MOST_MATERIAL = 2 << 20  # bytes; as JSON escapes six times that stay below a message's 16 MiB
MOST_QUESTION = 1 << 20
MOST_ENTRIES = 20_000  # directory entries looked at for their suffixes; about 20 ms

# Suffixes of documents that need a library (named in the worker's configuration before it is sealed).
LIBRARY_SUFFIXES = frozenset({".pdf", ".docx", ".html", ".htm", ".xhtml"})
_GROUPS = ({".pdf"}, {".docx"}, {".html", ".htm", ".xhtml"})


def read_question(tell: Callable[[str], None], fd: int = STDIN) -> str:
    """The question from standard input. UsageError when there is none."""
    if os.isatty(fd):
        tell("Type the question; end it with Ctrl-D on a line of its own.")
    question = decode(_read_all(fd, MOST_QUESTION, "the question"), tell).strip()
    if not question:
        raise UsageError("no question: it is neither an argument nor on standard input")
    return question


def read_material(tell: Callable[[str], None], *, asked: bool, started: float, fd: int = STDIN) -> str | None:
    """Standard input as material, or None. `asked`: ``--file -``. `started`: by time.monotonic()."""
    if not asked:
        try:
            mode = os.fstat(fd).st_mode
        except OSError:
            return None
        if not (stat.S_ISFIFO(mode) or stat.S_ISREG(mode)):
            return None
        if stat.S_ISFIFO(mode) and not _speaks(fd, started + PATIENCE):
            tell(
                f"note: standard input is a pipe that sent nothing for {PATIENCE:.0f} s; it is not read"
                " (--file - waits for it)"
            )
            return None
    data = _read_all(fd, MOST_MATERIAL, "standard input")
    if not data:
        tell("note: standard input is empty")
        return None
    if b"\0" in data[:8192]:
        raise UsageError(
            "standard input is not text",
            hint="save it as a file and name that with --file; pdf and docx are read",
        )
    return decode(data, tell)


def decode(data: bytes, tell: Callable[[str], None]) -> str:
    text = data.decode("utf-8", "replace")
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        tell(f"note: standard input is not all UTF-8 (byte {error.start} is not); such bytes become U+FFFD")
    return text


def _speaks(fd: int, until: float) -> bool:
    """Whether a byte or the end comes in time."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(max(0.0, until - time.monotonic()) * 1000))


def _read_all(fd: int, most: int, what: str) -> bytes:
    chunks: list[bytes] = []
    size = 0
    try:
        while chunk := _read(fd):
            chunks.append(chunk)
            size += len(chunk)
            if size > most:
                raise UsageError(
                    f"{what} is longer than {human_size(most)}",
                    hint="save it as a file and name that with --file",
                )
    except OSError as error:
        raise UsageError(f"cannot read {what}: {error.strerror}") from error
    return b"".join(chunks)


def _read(fd: int) -> bytes:
    while True:
        try:
            return os.read(fd, 1 << 16)
        except BlockingIOError:
            select.select([fd], [], [])


def suffixes(folders: Iterable[str], files: Iterable[str]) -> tuple[str, ...]:
    """Which of `LIBRARY_SUFFIXES` occur, so that the worker imports no library in vain.

    A file counts by its name only. Folders are looked through until one of each kind is found or
    `MOST_ENTRIES` were seen; then all are taken as present. Unreadable folders count as empty here.
    """
    found = {suffix_of(name) for name in files} & LIBRARY_SUFFIXES
    waiting = list(folders)
    seen = 0
    while waiting:
        with contextlib.suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                seen += 1
                suffix = suffix_of(entry.name)
                if suffix in LIBRARY_SUFFIXES:
                    found.add(suffix)
                elif entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                if seen >= MOST_ENTRIES or all(group & found for group in _GROUPS):
                    return tuple(sorted(LIBRARY_SUFFIXES))
    return tuple(sorted(found))


def suffix_of(name: str) -> str:
    return os.path.splitext(name)[1].lower()
