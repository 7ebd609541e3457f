"""Whatever is changed in a log is found, and the right place is named."""

from __future__ import annotations

import base64
import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from anchorhold.audit.log import Log
from anchorhold.audit.note import Checkpoint, Key
from anchorhold.audit.tree import leaf_hash, split_entries
from anchorhold.verify.check import verify
from anchorhold.verify.result import LogUnreadable
from tests.unit.audit.logs import filled, good, session


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of several sessions and checkpoints, with something set aside."""
    state = tmp_path_factory.mktemp("tampering") / "state"
    log = Log.open(state)
    for number in range(5):
        session(log, f"{number:016x}", 100)
        log.checkpoint()
    log.close()
    with (state / "log/tail").open("ab") as file:
        file.write(b"\1\0{half")
    log = Log.open(state)
    session(log, "last", 3)
    log.checkpoint()
    log.close()
    assert good(state).signed == 5 * 106 + 1 + 9
    return state


@pytest.fixture
def state(original: Path, tmp_path: Path) -> Path:
    return shutil.copytree(original, tmp_path / "state")


def every_file(state: Path) -> list[Path]:
    return sorted(path for path in state.rglob("*") if path.is_file() and path.stat().st_size)


@pytest.mark.slow
def test_a_flipped_bit_in_any_file_is_found(state: Path) -> None:
    seed = random.randrange(1 << 30)
    dice = random.Random(seed)
    print("seed", seed)
    kinds = set()
    for path in every_file(state):
        kinds.add(str(path.relative_to(state / "log")).split("/")[0])
        data = path.read_bytes()
        small = len(data) <= 40
        bits = range(len(data) * 8) if small else (dice.randrange(len(data) * 8) for _ in range(60))
        for bit in bits:
            changed = bytearray(data)
            changed[bit // 8] ^= 1 << bit % 8
            path.write_bytes(changed)
            result = verify(str(state))
            assert not result.ok, f"bit {bit} of {path}"
            assert result.text() and json.dumps(result.as_dict())
        path.write_bytes(data)
    assert kinds == {"checkpoint", "key", "vkey", "tail", "tile", "torn"}
    good(state)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["checkpoint", "key", "vkey"])
def test_every_bit_of_the_small_files(state_dir: Path, name: str) -> None:
    filled(state_dir, 3).close()
    good(state_dir)
    path = state_dir / "log" / name
    data = path.read_bytes()
    for bit in range(len(data) * 8):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        assert not verify(str(state_dir)).ok, f"bit {bit} of {name}"


def test_every_file_removed_is_found(state: Path) -> None:
    for path in every_file(state):
        relative = str(path.relative_to(state / "log"))
        data = path.read_bytes()
        path.unlink()
        # an auditor's copy has no private key; partial tiles of earlier checkpoints are not needed
        needless = relative == "key" or (".p/" in relative and not relative.endswith(("000.p/2", "002.p/28")))
        assert verify(str(state)).ok == needless, relative
        path.write_bytes(data)
    (state / "log/key").chmod(0o600)
    good(state)


def test_every_file_cut_or_grown_is_found(state: Path) -> None:
    for path in every_file(state):
        data = path.read_bytes()
        for changed in (data[:-1], data + b"\n", data + data, data[: len(data) // 2]):
            path.write_bytes(changed)
            result = verify(str(state))
            if path.name == "tail" and changed == data + b"\n":
                assert result.ok and result.torn_bytes == 1  # a torn record is no tampering, but is told
            else:
                assert not result.ok, (path, len(changed))
        path.write_bytes(data)


def entries_of(path: Path) -> list[bytes]:
    return split_entries(path.read_bytes())


def write_entries(path: Path, found: list[bytes]) -> None:
    path.write_bytes(b"".join(len(entry).to_bytes(2, "big") + entry for entry in found))


@pytest.mark.parametrize("bundle", ["tile/entries/000", "tile/entries/001", "tail"])
def test_a_changed_entry_is_named_and_the_rest_is_sound(state: Path, bundle: str) -> None:
    path = state / "log" / bundle
    found = entries_of(path)
    seq = json.loads(found[20])["seq"]
    found[20] = found[20].replace(b"/home/a/", b"/home/b/").replace(b'"nonce":"', b'"nonce":"')
    found[20] = found[20].replace(b'"size":12345', b'"size":12346').replace(b'"bytes":', b'"Bytes":')
    write_entries(path, found)
    result = verify(str(state))
    first = result.first_bad
    assert first is not None and (first.seq, first.place) == (seq, bundle)
    assert result.proven
    assert result.bad_entries == 1
    assert result.sound_after == result.size - seq - 1
    assert f"entry {seq}" in result.text()


@pytest.mark.parametrize("change", ["removed", "doubled", "swapped", "reversed"])
def test_entries_moved_about(state: Path, change: str) -> None:
    path = state / "log/tile/entries/001"
    found = entries_of(path)
    if change == "removed":
        del found[10]
    elif change == "doubled":
        found.insert(10, found[10])
    elif change == "swapped":
        found[10], found[11] = found[11], found[10]
    else:
        found.reverse()
    write_entries(path, found)
    result = verify(str(state))
    assert not result.ok
    first = result.first_bad
    assert first is not None and first.seq in (256, 266, 267)


def test_a_consistent_rewrite_without_the_key_is_found(state: Path) -> None:
    """Entry and its hashes changed together; only the signature stands against it."""
    path, tile = state / "log/tile/entries/000", state / "log/tile/0/000"
    found = entries_of(path)
    found[20] = found[20].replace(b"/home/a/", b"/home/b/")
    write_entries(path, found)
    tile.write_bytes(b"".join(map(leaf_hash, found)))
    result = verify(str(state))
    assert not result.ok and not result.proven
    assert result.sound_after == 0
    assert any(finding.place == "checkpoint" for finding in result.findings)
    assert any(finding.place.startswith("tile/1") or finding.seq == 0 for finding in result.findings)


def test_an_entry_and_another_ones_hash(state: Path) -> None:
    path, tile = state / "log/tile/entries/000", state / "log/tile/0/000"
    found = entries_of(path)
    found[20] = found[20].replace(b"/home/a/", b"/home/b/")
    write_entries(path, found)
    tile.write_bytes(bytes(32) + tile.read_bytes()[32:])
    result = verify(str(state))
    assert not result.proven
    assert {finding.seq for finding in result.findings} >= {0, 20}


def test_a_rewrite_signed_with_another_key_is_found_by_who_knows_the_key(state: Path) -> None:
    vkey = (state / "log/vkey").read_text().strip()
    assert verify(str(state), vkey=vkey).ok
    forger = Key.generate()
    (state / "log/vkey").write_text(forger.vkey() + "\n")
    (state / "log/key").write_text(forger.text())
    old = Checkpoint.parse((state / "log/checkpoint").read_bytes())
    (state / "log/checkpoint").write_bytes(forger.sign(Checkpoint(forger.name, old.size, old.root).text()))
    assert verify(str(state)).ok  # what lies beside the log proves nothing about who made it
    result = verify(str(state), vkey=vkey)
    assert not result.ok and not result.proven
    assert not verify(str(state), vkey="no key").ok


def test_an_older_checkpoint_leaves_entries_unsigned(state_dir: Path) -> None:
    log = filled(state_dir, 10)
    old = (state_dir / "log/checkpoint").read_bytes()
    for _ in range(20):
        log.append("limit", "s", {})
    log.checkpoint()
    log.close()
    (state_dir / "log/checkpoint").write_bytes(old)
    result = verify(str(state_dir))
    assert (result.signed, result.unsigned) == (10, 20)  # told; who kept the newer one knows of the rollback


def test_a_checkpoint_ahead_of_the_entries(state: Path) -> None:
    path = state / "log/tail"
    write_entries(path, entries_of(path)[:5])
    result = verify(str(state))
    first = result.first_bad
    assert first is not None and (first.seq, first.last) == (517, 539)
    assert "23 signed entries are missing" in first.problem


def test_unsigned_entries_are_told_apart(state_dir: Path) -> None:
    log = filled(state_dir, 200)
    for _ in range(400):
        log.append("limit", "s", {"n": 1})
    result = good(state_dir)
    assert (result.size, result.signed, result.unsigned) == (600, 200, 400)
    assert "200 signed, 400 after the checkpoint" in result.text()
    # in a full bundle they have their hash already
    path = state_dir / "log/tile/entries/001"
    path.write_bytes(path.read_bytes().replace(b'"n":1}', b'"n":2}', 1))
    result = verify(str(state_dir))
    assert "not signed yet" in str(result.first_bad)
    assert (result.proven, result.bad_entries) == (True, 1)
    log.close()


def test_a_full_tail_that_is_not_renamed_yet(state_dir: Path) -> None:
    log = filled(state_dir, 255)
    log.append("limit", "s", {})
    assert good(state_dir).size == 256
    log.close()
    # the tile comes before the rename
    hashes = b"".join(map(leaf_hash, entries_of(state_dir / "log/tail")))
    (state_dir / "log/tile/0/000").write_bytes(hashes)
    assert good(state_dir).size == 256
    (state_dir / "log/tile/0/000").write_bytes(bytes(32) + hashes[32:])
    assert not verify(str(state_dir)).ok


def test_more_than_a_bundle_in_the_tail(state_dir: Path) -> None:
    filled(state_dir, 300).close()
    path = state_dir / "log/tile/entries/000"
    tail = state_dir / "log/tail"
    tail.write_bytes(path.read_bytes() + tail.read_bytes())
    path.unlink()
    assert not verify(str(state_dir)).ok


def test_files_that_are_not_the_logs_are_told(state: Path) -> None:
    (state / "log/notes.txt").touch()
    (state / "log/.tmp-checkpoint-1").touch()
    (state / "log/tile/0/.tmp-000-1").touch()
    for name in (
        "tile/x/000",
        "tile/0/1",
        "tile/0/000.p/0",
        "tile/0/000.p/256",
        "tile/00/000",
        "tile/0/00\u0661",
    ):
        (state / "log" / name).parent.mkdir(parents=True, exist_ok=True)
        (state / "log" / name).touch()
    result = good(state)
    assert len(result.notes) == 7
    assert all(note.startswith("unknown file") for note in result.notes)


def test_tiles_about_entries_that_are_not_there(state: Path) -> None:
    (state / "log/tile/0/002").write_bytes(bytes(8192))
    assert any(finding.place == "tile/0/002" for finding in verify(str(state)).findings)
    (state / "log/tile/0/002").unlink()
    for name in ("tile/0/007.p/3", "tile/5/000.p/1", "tile/entries/009.p/2"):
        path = state / "log" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(96))
        assert [finding.place for finding in verify(str(state)).findings] == [name]
        path.unlink()


def test_a_partial_tile_that_was_left_beside_the_full_one(state: Path) -> None:
    path = state / "log/tile/0/000.p/9"
    path.parent.mkdir()
    path.write_bytes((state / "log/tile/0/000").read_bytes()[: 9 * 32])
    bundle = state / "log/tile/entries/000.p/1"
    bundle.parent.mkdir()
    write_entries(bundle, entries_of(state / "log/tile/entries/000")[:1])
    good(state)
    path.write_bytes(bytes(9 * 32))
    assert not verify(str(state)).ok


def test_what_was_set_aside_needs_its_entry_and_the_other_way_round(state: Path) -> None:
    (torn,) = (state / "log/torn").iterdir()
    data = torn.read_bytes()
    torn.unlink()
    assert "is missing" in str(verify(str(state)).first_bad)
    torn.write_bytes(data)
    other = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"
    (torn.parent / other).write_bytes(b"foo")
    assert "no entry tells of it" in str(verify(str(state)).first_bad)
    (torn.parent / other).rename(torn.parent / f"{other}.pending")  # the next run will write its entry
    (torn.parent / ".tmp-x").touch()
    good(state)


def test_a_missing_bundle(state: Path) -> None:
    (state / "log/tile/entries/000").unlink()
    result = verify(str(state))
    first = result.first_bad
    assert first is not None and (first.seq, first.last) == (0, 255)
    assert result.proven  # the stored hashes still give the signed root
    assert result.bad_entries >= 256


def test_everything_wrong_stays_bounded(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from anchorhold.verify import check

    filled(state_dir, 3000).close()
    for path in (state_dir / "log/tile/0").glob("[0-9][0-9][0-9]"):
        path.write_bytes(bytes(8192))
    for path in (state_dir / "log/tile/entries").glob("[0-9][0-9][0-9]"):
        path.write_bytes(path.read_bytes().replace(b'"limit"', b'"Limit"'))
    monkeypatch.setattr(check, "SUSPECTS", 1500)
    result = verify(str(state_dir))
    assert len(result.findings) <= 1010
    assert result.findings_left_out > 0
    assert not result.proven
    assert "more" in result.text()


def test_no_checkpoint_at_all(state: Path) -> None:
    (state / "log/checkpoint").write_bytes(b"nonsense\n")
    path = state / "log/tile/entries/000"
    path.write_bytes(path.read_bytes().replace(b"/home/a/", b"/home/b/", 1))
    result = verify(str(state))
    assert not result.proven
    assert result.first_bad is not None and result.first_bad.seq is not None


@pytest.mark.parametrize(
    "change",
    [
        lambda state: shutil.rmtree(state / "log"),
        lambda state: shutil.rmtree(state),
    ],
)
def test_no_log(state: Path, change: Callable[[Path], None]) -> None:
    change(state)
    with pytest.raises(LogUnreadable, match="there is no audit log"):
        verify(str(state))


def test_the_logs_own_folder_will_do(state: Path) -> None:
    assert verify(str(state / "log")).ok


def test_a_copy_without_lock_and_key(state: Path) -> None:
    for name in ("lock", "writers", "key"):
        (state / "log" / name).unlink()
    good(state)


def test_a_stopped_writer_does_not_stop_the_verifier(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    from anchorhold.verify import disk

    monkeypatch.setattr(disk, "LOCK_WAIT", 0.05)
    with (state / "log/lock").open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        good(state)


def test_what_may_not_be_read_is_no_verdict(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import builtins

    real = builtins.open

    def denied(path: str, mode: str) -> object:
        if path.endswith(name):
            raise PermissionError(13, "Permission denied", path)
        assert mode == "rb"
        return real(path, "rb")

    monkeypatch.setattr(builtins, "open", denied)
    name = "/key"
    good(state)
    name = "/tail"
    with pytest.raises(LogUnreadable, match="Permission denied"):
        verify(str(state))


def test_a_log_that_grows_meanwhile(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from anchorhold.verify import check

    log = filled(state_dir, 250)
    real = check._Check._read_head

    def growing(self: check._Check) -> None:
        for _ in range(300):
            log.append("limit", "s", {})
        log.checkpoint()
        real(self)

    monkeypatch.setattr(check._Check, "_read_head", growing)
    result = good(state_dir)
    assert (result.size, result.signed) == (250, 250)
    log.close()


def test_a_checkpoint_resigned_over_other_entries(state: Path) -> None:
    """The key's holder can rewrite what no one else has seen; but then everything must fit together."""
    key = Key.parse((state / "log/key").read_text())
    for size, root in ((540, bytes(32)), (10**18, bytes(32)), (100, bytes(32))):
        (state / "log/checkpoint").write_bytes(key.sign(Checkpoint(key.name, size, root).text()))
        result = verify(str(state))
        assert not result.ok and not result.proven
    other = key.sign(Checkpoint("somebody/else", 540, bytes(32)).text())
    (state / "log/checkpoint").write_bytes(other)
    assert "of another log" in verify(str(state)).text()


def test_vkey_with_room_around_it(state: Path) -> None:
    text = (state / "log/vkey").read_text()
    assert verify(str(state), vkey=f"  {text}").ok
    material = base64.b64decode(text.strip().split("+", 2)[2])
    wrong = base64.b64encode(b"\x02" + material[1:]).decode()
    (state / "log/vkey").write_text("+".join([*text.split("+", 2)[:2], wrong]) + "\n")
    assert "no Ed25519" in verify(str(state)).text()


def test_the_verifier_writes_nothing(state: Path) -> None:
    def stamps() -> dict[str, int]:
        return {str(path): path.stat().st_mtime_ns for path in state.rglob("*")}

    before = stamps()
    os.truncate(state / "log/tail", 100)
    before = stamps()
    verify(str(state))
    assert stamps() == before
