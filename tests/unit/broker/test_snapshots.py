"""Copies: sealed, told apart by their bytes, counted until the worker has let go of them."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import mmap
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from anchorhold.broker.refusal import Refusal
from anchorhold.broker.snapshots import CHUNK, KEPT, MOST, Snapshots
from anchorhold.kernel import memfd

LIMIT = 64 << 20


@pytest.fixture
def snapshots() -> Iterator[Snapshots]:
    made = Snapshots(256 << 20)
    yield made
    made.close()


def taken(snapshots: Snapshots, path: Path, *, expected: int | None = None) -> tuple[int, str, int]:
    source = os.open(path, os.O_RDONLY)
    try:
        size = path.stat().st_size if expected is None else expected
        return snapshots.copy(source, LIMIT, size)
    finally:
        os.close(source)


@pytest.mark.parametrize("size", [0, 1, 4096, CHUNK - 1, CHUNK, 3 * CHUNK + 5])
def test_it_holds_the_bytes_and_nobody_can_change_them(
    snapshots: Snapshots, tmp_path: Path, size: int
) -> None:
    content = os.urandom(size)
    (tmp_path / "file").write_bytes(content)
    fd, digest, told = taken(snapshots, tmp_path / "file")
    with os.fdopen(fd, "rb") as copy:
        assert copy.read() == content
        assert (digest, told) == (hashlib.sha256(content).hexdigest(), size)
        assert fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY
        again = os.open(f"/proc/self/fd/{fd}", os.O_RDWR)
        try:
            for attempt in (
                lambda: os.write(again, b"x"),
                lambda: os.ftruncate(again, size + 1),
                lambda: memfd.add_seals(again, memfd.F_SEAL_FUTURE_WRITE),
            ):
                with pytest.raises(PermissionError):
                    attempt()
        finally:
            os.close(again)


@pytest.mark.parametrize("size", [10, 2 * CHUNK])
def test_the_same_bytes_are_one_copy_with_places_of_their_own(
    snapshots: Snapshots, tmp_path: Path, size: int
) -> None:
    (tmp_path / "one").write_bytes(b"x" * size)
    (tmp_path / "two").write_bytes(b"x" * size)
    first, digest, _size = taken(snapshots, tmp_path / "one")
    second, same, _size = taken(snapshots, tmp_path / "two")
    try:
        assert digest == same and os.path.sameopenfile(first, second)
        os.lseek(first, 5, os.SEEK_SET)
        assert os.lseek(second, 0, os.SEEK_CUR) == 0
        assert snapshots.held() < size + 3 * 4096
    finally:
        os.close(first)
        os.close(second)
    assert snapshots.held() == 0


def test_new_bytes_under_the_old_times_are_a_new_copy(snapshots: Snapshots, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"before")
    times = file.stat()
    fd, before, _size = taken(snapshots, file)
    os.close(fd)
    file.write_bytes(b"after!")
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    fd, after, _size = taken(snapshots, file)
    with os.fdopen(fd, "rb") as copy:
        assert copy.read() == b"after!"
    assert before != after


@pytest.mark.parametrize("expected", [0, 3, 100, CHUNK])
def test_a_size_that_is_no_longer_true_changes_nothing(
    snapshots: Snapshots, tmp_path: Path, expected: int
) -> None:
    (tmp_path / "file").write_bytes(b"content")
    fd, _digest, size = taken(snapshots, tmp_path / "file", expected=expected)
    with os.fdopen(fd, "rb") as copy:
        assert copy.read() == b"content" and size == 7


def test_growing_over_the_limit_is_refused(snapshots: Snapshots, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * (2 * CHUNK))
    source = os.open(tmp_path / "file", os.O_RDONLY)
    try:
        with pytest.raises(Refusal) as refused:
            snapshots.copy(source, CHUNK, 10)
    finally:
        os.close(source)
    assert refused.value.errno == errno.EFBIG


def test_a_mapping_counts_as_held_after_the_descriptor_is_closed(
    snapshots: Snapshots, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"x" * 8192)
    fd, _digest, _size = taken(snapshots, tmp_path / "file")
    with mmap.mmap(fd, 8192, prot=mmap.PROT_READ):
        os.close(fd)
        assert snapshots.held() >= 8192
    assert snapshots.held() == 0


def test_what_is_let_go_of_makes_room(tmp_path: Path) -> None:
    snapshots = Snapshots(10 << 20)
    file = tmp_path / "file"
    try:
        for number in range(40):
            file.write_bytes(b"%d" % number + b"x" * (1 << 20))
            os.close(taken(snapshots, file)[0])
        kept = []
        with pytest.raises(Refusal, match="lets none go"):
            for number in range(40):
                file.write_bytes(b"again %d" % number + b"x" * (1 << 20))
                kept.append(taken(snapshots, file)[0])
        assert 8 <= len(kept) <= 10
        os.close(kept.pop())
        os.close(taken(snapshots, file)[0])
        for fd in kept:
            os.close(fd)
    finally:
        snapshots.close()


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4 * MOST), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_few_descriptors_of_ours_are_used(
    snapshots: Snapshots, tmp_path: Path, many_descriptors: None
) -> None:
    before = len(os.listdir("/proc/self/fd"))
    file = tmp_path / "file"
    for number in range(3 * MOST):
        file.write_text(str(number))
        os.close(taken(snapshots, file)[0])
    assert KEPT <= len(os.listdir("/proc/self/fd")) - before <= MOST
    held = []
    with pytest.raises(Refusal):
        for number in range(2 * MOST):
            file.write_text(f"held {number}")
            held.append(taken(snapshots, file)[0])
    assert len(held) == MOST
    for fd in held:
        os.close(fd)
