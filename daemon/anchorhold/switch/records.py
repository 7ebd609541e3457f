"""What runs, as files: one for each cell, written before its first process, removed after its last.

A record is text, one ``key=value`` a line; ``…_start`` is when that process started (proc_pid_stat(5)), since
the number of one that has ended may be another's by now.
"""

from __future__ import annotations

import os

PREFIX = "cell-"
_KEYS = (
    "name", "state", "session", "supervisor", "supervisor_start", "launcher", "launcher_start", "worker",
    "worker_start", "cgroup",
)  # fmt: skip
_MOST = 1 << 14


class Record:
    """One cell. ``name`` is the policy's; numbers of processes are 0 until they are known."""

    __slots__ = ("path", "words")

    def __init__(self, path: str, words: dict[str, str]) -> None:
        self.path, self.words = path, words

    def __getattr__(self, key: str) -> str:
        try:
            return self.words[key]
        except KeyError:
            raise AttributeError(key) from None

    def number(self, key: str) -> int:
        text = self.words.get(key, "")
        return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else 0

    def set(self, **words: object) -> None:
        """Write the record anew, whole. Raises OSError."""
        self.words.update({key: str(value) for key, value in words.items()})
        lines = "".join(f"{key}={_escaped(self.words.get(key, ''))}\n" for key in _KEYS)
        new = f"{self.path}.new"
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            data = lines.encode("utf-8", "surrogateescape")
            if os.write(fd, data) != len(data):
                raise OSError(28, os.strerror(28), new)
        finally:
            os.close(fd)
        os.rename(new, self.path)

    def remove(self) -> None:
        for path in (self.path, f"{self.path}.new"):
            try:
                os.unlink(path)
            except FileNotFoundError:
                continue


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def _unescaped(text: str) -> str:
    return text.replace("\\\\", "\0").replace("\\n", "\n").replace("\0", "\\")


def begin(folder: str, session: str, **words: object) -> Record:
    """A record for a cell about to be built. Raises OSError."""
    record = Record(os.path.join(folder, PREFIX + session), {"session": session})
    record.set(**words)
    return record


def read(path: str) -> Record | None:
    """A record, or None for what is gone, or none."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            data = os.read(fd, _MOST)
        finally:
            os.close(fd)
    except OSError:
        return None
    words = {}
    for line in data.decode("utf-8", "surrogateescape").split("\n"):
        key, found, value = line.partition("=")
        if found and key in _KEYS:
            words[key] = _unescaped(value)
    return Record(path, words) if all(key in words for key in _KEYS) else None


def in_folder(folder: str) -> list[Record]:
    """The records in a runtime directory, the oldest names first."""
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return []
    found = []
    for name in names:
        if name.startswith(PREFIX) and not name.endswith(".new"):
            record = read(os.path.join(folder, name))
            if record is not None:
                found.append(record)
    return found
