"""No record, no grant: every failing write raises, says why, and leaves no half record behind."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from anchorhold.audit import files
from anchorhold.audit.log import Log
from anchorhold.errors import AuditError
from tests.support import Runner
from tests.unit.audit.logs import filled, good, records

DAEMON = Path(__file__).parents[3] / "daemon"

# Fills a tmpfs of 256 KiB that only this process sees, then makes room again.
FULL_DISK = """
import os, pathlib, sys
from anchorhold.audit.log import Log
from anchorhold.errors import AuditError
from anchorhold.kernel import mounts, namespaces
from anchorhold.verify.check import verify
where = sys.argv[1]
user = os.geteuid() != 0
uid, gid = os.geteuid(), os.getegid()
namespaces.unshare(namespaces.CLONE_NEWNS | (namespaces.CLONE_NEWUSER if user else 0))
if user:
    namespaces.write_id_maps("self", uid, gid)
mounts.mount(None, "/", None, mounts.MS_REC | mounts.MS_PRIVATE)
mounts.mount("tmpfs", where, "tmpfs", 0, "size=256k,mode=700")
state = pathlib.Path(where)
log = Log.open(state)
ballast = state / "ballast"
ballast.write_bytes(bytes(128 << 10))
written = 0
failures = []
def fill():
    global written
    try:
        while True:
            assert log.append("limit", "s", {"n": written, "text": "x" * 200}) == written
            written += 1
    except AuditError as error:
        failures.append(str(error) + " / " + error.hint)
fill()
fill()
result = verify(where)
assert result.ok and result.torn_bytes == 0 and result.size == written, result.text()
try:
    log.checkpoint()
except AuditError as error:
    failures.append(str(error))
ballast.unlink()
log.append("limit", "s", {"n": written}); written += 1
log.checkpoint()
log.close()
result = verify(where)
assert result.ok and result.signed == written, result.text()
ballast.write_bytes(b"")
try:
    with open(ballast, "ab") as file:
        while True:
            file.write(bytes(512)); file.flush()
except OSError:
    pass
try:
    Log.open(pathlib.Path(where) / "second")
except AuditError as error:
    failures.append(str(error))
print(written)
print(*failures, sep="\\n")
"""


def check_full_disk(run: subprocess.CompletedProcess[str]) -> None:
    assert run.returncode == 0, run.stderr
    written, *failures = run.stdout.splitlines()
    assert int(written) > 100
    assert len(failures) == 4
    assert all("No space left on device" in failure for failure in failures)
    assert "cannot be written" in failures[0] and "Free some space" in failures[0]


def test_a_full_disk(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(DAEMON)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    check_full_disk(run)


def test_a_full_disk_as_an_unprivileged_user(unprivileged: Runner, open_tmp: Path) -> None:
    check_full_disk(unprivileged(sys.executable, "-c", FULL_DISK, open_tmp, cwd=Path("/")))


def in_a_child(action: Callable[[], None]) -> None:
    """Run it in a forked child, so that limits and ids stay there; an exception fails the test."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            action()
            code = 0
        except BaseException as error:
            os.write(2, f"{type(error).__name__}: {error}\n".encode())
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0


def test_a_file_size_limit_makes_a_short_write(state_dir: Path) -> None:
    filled(state_dir, 3).close()
    size = (state_dir / "log/tail").stat().st_size

    def limited() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        log = Log.open(state_dir)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 50, size + 50))
        with pytest.raises(AuditError, match="File too large") as caught:
            log.append("limit", "s", {})
        assert "ulimit -f" in caught.value.hint
        assert (state_dir / "log/tail").stat().st_size == size

    in_a_child(limited)
    Log.open(state_dir).close()
    assert good(state_dir).size == 3


def test_the_limit_really_tears_without_the_care(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # the attack on the defence above: without the truncation half a record stays
    filled(state_dir, 3).close()
    size = (state_dir / "log/tail").stat().st_size

    def limited() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        log = Log.open(state_dir)
        monkeypatch.setattr(os, "ftruncate", lambda fd, length: None)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 50, size + 50))
        with pytest.raises(AuditError):
            log.append("limit", "s", {})
        assert (state_dir / "log/tail").stat().st_size == size + 50

    in_a_child(limited)
    Log.open(state_dir).close()  # and the next start sets it aside
    assert records(state_dir)[3]["kind"] == "log.recovered"
    good(state_dir)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT, 9999])
def test_a_write_that_fails(state_dir: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    log = filled(state_dir, 3)
    real = os.write

    def failing(fd: int, data: bytes) -> int:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", failing)
        with pytest.raises(AuditError, match="cannot be written") as caught:
            log.append("limit", "s", {})
    assert caught.value.hint
    assert str(state_dir) in str(caught.value)

    def short(fd: int, data: bytes) -> int:
        return real(fd, data[:10])

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", short)
        with pytest.raises(AuditError):
            log.append("limit", "s", {})
    assert log.append("limit", "s", {}) == 3
    log.checkpoint()
    log.close()
    assert good(state_dir).size == 4


def test_a_rotation_that_fails_loses_nothing(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = filled(state_dir, 256, sign=False)

    def failing(old: str, new: str) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), new)

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", failing)
        for _ in range(2):
            with pytest.raises(AuditError, match="No space"):
                log.append("limit", "s", {})
    assert len(records(state_dir)) == 256
    assert good(state_dir).size == 256
    assert log.append("limit", "s", {}) == 256
    log.checkpoint()
    log.close()
    assert good(state_dir).size == 257


def test_a_sync_that_fails_is_no_record(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = Log.open(state_dir, durability="fsync")

    def failing(fd: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", failing)
        with pytest.raises(AuditError, match="Input/output error"):
            log.append("limit", "s", {})
    # the next fdatasync would succeed, and the lost page would stay lost
    for _ in range(2):
        with pytest.raises(AuditError, match="disk failed"):
            log.append("limit", "s", {})
    log.close()


DENIED = """
import pathlib, sys
from anchorhold.audit.log import Log
from anchorhold.errors import AuditError
try:
    Log.open(pathlib.Path(sys.argv[1]))
except AuditError as error:
    print(f"{error}\\n{error.hint}")
"""


def test_permission_denied(unprivileged: Runner, open_tmp: Path) -> None:
    state = open_tmp / "state"
    run = unprivileged(
        sys.executable, "-c", "import os, sys; os.mkdir(sys.argv[1], 0o500)", state, cwd=Path("/")
    )
    assert run.returncode == 0, run.stderr
    run = unprivileged(sys.executable, "-c", DENIED, state, cwd=Path("/"))
    assert "cannot be opened" in run.stdout and "Permission denied" in run.stdout
    assert "--state-dir" in run.stdout


def test_a_log_of_somebody_else(unprivileged: Runner, open_tmp: Path) -> None:
    run = unprivileged(
        sys.executable,
        "-c",
        "import pathlib, sys; from anchorhold.audit.log import Log; Log.open(pathlib.Path(sys.argv[1]))",
        open_tmp / "state",
        cwd=Path("/"),
    )
    assert run.returncode == 0, run.stderr
    for name in ("lock", "tail"):
        unprivileged("chmod", "000", open_tmp / "state/log" / name, cwd=Path("/"))
        run = unprivileged(sys.executable, "-c", DENIED, open_tmp / "state", cwd=Path("/"))
        assert "Permission denied" in run.stdout and name in run.stdout
        unprivileged("chmod", "600", open_tmp / "state/log" / name, cwd=Path("/"))


READ_ONLY = """
import os, pathlib, sys
from anchorhold.audit.log import Log
from anchorhold.errors import AuditError
from anchorhold.kernel import mounts, namespaces
where = sys.argv[1]
log = Log.open(pathlib.Path(where))
log.append("limit", "s", {})
log.close()
uid, gid = os.geteuid(), os.getegid()
namespaces.unshare(namespaces.CLONE_NEWNS | (namespaces.CLONE_NEWUSER if uid else 0))
if uid:
    namespaces.write_id_maps("self", uid, gid)
mounts.mount(None, "/", None, mounts.MS_REC | mounts.MS_PRIVATE)
mounts.mount(where, where, None, mounts.MS_BIND)
mounts.mount(None, where, None, mounts.MS_BIND | mounts.MS_REMOUNT | mounts.MS_RDONLY | 2 | 4)
try:
    Log.open(pathlib.Path(where))
except AuditError as error:
    print(f"{error} {error.hint}")
from anchorhold.audit.query import entries
print(len(list(entries(pathlib.Path(where)))), "entries can still be read")
"""


def test_a_read_only_file_system(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-c", READ_ONLY, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(DAEMON)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "Read-only file system" in run.stdout, run.stderr
    assert "remount" in run.stdout
    assert "1 entries can still be read" in run.stdout


def test_a_file_where_the_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "state").write_bytes(b"")
    with pytest.raises(AuditError, match="Not a directory"):
        Log.open(tmp_path / "state")


@pytest.mark.parametrize("name", ["tail", "lock"])
def test_symbolic_links_are_not_followed(state_dir: Path, tmp_path: Path, name: str) -> None:
    Log.open(state_dir).close()
    target = tmp_path / "precious"
    target.write_bytes(b"precious")
    (state_dir / "log" / name).unlink()
    (state_dir / "log" / name).symlink_to(target)
    with pytest.raises(AuditError, match="symbolic link"):
        Log.open(state_dir)
    assert target.read_bytes() == b"precious"


def test_replace_leaves_the_old_file_when_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / "deep/er/file")
    files.replace(path, b"old", sync=True)

    def failing(fd: int, data: bytes) -> int:
        return 0

    monkeypatch.setattr(os, "write", failing)
    with pytest.raises(OSError, match="nothing was written"):
        files.replace(path, b"new", sync=False)
    assert os.listdir(tmp_path / "deep/er") == ["file"]
    assert files.read_file(path) == b"old"
    files.remove_quietly([str(tmp_path / "none")])


def test_reading_stops_where_a_file_was_cut(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    fd = os.open(path, os.O_RDONLY)
    assert files.read_fd(fd, 10) == b"abc"
    os.close(fd)
    assert files.read_file(str(tmp_path / "none")) is None
