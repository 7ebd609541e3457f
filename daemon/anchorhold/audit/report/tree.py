"""The folders and files that were shown, with counts.

Constraint: memory is bounded. Files over the limit are counted at the deepest folder that is known, as times
only: how many different ones they were is then not known, and `Tree.exact` is false.
"""

from __future__ import annotations

DEPTH = 16
"""Levels of folders that are told apart; what is below is part of the name. A page of 2,000 nested folders
would stop a browser."""

FILES, FOLDERS = 200_000, 50_000


class File:
    """One file and how often it was shown. Compared by identity."""

    __slots__ = ("changes", "digest", "first", "last", "size", "times")

    def __init__(self) -> None:
        self.times = self.changes = self.size = 0
        self.first = self.last = self.digest = ""

    def show(self, digest: str | None, size: int, time: str) -> None:
        """Once more. ``changes`` counts how often its content was another one than the time before."""
        self.times += 1
        self.size = size
        minute = time[:16]
        if not self.first or minute < self.first:
            self.first = minute
        self.last = max(self.last, minute)
        if digest is not None:
            if self.digest and self.digest != digest[:12]:
                self.changes += 1
            self.digest = digest[:12]


class Folder:
    """``all_*`` include what is below and are there after `total`."""

    __slots__ = ("all_files", "all_times", "files", "folders", "listed", "uncounted")

    def __init__(self) -> None:
        self.folders: dict[str, Folder] = {}
        self.files: dict[str, File] = {}
        self.listed = 0  # how often its names were told
        self.uncounted = 0  # times that files were shown which are not kept
        self.all_files = self.all_times = 0

    def total(self) -> None:
        """Add up. No deeper than DEPTH."""
        self.all_files = len(self.files)
        self.all_times = self.uncounted + sum(file.times for file in self.files.values())
        for folder in self.folders.values():
            folder.total()
            self.all_files += folder.all_files
            self.all_times += folder.all_times


class Tree:
    """All that was shown of one class. ``root`` holds the top folders by their whole name (``/home``)."""

    def __init__(self, *, files: int = FILES, folders: int = FOLDERS) -> None:
        self.root = Folder()
        self.piped = File()
        self.redacted: dict[str, File] = {}  # by digest, where that is left
        self.nameless = 0  # times, where neither is left
        self.exact = True
        self._files, self._folders = files, folders

    def show(
        self, path: str | None, digest: str | None, size: int, time: str, *, piped: bool = False
    ) -> File | None:
        """A file is handed over; what stands for it, or None where it is not told apart from others."""
        if piped:
            file = self.piped
        elif path is None:
            if digest is None:
                self.nameless += 1
                self.exact = False
                return None
            known = self.redacted.get(digest)
            if known is None:
                if not self._take():
                    self.nameless += 1
                    return None
                known = self.redacted[digest] = File()
            file = known
        else:
            parts = split(path)
            folder = self._folder(parts[:-1])
            found = folder.files.get(parts[-1]) if folder else None
            if folder is None or (found is None and not self._take()):
                self.exact = False
                self._deepest(parts[:-1]).uncounted += 1
                return None
            file = found or folder.files.setdefault(parts[-1], File())
        file.show(digest, size, time)
        return file

    def tell(self, path: str | None) -> None:
        """A folder's names are told."""
        folder = self._folder(split(path)) if path is not None else None
        if folder is not None:
            folder.listed += 1

    def _take(self) -> bool:
        if self._files <= 0:
            self.exact = False
            return False
        self._files -= 1
        return True

    def _folder(self, parts: list[str]) -> Folder | None:
        folder = self.root
        for part in parts:
            below = folder.folders.get(part)
            if below is None:
                if self._folders <= 0:
                    return None
                self._folders -= 1
                below = folder.folders[part] = Folder()
            folder = below
        return folder

    def _deepest(self, parts: list[str]) -> Folder:
        folder = self.root
        for part in parts:
            below = folder.folders.get(part)
            if below is None:
                break
            folder = below
        return folder

    def total(self) -> None:
        """Add up, once all is in."""
        self.root.total()

    @property
    def files(self) -> int:
        """Different files; at least so many where not `exact`. After `total`."""
        return self.root.all_files + len(self.redacted) + (self.piped.times > 0)

    @property
    def times(self) -> int:
        """How often a file was shown. After `total`."""
        withheld = self.nameless + sum(file.times for file in self.redacted.values())
        return self.root.all_times + withheld + self.piped.times


def split(path: str) -> list[str]:
    """The names of a path; the first keeps its ``/``. Never empty."""
    parts = [part for part in path.split("/") if part] or [path or "?"]
    if path.startswith("/"):
        parts[0] = "/" + parts[0].lstrip("/")
    if len(parts) > DEPTH:
        parts[DEPTH - 1 :] = ["/".join(parts[DEPTH - 1 :])]
    return parts
