"""What no log may be, though each of its entries is one: the very place is named."""

from __future__ import annotations

import base64
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit.verify.forge import (
    Epoch,
    Forge,
    Key,
    mth,
    packed,
    write,
)
from tests.unit.verify.shapes import (
    COMMITMENT,
    SAVED,
    WITNESS,
    A,
    B,
    Make,
    judged,
    prune_files,
    three,
)


def opening_of(opening: bytes) -> Make:
    """A grant whose opening of its names is this, committed to as it is."""

    def make(forge: Forge) -> None:
        forge.event("session.start", A)
        forge.event("session.sealed", A)
        real = forge.opening
        forge.opening = lambda fields: opening if "path" in fields else real(fields)  # type: ignore[method-assign]
        forge.grant(A, "/x")

    return make


def change(name: str, old: bytes, new: bytes) -> Make:
    """A log of three epochs with something in one file replaced."""

    def make(forge: Forge) -> str:
        three(forge)
        path = forge.save() / name
        data = path.read_bytes()
        assert old in data
        path.write_bytes(data.replace(old, new, 1))
        return SAVED

    return make


def stated(**changes: object) -> Make:
    def make(forge: Forge) -> str:
        three(forge)
        forge.save()
        forge.state(**changes)
        return SAVED

    return make


def kinds(*events: Event, session: str = A) -> Make:
    def make(forge: Forge) -> None:
        for kind, public in events:
            forge.event(kind, session, public)

    return make


Event = tuple[str, dict[str, object]]
START_: Event = ("session.start", {})
SEALED: Event = ("session.sealed", {})
END: Event = ("session.end", {})
SHOWN: Event = ("grant", {"class": "data"})
ASKED: Event = ("request.start", {"request": 1})
ANSWERED: Event = ("request.end", {"request": 1})


def wrong_number(number: int) -> Make:
    def make(forge: Forge) -> None:
        forge.event("session.start", A)
        forge.event("session.sealed", A)
        forge.grant(A, "/1")
        forge.event("limit", A, n=number)
        forge.event("limit", A)

    return make


def hidden_epoch(forge: Forge) -> str:
    """A state that says: the epoch before is the current one, and has ended."""
    forge.session(A, 5)
    forge.end()
    forge.state()
    old = (forge.log / "state").read_bytes()
    forge.epochs.append(Epoch(forge.log, 1, forge.seq, forge.key(1)))
    forge.ended = False
    forge.event("epoch.start", public={"epoch": 1, "previous": forge.epochs[0].head()})
    forge.session(B, 5)
    (forge.save() / "state").write_bytes(old)
    return SAVED


def hidden_epoch_without_tiles(forge: Forge) -> str:
    hidden_epoch(forge)
    shutil.rmtree(forge.log / "1/tile")
    return SAVED


def silently_pruned(forge: Forge) -> str:
    three(forge)
    forge.save()
    prune_files(forge.epochs[0])
    return SAVED


def pruned_further(forge: Forge) -> str:
    three(forge)
    forge.prune(1)
    forge.save()
    prune_files(forge.epochs[1])
    return SAVED


def pruned_in_the_middle(forge: Forge) -> str:
    three(forge)
    forge.event("prune", public={"epochs": [1, 1], "reason": "", "by": ""})
    forge.save()
    prune_files(forge.epochs[1])
    return SAVED


def pruned_current(forge: Forge) -> str:
    forge.session(A)
    write(forge.save() / "0/end", b'{"entry":"","proof":[]}\n')
    return SAVED


def other_end(forge: Forge) -> str:
    three(forge)
    forge.prune(1)
    forge.save()
    path = forge.log / "0/end"
    path.write_bytes(path.read_bytes().replace(b"mono", b"mona", 1))
    return SAVED


def wrong_previous(forge: Forge) -> None:
    forge.session(A, 5)
    forge.end()
    before = {**forge.epoch.head(), "size": 4}
    forge.epochs.append(Epoch(forge.log, 1, forge.seq, forge.key(1)))
    forge.ended = False
    forge.event("epoch.start", public={"epoch": 1, "previous": before})


def wrong_first(forge: Forge) -> None:
    forge.session(A, 5)
    forge.end()
    forge.epochs.append(Epoch(forge.log, 1, forge.seq, forge.key(1)))
    forge.ended = False
    forge.session(B)


def wrong_next(forge: Forge) -> str:
    forge.session(A, 5)
    forge.event("epoch.end", public={"epoch": 0, "next": Key("anchorhold/fedcba9876543210/1", b"x").vkey})
    forge.sign()
    forge.ended = True
    forge.state()
    return SAVED


def no_next(forge: Forge) -> str:
    forge.event("epoch.end", public={"epoch": 0, "next": None})
    forge.sign()
    forge.ended = True
    forge.state()
    return SAVED


def cosigned_wrongly(forge: Forge) -> dict[str, Any]:
    forge.session(A)
    forge.cosign(WITNESS)
    log = forge.save()
    path = log / "0/cosigned"
    note = path.read_text().split("\n")
    note[-2] = WITNESS.line((5).to_bytes(8, "big") + bytes(64)).rstrip("\n")
    path.write_text("\n".join(note))
    return {"witnesses": [WITNESS.vkey]}


def cosigned_another(forge: Forge) -> dict[str, Any]:
    """A witness saw another log under this name: forged with the same key."""
    forge.session(A)
    text = f"{forge.epoch.key.name}\n5\n{base64.b64encode(bytes(32)).decode()}\n"
    write(forge.save() / "0/cosigned", WITNESS.cosign(forge.epoch.key.sign(text), 1_700_000_000).encode())
    return {"witnesses": [WITNESS.vkey]}


def kept(size: int, *, epoch: int = 0, root: bytes | None = None) -> Make:
    """A checkpoint that was kept elsewhere, of so many entries."""

    def make(forge: Forge) -> dict[str, Any]:
        forge.session(A)
        folder = forge.save().parent / "kept"
        key = forge.key(epoch)
        value = root or mth(forge.epoch.leaves[:size])
        text = f"{key.name}\n{size}\n{base64.b64encode(value).decode()}\n"
        write(folder / "head", key.sign(text).encode())
        os.utime(folder / "head", (1_700_000_000, 1_700_000_000))
        return {"witnesses": [str(folder)]}

    return make


def journal_of(*records: Callable[[Forge], bytes], offset: int = 0) -> Make:
    def make(forge: Forge) -> str:
        forge.session(A, 2, end=False)
        forge.save()
        forge.journal("01" * 8, [record(forge) for record in records])
        forge.journals["01" * 8] = offset
        forge.state()
        return SAVED

    return make


def erased_unsaid(forge: Forge) -> str:
    forge.session(A, 300)
    forge.redact([[20, 29]])
    forge.save()
    forge.redact([[30, 31], [280, 280]], tell=False)
    return SAVED


def swapped_openings(forge: Forge) -> str:
    forge.session(A, 5)
    log = forge.save()
    rows = forge.epoch.openings
    rows[6], rows[7] = rows[7], rows[6]
    write(log / "0/openings/000", packed(rows))
    return SAVED


def fewer_openings(forge: Forge) -> str:
    forge.session(A, 5)
    write(forge.save() / "0/openings/000", packed(forge.epoch.openings[:-1]))
    return SAVED


def instead(name: str, put: Callable[[Path], None]) -> Make:
    def make(forge: Forge) -> str:
        forge.session(A, 5)
        path = forge.save() / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
        put(path)
        return SAVED

    return make


def a_key(name: str) -> Make:
    """The private key of epoch 1, where it has no business."""

    def make(forge: Forge) -> str:
        three(forge)
        write(forge.save() / name, forge.key(1).file)
        return SAVED

    return make


def nothing_kept(forge: Forge) -> dict[str, Any]:
    folder = forge.log.parent / "none"
    folder.mkdir()
    return {"witnesses": [str(folder)]}


def torn_and_gone(forge: Forge) -> None:
    forge.torn(b"x").unlink()


def endless(path: Path) -> None:
    path.touch()
    os.truncate(path, 1 << 40)


WRONG: dict[str, tuple[Make, str, str]] = {  # what is made → place, words
    # sessions
    "grant before start": (kinds(SHOWN), "0/tile/entries/000.p/2", "before its session's start"),
    "grant before sealed": (kinds(START_, SHOWN), "0/tile/entries/000.p/3", "before session.sealed"),
    "model before sealed": (kinds(START_, ("list", {"class": "model"})), "0/tile", "before session.sealed"),
    "grant after end": (kinds(START_, SEALED, END, SHOWN), "0/tile", "after its session's end"),
    "start after end": (kinds(START_, END, START_), "0/tile", "after its session's end"),
    "start twice": (kinds(START_, START_), "0/tile", "started before"),
    "end of no request": (kinds(START_, SEALED, ANSWERED), "0/tile", "without its request.start"),
    "request twice": (kinds(START_, SEALED, ASKED, ANSWERED, ASKED), "0/tile", "started before"),
    "answered twice": (
        kinds(START_, SEALED, ASKED, ANSWERED, ANSWERED), "0/tile", "without its request.start"
    ),
    "request without a number": (kinds(START_, SEALED, ("request.start", {})), "0/tile", "names no request"),
    "grant without a class": (kinds(START_, SEALED, ("grant", {})), "0/tile", "no class"),
    "a number left out": (wrong_number(4), "0/tile", "number 3 should come: entries are missing"),
    "a number twice": (wrong_number(2), "0/tile", "that has been"),
    # openings
    "an opening that is no JSON": (
        opening_of(bytes(16) + b"{no}"), "0/tile", "an opening of it: it is no JSON"
    ),
    "an opening with a space": (opening_of(bytes(16) + b'{"path": "/"}'), "0/tile", "canonical"),
    "an opening with a path twice": (opening_of(bytes(16) + b'{"path":"/","path":"/"}'), "0/tile", "twice"),
    "an opening that is a list": (opening_of(bytes(16) + b"[]"), "0/tile", "is no object"),
    "an opening that is a salt": (opening_of(bytes(16)), "0/tile", "too short"),
    "openings swapped": (swapped_openings, "0/tile", "its names are not what was written"),
    "openings missing": (fewer_openings, "0/tile", "its openings cannot be read"),
    "a file of openings gone": (
        instead("0/openings/000", lambda path: None), "0/openings/000", "the file is missing"
    ),
    # redactions
    "erased without a word": (
        erased_unsaid, "0/openings/000", "its names were erased, and no redaction tells"
    ),
    "redacted before it was": (
        lambda forge: forge.redact([[2, 900]], erase=False), "0/tile", "does not say what was erased"
    ),
    "redaction of no group": (
        lambda forge: forge.redact([[0, 0]], ("banana",), erase=False), "0/tile",
        "does not say what was erased"
    ),
    # epochs and keys
    "an unknown key": (lambda forge: {"vkey": Key("a/b", b"x").vkey}, "vkey", "not the key that was given"),
    "no key": (lambda forge: {"vkey": "no key"}, "the given key", "no vkey"),
    "another previous head": (
        wrong_previous, "1/tile/entries/000", "the head that the epoch before ended with"
    ),
    "no epoch.start": (wrong_first, "1/tile/entries/000", "not its epoch.start"),
    "another log's key next": (wrong_next, "0/tile/entries/000", "name of the next key"),
    "no next key": (no_next, "0/tile/entries/000", "names no next key"),
    "an epoch.end in the middle": (
        lambda forge: forge.event("epoch.end", public={"epoch": 0, "next": ""}) and None, "0/tile",
        "not its epoch's end"
    ),
    "an epoch.start in the middle": (
        lambda forge: forge.event("epoch.start", public={"epoch": 0}) and None, "0/tile", "in the middle"
    ),
    "an old private key": (
        a_key("1/key"),
        "1/key", "private key of an ended epoch",
    ),
    "another private key": (
        a_key("2/key"),
        "2/key", "not the private half",
    ),
    "an epoch gone": (instead("0", lambda path: None), "0", "the epoch is missing"),
    "an epoch hidden": (hidden_epoch, "1", "an epoch that the state does not know of"),
    "an epoch hidden, its tiles gone": (hidden_epoch_without_tiles, "1/checkpoint", "does not know of"),
    # pruned
    "pruned without a word": (silently_pruned, "0/end", "no entry tells of it"),
    "pruned further than was said": (pruned_further, "1/end", "no entry tells of it"),
    "pruned in the middle": (pruned_in_the_middle, "1/end", "not the one before it"),
    "the current epoch pruned": (pruned_current, "0/end", "cannot be pruned"),
    "another end": (other_end, "0/end", "does not prove"),
    "a prune of nothing": (
        lambda forge: forge.event("prune", public={"epochs": 5}) and None, "0/tile",
        "does not say what was pruned"
    ),
    # state
    "no state": (instead("state", lambda path: None), "state", "missing"),
    "state of fewer entries": (stated(size=3, signed=3), "state", "9 signed entries are missing"),
    "state of more entries": (stated(size=14), "state", "it counts 14 entries in epoch 2; 12 are there"),
    "state of more signed": (stated(signed=13), "2/checkpoint", "older one"),
    "state of another beginning": (stated(first=1), "state", "begins with entry 1"),
    "state of an earlier epoch": (stated(epoch=1, first=13, size=13, signed=13), "2", "does not know of"),
    "state of a later epoch": (stated(epoch=3), "3", "the epoch is missing"),
    "state that ended": (stated(ended=True), "2/tile/entries/000", "not its epoch.end"),
    "state with a number below zero": (stated(size=-1), "state", "malformed"),
    "state with true for a number": (stated(size=True), "state", "malformed"),
    "state with more": (stated(more=1), "state", "members"),
    "a sum that is not right": (change("state", b'"size":12', b'"size":11'), "state", "sum"),
    # witnesses
    "not cosigned": (lambda forge: {"witnesses": [WITNESS.vkey]}, "cosigned", "has cosigned nothing"),
    "cosigned wrongly": (cosigned_wrongly, "0/cosigned", "a cosignature of the checkpoint is not good"),
    "another log cosigned": (cosigned_another, "0/cosigned", "the log was rewritten"),
    "rolled back": (
        kept(12), "kept/head", "rolled back: it had 12 entries in this epoch, and has 10; it was seen on 2023"
    ),
    "rewritten": (kept(7, root=bytes(32)), "kept/head", "the log was rewritten"),
    "an epoch rolled back": (kept(0, epoch=1), "kept/head", "an epoch that this log does not have"),
    "nothing kept": (
        nothing_kept,
        "none", "no checkpoint",
    ),
    # journals
    "a journal cut": (journal_of(offset=9), "journal/" + "01" * 8, "9 bytes of it are in the tree"),
    "a record left out": (
        journal_of(lambda forge: forge.record("limit", A, n=9)), "journal/",
        "number 9 of its session; 7 should come"
    ),
    "a record of no session": (
        journal_of(lambda forge: forge.record("limit")), "journal/", "without a session"
    ),
    "a record of the log's own": (
        journal_of(lambda forge: forge.record("prune", A)), "journal/", "belongs to no session"
    ),
    "a record before the start": (
        journal_of(lambda forge: forge.record("grant", B, {"class": "data"})), "journal/",
        "before its session's start"
    ),
    "a record with commitments": (
        journal_of(lambda forge: forge.record("limit", A, {"names": COMMITMENT.decode()})), "journal/",
        "already"
    ),
    "a record that is none": (
        journal_of(lambda forge: b"\0\4\0\0\1" + b"abcd\0"), "journal/", "a record at byte 0"
    ),
    # files
    "torn and gone": (
        torn_and_gone, "torn/", "was set aside is missing"
    ),
    "torn and changed": (
        lambda forge: forge.torn(b"x").write_bytes(b"y") and None, "torn/", "not what was set aside"
    ),
    "a folder for a checkpoint": (instead("0/checkpoint", os.mkdir), "0/checkpoint", "it is missing"),
    "a pipe for a tile": (
        instead("0/tile/0/000.p/12", os.mkfifo), "0/tile/0/000.p/12", "the hash tile is missing"
    ),
    "a loop for a bundle": (
        instead("0/tile/entries/000.p/12", lambda path: path.symlink_to(path)), "0/tile/entries/000.p/12",
        "missing"
    ),
    "an endless state": (
        instead("state", endless), "state", ""
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_named(name: str, state_dir: Path) -> None:
    make, place, words = WRONG[name]
    result = judged(state_dir, make)
    found = [one for one in result.findings if one.place.startswith(place) or f"/{place}" in one.place]
    assert any(words in one.problem for one in found), result.text()
    assert len(result.findings) <= 5, result.text()


def test_an_epoch_that_was_signed_to_follow_another_proves_nothing(state_dir: Path) -> None:
    """As against one whose first entry was changed since: there the stored hashes tell."""
    assert not judged(state_dir, wrong_previous).proven
