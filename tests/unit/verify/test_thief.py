"""A thief has every file of the state directory and today's private key. Yesterday's he must do without."""

from __future__ import annotations

import shutil
from pathlib import Path

from anchorhold.verify.check import verify
from tests.unit.verify.forge import (
    Epoch,
    Forge,
    Key,
    write,
)
from tests.unit.verify.shapes import (
    GOOD,
    A,
    B,
    C,
    three,
)


def rewritten(tmp: Path, own: tuple[int, ...]) -> tuple[Forge, Forge]:
    """The honest log, and one that differs in epoch 0; ``own``: epochs that the thief's keys sign."""
    logs = []
    for name, keys in (("honest", ()), ("forged", own)):
        thief = {number: Key(f"anchorhold/0123456789abcdef/{number}", b"thief") for number in keys}
        forge = Forge(tmp / name, keys=thief)
        forge.session(A, 5, end=name == "forged")
        if name == "honest":
            forge.event("session.end", A, names={"reason": "what was done"})
        for session in (B, C):
            forge.rotate()
            forge.session(session, 5)
        forge.save()
        logs.append(forge)
    return logs[0], logs[1]


def copied(name: str, source: Forge, target: Forge) -> None:
    shutil.copyfile(source.log / name, target.log / name)


def test_a_thief_with_todays_key_cannot_change_yesterday(tmp_path: Path) -> None:
    """All he can do, from the simplest on; the root key, or no key at all, is given to the verifier."""
    honest, forged = rewritten(tmp_path, (0, 1))
    vkey = honest.vkey

    def noticed(*places: str, given: str | None = vkey) -> None:
        result = verify(str(forged.log), vkey=given)
        assert not result.ok and not result.proven, result.text()
        assert {one.place for one in result.findings} & set(places), result.text()

    assert verify(str(honest.log), vkey=vkey).ok
    assert verify(str(forged.log)).ok  # a whole other log agrees with itself …
    noticed("vkey", "0/vkey", "0/checkpoint")  # … but is not the one whose key is known
    for name in ("vkey", "0/vkey"):
        copied(name, honest, forged)
    noticed("0/checkpoint")
    noticed("0/checkpoint", given=None)
    copied("0/checkpoint", honest, forged)
    noticed("0/checkpoint")  # the tree has another root
    noticed("0/checkpoint", given=None)


def test_a_thief_who_keeps_the_head_and_the_hashes(tmp_path: Path) -> None:
    honest, forged = rewritten(tmp_path, ())
    shutil.copytree(honest.log / "0/tile/0", forged.log / "0/tile/0", dirs_exist_ok=True)
    copied("0/checkpoint", honest, forged)
    result = verify(str(forged.log), vkey=honest.vkey)
    assert result.first_bad is not None and result.first_bad.place == "0/tile/entries/000"
    assert "its hash differs" in result.first_bad.problem and result.first_bad.seq == 11


def test_a_thief_who_adds_to_an_old_epoch(tmp_path: Path) -> None:
    """An entry more in epoch 1, signed with the key of today, in every way that the files allow."""
    honest = Forge(tmp_path / "honest")
    three(honest)
    honest.save()
    today = honest.key(2)
    for named in (today.name, honest.key(1).name):
        shutil.rmtree(tmp_path / "copy", ignore_errors=True)
        shutil.copytree(honest.log, tmp_path / "copy")
        old = honest.epochs[1]
        epoch = Epoch(tmp_path / "copy", 1, old.first, Key(named, b"1/2"))
        assert epoch.key.seed == today.seed
        data = (honest.log / f"1/tile/entries/000.p/{old.size}").read_bytes()
        while data:
            end = 2 + int.from_bytes(data[:2], "big")
            epoch.add(data[2:end])
            data = data[end:]
        epoch.add(GOOD.replace(b"SEQ", b"%d" % (old.first + old.size)))
        epoch.sign()
        for vkey in (epoch.folder / "vkey").read_bytes(), (honest.log / "1/vkey").read_bytes():
            (epoch.folder / "vkey").write_bytes(vkey)
            result = verify(str(tmp_path / "copy"), vkey=honest.vkey)
            assert not result.ok and not result.proven
            assert any(one.place in ("1/checkpoint", "1/vkey") for one in result.findings), result.text()


def test_what_todays_key_does_give_him_is_seen_by_a_witness(tmp_path: Path) -> None:
    """What is not promised without witnesses: today is his."""
    honest = Forge(tmp_path / "honest")
    honest.session(A, 5)
    honest.save()
    write(tmp_path / "kept/head", honest.epoch.note.encode())
    forged = Forge(tmp_path / "forged")
    forged.session(A, 4)
    forged.session(B, 4)
    forged.save()
    assert verify(str(forged.log), vkey=honest.vkey).ok
    result = verify(str(forged.log), vkey=honest.vkey, witnesses=[str(tmp_path / "kept")])
    assert "the log was rewritten" in str(result.first_bad)
