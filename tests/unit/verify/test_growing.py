"""A log that others write to while it is verified: what its growth takes away is not missing."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from anchorhold.audit.log import Log
from anchorhold.verify import files, parallel
from anchorhold.verify.chain import Chain
from anchorhold.verify.check import _Check, verify
from anchorhold.verify.parallel import tile


def add(log: Log, count: int) -> None:
    for number in range(count):
        log.append("policy.load", "", {"number": number, "policy": f"/p/{number}"})
    log.checkpoint()


@pytest.mark.parametrize(("before", "after"), [(5, 3), (600, 50), (600, 300), (1000, 5000)])
def test_the_log_grows_between_what_was_read_first_and_its_tree(
    before: int, after: int, state_dir: Path
) -> None:
    """Wider tiles come and narrower ones go: `verify` must need no second look, which may find the same."""
    log = Log.open(state_dir)
    add(log, before)
    check = _Check(str(state_dir / "log"), None, 1, names=True)
    add(log, after)
    log.close()
    result = check.run()
    assert result.ok and result.proven and result.signed == before + 1, result.text()
    assert not any("left over" in note for note in result.notes)


@pytest.mark.parametrize("name", ["tile/0/002.p/89", "tile/1/000.p/2", "tile/entries/002.p/89"])
@pytest.mark.parametrize("grown", [False, True])
def test_a_wider_tile_must_be_the_same_and_come_of_growth(name: str, grown: bool, state_dir: Path) -> None:
    """A tile is missing where a wider one begins otherwise, or where the log did not go on at all."""
    log = Log.open(state_dir)
    add(log, 600)
    check = _Check(str(state_dir / "log"), None, 1, names=True)
    folder = (state_dir / "log/0" / name).parent
    if grown:
        add(log, 300)
        wider = next(folder.iterdir()) if folder.exists() else folder.with_suffix("")
        data = bytearray(wider.read_bytes())
        data[40] ^= 1
        wider.write_bytes(data)
    else:
        data = bytearray((folder / Path(name).name).read_bytes())
        (folder / Path(name).name).unlink()
        (folder / "255").write_bytes(data + bytes(32))
    log.close()
    assert not check.run().ok


def test_a_tile_that_goes_between_list_and_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wider one that was listed has given way to the whole one, or to a still wider one."""
    folder = tmp_path / "000.p"
    folder.mkdir()
    (folder / "7").write_bytes(b"1234567")
    listing = files.names_in

    def after_the_listing(new: Path, content: bytes) -> None:
        def names(path: str) -> list[str]:
            found = listing(path)
            for one in folder.iterdir():
                one.unlink()
            new.write_bytes(content)
            return found

        monkeypatch.setattr(parallel, "names_in", names)

    after_the_listing(folder / "9", b"123456789")
    assert tile(str(tmp_path / "000"), 5) == b"123456789"
    after_the_listing(tmp_path / "000", b"whole")
    assert tile(str(tmp_path / "000"), 5) == b"whole"


def test_names_of_what_is_no_tile_end_the_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[str] = []

    def names(path: str) -> list[str]:
        looks.append(path)
        return files.names_in(path)

    monkeypatch.setattr(parallel, "names_in", names)
    for name in ("9", "200"):
        os.makedirs(tmp_path / "000.p" / name)
    assert tile(str(tmp_path / "000"), 5) is None and len(looks) == 2


def test_heads_that_come_while_the_log_is_read(
    state_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each look takes longer than it takes until the next head: the log was not rolled back for that."""
    log = Log.open(state_dir)
    folder = tmp_path / "heads"
    folder.mkdir()

    def give(*, rotate: bool = False) -> None:
        add(log, 10)
        note = log.checkpoint(rotate=rotate).note
        (folder / f"{len(os.listdir(folder)):03d}").write_bytes(note)

    give()
    run = Chain.run

    def slowly(self: Chain, *key: Any) -> None:
        run(self, *key)
        give()
        give(rotate=True)

    monkeypatch.setattr(Chain, "run", slowly)
    result = verify(str(state_dir), witnesses=[str(folder)], processes=1)
    assert result.ok and result.witnessed, result.text()
    monkeypatch.undo()
    assert verify(str(state_dir), witnesses=[str(folder)], processes=1).ok
    log.close()
