"""Keys: the published form, and that nothing is left of one that was destroyed."""

from __future__ import annotations

import base64
import os
import stat
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from anchorhold.audit.keys import Key, destroy
from anchorhold.audit.log import Log
from anchorhold.audit.note import Checkpoint
from anchorhold.errors import AuditError
from anchorhold.verify.note import VerifierKey, private_belongs, read_head
from tests.unit.audit.logs import all_bytes, filled, good

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


def test_signs_as_gos_note_package_does(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text(GO_KEY)
    key = Key.load(str(path))
    assert key.vkey() == GO_VKEY
    assert key.sign(GO_TEXT) == GO_NOTE.encode()  # Ed25519 is deterministic
    key.save(str(tmp_path / "again"))
    assert (tmp_path / "again").read_text() == GO_KEY
    assert stat.S_IMODE((tmp_path / "again").stat().st_mode) == 0o600


def test_a_new_key_is_another_one_and_reads_back(tmp_path: Path) -> None:
    one, other = Key.generate("a/0"), Key.generate("a/0")
    assert one.public != other.public
    one.save(str(tmp_path / "key"))
    back = Key.load(str(tmp_path / "key"))
    assert back.vkey() == one.vkey() and back.seed == one.seed
    assert private_belongs((tmp_path / "key").read_text(), VerifierKey(one.vkey()))
    head = read_head(one.sign(Checkpoint("a/0", 0, bytes(32)).text()), VerifierKey(one.vkey()))
    assert head.size == 0


def test_an_auditors_older_cryptography_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``public_bytes_raw`` came with cryptography 40; the verifier alone meets older ones (Debian 12: 38)."""
    one = Key.generate("a/0")
    one.save(str(tmp_path / "key"))

    class Old:
        """As a key of cryptography 38: it has no method that is newer."""

        def __init__(self, seed: bytes) -> None:
            self._key = ed25519.Ed25519PrivateKey.from_private_bytes(seed)

        @classmethod
        def from_private_bytes(cls, seed: bytes) -> Old:
            return cls(seed)

        def public_key(self) -> Old:
            return self

        def public_bytes(self, encoding: Encoding, form: PublicFormat) -> bytes:
            return self._key.public_key().public_bytes(encoding, form)

    monkeypatch.setitem(sys.modules, ed25519.__name__, SimpleNamespace(Ed25519PrivateKey=Old))
    assert private_belongs((tmp_path / "key").read_text(), VerifierKey(one.vkey()))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        GO_KEY.replace("c74f20a3", "c74f20a4"),
        GO_KEY.replace("AYEK", "AoEK"),
        GO_KEY.replace("AYEK", "AYEL"),
        GO_KEY.replace("DFz\n", "DF\n"),
        GO_KEY.replace("PRIVATE", "PUBLIC"),
        GO_KEY.replace("AYEK", "AY K"),
        "x" * 10_000,
    ],
)
def test_a_damaged_key_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "key").write_text(text)
    with pytest.raises(AuditError, match="signing key is damaged"):
        Key.load(str(tmp_path / "key"))


@pytest.mark.parametrize("size", range(0, 99, 3))
def test_base64_is_the_standard_one(size: int) -> None:
    from anchorhold.audit.keys import _decode, _encode

    data = os.urandom(size)
    assert _encode(bytearray(data)) == base64.b64encode(data)
    assert _decode(bytearray(base64.b64encode(data))) == data


def test_a_wiped_key_signs_nothing() -> None:
    key = Key.generate("a/0")
    key.wipe()
    assert key.seed == bytes(32)
    with pytest.raises(AuditError, match="is gone"):
        key.sign("text\n")


def test_a_destroyed_file_is_overwritten_on_the_disk(tmp_path: Path) -> None:
    """Seen through a descriptor that was open before, as a copy of the blocks would be."""
    path = tmp_path / "key"
    Key.generate("a/0").save(str(path))
    with path.open("rb") as file:
        size = len(file.read())
        destroy(str(path))
        file.seek(0)
        assert file.read() == bytes(size)
    assert not path.exists()
    destroy(str(path))  # again: nothing happens


# Uses the key and ends its epoch; stops at each "?" until it is told to go on, while its memory is looked at.
USER = """
import gc, sys
from pathlib import Path
from anchorhold.audit.keys import Key
from anchorhold.audit.log import Log

def pause():
    print("?", flush=True)
    sys.stdin.readline()

state = Path(sys.argv[1])
log = Log.open(state)
log.append("policy.load", "", {})
log.checkpoint()
key = Key.load(str(state / "log/0/key"))
pause()
key.wipe()
del key
log.append("policy.load", "", {})
log.checkpoint()
log.checkpoint(rotate=True)
gc.collect()
pause()
"""


def copies_in(pid: int, sought: bytes) -> int:
    """How often the bytes are in the memory of a child that it can write to."""
    found = 0
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for line in maps:
            area, rights = line.split()[:2]
            low, high = (int(part, 16) for part in area.split("-"))
            if rights[:2] == "rw":
                memory.seek(low)
                data = b""
                while len(data) < high - low:
                    part = memory.read(high - low - len(data))
                    assert part
                    data += part
                found += data.count(sought)
    return found


@pytest.mark.slow
def test_the_old_key_is_gone_from_memory_and_disk(state_dir: Path) -> None:
    filled(state_dir, 3).close()
    key = Key.load(str(state_dir / "log/0/key"))
    seed = bytes(key.seed)
    text = base64.b64encode(b"\1" + seed)
    assert text in all_bytes(state_dir)
    job = subprocess.Popen(
        [sys.executable, "-c", USER, str(state_dir)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert job.stdin is not None and job.stdout is not None
    with job:
        assert job.stdout.readline() == b"?\n"
        assert copies_in(job.pid, seed) >= 1, "the search finds nothing: it shows nothing"
        job.stdin.write(b"\n")
        job.stdin.flush()
        assert job.stdout.readline() == b"?\n"
        # parts of it too: what was overwritten only in part would still tell
        left = [copies_in(job.pid, part) for part in (seed[:16], seed[16:], text[4:20], text[24:40])]
        job.stdin.write(b"\n")
    assert job.returncode == 0 and left == [0, 0, 0, 0]
    everything = all_bytes(state_dir)
    assert text not in everything and seed not in everything


# Makes each key itself, and rotates again and again; tells at each "?" what its last key's file holds.
MAKER = """
import gc, sys
from pathlib import Path
from anchorhold.audit.log import Log
state = Path(sys.argv[1])
log = Log.open(state)
for epoch in range(4):
    log.append("policy.load", "", {})
    log.checkpoint()
    gc.collect()
    print("?", flush=True)
    sys.stdin.readline()
    log.checkpoint(rotate=True)
gc.collect()
print("?", flush=True)
sys.stdin.readline()
"""


@pytest.mark.slow
def test_who_made_the_keys_does_not_remember_them(state_dir: Path) -> None:
    """As the supervisor runs for days: not one of the keys that it made is left in its memory, also not the
    one in use, which it reads from the file each time."""
    seeds = []
    job = subprocess.Popen(
        [sys.executable, "-c", MAKER, str(state_dir)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert job.stdin is not None and job.stdout is not None
    with job:
        for epoch in range(5):
            assert job.stdout.readline() == b"?\n"
            key = Key.load(str(state_dir / f"log/{epoch}/key"))
            seeds.append(bytes(key.seed))
            texts = [base64.b64encode(b"\1" + seed) for seed in seeds]
            parts = [part for seed in seeds for part in (seed[:12], seed[20:])]
            parts += [part for text in texts for part in (text[4:20], text[24:40])]
            assert [copies_in(job.pid, part) for part in parts] == [0] * len(parts), epoch
            job.stdin.write(b"\n")
            job.stdin.flush()
    everything = all_bytes(state_dir)
    assert job.returncode == 0 and texts[-1] in everything
    assert not any(one in everything for one in texts[:-1] + seeds[:-1])


def test_a_key_that_lay_about_is_not_the_next_epochs(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rotation was cut short before it named the new key. Who copied that since is not to have it."""
    log = filled(state_dir, 3)

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("anchorhold.audit.settle.Chain._commit", stopped)
        with pytest.raises(KeyboardInterrupt):
            log.checkpoint(rotate=True)
    stolen = (state_dir / "log/1/key").read_bytes()
    log.checkpoint()
    assert not (state_dir / "log/1/key").exists()
    log.checkpoint(rotate=True)
    log.close()
    assert (state_dir / "log/1/key").read_bytes() != stolen
    good(state_dir)


def test_rotation_keeps_exactly_one_private_key(state_dir: Path) -> None:
    log = Log.open(state_dir)
    for number in range(4):
        assert [path.parent.name for path in (state_dir / "log").glob("*/key")] == [str(number)]
        log.checkpoint(rotate=True)
    log.close()
