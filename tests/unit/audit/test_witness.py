"""Witnesses: a log that was rolled back or rewritten is noticed by anybody who saw it before."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from anchorhold.audit import prune
from anchorhold.audit.consistency import add_checkpoint
from anchorhold.audit.cosign import Cosigner, keep_cosigned
from anchorhold.audit.delivery import Delivery
from anchorhold.audit.log import Log
from anchorhold.audit.note import Checkpoint
from anchorhold.audit.witness import deliver, parse
from anchorhold.cli.proof import _cosigned
from anchorhold.errors import AuditError, PolicyError, UsageError, VerifyError
from anchorhold.verify.check import verify
from anchorhold.verify.note import COSIGNATURE, VerifierKey, cosigned_at
from tests.unit.audit.logs import filled, good, session

NAME = "a" * 16


@pytest.fixture
def state(state_dir: Path) -> Path:
    log = Log.open(state_dir)
    session(log, NAME, 5)
    log.checkpoint(rotate=True)
    session(log, "b" * 16, 5)
    log.checkpoint()
    log.close()
    return state_dir


def grow(state: Path, name: str, *, rotate: bool = False) -> None:
    log = Log.open(state)
    session(log, name, 3)
    log.checkpoint(rotate=rotate)
    log.close()


def test_a_folder_receives_each_head(state: Path, tmp_path: Path) -> None:
    folder = tmp_path / "disk"
    folder.mkdir()
    assert deliver(state, (f"folder:{folder}",)) == []
    grow(state, "c" * 16, rotate=True)
    grow(state, "d" * 16)
    assert deliver(state, (f"folder:{folder}",)) == []
    assert (
        len(list(folder.iterdir())) == 4
    )  # the final heads of two epochs, and two of the last one's beginning
    result = verify(str(state), witnesses=[str(folder)])
    assert result.ok and len(result.witnessed) == 1 and "0 came since" in " ".join(result.notes)


def test_a_log_that_was_rolled_back_is_told_with_the_day(state: Path, tmp_path: Path) -> None:
    folder, old = tmp_path / "disk", tmp_path / "old"
    folder.mkdir()
    shutil.copytree(state, old)
    grow(state, "c" * 16)
    assert deliver(state, (f"folder:{folder}",)) == []
    newest = sorted(folder.iterdir())[-1]
    os.utime(newest, (1_700_000_000, 1_700_000_000))
    good(old)  # it agrees with itself: only who saw more can tell
    (problem,) = deliver(old, (f"folder:{folder}",))
    assert problem.contradicts
    assert "rolled back: it had 21 entries in epoch 1 on 2023-11-14" in str(problem)
    result = verify(str(old), witnesses=[str(folder)])
    assert not result.ok and "rolled back" in str(result.first_bad) and "2023-11-14" in str(result.first_bad)


def test_an_epoch_that_is_gone(state: Path, tmp_path: Path) -> None:
    folder, old = tmp_path / "disk", tmp_path / "old"
    folder.mkdir()
    shutil.copytree(state, old)
    grow(state, "c" * 16, rotate=True)
    assert deliver(state, (f"folder:{folder}",)) == []
    (problem,) = deliver(old, (f"folder:{folder}",))
    assert "rolled back" in str(problem)
    assert not verify(str(old), witnesses=[str(folder)]).ok


def test_a_forked_log(state: Path, tmp_path: Path) -> None:
    """Two logs with the same keys and another past."""
    folder, other = tmp_path / "disk", tmp_path / "other"
    folder.mkdir()
    shutil.copytree(state, other)
    grow(state, "c" * 16)
    grow(other, "d" * 16)
    assert deliver(state, (f"folder:{folder}",)) == []
    grow(other, "e" * 16)
    good(other)
    (problem,) = deliver(other, (f"folder:{folder}",))
    assert "the log was rewritten: its first 21 entries in epoch 1 were others on" in str(problem)
    result = verify(str(other), witnesses=[str(folder)])
    assert not result.ok and "rewritten" in str(result.first_bad)


def test_a_strangers_file_proves_nothing(state: Path, tmp_path: Path) -> None:
    folder = tmp_path / "disk"
    folder.mkdir()
    (folder / "notes.txt").write_text("hello")
    deliver(state, (f"folder:{folder}",))
    forged = Checkpoint(f"{(state / 'log/1/vkey').read_text().split('+')[0]}", 3, bytes(32))
    (folder / "forged.txt").write_text(forged.text() + "\n\u2014 somebody AAAAAAAA\n")
    result = verify(str(state), witnesses=[str(folder)])
    assert not result.ok and "not signed by the log's key" in str(result.first_bad)


def test_git(state: Path, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    subprocess.run(["git", "init", "-q", tree], check=True)
    hook = tree / ".git/hooks/pre-commit"
    hook.write_text("#!/bin/sh\ntouch " + str(tmp_path / "ran"))
    hook.chmod(0o755)
    assert deliver(state, (f"git:{tree}",)) == []
    assert deliver(state, (f"git:{tree}",)) == []  # nothing new is no commit
    grow(state, "c" * 16)
    assert deliver(state, (f"git:{tree}",)) == []
    count = subprocess.run(
        ["git", "-C", tree, "rev-list", "--count", "HEAD"], capture_output=True, check=True
    )
    assert count.stdout.strip() == b"2"
    assert not (tmp_path / "ran").exists()
    assert verify(str(state), witnesses=[str(tree)]).ok


def test_a_commit_says_of_how_many_entries(state_dir: Path, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    subprocess.run(["git", "init", "-q", tree], check=True)
    for _ in range(2):
        log = filled(state_dir, 2 if os.path.lexists(state_dir / "log") else 1)
        log.close()
        assert deliver(state_dir, (f"git:{tree}",)) == []
    said = subprocess.run(
        ["git", "-C", tree, "log", "--format=%s"], capture_output=True, text=True, check=True
    ).stdout
    assert said.splitlines() == ["Head of 2 entries", "Head of 1 entry"]


def test_a_command(state: Path, tmp_path: Path) -> None:
    program = tmp_path / "send it"
    program.write_text(f'#!/bin/sh\nexec cat > "{tmp_path}/$1"\n')
    program.chmod(0o755)
    assert deliver(state, (f"command:'{program}' got",)) == []
    assert (tmp_path / "got").read_bytes() == (state / "log/1/checkpoint").read_bytes()
    program.write_text("#!/bin/sh\necho 'no \x1b[31m paper' >&2; exit 3\n")
    (problem,) = deliver(state, (f"command:'{program}'",))
    assert "ended with 3: no \\x1b[31m paper" in str(problem)


def script(tmp_path: Path, *lines: str) -> str:
    """A program that is a witness; the target that names it."""
    program = tmp_path / "program"
    program.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    program.chmod(0o755)
    return f"command:{program}"


def got(folder: Path) -> list[Checkpoint]:
    return [Checkpoint.parse(path.read_bytes()) for path in sorted(folder.iterdir())]


def test_a_command_receives_every_final_head_and_is_told_of_a_log_that_was_put_back(
    state: Path, tmp_path: Path
) -> None:
    folder, old = tmp_path / "taken", tmp_path / "old"
    folder.mkdir()
    target = script(tmp_path, f'exec cat > "{folder}/$(date +%s%N)"')
    assert deliver(state, (target,)) == []
    shutil.copytree(state, old)
    for name in "cde":
        grow(state, name * 16, rotate=True)
    assert deliver(state, (target,)) == []
    names = [(head.origin.rpartition("/")[2], head.size) for head in got(folder)]
    ends = [(str(one), int((state / f"log/{one}/checkpoint").read_text().split("\n")[1])) for one in range(5)]
    assert names == [("1", 12), *ends[1:]]
    assert deliver(state, (target,)) == [] and len(got(folder)) == 6  # asked to by hand: the newest again
    shutil.rmtree(state / "log")
    shutil.copytree(old / "log", state / "log")
    good(state)
    (problem,) = deliver(state, (target,))
    assert problem.contradicts and "does not have it now" in str(problem)
    assert len(got(folder)) == 6


def test_which_head_a_command_took_survives_a_power_loss(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An empty file there would be no head, and the witness would get nothing any more."""
    certain = set()
    fsync = os.fsync

    def followed(fd: int) -> None:
        fsync(fd)
        certain.add(os.fstat(fd).st_ino)

    monkeypatch.setattr(os, "fsync", followed)
    target = script(tmp_path, "exec cat >/dev/null")
    assert deliver(state, (target,)) == []
    (given,) = (state / "delivered").iterdir()
    assert {given.stat().st_ino, given.parent.stat().st_ino, state.stat().st_ino} <= certain
    given.write_bytes(b"")
    (problem,) = deliver(state, (target,))
    assert str(given) in str(problem) and "remove that file" in str(problem) and not problem.contradicts
    given.unlink()
    assert deliver(state, (target,)) == []


def test_a_head_that_was_not_committed_is_given_again(state: Path, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (problem,) = deliver(state, (f"git:{tree}",))
    assert "not a git repository" in str(problem) and not problem.contradicts and not list(tree.iterdir())
    subprocess.run(["git", "init", "-q", tree], check=True)
    lock = tree / ".git/index.lock"
    lock.touch()
    assert len(deliver(state, (f"git:{tree}",))) == 1
    lock.unlink()
    assert deliver(state, (f"git:{tree}",)) == []
    status = subprocess.run(["git", "-C", tree, "status", "--short"], capture_output=True, check=True)
    assert status.stdout == b"" and len(list(tree.glob("*.txt"))) == 2


def test_each_head_goes_out_while_the_log_is_open(state_dir: Path, tmp_path: Path) -> None:
    """Not only at the end: what was signed ten seconds ago is out of a thief's reach."""
    folder = tmp_path / "disk"
    folder.mkdir()
    log = Log.open(state_dir)
    delivery = Delivery(state_dir, (f"folder:{folder}",))
    log.signed = delivery.wake
    sizes = []
    for name in "abc":
        session(log, name * 16, 2)
        head = log.checkpoint(rotate=name == "b")
        sizes.append(head.size)
        end = time.monotonic() + 20
        while not any(one.root == head.root for one in got(folder)):
            assert time.monotonic() < end, sizes
            time.sleep(0.01)
    assert delivery.close() == []
    log.close()
    assert len(got(folder)) == 4  # the final head of epoch 0 too


def test_a_witness_that_hangs_delays_nobody(state: Path, tmp_path: Path) -> None:
    """Neither an event, nor a signing, nor another witness, nor for long the end."""
    folder = tmp_path / "disk"
    folder.mkdir()
    target = script(tmp_path, f"echo $$ > {tmp_path}/pid", "exec sleep 1000")
    log = Log.open(state)
    delivery = Delivery(state, (target, f"folder:{folder}"))
    log.signed = delivery.wake
    delivery.wake()
    slowest = 0.0
    for number in range(20):
        begun = time.monotonic()
        log.append("policy.load", "", {"number": number})
        log.checkpoint()
        slowest = max(slowest, time.monotonic() - begun)
    assert slowest < 3
    begun = time.monotonic()
    (problem,) = delivery.close(0.5)
    assert time.monotonic() - begun < 3
    log.close()
    assert "had not ended and was stopped" in str(problem) or "no time left" in str(problem)
    assert "Command" not in str(problem) and "[" not in str(problem)
    assert verify(str(state), witnesses=[str(folder)]).notes[-1].endswith("; 0 came since")
    assert not Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}").exists()


def test_a_command_that_takes_too_long_is_told_in_words(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("anchorhold.audit.witness.SECONDS", 0.2)
    (problem,) = deliver(state, (script(tmp_path, "sleep 1000"),))
    assert str(problem).endswith(
        "program did not end within 0.2 seconds and was stopped; it is given the head again by the next run"
    )
    # one that leaves something behind has ended all the same
    assert deliver(state, (script(tmp_path, "sleep 1000 &"),)) == []


@pytest.mark.parametrize("target", ["folder:/nonexistent", "git:/nonexistent", "command:/nonexistent"])
def test_who_is_not_there(state: Path, target: str) -> None:
    (problem,) = deliver(state, (target,))
    assert str(problem).startswith(f"witness {target}: ") and not problem.contradicts


@pytest.mark.parametrize(
    "target", ["", "x", "folder:", "folder:relative", "command:", "command:'x", "ftp:/x"]
)
def test_what_is_no_witness(target: str) -> None:
    with pytest.raises(PolicyError):
        parse(target)


def test_a_second_person_cosigns(state: Path, tmp_path: Path) -> None:
    witness = Cosigner(str(tmp_path / "anna"), "witness.example/anna")
    vkey = witness.vkey()
    head = Checkpoint.parse((state / "log/1/checkpoint").read_bytes())
    note = witness.cosign(head)
    assert cosigned_at(note, VerifierKey(vkey, COSIGNATURE)) is not None
    assert not verify(str(state), witnesses=[vkey]).ok  # it is demanded, and not there yet
    keep_cosigned(state, note)
    grow(state, "c" * 16)
    result = verify(str(state), witnesses=[vkey])
    assert result.ok and result.witnessed[0]["entries"] == 25 and "9 came since" in " ".join(result.notes)
    again = Cosigner(str(tmp_path / "anna"))
    last = again.last(head.origin)
    assert again.vkey() == vkey and last is not None and last.size == head.size


def test_the_cosignature_is_the_published_one(tmp_path: Path) -> None:
    """Held against tlog-cosignature by hand: its message, time and key ID."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    witness = Cosigner(str(tmp_path / "anna"), "witness.example/anna")
    body = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
    given = f"{body}\n\u2014 example.com/behind-the-sofa AAAAAAAAAAAA\n"
    note = witness.cosign(Checkpoint.parse(given.encode())).decode()
    assert note.startswith(given)
    dash, name, encoded = note[len(given) :].rstrip("\n").split(" ")
    data = base64.b64decode(encoded)
    material = base64.b64decode(witness.vkey().split("+", 2)[2])
    assert (dash, name, material[0], len(data)) == ("\u2014", "witness.example/anna", 4, 4 + 8 + 64)
    assert data[:4] == hashlib.sha256(name.encode() + b"\n" + material).digest()[:4]
    message = f"cosignature/v1\ntime {int.from_bytes(data[4:12], 'big')}\n{body}".encode()
    Ed25519PublicKey.from_public_bytes(material[1:]).verify(data[12:], message)


def test_a_cosignature_that_was_changed(state: Path, tmp_path: Path) -> None:
    witness = Cosigner(str(tmp_path / "anna"), "witness.example/anna")
    note = witness.cosign(Checkpoint.parse((state / "log/1/checkpoint").read_bytes()))
    keep_cosigned(state, note)
    path = state / "log/1/cosigned"
    unnoticed = []
    for at in range(len(note)):
        path.write_bytes(note[:at] + bytes((note[at] ^ 1,)) + note[at + 1 :])
        if verify(str(state), witnesses=[witness.vkey()]).ok:
            unnoticed.append(at)
    # the log's own signature in that file is not what the witness vouches for
    line = note.index("\u2014 anchorhold".encode())
    assert all(line <= at < note.index(b"\n", line) for at in unnoticed)


def test_what_is_no_head_of_this_log_is_not_kept(state: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    grow(other, "c" * 16)
    with pytest.raises(AuditError, match="not of this log"):
        keep_cosigned(state, (other / "log/0/checkpoint").read_bytes())
    head = Checkpoint.parse((state / "log/1/checkpoint").read_bytes())
    for size, root, words in ((head.size, bytes(32), "rewritten"), (head.size + 1, head.root, "rolled back")):
        forged = Checkpoint(head.origin, size, root)
        with pytest.raises(AuditError, match=words):
            keep_cosigned(state, forged.text().encode() + b"\nx\n")


def test_a_witness_needs_a_name(tmp_path: Path) -> None:
    for name in (None, "", "a b", "a+b"):
        with pytest.raises(AuditError, match="needs a name"):
            Cosigner(str(tmp_path / "anna"), name)


def test_pruning_does_not_hide_a_fork(state: Path, tmp_path: Path) -> None:
    """Of a pruned epoch nothing is left that an earlier head of it could be compared with."""
    folder, other, memory = tmp_path / "disk", tmp_path / "other", str(tmp_path / "memory")
    folder.mkdir()
    shutil.copytree(state, other)
    grow(state, "c" * 16)
    assert deliver(state, (f"folder:{folder}",)) == []
    last = Checkpoint.parse((state / "log/1/checkpoint").read_bytes())
    Cosigner(memory, "w.example/a").cosign(last)
    grow(other, "d" * 16)
    grow(other, "e" * 16, rotate=True)
    prune.prune(other, "2999", reason="r", by="b")
    good(other)
    (problem,) = deliver(other, (f"folder:{folder}",))
    assert "cannot be told" in str(problem)
    result = verify(str(other), witnesses=[str(folder)])
    assert not result.ok and "cannot be told" in str(result.first_bad)
    assert [one["entries"] for one in result.witnessed] == [13]  # the head of epoch 0, which is the same
    assert not verify(str(other), heads=[(last.note, 0.0)]).ok


def test_a_fork_that_is_pruned_and_put_into_the_folder_too(state: Path, tmp_path: Path) -> None:
    """Whoever has the key and can write to the folder deceives whoever only looks there (which is documented,
    and told in a note); not a witness that remembers for itself what it signed."""
    folder, other, memory = tmp_path / "disk", tmp_path / "other", str(tmp_path / "memory")
    folder.mkdir()
    vkey = (state / "log/vkey").read_text().strip()
    shutil.copytree(state, other)
    grow(state, "c" * 16)
    assert deliver(state, (f"folder:{folder}",)) == []
    witness = Cosigner(memory, "w.example/a")
    keep_cosigned(state, _cosigned(witness, memory, str(state), vkey))
    for name in "de":
        grow(other, name * 16, rotate=True)
    prune.prune(other, "2999", reason="r", by="b")
    number = json.loads((other / "log/state").read_bytes())["epoch"]
    note = (other / f"log/{number}/checkpoint").read_bytes()
    (folder / "newer.txt").write_bytes(note)
    result = verify(str(other), vkey=vkey, witnesses=[str(folder)])
    assert result.ok and any(note.startswith("1 checkpoints") and "pruned" in note for note in result.notes)
    with pytest.raises(VerifyError, match=r"nothing was signed.*cannot be told"):
        _cosigned(witness, memory, str(other), vkey)
    assert not verify(str(other), vkey=vkey, witnesses=[witness.vkey()]).ok
    grow(state, "f" * 16)
    assert _cosigned(witness, memory, str(state), vkey)  # the true one goes on


def test_too_many_heads_in_a_folder_are_told(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that was not looked at could say the opposite."""
    folder, other = tmp_path / "disk", tmp_path / "other"
    folder.mkdir()
    shutil.copytree(state, other)
    assert deliver(state, (f"folder:{folder}",)) == []
    for number in range(3):
        (folder / f".hidden-{number}").touch()
    monkeypatch.setattr("anchorhold.verify.witness.MOST", 2)
    assert verify(str(state), witnesses=[str(folder)]).ok
    grow(state, "c" * 16)
    assert deliver(state, (f"folder:{folder}",)) == []
    result = verify(str(other), witnesses=[str(folder)])
    assert not result.ok and "holds 3 files, and only the first 2 were looked at" in str(result.first_bad)


def test_what_is_cosigned_is_what_was_verified(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not what is in its place a moment later: another size with the same root."""
    memory, vkey = str(tmp_path / "memory"), (state / "log/vkey").read_text().strip()
    path = state / "log/1/checkpoint"
    note = path.read_bytes()

    def swapped(*arguments: Any, **options: Any) -> Any:
        result = verify(*arguments, **options)
        lines = note.split(b"\n")
        path.write_bytes(b"\n".join([lines[0], b"7", *lines[2:]]))
        return result

    monkeypatch.setattr("anchorhold.verify.check.verify", swapped)
    signed = _cosigned(Cosigner(memory, "w.example/a"), memory, str(state), vkey)
    assert signed.startswith(note)


def test_a_newer_head_vouches_for_a_pruned_epoch(state: Path, tmp_path: Path) -> None:
    folder = tmp_path / "disk"
    folder.mkdir()
    grow(state, "c" * 16)
    assert deliver(state, (f"folder:{folder}",)) == []
    old = (state / "log/1/checkpoint").read_bytes()
    grow(state, "d" * 16, rotate=True)
    grow(state, "e" * 16)
    assert deliver(state, (f"folder:{folder}",)) == []
    new = (state / "log/2/checkpoint").read_bytes()
    prune.prune(state, "2999", reason="r", by="b")
    assert deliver(state, (f"folder:{folder}",)) == []
    result = verify(str(state), witnesses=[str(folder)], heads=[(new, 1.0), (old, 0.0)])
    assert result.ok and len(result.witnessed) == 1


def test_no_other_origin_takes_a_memory_away(tmp_path: Path) -> None:
    witness = Cosigner(str(tmp_path), "w.example/a")
    origins = (
        "anchorhold/0123456789abcdef/1",
        "anchorhold_0123456789abcdef/1",
        "anchorhold%5F0123456789abcdef/1",
    )
    for size, origin in enumerate(origins, 1):
        witness.cosign(Checkpoint(origin, size, bytes(32), f"{origin}\n{size}\nA\n\n\u2014 a b\n".encode()))
    assert (
        len(list(tmp_path.glob("*.seen"))) == 3 and (tmp_path / "anchorhold_0123456789abcdef_1.seen").exists()
    )


def test_two_witnesses_of_one_head(state: Path, tmp_path: Path) -> None:
    one, two = (Cosigner(str(tmp_path / name), f"w.example/{name}") for name in ("one", "two"))
    old = Checkpoint.parse((state / "log/1/checkpoint").read_bytes())
    for witness in (one, two, one):
        keep_cosigned(state, witness.cosign(old))
    assert verify(str(state), witnesses=[one.vkey(), two.vkey()]).ok
    grow(state, "c" * 16)
    keep_cosigned(state, one.cosign(Checkpoint.parse((state / "log/1/checkpoint").read_bytes())))
    with pytest.raises(AuditError, match="a newer head is kept already"):
        keep_cosigned(state, two.cosign(old))
    assert verify(str(state), witnesses=[one.vkey()]).ok


def proved(old: int, size: int, proof: list[bytes]) -> tuple[bytes, bytes] | None:
    """Both roots as RFC 9162, 2.1.4.2, has a verifier compute them from a consistency proof; None where it
    says fail. ``proof`` begins with the old root where that is a subtree of its own."""

    def node(left: bytes, right: bytes) -> bytes:
        return hashlib.sha256(b"\1" + left + right).digest()

    first, last, (begin, *rest) = old - 1, size - 1, proof
    while first & 1:
        first, last = first >> 1, last >> 1
    before = after = begin
    for one in rest:
        if last == 0:
            return None
        if first & 1 or first == last:
            before, after = node(one, before), node(one, after)
            while not first & 1 and first:
                first, last = first >> 1, last >> 1
        else:
            after = node(after, one)
        first, last = first >> 1, last >> 1
    return (before, after) if last == 0 else None


def test_a_public_witness_can_check_what_it_is_given(state_dir: Path) -> None:
    """The body of tlog-witness's add-checkpoint, for each size that it may have seen."""
    log = filled(state_dir, 1)
    heads = {1: (state_dir / "log/0/checkpoint").read_bytes()}
    for size in (2, 3, 4, 7, 8, 100, 255, 256, 257, 300, 511, 512, 600):
        for number in range(size - max(heads)):
            log.append("policy.load", "", {"number": number})
        heads[size] = log.checkpoint().note
    log.close()
    roots = {size: Checkpoint.parse(note).root for size, note in heads.items()}
    for old in (0, *heads):
        body = add_checkpoint(state_dir, old)
        top, blank, note = body.partition(b"\n\n")
        line, *hashes = top.decode().split("\n")
        assert line == f"old {old}" and blank and note == heads[600] and len(hashes) <= 63
        proof = [base64.b64decode(one, validate=True) for one in hashes]
        if old in (0, 600):
            assert proof == []
            continue
        whole = proof if old & (old - 1) else [roots[old], *proof]
        assert proved(old, 600, whole) == (roots[old], roots[600]), old
    with pytest.raises(UsageError, match="600 signed entries"):
        add_checkpoint(state_dir, 601)
