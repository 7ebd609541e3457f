"""What the kill program leaves for the log: who acted on a cell, when and how.

A mark lies beside the record of its cell, where the cell's supervisor finds it and writes the entry. Where
there is no supervisor any more it is kept in the state directory, for the next one that starts.
"""

from __future__ import annotations

import os

KEPT = "spool"
"""The folder in the state directory."""

ACTIONS = ("kill", "freeze", "thaw")
_KEYS = ("action", "name", "session", "uid", "pid", "asked", "time", "microseconds")
_MOST = 4096


def put(folder: str, action: str, session: str, words: dict[str, object]) -> str:
    """Leave a mark; returns its path. Raises OSError."""
    path = os.path.join(folder, f"{action}-{session}")
    all_words = {**words, "action": action, "session": session}
    data = "".join(f"{key}={all_words.get(key, '')}\n" for key in _KEYS).encode("ascii", "backslashreplace")
    new = f"{path}.new{os.getpid()}"
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    try:
        try:
            if os.write(fd, data) != len(data):
                raise OSError(28, os.strerror(28), new)
        finally:
            os.close(fd)
        os.rename(new, path)
    except OSError:
        os.unlink(new)
        raise
    return path


def keep(state_dir: str, action: str, session: str, words: dict[str, object]) -> None:
    """Leave it for the next supervisor, on the disk when this returns. Raises OSError."""
    folder = os.path.join(state_dir, KEPT)
    os.makedirs(folder, 0o700, exist_ok=True)
    path = put(folder, action, session, words)
    if os.geteuid() == 0:  # the state is another user's: so is what lies in it
        owner = os.stat(state_dir)
        for one in (folder, path):
            os.chown(one, owner.st_uid, owner.st_gid, follow_symlinks=False)
    for one in (path, folder):
        fd = os.open(one, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def take(folder: str, action: str, session: str) -> dict[str, str] | None:
    """A mark, removed; None where there is none."""
    path = os.path.join(folder, f"{action}-{session}")
    words = _read(path)
    if words is not None:
        os.unlink(path)
    return words


def kept(state_dir: str) -> list[tuple[str, dict[str, str]]]:
    """The marks in the state directory, with their paths: whoever has recorded one removes it."""
    folder = os.path.join(state_dir, KEPT)
    try:
        names = sorted(os.listdir(folder))
    except FileNotFoundError:
        return []
    found = []
    for name in names:
        if name.partition("-")[0] in ACTIONS and ".new" not in name:
            path = os.path.join(folder, name)
            words = _read(path)
            if words is not None:
                found.append((path, words))
    return found


def _read(path: str) -> dict[str, str] | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        data = os.read(fd, _MOST)
    finally:
        os.close(fd)
    words = dict.fromkeys(_KEYS, "")
    for line in data.decode("ascii", "replace").split("\n"):
        key, found, value = line.partition("=")
        if found and key in words:
            words[key] = value
    return words
