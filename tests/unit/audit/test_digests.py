"""The cache of digests: a wrong one must never come out."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from anchorhold.audit import digests
from anchorhold.audit.digests import DigestCache

DIGEST = "ab" * 32


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that was left alone for long enough."""
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF")
    now = time.time_ns()
    monkeypatch.setattr(time, "time_ns", lambda: now + 10_000_000_000)
    return path


def test_remembered_across_runs(tmp_path: Path, model: Path) -> None:
    cache = DigestCache(tmp_path / "state")
    assert cache.get(model.stat()) is None
    cache.put(model.stat(), DIGEST)
    assert cache.get(model.stat()) == DIGEST
    cache.save()
    cache.save()
    assert DigestCache(tmp_path / "state").get(model.stat()) == DIGEST
    assert (tmp_path / "state/digests.json").stat().st_mode & 0o077 == 0


def test_any_change_of_the_file_is_another_file(tmp_path: Path, model: Path) -> None:
    cache = DigestCache(tmp_path)
    before = model.stat()
    cache.put(before, DIGEST)
    with model.open("r+b") as file:
        file.write(b"EVIL")
    os.utime(model, ns=(before.st_atime_ns, before.st_mtime_ns))  # size and mtime as before; ctime tells
    after = model.stat()
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert cache.get(after) is None


def test_a_file_changed_just_now_is_not_remembered(tmp_path: Path) -> None:
    path = tmp_path / "fresh"
    path.write_bytes(b"x")
    cache = DigestCache(tmp_path)
    cache.put(path.stat(), DIGEST)
    assert cache.get(path.stat()) is None


@pytest.mark.parametrize("bad", ["", "AB" * 32, "ab" * 31, "zz" * 32])
def test_only_digests_are_kept(tmp_path: Path, model: Path, bad: str) -> None:
    cache = DigestCache(tmp_path)
    cache.put(model.stat(), bad)
    assert cache.get(model.stat()) is None


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b"[" * 100_000, b'{"a": 1, "b": "x"}'])
def test_a_broken_cache_is_an_empty_one(tmp_path: Path, model: Path, content: bytes) -> None:
    (tmp_path / "digests.json").write_bytes(content)
    cache = DigestCache(tmp_path)
    cache.put(model.stat(), DIGEST)
    cache.save()
    assert DigestCache(tmp_path).get(model.stat()) == DIGEST


def test_two_runs_keep_each_others(tmp_path: Path, model: Path) -> None:
    other = tmp_path / "other.gguf"
    other.write_bytes(b"GGUF2")
    one, two = DigestCache(tmp_path), DigestCache(tmp_path)
    one.put(model.stat(), DIGEST)
    two.put(other.stat(), "cd" * 32)
    one.save()
    two.save()
    both = DigestCache(tmp_path)
    assert (both.get(model.stat()), both.get(other.stat())) == (DIGEST, "cd" * 32)


def test_bounded(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digests, "LIMIT", 10)
    (tmp_path / "digests.json").write_text(json.dumps({str(n): DIGEST for n in range(20)}))
    cache = DigestCache(tmp_path)
    cache.put(model.stat(), DIGEST)
    cache.save()
    kept = json.loads((tmp_path / "digests.json").read_text())
    assert len(kept) == 10
    assert DigestCache(tmp_path).get(model.stat()) == DIGEST


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path, model: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    cache = DigestCache(tmp_path / "file" / "state")
    cache.put(model.stat(), DIGEST)
    cache.save()
    assert cache.get(model.stat()) == DIGEST
