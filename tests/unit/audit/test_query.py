"""Reading entries back, with filters."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from anchorhold.audit import files, journal, query, tree
from anchorhold.audit.log import Log
from anchorhold.audit.query import entries, path_pattern
from anchorhold.errors import AuditError
from tests.unit.audit.logs import filled, session


@pytest.fixture
def two_sessions(state_dir: Path) -> Path:
    log = Log.open(state_dir)
    session(log, "aaaa111100000000", 300)
    session(log, "aaaa222200000000", 10)
    log.append(
        "denial", "aaaa222200000000", {"path": "/etc/passwd", "reason": "outside every root", "count": 2}
    )
    log.checkpoint()
    log.close()
    return state_dir


def test_everything_in_order(two_sessions: Path) -> None:
    assert [entry["seq"] for entry in entries(two_sessions)] == list(range(1 + 6 + 300 + 6 + 10 + 1))
    assert [entry["seq"] for entry in entries(two_sessions, first=310)] == list(range(310, 324))


def test_by_session_and_kind(two_sessions: Path) -> None:
    assert len(list(entries(two_sessions, session="aaaa1111"))) == 306
    assert len(list(entries(two_sessions, session="aaaa"))) == 323
    assert [entry["kind"] for entry in entries(two_sessions, kinds=("denial", "session.end"))] == [
        "session.end",
        "session.end",
        "denial",
    ]


def test_by_path(two_sessions: Path) -> None:
    assert len(list(entries(two_sessions, path="/home/a/7"))) == 2
    assert len(list(entries(two_sessions, path="/home/a/2*"))) == 1 + 10 + 100 + 1
    assert [entry["kind"] for entry in entries(two_sessions, path="/etc")] == ["denial"]
    assert list(entries(two_sessions, path="/home/b")) == []
    # ``resolved`` counts too
    assert len(list(entries(two_sessions, path="roof.pdf", kinds=("grant",)))) == 312


def test_by_time(two_sessions: Path) -> None:
    stamps = [entry["time"] for entry in entries(two_sessions)]
    middle = stamps[150]
    later = list(entries(two_sessions, since=middle))
    earlier = list(entries(two_sessions, until=middle))
    assert len(later) + len(earlier) == 324
    assert later[0]["time"] >= middle > earlier[-1]["time"]
    assert list(entries(two_sessions, since=datetime.now(UTC) + timedelta(hours=1))) == []
    assert len(list(entries(two_sessions, until=datetime.now(UTC) + timedelta(hours=1)))) == 324


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("*.pdf", "/a/b.pdf", True),
        ("*.pdf", "/a.pdf/b", False),
        ("b?pdf", "/a/b.pdf", True),
        ("b", "/a/b/c", False),
        ("/a", "/a", True),
        ("/a/", "/a/b", True),
        ("/a", "/ab", False),
        ("/a/*", "/a/b", True),
        ("/a/*", "/a/b/c", False),
        ("/a/**", "/a/b/c", True),
        ("/a/**/c", "/a/c", True),
        ("/a/**/c", "/a/b/b/c", True),
        ("/a/**/c", "/a/bc", False),
        ("**/.git/**", "/x/.git/config", True),
        ("/a/[bc]", "/a/c", True),
        ("/a/[!bc]", "/a/c", False),
        ("/a/[!bc]", "/a/d", True),
        ("/a/[a-c]", "/a/b", True),
        ("/a/[c-a]", "/a/b", False),
        ("/a/[!c-a]", "/a/b", True),
        ("/a/[a-]", "/a/-", True),
        ("/a[!b]c", "/a/c", False),
        ("/a/[b", "/a/[b", True),
        ("/a/[]]", "/a/]", True),
        ("/a/[\\]", "/a/\\", True),
        ("/a/(b|c).+", "/a/(b|c).+", True),
        ("/", "/anything", True),
        ("/a/*", "/a/line\nbreak", True),
        ("/a/*", "/a/\udcff", True),
        ("", "/a/", True),
    ],
)
def test_patterns(pattern: str, path: str, matches: bool) -> None:
    assert path_pattern(pattern)(path) is matches


def test_any_pattern_is_a_pattern() -> None:
    for character in map(chr, range(1, 256)):
        for pattern in (f"[{character}]", f"/[!{character}", f"/[a-{character}]", character * 3):
            try:
                path_pattern(pattern)("/x")
            except re.error as error:
                pytest.fail(f"{pattern!r}: {error}")


def test_no_log_is_said(tmp_path: Path) -> None:
    with pytest.raises(AuditError, match="there is no audit log"):
        list(entries(tmp_path))


def test_what_is_not_settled_comes_last_and_says_so(state_dir: Path) -> None:
    log = filled(state_dir, 3)
    log.append("policy.load", "", {"path": "/home/a"})
    (path,) = (state_dir / "log/journal").iterdir()
    with path.open("ab") as file:
        file.write(b"\1\0\0\0\5{half")  # a record that is being written is not there yet
    found = list(entries(state_dir))
    assert [entry.get("unsettled") for entry in found] == [None, None, None, True]
    assert found[-1]["seq"] == 3 and found[-1]["path"] == "/home/a"
    assert list(query.pick(state_dir, [1, 2])) == found[1:3]
    assert query.log_size(state_dir) == 3
    log.close()


@pytest.mark.parametrize("content", [b"\0\2no", b"\0\2[]", b"\0\7" + b"[" * 7])
def test_what_cannot_be_read_is_said(state_dir: Path, content: bytes) -> None:
    filled(state_dir, 3).close()
    (state_dir / "log/0/tile/entries/000.p/3").write_bytes(content * 3)
    with pytest.raises(AuditError, match="entry 0 "):
        list(entries(state_dir))


def test_a_bundle_that_is_gone_or_cut(state_dir: Path) -> None:
    filled(state_dir, 600).close()
    path = state_dir / "log/0/tile/entries/001"
    data = path.read_bytes()
    path.write_bytes(data[:-1])
    with pytest.raises(AuditError, match="cut off"):
        list(entries(state_dir))
    path.unlink()
    with pytest.raises(AuditError, match="entry 256 "):
        list(entries(state_dir))


def test_settling_in_between_loses_and_doubles_nothing(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = filled(state_dir, 3, sign=False)
    real = journal.names
    done: list[int] = []

    def settling(path: str) -> list[str]:
        if not done:
            done.append(1)
            log.checkpoint()  # between reading the state and reading the journals
        return real(path)

    monkeypatch.setattr(journal, "names", settling)
    assert [entry["seq"] for entry in entries(state_dir)] == [0, 1, 2]
    log.close()


def test_a_copy_without_names(state_dir: Path) -> None:
    log = Log.open(state_dir)
    session(log, "aaaa111100000000", 3)
    log.checkpoint()
    log.close()
    shutil.rmtree(state_dir / "log/0/openings")
    found = list(entries(state_dir, kinds=("grant",)))
    assert all(entry["redacted"] == ["names", "digests"] and "path" not in entry for entry in found)
    assert [entry["class"] for entry in found] == ["runtime", "data", "data", "data"]


def test_what_may_not_be_read(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(state_dir, 3).close()

    def denied(*args: object, **kwargs: object) -> int:
        raise PermissionError(13, "Permission denied", str(state_dir / "log/state"))

    monkeypatch.setattr(os, "open", denied)
    with pytest.raises(AuditError, match="cannot be read"):
        list(entries(state_dir))


@pytest.mark.parametrize("growth", [1, 300])
def test_a_log_that_grows_between_any_two_looks_at_it(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch, growth: int
) -> None:
    """Partial bundles go as wider ones and the whole one come; the reader is never quick enough."""
    log = filled(state_dir, 5)
    real = files.read_file
    grown, busy = 0, False

    def read_file(path: str) -> bytes | None:
        nonlocal grown, busy
        if "/tile/" in path and grown < 3 and not busy:
            busy = True
            grown += 1
            for _ in range(growth):
                log.append("policy.load", "", {})
            log.checkpoint()
            busy = False
        return real(path)

    monkeypatch.setattr("anchorhold.audit.read.read_file", read_file)
    monkeypatch.setattr("anchorhold.audit.tree.read_file", read_file)
    seqs = [entry["seq"] for entry in entries(state_dir)]
    assert seqs == list(range(5)) and grown == (3 if growth == 1 else 2)
    grown = 0
    size, leaves = log.checkpoint().size, [1]
    folder = str(state_dir / "log/0")
    before = tree.multiproof(folder, size, leaves)
    assert grown >= 2
    assert before == tree.multiproof(folder, size, leaves)
    log.close()


def test_events_that_are_not_settled_keep_their_order(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of one writer, also where the clock was set back."""
    log = Log.open(state_dir)
    now = time.time_ns()
    for number in range(10):
        monkeypatch.setattr(time, "time_ns", lambda at=now - number * 10**9: at)
        log.append("policy.load", "", {"number": number})
    unsettled = [(entry["seq"], entry["number"]) for entry in entries(state_dir) if "number" in entry]
    log.checkpoint()
    log.close()
    settled = [(entry["seq"], entry["number"]) for entry in entries(state_dir) if "number" in entry]
    assert unsettled == settled == [(number + 1, number) for number in range(10)]


def test_openings_that_unpack_to_more_than_any_bundle_are_refused(state_dir: Path) -> None:
    """Half a megabyte on the disk must not become half a gigabyte in whoever lists the log."""
    import tracemalloc
    import zlib

    log = Log.open(state_dir)
    session(log, "00000000000000aa")
    log.checkpoint()
    log.close()
    (path,) = (state_dir / "log/0/openings").iterdir()
    packer = zlib.compressobj(9)
    data = packer.compress(zlib.decompress(path.read_bytes()[:-4]))
    data += b"".join(packer.compress(bytes(1 << 20)) for _ in range(256)) + packer.flush()
    path.write_bytes(data + zlib.crc32(data).to_bytes(4, "big"))
    tracemalloc.start()
    try:
        with pytest.raises(AuditError, match="damaged"):
            list(entries(state_dir))
        assert tracemalloc.get_traced_memory()[1] < 160 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", ["state", "0/openings/000"])
@pytest.mark.parametrize("put", ["pipe", "hole"])
def test_what_no_writer_makes_in_the_place_of_a_file_holds_nobody_up(
    two_sessions: Path, name: str, put: str
) -> None:
    """A named pipe would be waited for without end; a hole of a terabyte does not fit the memory."""
    path = two_sessions / "log" / name
    path.unlink()
    if put == "pipe":
        os.mkfifo(path)
    else:
        path.touch()
        os.truncate(path, 1 << 40)
    code = f"from anchorhold.audit.query import entries; list(entries({str(two_sessions)!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=10)
    assert "AuditError" in done.stderr


def test_an_entry_without_a_session_that_names_a_request() -> None:
    with pytest.raises(AuditError, match="entry 7 of the audit log cannot be read"):
        query.flat(0, 7, b'{"request":1}', None)
