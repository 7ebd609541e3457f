from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from anchorhold.kernel.errors import KernelError
from anchorhold.kernel.libc import prepare
from anchorhold.kernel.openat2 import (
    AT_FDCWD,
    RESOLVE_BENEATH,
    RESOLVE_IN_ROOT,
    RESOLVE_NO_MAGICLINKS,
    RESOLVE_NO_SYMLINKS,
    RESOLVE_NO_XDEV,
    openat2,
    raw_openat2,
)
from anchorhold.kernel.syscalls import NR

BELOW = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "secret").write_text("secret")
    inside = tmp_path / "root"
    inside.mkdir()
    (inside / "file").write_text("inside")
    (inside / "out").symlink_to("../secret")
    (inside / "absolute").symlink_to(tmp_path / "secret")
    (inside / "in").symlink_to("file")
    (inside / os.fsdecode(b"\xff")).write_text("bytes")
    fd = os.open(inside, os.O_PATH | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def read(fd: int) -> bytes:
    try:
        return os.read(fd, 100)
    finally:
        os.close(fd)


@pytest.mark.parametrize("path", ["../secret", "out", "absolute"])
def test_a_path_that_leaves_its_root_opens_without_the_rule_and_not_with_it(root: int, path: str) -> None:
    assert read(openat2(root, path, os.O_RDONLY | os.O_CLOEXEC)) == b"secret"
    with pytest.raises(KernelError, match="leaves its root") as caught:
        openat2(root, path, os.O_RDONLY | os.O_CLOEXEC, resolve=BELOW)
    assert caught.value.errno == errno.EXDEV


def test_a_magic_link_opens_without_the_rule_and_not_with_it(root: int) -> None:
    path = f"/proc/self/fd/{root}/file"
    assert read(openat2(AT_FDCWD, path, os.O_RDONLY)) == b"inside"
    with pytest.raises(KernelError, match="symbolic link"):
        openat2(AT_FDCWD, path, os.O_RDONLY, resolve=RESOLVE_NO_MAGICLINKS)


def test_a_symbolic_link_opens_without_the_rule_and_not_with_it(root: int) -> None:
    assert read(openat2(root, "in", os.O_RDONLY, resolve=BELOW)) == b"inside"
    with pytest.raises(KernelError, match="symbolic link"):
        openat2(root, "in", os.O_RDONLY, resolve=BELOW | RESOLVE_NO_SYMLINKS)


def test_another_file_system_opens_without_the_rule_and_not_with_it() -> None:
    os.close(openat2(AT_FDCWD, "/proc/self/status", os.O_RDONLY))
    with pytest.raises(KernelError, match="another file"):
        openat2(AT_FDCWD, "/proc/self/status", os.O_RDONLY, resolve=RESOLVE_NO_XDEV)


def test_in_root_takes_the_directory_for_the_whole_world(root: int) -> None:
    assert read(openat2(root, "/../file", os.O_RDONLY, resolve=RESOLVE_IN_ROOT)) == b"inside"


def test_paths_are_bytes_or_surrogate_escaped_text(root: int) -> None:
    assert read(openat2(root, b"\xff", os.O_RDONLY, resolve=BELOW)) == b"bytes"
    assert read(openat2(root, "\udcff", os.O_RDONLY, resolve=BELOW)) == b"bytes"


@pytest.mark.parametrize("path", [b"file\0", b"file\0/../../secret", b"\0"])
def test_a_nul_does_not_cut_the_path_short(root: int, path: bytes) -> None:
    assert raw_openat2(root, path, os.O_RDONLY) == -errno.EINVAL
    with pytest.raises(KernelError):
        openat2(root, path, os.O_RDONLY)


def test_the_kernel_itself_would_cut_it_short(root: int) -> None:
    fd = prepare(ctypes.c_int, ctypes.c_char_p, ctypes.c_int)(NR["openat"], root, b"file\0more", os.O_RDONLY)
    assert read(fd) == b"inside"


def test_a_file_can_be_made_with_its_mode(root: int) -> None:
    os.close(openat2(root, "new", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, BELOW))
    assert os.stat("new", dir_fd=root).st_mode & 0o777 == 0o600


def test_a_missing_file_is_pythons_own_error_or_a_number(root: int) -> None:
    with pytest.raises(FileNotFoundError, match=r"openat2\(nothing\)"):
        openat2(root, "nothing", os.O_RDONLY, resolve=BELOW)
    assert raw_openat2(root, b"nothing", os.O_RDONLY, 0, BELOW) == -errno.ENOENT
