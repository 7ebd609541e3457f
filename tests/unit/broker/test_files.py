"""Roots, the model file, memory and the runtime: what each one refuses, on real files."""

from __future__ import annotations

import ctypes
import mmap
import os
from pathlib import Path

import pytest

from anchorhold.audit.digests import DigestCache
from anchorhold.broker import paths
from anchorhold.broker.memory import Fault, Memory
from anchorhold.broker.model import ModelFile
from anchorhold.broker.refusal import Absent, Refusal
from anchorhold.broker.resolve import MAX_LINKS, reopen
from anchorhold.broker.runtime import Runtime
from anchorhold.broker.view import DataView
from anchorhold.errors import PolicyError
from anchorhold.policy.schema import DataPolicy


def view(*roots: Path, **rules: object) -> DataView:
    return DataView(DataPolicy(read=tuple(map(str, roots)), **rules))  # type: ignore[arg-type]  # passed through


def found(seen: DataView, path: Path | str) -> bytes:
    there = seen.find(os.fsencode(path))
    os.close(there.fd)
    return there.resolved


def refused(seen: DataView, path: Path | str) -> str:
    with pytest.raises(Refusal) as info:
        found(seen, path)
    return info.value.reason


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    (root / "a.txt").write_text("a")
    (tmp_path / "out.txt").write_text("out")
    return root


def test_links_that_stay_inside_are_followed(root: Path) -> None:
    (root / "relative").symlink_to("sub/../a.txt")
    (root / "absolute").symlink_to(root / "a.txt")
    (root / "folder").symlink_to(root)
    (root / "sub" / "up").symlink_to("../a.txt")
    seen = view(root)
    for name in ("relative", "absolute", "folder/a.txt", "sub/up", "folder/folder/sub/up"):
        assert found(seen, root / name) == os.fsencode(root / "a.txt")
    seen.close()


def test_links_that_leave_are_refused_by_their_text(root: Path) -> None:
    (root / "up").symlink_to("../out.txt")
    (root / "absolute").symlink_to(root.parent / "out.txt")
    (root / "nothing").symlink_to("/nowhere/at/all")
    seen = view(root)
    assert {refused(seen, root / name) for name in ("up", "absolute", "nothing")} == {
        "a link leads out of its root"
    }


def test_links_in_a_circle_and_links_to_nothing_are_absent(root: Path) -> None:
    (root / "circle").symlink_to("circle")
    (root / "gone").symlink_to("no-such-file")
    before = "a.txt"
    for number in range(MAX_LINKS + 1):
        (root / f"chain{number}").symlink_to(before)
        before = f"chain{number}"
    seen = view(root)
    for name in ("circle", "gone", before, "no-such-file", "a.txt/below", "x" * 300):
        with pytest.raises(Absent):
            found(seen, root / name)


def test_what_a_pattern_hides_is_hidden_through_links_too(root: Path) -> None:
    (root / "secret.key").write_text("k")
    (root / "link.txt").symlink_to("secret.key")
    seen = view(root, deny=("**/*.key",))
    assert "secret.key" not in [name.decode() for name, _kind in seen.list(os.fsencode(root)).names]
    assert "hides" in refused(seen, root / "link.txt")
    assert "*.key" in refused(seen, root / "secret.key")


def test_special_files_and_second_names_are_refused_and_not_listed(root: Path) -> None:
    os.mkfifo(root / "fifo")
    os.link(root / "a.txt", root / "b.txt")
    seen = view(root)
    assert refused(seen, root / "fifo") == "no regular file"
    assert "2 names" in refused(seen, root / "a.txt")
    listing = seen.list(os.fsencode(root))
    assert [name for name, _kind in listing.names] == [b"sub"]
    assert {name for name, _reason in listing.hidden} == {b"fifo", b"a.txt", b"b.txt"}
    with pytest.raises(Absent):
        seen.list(os.fsencode(root / "no-such-folder"))
    assert found(view(root, hardlinks="allow"), root / "a.txt")


def test_a_single_file_is_granted_and_nothing_beside_it(root: Path) -> None:
    (root / "b.txt").write_text("b")
    seen = DataView(DataPolicy(files=(str(root / "a.txt"),)))
    assert found(seen, root / "a.txt") == os.fsencode(root / "a.txt")
    assert refused(seen, root / "b.txt")
    (root / "a.txt").unlink()
    (root / "a.txt").symlink_to("b.txt")
    assert "link" in refused(seen, root / "a.txt")


@pytest.mark.parametrize(
    ("make", "why"), [("gone", "No such file"), ("fifo", "no regular"), ("large", "max_file")]
)
def test_a_file_that_cannot_be_granted_is_said_before_anything_starts(
    root: Path, make: str, why: str
) -> None:
    path = root / make
    if make == "fifo":
        os.mkfifo(path)
    elif make == "large":
        path.write_bytes(b"x" * 100)
    with pytest.raises(PolicyError, match=why):
        DataView(DataPolicy(files=(str(path),), max_file=10))


def test_a_root_that_is_not_there_is_said(root: Path) -> None:
    with pytest.raises(PolicyError, match="No such file"):
        view(root / "nowhere")


def test_a_file_that_nobody_may_read_is_refused_without_a_breach(root: Path) -> None:
    fd = os.open(root / "a.txt", os.O_PATH)
    os.close(fd)
    with pytest.raises(Refusal) as info:
        reopen(fd)
    assert not info.value.breach


def test_a_model_that_is_changed_or_replaced_is_refused(root: Path, state_dir: Path) -> None:
    state_dir.mkdir(parents=True, exist_ok=True)
    path = root / "model.gguf"
    path.write_bytes(b"GGUF" * 10)
    digests = DigestCache(state_dir)
    model = ModelFile(str(path), None, digests)
    with open(model.open(), "rb") as held:
        assert held.read() == b"GGUF" * 10
    (root / "other").write_bytes(b"other")
    os.replace(root / "other", path)  # another file in its place
    with pytest.raises(Refusal, match="changed"):
        model.open()
    model.close()

    model = ModelFile(str(path), model_digest(path), digests)
    path.write_bytes(b"changed in place")
    with pytest.raises(Refusal, match="changed"):
        model.open()
    model.close()


def model_digest(path: Path) -> str:
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("name", "why"), [("gone", "No such"), ("sub", "no regular"), ("a.txt", "the policy wants")]
)
def test_a_file_that_is_not_the_model_is_refused(root: Path, state_dir: Path, name: str, why: str) -> None:
    state_dir.mkdir(parents=True, exist_ok=True)
    with pytest.raises(PolicyError, match=why):
        ModelFile(str(root / name), "0" * 64, DigestCache(state_dir))


def test_memory_is_read_and_written_as_the_kernel_would() -> None:
    memory = Memory(os.open("/proc/self/mem", os.O_RDWR))
    size = mmap.PAGESIZE
    area = mmap.mmap(-1, 3 * size)
    base = ctypes.addressof(ctypes.c_char.from_buffer(area))
    area[size - 3 : size + 3] = b"/a/b\0x"
    assert memory.path(base + size - 3) == b"/a/b"  # across a page border
    assert memory.read(base + size - 3, 4) == b"/a/b"
    area[: 2 * size] = b"x" * 2 * size
    for address, code in ((base, 36), (0, 14), (1 << 63, 14), ((1 << 64) - 1, 14)):
        with pytest.raises(Fault) as info:
            memory.path(address)
        assert info.value.errno == code
    for address in (0, 1 << 63):
        with pytest.raises(Fault):
            memory.read(address, 8)
        with pytest.raises(Fault):
            memory.write(address, b"x")
    memory.write(base, b"new")
    assert area[:3] == b"new"
    memory.close()
    memory.close()


def test_code_is_never_written_to_and_writable_code_is_an_error() -> None:
    memory = Memory(os.open("/proc/self/mem", os.O_RDWR))
    memory.protect_code("1000-2000 r-xp 0 00:00 0\n5000-6000 rw-p 0 00:00 0\n9000-a000 r-xp 0 00:00 0 x\n")
    for address, size in ((0x1000, 1), (0xFFF, 2), (0x1FFF, 1), (0x9FFF, 100), (0x800, 0x10000)):
        with pytest.raises(Fault):
            memory.write(address, b"x" * size)
    with pytest.raises(ValueError, match="writable and executable"):
        memory.protect_code("1000-2000 rwxp 0 00:00 0\n")
    memory.close()


def test_a_path_is_cleaned_by_its_text() -> None:
    assert paths.clean(b"/a/b") == (b"/a/b", False)
    assert paths.clean(b"//a/./b/") == (b"/a/b", False)
    assert paths.clean(b"/a/../../b") == (b"/b", True)
    assert paths.clean(b"/") == (b"/", False)


def test_the_runtime_is_its_folders_and_a_link_out_of_them_is_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "packages"
    folder.mkdir()
    (folder / "module.py").write_text("x")
    (tmp_path / "private").write_text("secret")
    (folder / "out").symlink_to(tmp_path / "private")
    (folder / "nowhere").symlink_to(tmp_path / "no-such-file")
    os.mkfifo(folder / "fifo")
    runtime = Runtime((os.fsencode(folder),))
    fd, _stat, real = runtime.open(os.fsencode(folder / "module.py"))
    os.close(fd)
    assert real == os.fsencode(folder / "module.py")
    assert runtime.look(os.fsencode(folder / "module.py")).st_size == 1
    for name in (
        "out",
        "nowhere",
        "gone",
        "module.py/below",
    ):  # one answer, whether the target is there or not
        with pytest.raises(Absent):
            runtime.open(os.fsencode(folder / name))
        with pytest.raises(Absent):
            runtime.look(os.fsencode(folder / name))
    with pytest.raises(Refusal):
        runtime.open(os.fsencode(folder / "fifo"))
    assert not runtime.knows(os.fsencode(tmp_path / "private"))
    assert runtime.knows(os.fsencode(tmp_path)) and runtime.shows(os.fsencode(tmp_path), b"packages")
    assert not runtime.shows(os.fsencode(tmp_path), b"private")
