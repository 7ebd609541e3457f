"""The log in one process: what is on disk, and when."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from anchorhold.audit.log import Log
from anchorhold.audit.tree import EMPTY_ROOT, leaf_hash, split_entries
from anchorhold.errors import AuditError
from anchorhold.verify.check import verify
from tests.unit.audit.logs import GRANT, filled, good, records, session
from tests.unit.audit.test_tree import mth


def test_an_entry_is_in_the_file_when_append_returns(state_dir: Path) -> None:
    log = Log.open(state_dir)
    for number in range(600):
        assert log.append("limit", "s", {"n": number}) == number
        if number % 50 == 0 or number in (255, 256, 257, 511, 512):
            assert [entry["n"] for entry in records(state_dir)] == list(range(number + 1))
    assert log.size == 600
    log.close()


def test_a_new_log_has_a_signed_head_at_once(state_dir: Path) -> None:
    log = Log.open(state_dir)
    result = good(state_dir)
    assert (result.size, result.signed, result.proven) == (0, 0, True)
    assert log.checkpoint().root == EMPTY_ROOT
    log.close()


@pytest.mark.parametrize("size", [1, 255, 256, 257, 512, 1000])
def test_the_signed_root_is_the_entries_root(state_dir: Path, size: int) -> None:
    log = filled(state_dir, size, sign=False)
    checkpoint = log.checkpoint()
    tail = (state_dir / "log/tail").read_bytes()
    bundles = sorted((state_dir / "log/tile/entries").glob("[0-9][0-9][0-9]"))
    data = b"".join(path.read_bytes() for path in bundles) + tail
    assert checkpoint.size == size
    assert checkpoint.root == mth([leaf_hash(entry) for entry in split_entries(data)])
    assert (state_dir / "log/checkpoint").read_bytes() == checkpoint.note
    assert log.checkpoint().note == checkpoint.note
    log.close()
    assert good(state_dir).unsigned == 0


def test_tiles_are_laid_out_as_the_specification_says(state_dir: Path) -> None:
    log = filled(state_dir, 520)
    tile = state_dir / "log/tile"
    found = sorted(str(path.relative_to(tile)) for path in tile.rglob("*") if path.is_file())
    assert found == [
        "0/000",
        "0/001",
        "0/002.p/8",
        "1/000.p/2",
        "entries/000",
        "entries/001",
        "entries/002.p/8",
    ]
    assert len((tile / "0/000").read_bytes()) == 8192
    # partial tiles of every checkpoint stay until the full one is there, then they go
    log.append("limit", "s", {})
    log.checkpoint()
    assert sorted(os.listdir(tile / "0/002.p")) == ["8", "9"]
    for _ in range(256):
        log.append("limit", "s", {})
    log.checkpoint()
    assert not (tile / "0/002.p").exists() and not (tile / "entries/002.p").exists()
    assert (tile / "0/002").exists()
    good(state_dir)
    log.close()


def test_checkpoints_from_any_size_to_any_size(state_dir: Path) -> None:
    log = Log.open(state_dir)
    for step in (1, 200, 54, 1, 1, 255, 256, 300):
        for _ in range(step):
            log.append("limit", "s", {})
        log.checkpoint()
        assert good(state_dir).unsigned == 0
    log.close()


@pytest.mark.slow
def test_a_tile_of_level_one_fills(state_dir: Path) -> None:
    log = filled(state_dir, 65_536 + 300, sign=False)
    log._tiles.roots.clear()
    log.checkpoint()
    assert len((state_dir / "log/tile/1/000").read_bytes()) == 8192
    assert (state_dir / "log/tile/2/000.p/1").exists()
    assert good(state_dir).signed == 65_836
    log.close()
    tile = state_dir / "log/tile/1/000"
    data = tile.read_bytes()
    tile.write_bytes(bytes(32) + data[32:])
    assert str(verify(str(state_dir)).first_bad).startswith("tile/1/000")
    tile.write_bytes(data[:-1])
    assert not verify(str(state_dir)).ok
    tile.unlink()
    assert not verify(str(state_dir)).ok
    # the same with an entry, found through the tiles although its own hash was changed too
    tile.write_bytes(data)
    bundle, level0 = state_dir / "log/tile/entries/007", state_dir / "log/tile/0/007"
    changed = bundle.read_bytes().replace(b'"n":1800}', b'"n":1801}')
    bundle.write_bytes(changed)
    level0.write_bytes(b"".join(map(leaf_hash, split_entries(changed))))
    result = verify(str(state_dir))
    first = result.first_bad
    assert first is not None and first.place == "tile/1/000" and (first.seq, first.last) == (1792, 2047)
    assert not result.proven


def test_reopening_goes_on_where_it_was(state_dir: Path) -> None:
    filled(state_dir, 300).close()
    log = Log.open(state_dir)
    assert log.append("limit", "s", {}) == 300
    log.checkpoint()
    log.close()
    assert good(state_dir).size == 301


def test_fsync_keeps_the_same_log(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = []
    real = os.fdatasync

    def fdatasync(fd: int) -> None:
        synced.append(fd)
        real(fd)

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    log = Log.open(state_dir, durability="fsync")
    for number in range(260):
        log.append("limit", "s", {"n": number})
    assert len(synced) == 260
    log.checkpoint()
    log.close()
    assert good(state_dir).signed == 260


def test_checkpoints_flush_what_they_cover(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = filled(state_dir, 520, sign=False)
    flushed: set[str] = set()
    real = os.fsync
    folder = str(state_dir / "log") + "/"

    def fsync(fd: int) -> None:
        flushed.add(os.readlink(f"/proc/self/fd/{fd}").removeprefix(folder))
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    log.checkpoint()
    assert {"tail", "tile/0/000", "tile/0/001", "tile/entries/000", "tile/entries/001"} <= flushed
    assert {"tile/entries", "tile/0", "tile"} <= flushed
    log.close()


def test_only_known_durabilities(state_dir: Path) -> None:
    with pytest.raises(AuditError, match="durability"):
        Log.open(state_dir, durability="never")


def test_a_closed_log_refuses(state_dir: Path) -> None:
    log = Log.open(state_dir)
    log.close()
    log.close()
    with pytest.raises(AuditError, match="closed"):
        log.append("limit", "s", {})
    with pytest.raises(AuditError, match="closed"):
        log.checkpoint()


def test_a_forked_child_must_open_it_again(state_dir: Path) -> None:
    log = Log.open(state_dir)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            log.append("limit", "s", {})
        except AuditError:
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
    assert log.append("limit", "s", {}) == 0
    log.close()


def test_threads_share_a_log(state_dir: Path) -> None:
    log = Log.open(state_dir)

    def work() -> None:
        for _ in range(500):
            log.append("limit", "s", {"thread": threading.get_ident()})

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.checkpoint()
    log.close()
    assert good(state_dir).size == 2000


def test_removal_while_in_use_is_noticed(state_dir: Path) -> None:
    log = filled(state_dir, 3)
    shutil.rmtree(state_dir)
    with pytest.raises(AuditError, match="removed"):
        log.append("limit", "s", {})
    log.close()


def test_a_vanished_checkpoint_is_noticed_while_open(state_dir: Path) -> None:
    log = filled(state_dir, 3)
    (state_dir / "log/checkpoint").unlink()
    with pytest.raises(AuditError, match="checkpoint is gone"):
        log.checkpoint()
    log.close()


@pytest.mark.parametrize("name", ["key", "checkpoint"])
def test_never_a_second_key_nor_a_new_beginning(state_dir: Path, name: str) -> None:
    filled(state_dir, 3).close()
    (state_dir / "log" / name).unlink()
    with pytest.raises(AuditError, match="damaged"):
        Log.open(state_dir)
    assert not verify(str(state_dir)).ok or name == "key"


def test_a_start_cut_short_after_the_key(state_dir: Path) -> None:
    Log.open(state_dir).close()
    vkey = (state_dir / "log/vkey").read_bytes()
    for name in ("checkpoint", "vkey", "tail"):
        (state_dir / "log" / name).unlink()
    Log.open(state_dir).close()
    assert (state_dir / "log/vkey").read_bytes() == vkey
    good(state_dir)


def test_what_a_crash_left_half_written_is_swept_away(state_dir: Path) -> None:
    first = Log.open(state_dir)
    leftover = state_dir / "log/.tmp-checkpoint-1"
    leftover.touch()
    Log.open(state_dir).close()
    assert leftover.exists()  # it may be a living writer's
    first.close()
    Log.open(state_dir).close()
    assert not leftover.exists()


def test_a_damaged_checkpoint_stops_the_start(state_dir: Path) -> None:
    filled(state_dir, 3).close()
    (state_dir / "log/checkpoint").write_bytes(b"nonsense")
    with pytest.raises(AuditError, match="checkpoint is damaged"):
        Log.open(state_dir)


def test_signed_entries_that_are_gone_stop_the_start(state_dir: Path) -> None:
    filled(state_dir, 300).close()
    tail = state_dir / "log/tail"
    tail.write_bytes(b"")
    with pytest.raises(AuditError, match="300 entries are signed, 256 are there"):
        Log.open(state_dir)


@pytest.mark.parametrize("where", ["tail", "tile/1/000.p/1"])
def test_nothing_is_signed_that_contradicts_what_was_signed(state_dir: Path, where: str) -> None:
    filled(state_dir, 300).close()
    path = state_dir / "log" / where
    data = path.read_bytes()
    path.write_bytes(data.replace(b'"n":299', b'"n":298') if where == "tail" else data[:-1] + b"x")
    log = Log.open(state_dir)
    log.append("limit", "s", {})
    with pytest.raises(AuditError, match="not those of its last checkpoint"):
        log.checkpoint()
    log.close()
    assert not verify(str(state_dir)).ok


@pytest.mark.parametrize("where", ["tile/entries/000", "tile/0/000"])
def test_what_is_changed_far_below_stays_found_after_the_next_checkpoint(state_dir: Path, where: str) -> None:
    filled(state_dir, 300).close()
    path = state_dir / "log" / where
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    log = Log.open(state_dir)
    log.append("limit", "s", {})
    log.checkpoint()  # reads no full tile again: that is the work of verify; the root stays honest
    log.close()
    result = verify(str(state_dir))
    assert not result.ok and result.proven
    assert "255" in str(result.first_bad)


def test_a_checkpoint_of_another_log_is_not_replaced(state_dir: Path, tmp_path: Path) -> None:
    log = filled(state_dir, 3)
    filled(tmp_path / "other", 3).close()
    shutil.copy(tmp_path / "other/log/checkpoint", state_dir / "log/checkpoint")
    with pytest.raises(AuditError, match="not of one log"):
        log.checkpoint()
    log.close()


def test_the_key_may_go_while_the_log_is_open(state_dir: Path) -> None:
    log = filled(state_dir, 3)
    (state_dir / "log/key").unlink()
    with pytest.raises(AuditError, match="signing key is gone"):
        log.checkpoint()
    log.close()


def test_a_session_verifies(state_dir: Path) -> None:
    log = Log.open(state_dir)
    session(log, "one", 300)
    session(log, "two", 5, end=False)
    log.checkpoint()
    log.close()
    result = good(state_dir)
    assert (result.sessions, result.open_sessions) == (2, 1)


def test_opening_imports_nothing_heavy(state_dir: Path) -> None:
    filled(state_dir, 3).close()
    script = (
        "import sys, pathlib; from anchorhold.audit.log import Log; "
        "log = Log.open(pathlib.Path(sys.argv[1])); log.append('limit', 's', {}); log.close(); "
        "print(*sorted({'cryptography', 'sqlite3', 'dataclasses', 'typing', 'datetime'} & set(sys.modules)))"
    )
    run = subprocess.run(
        [sys.executable, "-c", script, str(state_dir)],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(__file__).parents[3] / "daemon")},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert run.stdout.strip() == ""


def test_grants_of_real_size_are_small_on_disk(state_dir: Path) -> None:
    # 1.2 is the whole log against its own JSON lines
    log = Log.open(state_dir)
    for _ in range(2560):
        log.append("grant", "0123456789abcdef", GRANT)
    log.checkpoint()
    log.close()
    entries = sum(
        len(entry) + 1
        for path in (state_dir / "log/tile/entries").glob("*")
        for entry in split_entries(path.read_bytes())
    )
    total = sum(path.stat().st_size for path in state_dir.rglob("*") if path.is_file())
    assert total <= 1.2 * entries
