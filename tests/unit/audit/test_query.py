"""Reading entries back, with filters."""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from anchorhold.audit import query
from anchorhold.audit.log import Log
from anchorhold.audit.query import entries, path_pattern
from anchorhold.errors import AuditError
from tests.unit.audit.logs import filled, session


@pytest.fixture
def two_sessions(state_dir: Path) -> Path:
    log = Log.open(state_dir)
    session(log, "aaaa1111", 300)
    session(log, "aaaa2222", 10)
    log.append("denial", "aaaa2222", {"path": "/etc/passwd", "reason": "outside every root", "count": 2})
    log.checkpoint()
    log.close()
    return state_dir


def test_everything_in_order(two_sessions: Path) -> None:
    assert [entry["seq"] for entry in entries(two_sessions)] == list(range(6 + 300 + 6 + 10 + 1))
    assert [entry["seq"] for entry in entries(two_sessions, first=310)] == list(range(310, 323))


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
    assert len(later) + len(earlier) == 323
    assert later[0]["time"] >= middle > earlier[-1]["time"]
    assert list(entries(two_sessions, since=datetime.now(UTC) + timedelta(hours=1))) == []
    assert len(list(entries(two_sessions, until=datetime.now(UTC) + timedelta(hours=1)))) == 323


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


def test_a_log_without_a_tail(state_dir: Path) -> None:
    filled(state_dir, 256).close()
    (state_dir / "log/tail").unlink()
    assert len(list(entries(state_dir))) == 256


def test_a_torn_record_is_not_there_yet(state_dir: Path) -> None:
    filled(state_dir, 3).close()
    with (state_dir / "log/tail").open("ab") as file:
        file.write(b"\1\0{half")
    assert len(list(entries(state_dir))) == 3


@pytest.mark.parametrize("content", [b"\0\2no", b"\0\2[]", b"\0\7" + b"[" * 7])
def test_what_cannot_be_read_is_said(state_dir: Path, content: bytes) -> None:
    filled(state_dir, 300).close()
    (state_dir / "log/tile/entries/000").write_bytes(content)
    with pytest.raises(AuditError, match="entry 0 "):
        list(entries(state_dir))


def test_a_bundle_that_is_gone_or_cut(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(state_dir, 600).close()
    path = state_dir / "log/tile/entries/001"
    data = path.read_bytes()
    path.write_bytes(data[:-1])
    with pytest.raises(AuditError, match="cut off"):
        list(entries(state_dir))
    path.unlink()
    monkeypatch.setattr(query, "count_bundles", lambda log: 2)
    with pytest.raises(AuditError, match="entry 256 "):
        list(entries(state_dir))


def test_a_rotation_in_between_is_not_missed(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = filled(state_dir, 256, sign=False)
    real = query._whole_tail

    def rotating(path: str, seq: int) -> bytes:
        if log.size == 256:
            log.append("limit", "s", {})
        return real(path, seq)

    monkeypatch.setattr(query, "_whole_tail", rotating)
    assert [entry["seq"] for entry in entries(state_dir)] == list(range(257))
    log.close()


def test_what_may_not_be_read(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(state_dir, 3).close()

    def denied(*args: object, **kwargs: object) -> int:
        raise PermissionError(13, "Permission denied", str(state_dir / "log/tail"))

    monkeypatch.setattr(os, "open", denied)
    with pytest.raises(AuditError, match="cannot be read"):
        list(entries(state_dir))
