"""Whatever is changed in a log is noticed, and the place is named: each byte, each entry, each file."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from anchorhold.audit.keys import Key
from anchorhold.audit.log import Log
from anchorhold.verify.check import verify
from tests.unit.audit.logs import good, session
from tests.unit.verify.logs import changed, copied, everything, files

WORKERS = 2


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    state = everything(tmp_path_factory.mktemp("whole") / "state")
    result = good(state)
    assert 190 < result.size < 230 and result.redacted == 1 and result.pruned == 1
    return state


def in_processes(whole: Path, tmp: Path, work: Callable[[Path, int], list[str]]) -> list[str]:
    """``work(log, part)`` on a copy of the log in each of `WORKERS` processes; what they found wrong."""
    pids = []
    for part in range(WORKERS):
        state = copied(whole, tmp / f"copy{part}")
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                (tmp / f"found{part}").write_text("\n".join(work(state / "log", part)))
                code = 0
            finally:
                os._exit(code)
        pids.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in pids] == [0] * WORKERS
    return [line for part in range(WORKERS) for line in (tmp / f"found{part}").read_text().splitlines()]


def fails(log: Path) -> bool:
    """Whether the verifier finds something, and says where."""
    result = verify(str(log), processes=1)
    return result.first_bad is not None and bool(result.first_bad.place)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_byte_flipped(whole: Path, tmp_path: Path) -> None:
    """One bit of each byte of each file, one at a time."""
    log = whole / "log"
    places = [(name, at) for name in files(log) for at in range((log / name).stat().st_size)]
    assert len(places) > 70_000

    def work(log: Path, part: int) -> list[str]:
        unnoticed = []
        for name, at in places[part::WORKERS]:
            with open(log / name, "r+b", buffering=0) as file:
                old = os.pread(file.fileno(), 1, at)
                os.pwrite(file.fileno(), bytes((old[0] ^ 1 << at % 8,)), at)
                if not fails(log):
                    unnoticed.append(f"{name} {at}")
                os.pwrite(file.fileno(), old, at)
        return unnoticed

    assert in_processes(whole, tmp_path, work) == []


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_every_file_cut_grown_removed(whole: Path, tmp_path: Path) -> None:
    def work(log: Path, part: int) -> list[str]:
        unnoticed = []
        for name in files(log)[part::WORKERS]:
            data = (log / name).read_bytes()
            step = max(1, len(data) // 400)  # every length of a small file
            others = [data[:length] for length in range(0, len(data), step)] + [
                data[:-1],
                data + b"\0",
                data + data,
            ]
            for content in [None, *others]:
                if content == data:
                    continue
                with changed(log / name, content):
                    # what is private to this machine need not be in a copy
                    if not fails(log) and not (content is None and name.endswith("/key")):
                        unnoticed.append(f"{name} {content if content is None else len(content)}")
        return unnoticed

    assert in_processes(whole, tmp_path, work) == []


def frames(data: bytes) -> list[bytes]:
    found = []
    while data:
        end = 2 + int.from_bytes(data[:2], "big")
        found.append(data[:end])
        data = data[end:]
    return found


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_every_entry_removed_swapped_doubled(whole: Path, tmp_path: Path) -> None:
    def work(log: Path, part: int) -> list[str]:
        unnoticed = []
        for name in [name for name in files(log) if "/entries/" in name]:
            entries = frames((log / name).read_bytes())
            for at in range(part, len(entries), WORKERS):
                ways = {
                    "removed": entries[:at] + entries[at + 1 :],
                    "doubled": entries[: at + 1] + entries[at:],
                }
                if at + 1 < len(entries):
                    ways["swapped"] = [*entries[:at], entries[at + 1], entries[at], *entries[at + 2 :]]
                for way, changed_entries in ways.items():
                    with changed(log / name, b"".join(changed_entries)):
                        if not fails(log):
                            unnoticed.append(f"{name} {at} {way}")
        return unnoticed

    assert in_processes(whole, tmp_path, work) == []


def test_a_changed_entry_is_named_and_the_rest_is_sound(state_dir: Path) -> None:
    log = Log.open(state_dir)
    session(log, "0" * 16, 300)
    log.checkpoint()
    log.close()
    path = state_dir / "log/0/tile/entries/000"
    old = b'"n":6,"kind":"grant","class":"data","size":1234'
    path.write_bytes(path.read_bytes().replace(old + b"5", old + b"6"))
    result = verify(str(state_dir))
    assert result.first_bad is not None and result.first_bad.seq == 7 and result.proven
    assert len(result.findings) == 1 and "its hash differs" in result.first_bad.problem
    assert result.bad_entries == 1 and result.sound_after == result.size - 8


def test_each_file_of_an_older_log_put_back(tmp_path: Path) -> None:
    """Tiles and heads that were right before, when the log was shorter."""
    state = tmp_path / "state"
    log = Log.open(state)
    older: list[Path] = []
    for number in range(4):
        session(log, f"{number:016x}", 70 + number)
        log.checkpoint(rotate=number == 2)
        older.append(copied(state, tmp_path / f"older{number}"))
    session(log, "f" * 16, 5)
    log.checkpoint()
    log.close()
    good(state)
    tried = 0
    for old in older:
        for name in files(old / "log"):
            now, before = state / "log" / name, (old / "log" / name).read_bytes()
            if now.exists() and now.read_bytes() != before:
                with changed(now, before):
                    assert fails(state / "log"), name
                    tried += 1
            elif not now.exists() and not name.startswith("journal/"):
                now.parent.mkdir(parents=True, exist_ok=True)
                now.write_bytes(before)
                noticed = fails(state / "log")
                now.unlink()
                # tiles of a smaller tree stay true, but a key that was destroyed is not to come back
                assert noticed == name.endswith("/key"), name
                tried += 1
    assert tried > 12


def test_a_log_of_another_machine(tmp_path: Path) -> None:
    logs = []
    for name in ("one", "two"):
        log = Log.open(tmp_path / name)
        session(log, "a" * 16, 20)
        log.checkpoint(rotate=True)
        session(log, "b" * 16, 20)
        log.checkpoint()
        log.close()
        logs.append(tmp_path / name / "log")
    mine, other = logs
    vkey = (mine / "vkey").read_text()
    result = verify(str(other), vkey=vkey)
    assert not result.ok and not result.proven and result.first_bad is not None
    assert "not the key that was given" in str(result.findings[0])
    for name in files(mine):
        if name.startswith("journal/") or (mine / name).read_bytes() == (other / name).read_bytes():
            continue
        with changed(mine / name, (other / name).read_bytes()):
            assert fails(mine), name
    for folder in ("0", "1"):
        shutil.copytree(mine / folder, tmp_path / "kept")
        shutil.rmtree(mine / folder)
        shutil.copytree(other / folder, mine / folder)
        assert fails(mine)
        assert not verify(str(mine), vkey=vkey).ok
        shutil.rmtree(mine / folder)
        shutil.move(tmp_path / "kept", mine / folder)
    good(tmp_path / "one")


class Thief:
    """Has every file of the state directory, the current private key with them, and writes what he likes."""

    def __init__(self, state: Path) -> None:
        self.state, self.log = state, state / "log"
        (path,) = self.log.glob("*/key")
        self.epoch = int(path.parent.name)
        self.key = Key.load(str(path))

    def rewrite(self, epoch: int, old: bytes, new: bytes) -> None:
        """Change an entry of an epoch and make everything that he can make agree: tile, head, signature."""
        import base64
        import hashlib

        from anchorhold.audit.note import Checkpoint
        from tests.unit.audit.test_log import reference_root

        folder = self.log / str(epoch)
        size = int((folder / "checkpoint").read_text().split("\n")[1])
        (bundle,) = (folder / "tile/entries/000.p").glob(str(size))
        data = bundle.read_bytes()
        assert data.count(old) >= 1 and len(old) == len(new)
        bundle.write_bytes(data.replace(old, new))
        leaves = [hashlib.sha256(b"\0" + entry[2:]).digest() for entry in frames(bundle.read_bytes())]
        for path in [*(folder / "tile/entries/000.p").iterdir(), *(folder / "tile/0/000.p").iterdir()]:
            if path != bundle:
                path.unlink()
        (folder / f"tile/0/000.p/{size}").write_bytes(b"".join(leaves))
        head = Checkpoint(f"{self.key.name.rpartition('/')[0]}/{epoch}", size, reference_root(leaves))
        signed = self.key.sign(head.text()).decode()
        if epoch != self.epoch:  # under the old epoch's name and with the old key's ID, too
            old_line = (folder / "checkpoint").read_text().split("\n")[4].split(" ")
            mine = base64.b64decode(signed.split("\n")[4].split(" ")[2])
            forged = base64.b64decode(old_line[2])[:4] + mine[4:]
            signed = f"{head.text()}\n\u2014 {old_line[1]} {base64.b64encode(forged).decode()}\n"
        (folder / "checkpoint").write_text(signed)


def three_epochs(state: Path) -> str:
    log = Log.open(state)
    for number in range(3):
        session(log, f"{number:016x}", 10)
        log.checkpoint(rotate=number < 2)
    log.close()
    good(state)
    return (state / "log/vkey").read_text()


def test_a_thief_of_today_cannot_rewrite_yesterday(state_dir: Path, tmp_path: Path) -> None:
    vkey = three_epochs(state_dir)
    for epoch in (0, 1):
        state = copied(state_dir, tmp_path / f"theft{epoch}")
        thief = Thief(state)
        assert thief.epoch == 2
        thief.rewrite(epoch, b'"size":12345', b'"size":12346')
        for given in (vkey, None):
            result = verify(str(state), vkey=given)
            assert not result.ok and not result.proven
            assert any(finding.place == f"{epoch}/checkpoint" for finding in result.findings)
        # with a new key for that epoch and all after it: the chain from the root does not lead there
        (state / f"log/{epoch}/vkey").write_text(thief.key.vkey() + "\n")
        result = verify(str(state), vkey=vkey)
        assert not result.ok and not result.proven


def test_today_is_his(state_dir: Path) -> None:
    """What forward security does not promise: with today's key today can be rewritten. So: witnesses."""
    vkey = three_epochs(state_dir)
    thief = Thief(state_dir)
    thief.rewrite(2, b'"size":12345', b'"size":12346')
    assert verify(str(state_dir), vkey=vkey).ok


def test_an_epoch_left_out(state_dir: Path) -> None:
    vkey = three_epochs(state_dir)
    shutil.rmtree(state_dir / "log/1")
    result = verify(str(state_dir), vkey=vkey)
    assert not result.ok and not result.proven and result.first_bad is not None
    assert any("the epoch is missing" in finding.problem for finding in result.findings)


def test_one_process_or_many_find_the_same(state_dir: Path) -> None:
    log = Log.open(state_dir)
    session(log, "0" * 16, 45_000)
    log.checkpoint()
    log.close()
    for number in (3, 90, 170):
        path = state_dir / f"log/0/tile/entries/{number:03d}"
        path.write_bytes(path.read_bytes().replace(b'"size":12345', b'"size":12346', 2))
    (state_dir / "log/0/tile/0/060").unlink()
    (state_dir / "log/0/openings/061").write_bytes(b"x")
    one, two = (verify(str(state_dir), processes=number).as_dict() for number in (1, 2))
    assert one == two and one["bad_entries"] == 6 + 0
