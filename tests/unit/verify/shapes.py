"""Shapes of forged logs: what is called with a `Forge` to make one."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from anchorhold.verify.check import verify
from anchorhold.verify.result import Result
from tests.unit.verify.forge import (
    Epoch,
    Forge,
    Key,
    canonical,
    proof,
    write,
)

A, B, C = "a" * 16, "b" * 16, "c" * 16
WITNESS = Key("witness.example/w", b"witness", 4)
Make = Callable[[Forge], Any]
SAVED = "saved"
"""What is returned where the log was saved already, or changed after that."""


def judged(state: Path, make: Make) -> Result:
    forge = Forge(state)
    made = make(forge)
    if made is None or isinstance(made, dict) and not (forge.log / "state").exists():
        forge.save()
    return verify(str(state), **(made if isinstance(made, dict) else {}))


def everything(forge: Forge) -> dict[str, Any]:
    """Three epochs, the first one pruned; all groups, sessions that overlap, a redaction, what a crash tore;
    unsigned entries, journals, a witness."""
    forge.session(A, 5)
    forge.rotate()
    forge.session(B, 60, end=False)
    forge.torn(b"half of a record")
    forge.session(C, 10)
    forge.event("request.start", B, {"request": 2, "prompt": {"salt": "00", "sha256": "11"}})
    forge.event("denial", B, {"call": "open", "count": 2}, names={"path": "/etc/x", "reason": "outside"})
    forge.event("policy.load", public={"policy_sha256": "cd" * 32}, names={"path": "/home/a/p.toml"})
    forge.event("request.end", B, {"request": 2}, text={"prompt": "why"}, names={"detail": "x"})
    forge.rotate()
    forge.session("d" * 16, 70, end=False)
    first = forge.grant("d" * 16, "/home/a/secret")
    forge.redact([[first, first]], ("names", "digests"))
    forge.prune(1)
    forge.sign()
    forge.cosign(WITNESS)
    forge.event("limit", "d" * 16, {"limit": "seconds"}, names={"detail": "60"})
    forge.save(sign=False)
    public = {"class": "data", "size": 1, "mode": "snapshot", "phase": "sealed"}
    records = [
        forge.record(
            "grant", "d" * 16, public, names={"path": "/s", "resolved": "/s"}, digests={"sha256": "0" * 64}
        ),
        forge.record("session.end", "d" * 16, names={"reason": "done"}),
    ]
    forge.journal("0123456789abcdef", records, settled=bytes(40))
    forge.state()
    return {"vkey": forge.vkey, "witnesses": [WITNESS.vkey]}


def sized(size: int) -> Make:
    def make(forge: Forge) -> None:
        while forge.epoch.size < size:
            forge.event("policy.load", public={"number": forge.epoch.size})

    return make


def interleaved(forge: Forge) -> None:
    for name in (A, B):
        forge.event("session.start", name)
        forge.event("session.sealed", name)
    for number in range(300):
        forge.grant((A, B)[number % 2], f"/x/{number}")
        if number % 7 == 0:
            forge.event("list", A, {"class": "data", "listed": 3}, names={"path": "/x"})


def hostile_names(forge: Forge) -> None:
    forge.event("session.start", A)
    forge.event("session.sealed", A)
    for path in (
        "/h\u00f6m\u00e9",
        "/\x7f\x1b[2J",
        '/"\\/\b\f\n\r\t',
        "/\udcff",
        "/\U0001f600",
        "/\x00\x0b",
        "",
        '":',
    ):
        forge.grant(A, path)
        forge.event("denial", A, {"call": path}, names={"path": path})


def three(forge: Forge) -> None:
    for name in (A, B, C):
        forge.session(name, 5)
        if name != C:
            forge.rotate()


def later_key(forge: Forge) -> dict[str, Any]:
    three(forge)
    kept = forge.save() / ".." / "kept"
    for epoch in forge.epochs:  # a checkpoint of what is not checked is passed over
        write(kept / f"{epoch.number}.txt", epoch.note.encode())
    return {"vkey": forge.key(1).vkey, "witnesses": [str(kept)]}


def pruned_twice(forge: Forge) -> None:
    three(forge)
    forge.prune(1)
    forge.rotate()
    forge.session("d" * 16, 2)
    forge.event("prune", public={"epochs": [1, 2], "reason": "old", "by": "a"})
    for epoch in forge.epochs[1:3]:
        prune_files(epoch)


def prune_files(epoch: Epoch) -> None:
    """What anybody can do who has the files."""
    shutil.rmtree(epoch.folder / "tile")
    shutil.rmtree(epoch.folder / "openings")
    end = {"entry": epoch.last.decode(), "proof": proof(epoch.leaves, {epoch.size - 1})}
    write(epoch.folder / "end", canonical(end) + b"\n")


def unsigned_over_bundles(forge: Forge) -> str:
    forge.session(A, 20)
    forge.sign()
    forge.session(B, 700)
    forge.save(sign=False, tidy=False)
    return SAVED


def about_to_rotate(forge: Forge) -> str:
    """A crash between the last head of an epoch and the first entry of the next."""
    forge.session(A, 5)
    forge.end()
    forge.state()
    following = Epoch(forge.log, 1, forge.seq, forge.key(1))
    write(following.folder / "key", following.key.file)
    return SAVED


def just_rotated(forge: Forge) -> str:
    """A crash while the old key was being destroyed."""
    forge.session(A, 5)
    forge.rotate()
    forge.save()
    write(forge.log / "0/key", b"\xff" * 120)
    return SAVED


def left_by_crashes(forge: Forge) -> str:
    forge.session(A, 290)
    log = forge.save()
    for name in ("0/tile/entries/002", "0/tile/0/001.p/200", "0/tile/1/000", "0/tile/entries/001.p/90"):
        write(log / name, b"not there yet")
    for name in (".tmp-1", "0/.tmp-2", "0/tile/0/.tmp-3", "torn/.tmp-4", "journal/.tmp-5"):
        write(log / name, b"half")
    return SAVED


def torn_journal(forge: Forge) -> str:
    forge.session(A, 2, end=False)
    record = forge.record("session.end", A)
    forge.journal("00" * 8, [record], tail=record[:30])
    forge.journal("11" * 8, [], tail=bytes(4096))
    forge.save()
    return SAVED


def redacted_all_groups(forge: Forge) -> None:
    forge.session(A, 20)
    forge.redact([[3, 9], [12, 12]], ("names", "digests", "text"))


def redacted_twice(forge: Forge) -> None:
    forge.session(A, 20)
    forge.redact([[8, 12]])
    forge.redact([[7, 9]], ("digests",))
    forge.redact([[10, 20]])


HONEST: dict[str, Make] = {
    "empty": lambda forge: None,
    "a session": lambda forge: forge.session(A),
    **{f"{size} entries": sized(size) for size in (2, 254, 255, 256, 257, 511, 512, 513, 700)},
    "interleaved": interleaved,
    "hostile names": hostile_names,
    "three epochs": three,
    "key of a later epoch": later_key,
    "pruned twice": pruned_twice,
    "unsigned": unsigned_over_bundles,
    "about to rotate": about_to_rotate,
    "just rotated": just_rotated,
    "left by crashes": left_by_crashes,
    "torn journal": torn_journal,
    "redacted without such a group": redacted_all_groups,
    "redacted twice": redacted_twice,
    "everything": everything,
}


GOOD = (
    b'{"v":2,"seq":SEQ,"time":"2026-01-31T18:30:01.000000Z","mono":86401000000,"session":"","kind":"policy.load"'
    b',"a":1}'
)
OF_SESSION = GOOD.replace(b'"session":""', b'"session":"%b","n":1' % A.encode()).replace(
    b"policy.load", b"limit"
)
COMMITMENT = base64.b64encode(bytes(32))
