"""Reads files of a log, which may be a hostile one: a name can be a pipe, a device, a folder, or endless."""

from __future__ import annotations

import errno
import os
import stat

MOST = 64 << 20
"""Bytes of a file that are read. A bundle of the longest entries has 16 MiB, its openings have 48."""

JOURNAL = 1 << 30
"""Bytes of all journals together that are read."""

_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


def read(path: str, limit: int = MOST) -> bytes | None:
    """A whole file, or its first ``limit`` bytes and one more; None if there is none, or it is no file."""
    try:
        fd = os.open(path, _FLAGS)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO):
            return None
        raise
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            return None
        size = min(status.st_size, limit) + 1
        data = os.read(fd, size)
        while 0 < len(data) < size - 1:  # a read can be short
            more = os.read(fd, size - len(data))
            if not more:
                break
            data += more
        return data
    finally:
        os.close(fd)


def read_from(path: str, start: int, limit: int) -> tuple[int, bytes]:
    """The size of a file, and what it holds from ``start`` on, up to ``limit`` bytes. Nothing where it is no
    file."""
    try:
        fd = os.open(path, _FLAGS)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO):
            return 0, b""
        raise
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            return 0, b""
        left = min(status.st_size - start, limit)
        parts = []
        while left > 0 and (part := os.pread(fd, min(left, MOST), start)):
            parts.append(part)
            start += len(part)
            left -= len(part)
        return status.st_size, b"".join(parts)
    finally:
        os.close(fd)


def names_in(folder: str) -> list[str]:
    """Names in a folder but those of unfinished files, sorted; none where there is no folder."""
    try:
        return sorted(name for name in os.listdir(folder) if name[:5] != ".tmp-")
    except (FileNotFoundError, NotADirectoryError):
        return []


def line(data: bytes | None) -> str | None:
    """A file of one line; None if it is anything else."""
    if data is None or not data.endswith(b"\n") or data.count(b"\n") != 1:
        return None
    return data.decode("utf-8", "replace")[:-1]
