"""The files below the folders: names only, no look at any file.

Each name is recorded when the folder is listed, each status asked costs as much as opening the file: so the
type in the listing is all that is used for files. Folders are asked who they are, since a link may lead
back up.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

from anchorhold.worker.failure import Cancelled

MOST_FILES = 200_000
MOST_DEPTH = 200
_TOOLS = frozenset((".git", ".hg", ".svn"))  # kept by version control for itself: no documents


class Found:
    """What is below the folders."""

    def __init__(self) -> None:
        self.files: list[str] = []
        self.skipped: list[tuple[str, str]] = []


def walk(roots: Iterable[str], stopped: Callable[[], bool]) -> Found:
    """All files, folder by folder in the order of their names. A folder that is met twice is listed once."""
    found = Found()
    known: set[tuple[int, int]] = set()
    listed: set[str] = set()
    waiting = [(root, 0) for root in roots][::-1]
    while waiting:
        if stopped():
            raise Cancelled
        folder, depth = waiting.pop()
        try:
            who = os.stat(folder)
            if (who.st_dev, who.st_ino) in known:
                continue
            known.add((who.st_dev, who.st_ino))
            with os.scandir(folder) as entries:
                names = sorted(entries, key=_name)
        except NotADirectoryError:
            _add(found, listed, folder)  # a root may be a single file
            continue
        except OSError as error:
            found.skipped.append((folder, f"cannot be listed: {error.strerror}"))
            continue
        folders: list[tuple[str, int]] = []
        for entry in names:
            if not _is_folder(entry):
                _add(found, listed, entry.path)
            elif entry.name in _TOOLS:
                found.skipped.append((entry.path, "kept by version control"))
            elif depth < MOST_DEPTH:
                folders.append((entry.path, depth + 1))
            else:
                found.skipped.append((entry.path, f"more than {MOST_DEPTH} folders deep"))
        waiting += reversed(folders)
    return found


def _name(entry: os.DirEntry[str]) -> str:
    return entry.name


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False  # reading it will say why


def _add(found: Found, listed: set[str], path: str) -> None:
    if path in listed:
        return
    listed.add(path)
    if len(found.files) < MOST_FILES:
        found.files.append(path)
    else:
        found.skipped.append((path, f"more than {MOST_FILES} files"))
