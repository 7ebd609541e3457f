"""A disk that forgets: what a power loss can leave of files that the code under test wrote.

Every call that changes the disk is followed. A file's bytes are certain after its fsync, a folder's names
after the folder's fsync; until then each folder can be as it was after any of its changes, and each file's
bytes can be there, be zeros, or not be there. `Disk.images` makes such disks of the present moment.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

Names = dict[str, int | None]
"""What a folder holds: a file's inode, or None for a folder."""

Image = dict[str, bytes | None]
"""A disk, as paths: a file's bytes, None for a folder."""


class Disk:
    """Follows what happens below ``root`` while ``patch`` holds; calls ``after`` after each change."""

    def __init__(self, root: Path, patch: pytest.MonkeyPatch, after: Callable[[], None]) -> None:
        self.root = str(root)
        self.after = after
        self._kept: dict[int, int] = {}  # a descriptor of each inode: so that no number comes twice
        self._certain: dict[int, bytes] = {}
        self._history: dict[str, list[Names]] = {self.root: [self._list(self.root)]}
        self._real_open = os.open
        patch.setattr(os, "open", self._open)
        for name in ("write", "pwrite", "ftruncate"):
            patch.setattr(os, name, self._followed(getattr(os, name)))
        for name in ("fsync", "fdatasync"):
            patch.setattr(os, name, self._synced(getattr(os, name)))
        for name in ("rename", "unlink", "mkdir", "rmdir"):
            patch.setattr(os, name, self._named(getattr(os, name)))

    def close(self) -> None:
        for fd in self._kept.values():
            os.close(fd)

    # -- following

    def _list(self, folder: str) -> Names:
        return {one.name: None if one.is_dir() else one.inode() for one in os.scandir(folder)}

    def _changed(self, folder: str) -> None:
        if folder.startswith(self.root) and os.path.isdir(folder):
            self._history.setdefault(folder, [{}]).append(self._list(folder))
            self.after()

    def _open(self, path: str, flags: int, mode: int = 0o777) -> int:
        inside = str(path).startswith(self.root)
        new = inside and flags & os.O_CREAT and not os.path.lexists(path)
        fd = self._real_open(path, flags, mode)
        if inside and not os.path.isdir(path):
            inode = os.fstat(fd).st_ino
            if inode not in self._kept:  # not a dup: that would share its locks
                self._kept[inode] = self._real_open(path, os.O_RDONLY | os.O_CLOEXEC)
        if new:
            self._changed(os.path.dirname(path))
        return fd

    def _followed(self, call: Callable[..., object]) -> Callable[..., object]:
        def wrapper(*arguments: object) -> object:
            result = call(*arguments)
            self.after()
            return result

        return wrapper

    def _synced(self, call: Callable[[int], None]) -> Callable[[int], None]:
        def wrapper(fd: int) -> None:
            call(fd)
            path = os.readlink(f"/proc/self/fd/{fd}")
            if os.path.isdir(path):
                self._history[path] = [self._list(path)]
            else:
                inode = os.fstat(fd).st_ino
                self._certain[inode] = self._bytes(inode)
            self.after()

        return wrapper

    def _named(self, call: Callable[..., object]) -> Callable[..., object]:
        def wrapper(*arguments: object) -> object:
            result = call(*arguments)
            for folder in {os.path.dirname(one) for one in arguments if isinstance(one, str)}:
                self._changed(folder)
            return result

        return wrapper

    def _bytes(self, inode: int) -> bytes:
        with open(f"/proc/self/fd/{self._kept[inode]}", "rb") as file:
            return file.read()

    # -- what can be left

    def images(self) -> Iterator[Image]:
        """Disks that this moment can leave, each once."""
        seen = set()
        for names in self._choices():
            for content in (self._sure, self._zeros, self._bytes):
                image = dict(self._walk(self.root, names, content))
                digest = hashlib.sha256(repr(sorted(image.items())).encode()).digest()
                if digest not in seen:
                    seen.add(digest)
                    yield image

    def _choices(self) -> Iterator[dict[str, Names]]:
        oldest = {folder: history[0] for folder, history in self._history.items()}
        newest = {folder: history[-1] for folder, history in self._history.items()}
        yield oldest
        yield newest
        for folder, history in self._history.items():
            if len(history) > 1:
                yield {**newest, folder: history[0]}
                yield {**newest, folder: history[-2]}
                yield {**oldest, folder: history[-1]}

    def _sure(self, inode: int) -> bytes:
        return self._certain.get(inode, b"")

    def _zeros(self, inode: int) -> bytes:
        sure = self._sure(inode)
        return sure + bytes(max(0, len(self._bytes(inode)) - len(sure)))

    def _walk(
        self, folder: str, names: dict[str, Names], content: Callable[[int], bytes]
    ) -> Iterator[tuple[str, bytes | None]]:
        for name, inode in names.get(folder, {}).items():
            path = f"{folder}/{name}"
            if inode is None:
                yield path, None
                yield from self._walk(path, names, content)
            else:
                yield path, content(inode)


def put(image: Image, root: str, place: Path) -> None:
    """Make the disk of an image at ``place``."""
    place.mkdir()
    for path, data in image.items():
        target = place / os.path.relpath(path, root)
        if data is None:
            target.mkdir(mode=0o700)
        else:
            target.write_bytes(data)
            target.chmod(0o600)
