"""No record, no grant: every write that fails raises, says why, and loses nothing that was acknowledged."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from anchorhold.audit import files, redact
from anchorhold.audit.log import Log
from anchorhold.audit.query import entries
from anchorhold.errors import AuditError
from tests.support import Runner
from tests.unit.audit.logs import filled, good, session

DAEMON = Path(__file__).parents[3] / "daemon"
NAME = "00000000000000aa"

# Fills a tmpfs of 512 KiB that only this process sees, then makes room again.
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
mounts.mount("tmpfs", where, "tmpfs", 0, "size=512k,mode=700")
state = pathlib.Path(where)
log = Log.open(state)
ballast = state / "ballast"
ballast.write_bytes(bytes(256 << 10))
written = 0
failures = []
def fill():
    global written
    try:
        while True:
            log.append("policy.load", "", {"number": written, "path": "x" * 200})
            written += 1
    except AuditError as error:
        failures.append(str(error) + " / " + error.hint)
fill()
fill()
result = verify(where)
assert result.ok and result.torn_bytes == 0 and result.unsettled == written, result.text()
try:
    log.checkpoint()
except AuditError as error:
    failures.append(str(error))
result = verify(where)
assert result.ok and result.unsettled == written, result.text()
ballast.unlink()
log.append("policy.load", "", {"number": written}); written += 1
log.checkpoint()
log.close()
result = verify(where)
assert result.ok and result.signed == written + 1 and result.unsettled == 0, result.text()
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


class Failing:
    """The ``at``-th call of the log on the disk fails, that one alone."""

    CALLS = ("open", "write", "pwrite", "fsync", "fdatasync", "rename", "unlink", "mkdir")

    def __init__(self, monkeypatch: pytest.MonkeyPatch, code: int, at: int) -> None:
        self.count, self.code, self.at, self.failed = 0, code, at, ""
        for name in self.CALLS:
            monkeypatch.setattr(os, name, self._wrapped(getattr(os, name), name))

    def _wrapped(self, call: Callable[..., object], name: str) -> Callable[..., object]:
        def wrapper(*arguments: object, **options: object) -> object:
            self.count += 1
            if self.count == self.at:
                self.failed = name
                if name == "write" and isinstance(arguments[1], (bytes, bytearray)):
                    call(arguments[0], arguments[1][: len(arguments[1]) // 2])  # as a disk that fills up
                raise OSError(self.code, os.strerror(self.code))
            return call(*arguments, **options)

        return wrapper


def work(state: Path) -> int:
    """A whole run; how many events were acknowledged before it failed."""
    log = Log.open(state)
    done = 0
    try:
        for number in range(4):
            log.append("policy.load", "", {"number": number, "path": "/home/a"})
            done += 1
        log.checkpoint()
        for number in range(4, 300):
            log.append("policy.load", "", {"number": number})
            done += 1
        log.checkpoint(rotate=True)
    except AuditError as error:
        error.args = (done, *error.args)
        raise
    finally:
        log.close()
    return done


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EROFS])
def test_each_call_on_the_disk_fails_once(tmp_path: Path, code: int) -> None:
    """Open, append, settle, sign, rotate: AuditError with words, nothing lost, and the next run goes on."""
    filled(tmp_path / "first", 3).close()
    at, finished = 0, False
    kinds = set()
    while not finished:
        at += 3 if at > 60 else 1  # most of the many calls are appends, all alike
        state = tmp_path / "state"
        shutil.copytree(tmp_path / "first", state)
        with pytest.MonkeyPatch.context() as patch:
            failing = Failing(patch, code, at)
            try:
                done = work(state)
                finished = not failing.failed
            except AuditError as error:
                done = error.args[0] if isinstance(error.args[0], int) else 0
                assert os.strerror(code) in str(error), (at, str(error))
                assert error.hint and "audit log cannot be" in str(error)
        kinds.add(failing.failed)
        log = Log.open(state)
        log.checkpoint()
        log.close()
        numbers = [entry["number"] for entry in entries(state) if "number" in entry][2:]
        assert numbers == list(range(len(numbers))) and len(numbers) >= done, (at, failing.failed)
        good(state)
        shutil.rmtree(state)
    assert {"open", "write", "fsync", "rename", "unlink", "mkdir"} <= kinds


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_redaction_that_fails_is_completed_later(tmp_path: Path, code: int) -> None:
    log = Log.open(tmp_path / "first")
    session(log, NAME)
    log.checkpoint()
    log.close()
    at = 0
    failed = True
    while failed:
        at += 1
        state = tmp_path / "state"
        shutil.copytree(tmp_path / "first", state)
        with pytest.MonkeyPatch.context() as patch:
            failing = Failing(patch, code, at)
            try:
                redact.redact(state, lambda entry: True, ("names",), reason="r", by="b")
            except AuditError as error:
                assert os.strerror(code) in str(error) and error.hint
            failed = bool(failing.failed)
        good(state)
        redact.complete(state)
        redact.redact(state, lambda entry: True, ("names",), reason="r", by="b")
        good(state)
        assert not any("path" in entry for entry in entries(state))
        shutil.rmtree(state)
    assert at > 20


def test_a_failed_sync_is_the_end(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel tells of such an error once and forgets the data: fsync(2)."""
    log = Log.open(state_dir, durability="fsync")
    log.append("policy.load", "", {})

    def failing(fd: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", failing)
        with pytest.raises(AuditError, match="Input/output error"):
            log.append("policy.load", "", {})
    for call in (lambda: log.append("policy.load", "", {}), log.checkpoint):
        with pytest.raises(AuditError, match="disk failed"):
            call()
    log.close()


def test_a_write_that_cannot_be_taken_back_is_the_end(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = Log.open(state_dir)
    log.append("policy.load", "", {})

    def failing(*_: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", failing)
        patch.setattr(os, "ftruncate", failing)
        with pytest.raises(AuditError, match="Input/output error"):
            log.append("policy.load", "", {})
    with pytest.raises(AuditError, match="disk failed"):
        log.append("policy.load", "", {})
    log.close()
    Log.open(state_dir).close()
    good(state_dir)


def test_removal_while_in_use_is_noticed(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = filled(state_dir, 3, sign=False)
    shutil.rmtree(state_dir)
    monkeypatch.setattr("anchorhold.audit.log.LOOK", 0)
    with pytest.raises(AuditError, match="removed while in use"):
        log.append("policy.load", "", {})
    with pytest.raises(AuditError, match="nothing more is written"):
        log.append("policy.load", "", {})
    log.close()


def test_permission_denied(unprivileged: Runner, open_tmp: Path) -> None:
    code = (
        "import os, pathlib, sys\nfrom anchorhold.audit.log import Log\n"
        "from anchorhold.errors import AuditError\n"
        "state = pathlib.Path(sys.argv[1]) / 'state'\nlog = Log.open(state)\n"
        "log.append('policy.load', '', {})\n"
        "os.chmod(state / 'log', 0)\n"
        "try:\n    log.checkpoint()\nexcept AuditError as error:\n    print(error, '/', error.hint)\n"
        "try:\n    Log.open(state)\nexcept AuditError as error:\n    print(error, '/', error.hint)\n"
        "os.chmod(state / 'log', 0o700)\nprint(log.checkpoint().size)\n"
    )
    out = unprivileged(sys.executable, "-c", code, open_tmp, cwd=Path("/"))
    assert out.returncode == 0, out.stderr
    signed, opened, size = out.stdout.splitlines()
    assert "cannot be signed" in signed and "Permission denied" in signed and "owner and mode" in signed
    assert "cannot be opened" in opened and "Permission denied" in opened
    assert size == "2"


def test_a_file_where_the_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    with pytest.raises(AuditError, match="Not a directory") as raised:
        Log.open(tmp_path / "state")
    assert "move it" in raised.value.hint


@pytest.mark.parametrize("name", ["lock", "0/key", "state", "0/checkpoint", "0/vkey"])
def test_symbolic_links_are_not_followed(state_dir: Path, tmp_path: Path, name: str) -> None:
    filled(state_dir, 3).close()
    path = state_dir / "log" / name
    elsewhere = tmp_path / "elsewhere"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)
    before = elsewhere.read_bytes()
    log = None
    with pytest.raises(AuditError, match="symbolic link|Too many levels"):
        log = Log.open(state_dir)
        log.append("policy.load", "", {})
        log.checkpoint(rotate=True)
    if log is not None:
        log.close()
    assert elsewhere.read_bytes() == before


def test_a_key_that_others_can_read_is_refused(state_dir: Path) -> None:
    filled(state_dir, 3).close()
    os.chmod(state_dir / "log/0/key", 0o640)
    log = Log.open(state_dir)
    log.append("policy.load", "", {})
    with pytest.raises(AuditError, match="may be read by others") as raised:
        log.checkpoint()
    log.close()
    assert "chmod 600" in raised.value.hint


def test_replace_leaves_the_old_file_when_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def failing(fd: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", failing)
    with pytest.raises(OSError, match="No space"):
        files.replace(str(path), b"new", sync=True)
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["file"]


# A file system that turns read-only while a log is open, and back; nobody else sees it.
REMOUNTED = """
import os, pathlib, sys
from anchorhold.audit.log import Log
from anchorhold.audit.query import entries
from anchorhold.errors import AuditError
from anchorhold.kernel import mounts, namespaces
from anchorhold.verify.check import verify
where = sys.argv[1]
uid, gid = os.geteuid(), os.getegid()
namespaces.unshare(namespaces.CLONE_NEWNS | (namespaces.CLONE_NEWUSER if uid else 0))
if uid:
    namespaces.write_id_maps("self", uid, gid)
mounts.mount(None, "/", None, mounts.MS_REC | mounts.MS_PRIVATE)
mounts.mount("tmpfs", where, "tmpfs", 0, "size=4m,mode=700")
state = pathlib.Path(where)
def remount(flags):
    mounts.mount(None, where, None, mounts.MS_REMOUNT | flags)
log = Log.open(state)
log.append("policy.load", "", {"number": 0})
log.checkpoint()
remount(mounts.MS_RDONLY)
def failing(action):
    try:
        action()
    except AuditError as error:
        print(error, "/", error.hint)
failing(lambda: log.append("policy.load", "", {"number": -1}))
failing(log.checkpoint)
failing(lambda: Log.open(state))
print(len(list(entries(state))), verify(where).ok)
remount(0)
log.append("policy.load", "", {"number": 1})
log.checkpoint(rotate=True)
log.close()
print([entry["number"] for entry in entries(state) if "number" in entry], verify(where).ok)
"""


def test_a_file_system_that_turns_read_only(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-c", REMOUNTED, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(DAEMON)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.returncode == 0, run.stderr
    *failures, reading, after = run.stdout.splitlines()
    assert len(failures) == 3 and reading == "2 True" and after == "[0, 1] True"
    for failure, what in zip(failures, ("written", "signed", "opened"), strict=True):
        assert (
            f"cannot be {what}" in failure and "Read-only file system" in failure and str(tmp_path) in failure
        )
        assert "remount it" in failure


@pytest.mark.parametrize(
    "name", ["lock", "state", "0/checkpoint", "0/key", "0/openings/000", "0/tile/0/000.p/3"]
)
def test_files_of_somebody_else(unprivileged: Runner, open_tmp: Path, name: str) -> None:
    """Not readable for who runs: said with the file's name, and nothing is begun anew or lost."""
    code = (
        "import os, pathlib, sys\nfrom anchorhold.audit.log import Log\n"
        "from anchorhold.errors import AuditError\nfrom anchorhold.verify.check import verify\n"
        "state = pathlib.Path(sys.argv[1]) / 'state'\nlog = Log.open(state)\n"
        "log.append('policy.load', '', {})\nlog.append('policy.load', '', {})\nlog.checkpoint()\n"
        "path = state / 'log' / sys.argv[2]\nos.chmod(path, 0)\n"
        "try:\n    log.append('policy.load', '', {})\n    log.checkpoint()\n"
        "except AuditError as error:\n    print(error, '/', error.hint)\n"
        "os.chmod(path, 0o600)\nprint(log.checkpoint().size, verify(str(state)).ok)\n"
    )
    run = unprivileged(sys.executable, "-c", code, open_tmp, name, cwd=Path("/"))
    assert run.returncode == 0, run.stderr
    failure, after = run.stdout.splitlines()
    assert "Permission denied" in failure and f"log/{name}" in failure and "owner and mode" in failure
    assert after == "4 True"
