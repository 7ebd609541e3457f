"""Whatever is changed in a log is noticed, and the place is named: each byte, each entry, each file."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from anchorhold.audit.keys import Key
from anchorhold.audit.log import Log
from anchorhold.verify.check import verify
from anchorhold.verify.result import Result
from tests.unit.audit.logs import good, session
from tests.unit.verify.forge import Forge, frames, leaf
from tests.unit.verify.logs import changed, copied, files
from tests.unit.verify.shapes import everything

WORKERS = 2
Work = Callable[["Whole", int], list[str]]


class Whole:
    """A forged log of about 200 entries with everything in it, and how to verify it."""

    def __init__(self, state: Path) -> None:
        self.log = state / "log"
        forge = Forge(state)
        self.given: dict[str, Any] = everything(forge)
        (self.journal,) = forge.log.glob("journal/*")
        self.settled = next(iter(forge.journals.values()))

    def result(self) -> Result:
        return verify(str(self.log), processes=1, **self.given)

    def names(self, name: str) -> bool:
        """Whether the verifier finds something, and says that it is in this file."""
        stem = name.partition(".p/")[0]
        result = self.result()
        return not result.ok and any(finding.place.startswith(stem) for finding in result.findings)

    def is_unprotected(self, name: str, at: int) -> bool:
        """Whether a byte is one that nothing can vouch for: of a record that is not settled yet, what may be
        any text as well, or of a journal what is in the tree already."""
        if not name.startswith("journal/"):
            return False
        data = self.journal.read_bytes()
        start = self.settled
        while at >= start:
            length = int.from_bytes(data[start : start + 2], "big")
            end = start + 5 + length + int.from_bytes(data[start + 2 : start + 5], "big")
            if start <= at < end:
                return at >= start + 5
            start = end
        return at < self.settled


def in_processes(tmp: Path, work: Work) -> list[str]:
    """``work(whole, part)`` on a log in each of `WORKERS` processes; what they found wrong."""
    pids = []
    for part in range(WORKERS):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                whole = Whole(tmp / f"copy{part}")
                assert whole.result().ok
                (tmp / f"found{part}").write_text("\n".join(work(whole, part)))
                code = 0
            finally:
                os._exit(code)
        pids.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in pids] == [0] * WORKERS
    return [line for part in range(WORKERS) for line in (tmp / f"found{part}").read_text().splitlines()]


def test_the_log_has_everything(tmp_path: Path) -> None:
    whole = Whole(tmp_path)
    result = whole.result()
    assert result.ok and 150 < result.size < 250 and result.redacted == 1 and result.pruned == 1
    kinds = {name.split("/")[1 if name[0].isdigit() else 0] for name in files(whole.log)}
    assert kinds == {
        "checkpoint", "cosigned", "end", "journal", "key", "openings", "state", "tile", "torn", "vkey"
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_byte_flipped(tmp_path: Path) -> None:
    """One bit of each byte of each file, one at a time."""

    def work(whole: Whole, part: int) -> list[str]:
        unnoticed = []
        for name in files(whole.log):
            for at in range(part, (whole.log / name).stat().st_size, WORKERS):
                unprotected = whole.is_unprotected(name, at)
                with open(whole.log / name, "r+b", buffering=0) as file:
                    old = os.pread(file.fileno(), 1, at)
                    os.pwrite(file.fileno(), bytes((old[0] ^ 1 << at % 8,)), at)
                    # a length that is too long cannot be told from a record that is being written
                    if not unprotected and not whole.names(name) and not whole.result().torn_bytes:
                        unnoticed.append(f"{name} {at}")
                    os.pwrite(file.fileno(), old, at)
        return unnoticed

    assert in_processes(tmp_path, work) == []


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_file_cut_at_every_byte(tmp_path: Path) -> None:
    def work(whole: Whole, part: int) -> list[str]:
        unnoticed = []
        for name in files(whole.log):
            path = whole.log / name
            data = path.read_bytes()
            for length in reversed(range(part, len(data), WORKERS)):
                os.truncate(path, length)
                if whole.names(name):
                    continue
                # what is not settled yet can be cut, but not within a record, and not in what is settled
                result = whole.result()
                if (
                    not name.startswith("journal/")
                    or length < whole.settled
                    or not result.torn_bytes
                    and result.unsettled not in (0, 1)
                ):
                    unnoticed.append(f"{name} {length}")
            path.write_bytes(data)
        return unnoticed

    assert in_processes(tmp_path, work) == []


def test_every_file_cut_grown_removed(tmp_path: Path) -> None:
    whole = Whole(tmp_path)
    for name in files(whole.log):
        data = (whole.log / name).read_bytes()
        for content in (None, data[:-1], data + b"\0", data + b"\n", data + data):
            with changed(whole.log / name, content):
                noticed = whole.names(name) if content else not whole.result().ok
                # a key need not be in a copy, nor a tile that a wider one begins with; what is not settled
                # yet can go, or be followed by a torn record
                parts = name.partition(".p/")
                wider = bool(parts[1]) and any(
                    int(one.name) > int(parts[2]) for one in (whole.log / name).parent.iterdir()
                )
                free = name.startswith("journal/") or (content is None and (name.endswith("/key") or wider))
                assert noticed or free, (name, content and len(content))
    assert whole.result().ok


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("hashes_follow", [False, True])
def test_every_entry_removed_swapped_doubled(tmp_path: Path, hashes_follow: bool) -> None:
    """Also with the tile of hashes written anew, so that only the signed root stands against it."""

    def work(whole: Whole, part: int) -> list[str]:
        unnoticed = []
        for name in [name for name in files(whole.log) if "/entries/" in name]:
            entries = frames((whole.log / name).read_bytes())
            tile = whole.log / name.replace("tile/entries", "tile/0")
            kept = tile.read_bytes()
            for at in range(part, len(entries), WORKERS):
                ways = {
                    "removed": entries[:at] + entries[at + 1 :],
                    "doubled": entries[: at + 1] + entries[at:],
                }
                if at + 1 < len(entries):
                    ways["swapped"] = [*entries[:at], entries[at + 1], entries[at], *entries[at + 2 :]]
                for way, others in ways.items():
                    hashes = b"".join(leaf(one[2:]) for one in others) if hashes_follow else kept
                    with changed(whole.log / name, b"".join(others)), changed(tile, hashes):
                        if not whole.names(name):
                            unnoticed.append(f"{name} {at} {way}")
        return unnoticed

    assert in_processes(tmp_path, work) == []


def fails(log: Path) -> bool:
    """Whether the verifier finds something, and says where."""
    result = verify(str(log), processes=1)
    return result.first_bad is not None and bool(result.first_bad.place)


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
    assert not result.ok and not result.proven
    # the key is what is wrong: no entry of a log that is in order is accused
    assert result.first_bad is result.findings[0] and "not the key that was given" in str(result.first_bad)
    assert [one for one in result.findings if one.seq is not None] == []
    assert "sound    nothing is proven: the log is not signed with the key that was given" in result.text()
    with changed(next((other / "1/tile/entries/000.p").iterdir()), b"x"):
        result = verify(str(other), vkey=vkey)
        assert result.first_bad is result.findings[0] and any(one.seq for one in result.findings)
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
