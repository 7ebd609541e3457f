"""``struct stat``, ``struct statx`` and friends as the kernel lays them out for each architecture.

Sources: arch/x86/include/uapi/asm/stat.h, include/uapi/asm-generic/stat.h, include/uapi/linux/stat.h.
"""

from __future__ import annotations

import os
import stat
import struct

from anchorhold.kernel import syscalls

STATX_BASIC_STATS = 0x7FF

_STAT_X86 = struct.Struct("=QQQIIIIQqqqQQQQQQ3q")
_STAT_GENERIC = struct.Struct("=QQIIIIQQqiiqQQQQQQII")
_STATX_HEAD = struct.Struct("=IIQIIIHHQQQQ")
_STATX_TIME = struct.Struct("=qIi")
_STATX_SIZE = 256


class Stat:
    """What a stat call answers; the fields of ``os.stat_result`` that the kernel's structures carry."""

    __slots__ = (
        "atime",
        "blocks",
        "ctime",
        "dev",
        "gid",
        "ino",
        "mode",
        "mtime",
        "nlink",
        "rdev",
        "size",
        "uid",
    )

    def __init__(self, mode: int, size: int = 0, ino: int = 1) -> None:
        self.mode, self.size, self.ino = mode, size, ino
        self.dev, self.nlink, self.uid, self.gid, self.rdev = 1, 1, 65534, 65534, 0
        self.blocks = (size + 511) // 512
        self.atime = self.mtime = self.ctime = 0

    @classmethod
    def of(cls, result: os.stat_result) -> Stat:
        """The real thing, times in nanoseconds. Owner and group are nobody's: they say who lives here."""
        self = cls.__new__(cls)
        self.mode, self.size, self.ino, self.dev = (
            result.st_mode,
            result.st_size,
            result.st_ino,
            result.st_dev,
        )
        self.nlink, self.uid, self.gid, self.rdev = result.st_nlink, 65534, 65534, result.st_rdev
        self.blocks = result.st_blocks
        self.atime, self.mtime, self.ctime = result.st_mtime_ns, result.st_mtime_ns, result.st_ctime_ns
        return self

    def packed(self) -> bytes:
        """As ``struct stat`` of this machine."""
        times: list[int] = []
        for value in (self.atime, self.mtime, self.ctime):
            times += divmod(value, 10**9) if value >= 0 else (0, 0)
        if syscalls.ARCH == "x86_64":
            return _STAT_X86.pack(
                self.dev, self.ino, self.nlink, self.mode, self.uid, self.gid, 0, self.rdev, self.size, 4096,
                self.blocks, *times, 0, 0, 0,
            )  # fmt: skip
        return _STAT_GENERIC.pack(
            self.dev, self.ino, self.mode, self.nlink & 0xFFFFFFFF, self.uid, self.gid, self.rdev, 0,
            self.size, 4096, 0, self.blocks, *times, 0, 0,
        )  # fmt: skip

    def packed_statx(self) -> bytes:
        """As ``struct statx`` with the basic fields."""
        stamps: list[int] = []
        for value in (self.atime, 0, self.ctime, self.mtime):
            seconds, nanoseconds = divmod(value, 10**9) if value >= 0 else (0, 0)
            stamps += (seconds, nanoseconds, 0)
        head = _STATX_HEAD.pack(
            STATX_BASIC_STATS, 4096, 0, self.nlink & 0xFFFFFFFF, self.uid, self.gid,
            self.mode & 0xFFFF, 0, self.ino, self.size, self.blocks, 0,
        )  # fmt: skip
        for at in range(0, 12, 3):
            head += _STATX_TIME.pack(*stamps[at : at + 3])
        head += struct.pack(
            "=IIII", os.major(self.rdev), os.minor(self.rdev), os.major(self.dev), os.minor(self.dev)
        )
        return head.ljust(_STATX_SIZE, b"\0")


PIPE = Stat(stat.S_IFIFO | 0o600)
NULL = Stat(stat.S_IFCHR | 0o666)
FOLDER = Stat(stat.S_IFDIR | 0o555)
