"""What is put into the worker's memory against what this machine's own kernel puts there."""

from __future__ import annotations

import ctypes
import os
import struct
from pathlib import Path

from anchorhold.broker.record import Recorder
from anchorhold.broker.stats import Stat
from anchorhold.kernel import libc, syscalls

AT_FDCWD = -100


def test_stat_has_the_layout_of_the_kernel(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"x" * 5000)
    os.utime(path, ns=(1_700_000_000_000_000_007, 1_700_000_000_000_000_007))
    os.chown(path, os.getuid(), os.getgid())
    real = ctypes.create_string_buffer(256)
    libc.syscall(syscalls.NR["newfstatat"], AT_FDCWD, os.fsencode(path), real, 0)
    told = Stat.of(path.stat())
    told.uid, told.gid = os.getuid(), os.getgid()
    assert told.packed() == real.raw[: len(told.packed())]


def test_statx_has_the_layout_of_the_kernel(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"x" * 5000)
    real = ctypes.create_string_buffer(256)
    libc.syscall(syscalls.NR["statx"], AT_FDCWD, os.fsencode(path), 0, 0x7FF, real)
    told = Stat.of(path.stat()).packed_statx()
    assert len(told) == 256
    assert struct.unpack_from("=QQ", told, 32) == struct.unpack_from("=QQ", real.raw, 32)  # ino, size
    assert told[112:128] == real.raw[112:128]  # mtime
    assert told[128:144] == real.raw[128:144]  # device numbers


class Kept:
    """A log in memory."""

    def __init__(self) -> None:
        self.counts: list[int] = []

    def append(self, kind: str, session: str, fields: dict[str, object]) -> int:
        assert kind == "denial"
        count = fields["count"]
        assert isinstance(count, int)
        self.counts.append(count)
        return len(self.counts)


def test_merged_denials_add_up(tmp_path: Path) -> None:
    kept = Kept()
    recorder = Recorder(kept, "s")  # type: ignore[arg-type]  # the one method of a log that it needs
    for number in range(20_000):
        recorder.denial("openat", b"/etc/%d" % (number % 5000), "outside")
    recorder.flush()
    assert sum(kept.counts) == recorder.denied == 20_000
    one = Kept()
    recorder = Recorder(one, "s")  # type: ignore[arg-type]  # as above
    for _ in range(1000):
        recorder.denial("openat", b"/etc/shadow", "outside")
    recorder.flush()
    assert sum(one.counts) == 1000 and len(one.counts) <= 5
