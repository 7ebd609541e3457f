"""What the log promises while nothing goes wrong: order, tree, epochs, settling, memory of keys."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from anchorhold.audit import lock, settle
from anchorhold.audit.log import Log
from anchorhold.audit.query import entries
from anchorhold.errors import AuditError
from tests.unit.audit.logs import GRANT, all_bytes, filled, good, records, session

NAME = "00000000000000aa"


def journal(state: Path) -> bytes:
    return b"".join(path.read_bytes() for path in (state / "log/journal").iterdir())


def test_an_event_is_in_the_journal_when_append_returns(state_dir: Path) -> None:
    log = Log.open(state_dir)
    for number in range(600):
        log.append("grant", NAME, {**GRANT, "path": f"/{number}"})
        assert f'"path":"/{number}"'.encode() in journal(state_dir)
    log.close()


def reference_root(leaves: list[bytes]) -> bytes:
    """RFC 6962 section 2.1, by its recursion."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    left, right = reference_root(leaves[:split]), reference_root(leaves[split:])
    return hashlib.sha256(b"\1" + left + right).digest()


def stored_leaves(folder: Path, size: int) -> list[bytes]:
    """Leaf hashes computed from the bundles of one epoch."""
    leaves = []
    for first in range(0, size, 256):
        path = folder / f"tile/entries/{first // 256:03d}"
        data = (path if size - first >= 256 else Path(f"{path}.p/{size - first}")).read_bytes()
        while data:
            length = int.from_bytes(data[:2], "big")
            leaves.append(hashlib.sha256(b"\0" + data[2 : 2 + length]).digest())
            data = data[2 + length :]
    return leaves


@pytest.mark.parametrize("size", [1, 2, 255, 256, 257, 512, 700])
def test_the_signed_root_is_the_entries_root(state_dir: Path, size: int) -> None:
    log = filled(state_dir, size)
    checkpoint = log.checkpoint()
    log.close()
    leaves = stored_leaves(state_dir / "log/0", size)
    assert (checkpoint.size, len(leaves)) == (size, size)
    assert checkpoint.root == reference_root(leaves)
    good(state_dir)


@pytest.mark.slow
def test_tiles_of_level_one_and_two(state_dir: Path) -> None:
    log = filled(state_dir, 66_000)
    log.close()
    names = {
        str(path.relative_to(state_dir / "log/0/tile")) for path in (state_dir / "log/0/tile").rglob("*")
    }
    assert {"1/000", "2/000.p/1", "1/001.p/1", "0/257.p/208", "entries/257.p/208", "entries/256"} <= names
    assert "1/000.p" not in names and "0/256.p" not in names
    assert good(state_dir).signed == 66_000


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.one_of(st.integers(1, 300), st.sampled_from(["sign", "rotate", "reopen", "crash"])), max_size=12
    )
)
def test_any_order_of_doings_keeps_everything(
    tmp_path_factory: pytest.TempPathFactory, doings: list[object]
) -> None:
    state = tmp_path_factory.mktemp("model") / "state"
    log = Log.open(state)
    expected: list[int] = []
    for doing in doings:
        if isinstance(doing, int):
            for _ in range(doing):
                log.append("policy.load", "", {"number": len(expected), "path": f"/{len(expected)}"})
                expected.append(len(expected))
        elif doing in ("sign", "rotate"):
            log.checkpoint(rotate=doing == "rotate")
        else:
            if doing == "reopen":
                log.checkpoint()
            log.close()
            log = Log.open(state)
        assert [entry["number"] for entry in entries(state) if "number" in entry] == expected
    log.checkpoint()
    log.close()
    found = records(state)
    assert [entry["number"] for entry in found if "number" in entry] == expected
    assert [entry["seq"] for entry in found] == list(range(len(found)))
    assert found == [
        {k: v for k, v in entry.items() if k != "epoch"} | _epoch(entry) for entry in entries(state)
    ]
    good(state)


def _epoch(entry: dict[str, object]) -> dict[str, object]:
    return {"epoch": entry["epoch"]} if str(entry["kind"]).startswith("epoch.") else {}


def test_journals_are_merged_in_order_of_time(state_dir: Path) -> None:
    one, two = Log.open(state_dir), Log.open(state_dir)
    for number in range(50):
        (one, two)[number % 2].append("policy.load", "", {"number": number})
    two.checkpoint()
    assert [entry["number"] for entry in records(state_dir)[1:]] == list(range(50))
    assert list((state_dir / "log/journal").iterdir()) != []  # the other writer lives
    one.append("policy.load", "", {"number": 50})
    one.checkpoint()
    assert [entry["number"] for entry in records(state_dir)[1:]] == list(range(51))
    one.close()
    two.close()
    Log.open(state_dir).close()
    assert list((state_dir / "log/journal").iterdir()) == []
    assert len(records(state_dir)) == 52
    good(state_dir)


def test_much_that_gathers_is_settled_by_append(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("anchorhold.audit.log.GATHERED", 20_000)
    log = Log.open(state_dir)
    for number in range(500):
        log.append("policy.load", "", {"number": number})
        assert sum(path.stat().st_size for path in (state_dir / "log/journal").iterdir()) < 40_000
    assert len(records(state_dir)) > 300
    log.close()


def test_who_is_busy_settles_another_time(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody who holds the lock, perhaps stopped, holds up no event; only for so long."""
    monkeypatch.setattr("anchorhold.audit.log.GATHERED", 1_000)
    monkeypatch.setattr(lock, "LOCK_SECONDS", 0.05)
    log = Log.open(state_dir)
    with lock.Locked(str(state_dir / "log")):
        for number in range(10):
            log.append("policy.load", "", {"number": number})
        log.settle()
        with pytest.raises(AuditError, match="held by another process"):
            for number in range(10, 100):
                log.append("policy.load", "", {"number": number})
        with pytest.raises(AuditError, match="held by another process"):
            log.settle(must=True)
    log.settle()
    assert [entry["number"] for entry in records(state_dir)[1:]] == list(range(len(records(state_dir)) - 1))
    log.close()


def test_of_several_policies_the_strictest_that_is_open_ends_the_epoch(state_dir: Path) -> None:
    loose = Log.open(state_dir, epoch_seconds=30 * 86_400, epoch_entries=10_000)
    strict = Log.open(state_dir, epoch_seconds=3600, epoch_entries=1_000)
    vkey = state_dir / "log/0/vkey"
    loose.append("policy.load", "", {})
    os.utime(vkey, (vkey.stat().st_mtime - 7200,) * 2)
    assert loose.checkpoint().origin.endswith("/0")
    assert strict.checkpoint().origin.endswith("/1")  # whoever of them had written
    assert loose.checkpoint().origin.endswith("/1")
    for number in range(1_000):
        loose.append("policy.load", "", {"number": number})
    assert loose.checkpoint().origin.endswith("/1")
    assert strict.checkpoint().origin.endswith("/2")
    for log in (loose, strict):
        log.close()
    # and at the start of the next one
    loose = Log.open(state_dir, epoch_entries=5_000)
    for number in range(1_000):
        loose.append("policy.load", "", {"number": number})
    loose.checkpoint()
    loose.close()
    Log.open(state_dir, epoch_entries=1_000).close()
    assert (state_dir / "log/3/key").exists()


def test_who_waits_for_the_lock_is_told_for_whom(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By what the holder wrote into it; by the kernel where that is none of a process that is there."""
    monkeypatch.setattr(lock, "LOCK_SECONDS", 0.0)
    filled(state_dir, 3).close()
    log, file = str(state_dir / "log"), state_dir / "log/lock"
    me = f"by another process \\({os.getpid()}, "
    assert file.read_bytes() == b""
    file.write_text("4194304999\n")  # what a crash left
    with lock.Locked(log):
        assert file.read_text() == f"{os.getpid()}\n"
        with pytest.raises(lock.Held, match=me) as held:
            lock.Locked(log).__enter__()
        assert f"kill -KILL {os.getpid()}" in held.value.hint
        for said in ("", "4194304999", "nonsense", "-1"):
            file.write_text(said)
            with pytest.raises(lock.Held, match=me):
                lock.Locked(log).__enter__()
        monkeypatch.setattr(lock, "open", lambda *_, **__: (_ for _ in ()).throw(OSError()), raising=False)
        with pytest.raises(lock.Held, match="unknown which") as held:
            lock.Locked(log).__enter__()
        assert "lslocks" in held.value.hint
        file.write_text(str(os.getpid()))
        with pytest.raises(lock.Held, match=f"\\({os.getpid()}\\)"):  # it has ended by now
            lock.Locked(log).__enter__()
    assert file.read_bytes() == b""


def test_a_lock_that_cannot_name_its_holder_is_one(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        filled(state_dir, 3).close()
    good(state_dir)


def test_an_epoch_ends_after_a_day_or_many_entries(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(state_dir, 10).close()
    old = (state_dir / "log/0/vkey").stat().st_mtime - settle.EPOCH_SECONDS - 1
    os.utime(state_dir / "log/0/vkey", (old, old))
    Log.open(state_dir).close()
    assert not (state_dir / "log/0/key").exists() and (state_dir / "log/1/key").exists()
    monkeypatch.setattr(settle, "EPOCH_ENTRIES", 5)
    log = Log.open(state_dir)
    for number in range(7):
        log.append("policy.load", "", {"number": number})
    log.checkpoint()
    log.close()
    assert good(state_dir).epochs == 3
    heads = [(state_dir / f"log/{number}/checkpoint").read_text().split("\n") for number in range(3)]
    names = {head[0].rpartition("/")[0] for head in heads}
    assert len(names) == 1 and [head[0].rpartition("/")[2] for head in heads] == ["0", "1", "2"]


def test_an_epoch_from_the_future_ends(state_dir: Path) -> None:
    """It began while the clock was wrong; its key is not to live until that day."""
    filled(state_dir, 10).close()
    future = (state_dir / "log/0/vkey").stat().st_mtime + 10 * settle.EPOCH_SECONDS
    os.utime(state_dir / "log/0/vkey", (future, future))
    Log.open(state_dir).close()
    assert not (state_dir / "log/0/key").exists() and (state_dir / "log/1/key").exists()


def test_an_empty_epoch_is_not_ended(state_dir: Path) -> None:
    Log.open(state_dir).close()
    os.utime(state_dir / "log/0/vkey", (1, 1))
    for _ in range(3):
        Log.open(state_dir).close()
    assert good(state_dir).epochs == 1


def test_names_and_digests_are_in_no_bundle(state_dir: Path) -> None:
    log = Log.open(state_dir)
    session(log, NAME)
    log.append(
        "denial",
        NAME,
        {"call": "open", "path": "/home/a/secret", "reason": "not below /home/a/x", "count": 1},
    )
    log.checkpoint()
    log.close()
    tiles = b"".join(path.read_bytes() for path in (state_dir / "log/0/tile").rglob("*") if path.is_file())
    for text in (b"/home/a", b"roof.pdf", b"ab" * 32, b"taxes"):
        assert text not in tiles
        assert text in all_bytes(state_dir / "log/0/openings")


def test_salts_never_repeat(state_dir: Path) -> None:
    log = Log.open(state_dir)
    for _ in range(1000):
        log.append("grant", NAME, GRANT)
    log.checkpoint()
    log.close()
    bundles = b"".join(
        path.read_bytes() for path in (state_dir / "log/0/tile/entries").rglob("*") if path.is_file()
    )
    texts = [part[:44] for part in bundles.split(b'"names":"')[1:]] + [
        part[:44] for part in bundles.split(b'digests":"')[1:]
    ]
    assert len(texts) == len(set(texts)) == 2000  # 1000 times the same names and digest


@pytest.mark.parametrize("durability", ["write", "fsync"])
def test_durability(state_dir: Path, durability: str, monkeypatch: pytest.MonkeyPatch) -> None:
    log = Log.open(state_dir, durability=durability)
    synced = []
    real = os.fdatasync

    def counting(fd: int) -> None:
        synced.append(fd)
        real(fd)

    monkeypatch.setattr(os, "fdatasync", counting)
    for _ in range(5):
        log.append("policy.load", "", {})
    assert len(synced) == (5 if durability == "fsync" else 0)
    log.close()


def test_only_known_durabilities(state_dir: Path) -> None:
    with pytest.raises(AuditError, match="durability is 'maybe'"):
        Log.open(state_dir, durability="maybe")
    assert not state_dir.exists()


def test_a_checkpoint_flushes_what_it_covers(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = filled(state_dir, 300, sign=False)
    synced: set[str] = set()
    real = os.fsync

    def naming(fd: int) -> None:
        synced.add(os.readlink(f"/proc/self/fd/{fd}"))
        real(fd)

    monkeypatch.setattr(os, "fsync", naming)
    log.checkpoint()
    log.close()
    written = {
        str(path)
        for path in (state_dir / "log/0").rglob("*")
        if path.is_file() and path.name not in ("key", "vkey")
    }
    written -= {str(state_dir / "log/0/tile/entries/000.p/1"), str(state_dir / "log/0/tile/0/000.p/1")}
    assert {path for path in written if "/tile/" in path or "/openings/" in path} <= synced
    assert {str(state_dir / "log/0/tile/entries"), str(state_dir / "log/0"), str(state_dir / "log")} <= synced


def test_a_closed_log_refuses(state_dir: Path) -> None:
    log = Log.open(state_dir)
    log.close()
    log.close()
    for call in (lambda: log.append("kill", NAME, {}), log.checkpoint):
        with pytest.raises(AuditError, match="is closed"):
            call()


def test_a_forked_child_must_open_it_again(state_dir: Path) -> None:
    log = Log.open(state_dir)
    child = os.fork()
    if child == 0:
        try:
            log.append("kill", NAME, {})
        except AuditError as error:
            os._exit(7 if "after a fork" in str(error) else 1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    log.close()


def test_threads_share_a_log(state_dir: Path) -> None:
    log = Log.open(state_dir)

    def work(thread: int) -> None:
        for number in range(500):
            log.append("policy.load", f"{thread:016x}", {"number": number})
            if number % 100 == thread:
                log.checkpoint()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.checkpoint()
    log.close()
    found = records(state_dir)
    for number in range(4):
        mine = [entry for entry in found if entry["session"] == f"{number:016x}"]
        assert [entry["n"] for entry in mine] == [entry["number"] for entry in mine] == list(range(500))


def test_opening_imports_nothing_heavy(state_dir: Path) -> None:
    filled(state_dir, 300).close()
    code = (
        "import sys; from pathlib import Path; from anchorhold.audit.log import Log\n"
        f"log = Log.open(Path({str(state_dir)!r})); log.append('kill', '', {{}}); log.close()\n"
        "print([name for name in ('cryptography', 'asyncio', 'zipfile') if name in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_what_is_on_disk_is_little_more_than_the_entries(state_dir: Path) -> None:
    """The issue's bar: at most 1.2 times the JSON lines, all told."""
    log = Log.open(state_dir)
    log.append("session.start", NAME, {})
    for number in range(20_000):
        path = f"/home/somebody/documents/2025/letter-{number}.txt"
        digest = hashlib.sha256(str(number).encode()).hexdigest()
        log.append("grant", NAME, {**GRANT, "request": 1, "path": path, "resolved": path, "sha256": digest})
    log.checkpoint()
    log.close()
    lines = sum(len(json.dumps(entry, separators=(",", ":"))) + 1 for entry in entries(state_dir))
    stored = sum(path.stat().st_size for path in (state_dir / "log").rglob("*") if path.is_file())
    assert stored / lines < 1.2, stored / lines


def test_a_log_of_the_earlier_form_is_left_alone(state_dir: Path) -> None:
    (state_dir / "log/tile").mkdir(parents=True)
    (state_dir / "log/checkpoint").write_text("x")
    with pytest.raises(AuditError, match="earlier version"):
        Log.open(state_dir)
    assert sorted(os.listdir(state_dir / "log")) == ["checkpoint", "lock", "tile"]
