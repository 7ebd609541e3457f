"""C2SP signed notes and checkpoints, against the specification's own examples."""

from __future__ import annotations

import base64
import stat
from pathlib import Path

import pytest

from anchorhold.audit.log import Log
from anchorhold.audit.note import Checkpoint, Key
from anchorhold.errors import AuditError
from anchorhold.verify.note import VerifierKey, read_head

# golang.org/x/mod/sumdb/note, the example of its documentation
GO_KEY = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz\n"
GO_VKEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_TEXT = (
    "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
)
GO_NOTE = (
    f"{GO_TEXT}\n\u2014 PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfq"
    "dngotpRZb6KE6RyyBwJnAM=\n"
)


def test_signs_as_gos_note_package_does() -> None:
    key = Key.parse(GO_KEY)
    assert key.vkey() == GO_VKEY
    assert key.sign(GO_TEXT) == GO_NOTE.encode()  # Ed25519 is deterministic
    assert key.text() == GO_KEY


def test_a_new_key_has_a_name_of_its_own_and_reads_back() -> None:
    one, other = Key.generate(), Key.generate()
    assert one.name.startswith("anchorhold/") and one.name != other.name
    assert " " not in one.name and "+" not in one.name
    assert Key.parse(one.text()).vkey() == one.vkey()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense",
        GO_KEY.replace("PRIVATE", "PUBLIC"),
        GO_KEY.replace("c74f20a3", "c74f20a4"),
        GO_KEY.replace("+AYEK", "+!YEK"),
        GO_KEY.replace("+AYEK", "+AoEK"),
        GO_KEY.replace("AYEKFALV", ""),
    ],
)
def test_a_damaged_key_is_refused(text: str) -> None:
    with pytest.raises(AuditError, match="key is damaged"):
        Key.parse(text)


def test_a_checkpoint_verifies_and_reads_back() -> None:
    key = Key.generate()
    made = Checkpoint(key.name, 20852163, bytes(range(32)))
    assert made.text() == f"{key.name}\n20852163\n{base64.b64encode(bytes(range(32))).decode()}\n"
    note = key.sign(made.text())
    read = Checkpoint.parse(note)
    assert (read.origin, read.size, read.root, read.note) == (key.name, 20852163, bytes(range(32)), note)
    head = read_head(note, VerifierKey(key.vkey()))
    assert (head.origin, head.size, head.root) == (read.origin, read.size, read.root)


@pytest.mark.parametrize(
    "note",
    [
        b"",
        b"a\n1",
        b"\n1\nAAAA\n\n",
        b"a\n01\n" + base64.b64encode(bytes(32)) + b"\n\n",
        b"a\n-1\n" + base64.b64encode(bytes(32)) + b"\n\n",
        b"a\nx\n" + base64.b64encode(bytes(32)) + b"\n\n",
        b"a\n1\n" + base64.b64encode(bytes(31)) + b"\n\n",
        b"a\n1\n!\n\n",
        b"\xff\n1\n" + base64.b64encode(bytes(32)) + b"\n\n",
    ],
)
def test_a_damaged_checkpoint_is_refused(note: bytes) -> None:
    with pytest.raises(AuditError, match="checkpoint is damaged"):
        Checkpoint.parse(note)


def test_the_key_is_private_from_the_first_moment(tmp_path: Path) -> None:
    Log.open(tmp_path / "state").close()
    folder = tmp_path / "state" / "log"
    assert stat.S_IMODE((folder / "key").stat().st_mode) == 0o600
    assert stat.S_IMODE((folder / "vkey").stat().st_mode) == 0o644
    assert stat.S_IMODE(folder.stat().st_mode) == stat.S_IMODE(folder.parent.stat().st_mode) == 0o700


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    Log.open(tmp_path).close()
    (tmp_path / "log/key").chmod(0o640)
    with pytest.raises(AuditError, match="may be read by others") as caught:
        Log.open(tmp_path)
    assert "chmod 600" in caught.value.hint
