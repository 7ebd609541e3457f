from __future__ import annotations

import errno
import fcntl
import mmap
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from anchorhold.kernel import memfd
from anchorhold.kernel.errors import KernelError

ALL = memfd.F_SEAL_SEAL | memfd.F_SEAL_SHRINK | memfd.F_SEAL_GROW | memfd.F_SEAL_WRITE


@pytest.fixture
def snapshot() -> Iterator[int]:
    fd = memfd.memfd_create("snapshot", memfd.MFD_CLOEXEC | memfd.MFD_NOEXEC_SEAL)
    os.write(fd, b"content")
    yield fd
    os.close(fd)


def test_a_snapshot_can_be_changed_before_it_is_sealed_and_not_after(snapshot: int) -> None:
    assert os.pwrite(snapshot, b"C", 0) == 1
    os.ftruncate(snapshot, 20)
    os.ftruncate(snapshot, 7)
    memfd.add_seals(snapshot, ALL)
    for change in (
        lambda: os.pwrite(snapshot, b"x", 0),
        lambda: os.ftruncate(snapshot, 20),
        lambda: os.ftruncate(snapshot, 1),
        lambda: mmap.mmap(snapshot, 7, mmap.MAP_SHARED, mmap.PROT_WRITE),
        lambda: memfd.add_seals(snapshot, memfd.F_SEAL_FUTURE_WRITE),
    ):
        with pytest.raises(PermissionError):
            change()
    assert os.pread(snapshot, 20, 0) == b"Content"
    assert memfd.get_seals(snapshot) & ALL == ALL


def test_it_is_closed_on_exec_and_never_executable(snapshot: int) -> None:
    assert fcntl.fcntl(snapshot, fcntl.F_GETFD) == fcntl.FD_CLOEXEC
    assert os.fstat(snapshot).st_mode & 0o111 == 0


def test_a_writable_mapping_keeps_the_seal_off_and_says_so(snapshot: int) -> None:
    mapped = mmap.mmap(snapshot, 7, mmap.MAP_SHARED, mmap.PROT_WRITE | mmap.PROT_READ)
    with pytest.raises(KernelError, match="unmap") as caught:
        memfd.add_seals(snapshot, memfd.F_SEAL_WRITE)
    assert caught.value.errno == errno.EBUSY
    mapped.close()
    memfd.add_seals(snapshot, memfd.F_SEAL_WRITE)


def test_without_sealing_allowed_nothing_can_be_sealed() -> None:
    fd = memfd.memfd_create(b"plain")
    with pytest.raises(PermissionError, match="MFD_ALLOW_SEALING"):
        memfd.add_seals(fd, memfd.F_SEAL_WRITE)
    os.close(fd)


def test_a_file_on_disk_has_no_seals(tmp_path: Path) -> None:
    fd = os.open(tmp_path / "x", os.O_CREAT | os.O_RDWR)
    with pytest.raises(KernelError, match="Only a memory file"):
        memfd.get_seals(fd)
    os.close(fd)


def test_a_kernel_that_does_not_know_the_newer_flags_gets_the_older(monkeypatch: pytest.MonkeyPatch) -> None:
    known = memfd.MFD_CLOEXEC | memfd.MFD_ALLOW_SEALING
    asked = []
    real = memfd.create

    def before_6_3(name: bytes, flags: int) -> int:
        asked.append(flags)
        return real(name, flags) if flags & ~known == 0 else -errno.EINVAL

    monkeypatch.setattr(memfd, "create", before_6_3)
    sealable = memfd.memfd_create("a", memfd.MFD_CLOEXEC | memfd.MFD_NOEXEC_SEAL)
    executable = memfd.memfd_create("b", memfd.MFD_CLOEXEC | memfd.MFD_EXEC)
    memfd.add_seals(sealable, memfd.F_SEAL_WRITE)
    assert os.fstat(sealable).st_mode & 0o111 == 0
    assert os.fstat(executable).st_mode & 0o111 == 0o111
    assert asked[1] == known and asked[3] == memfd.MFD_CLOEXEC
    os.close(sealable)
    os.close(executable)


def test_a_wrong_name_or_flag_is_refused() -> None:
    with pytest.raises(KernelError, match=r"memfd_create\(x\)"):
        memfd.memfd_create("x", 1 << 30)
    with pytest.raises(KernelError, match="memfd_create"):
        memfd.memfd_create("x" * 300, memfd.MFD_NOEXEC_SEAL)
    with pytest.raises(KernelError, match="NUL"):
        memfd.memfd_create("a\0b")
