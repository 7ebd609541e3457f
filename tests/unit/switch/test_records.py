"""Records and marks: what is written is what is read, and nothing hostile beside them is believed."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from anchorhold.switch import marks, places, records

WORDS = {
    "name": "taxes", "state": "/home/a/with\nnewline\\n and = \udcff",
    "supervisor": 12, "supervisor_start": 34,
    "launcher": 0, "launcher_start": 0, "worker": 0, "worker_start": 0, "cgroup": "",
}  # fmt: skip


def test_a_record_is_read_as_written(tmp_path: Path) -> None:
    record = records.begin(str(tmp_path), "00000000000000aa", **WORDS)
    record.set(launcher=56, launcher_start=78)
    (found,) = records.in_folder(str(tmp_path))
    assert found.words == {**{key: str(value) for key, value in WORDS.items()}, "session": "00000000000000aa",
                           "launcher": "56", "launcher_start": "78"}  # fmt: skip
    assert found.number("launcher") == 56 and found.number("worker") == 0 and found.number("name") == 0
    assert stat.S_IMODE(os.stat(found.path).st_mode) == 0o600
    record.remove()
    record.remove()
    assert records.in_folder(str(tmp_path)) == []


def test_what_is_no_record_is_passed_over(tmp_path: Path) -> None:
    records.begin(str(tmp_path), "00000000000000aa", **WORDS)
    good = (tmp_path / "cell-00000000000000aa").read_bytes()
    (tmp_path / "cell-half").write_bytes(good[: len(good) // 2])
    (tmp_path / "cell-empty").write_bytes(b"")
    (tmp_path / "cell-noise").write_bytes(bytes(range(256)) * 10)
    (tmp_path / "cell-link").symlink_to(tmp_path / "cell-00000000000000aa")
    (tmp_path / "cell-x.new").write_bytes(good)
    (tmp_path / "cell-folder").mkdir()
    os.mkfifo(tmp_path / "cell-fifo")
    assert [one.session for one in records.in_folder(str(tmp_path))] == ["00000000000000aa"]
    assert records.in_folder(str(tmp_path / "none")) == []


def test_a_record_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    with pytest.raises(OSError):
        records.begin(str(tmp_path / "none"), "00000000000000aa", **WORDS)


def test_numbers_are_numbers(tmp_path: Path) -> None:
    for text in ("-1", "1e3", "²", " 1", "1" * 30, "0x10", ""):
        assert records.Record("/x", {"worker": text}).number("worker") == 0


def test_a_mark_is_taken_once(tmp_path: Path) -> None:
    marks.put(str(tmp_path), "kill", "00000000000000aa", {"name": "taxes", "uid": 1500, "asked": 77})
    assert marks.take(str(tmp_path), "freeze", "00000000000000aa") is None
    words = marks.take(str(tmp_path), "kill", "00000000000000aa")
    assert words is not None and (words["uid"], words["asked"], words["time"]) == ("1500", "77", "")
    assert marks.take(str(tmp_path), "kill", "00000000000000aa") is None and os.listdir(tmp_path) == []


def test_what_is_kept_stays_until_it_is_removed(tmp_path: Path) -> None:
    marks.keep(str(tmp_path), "kill", "00000000000000aa", {"name": "taxes\ninjected=1", "uid": 0})
    for _ in range(2):
        ((path, words),) = marks.kept(str(tmp_path))
        assert words["session"] == "00000000000000aa" and "injected" not in words
    os.unlink(path)
    assert marks.kept(str(tmp_path)) == [] and marks.kept(str(tmp_path / "none")) == []


def test_where_the_runtime_directory_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = str(tmp_path / "state")
    here = {"RUNTIME_DIRECTORY": "/run/a:/run/b", "XDG_RUNTIME_DIR": str(tmp_path)}
    assert places.runtime_dir(state, here) == "/run/a"
    assert places.runtime_dir(state, {"XDG_RUNTIME_DIR": str(tmp_path)}) == str(tmp_path / "anchorhold")
    for wrong in ("relative", str(tmp_path / "none")):
        monkeypatch.setattr(os, "geteuid", lambda: 0)
        assert places.runtime_dir(state, {"XDG_RUNTIME_DIR": wrong}) == places.SYSTEM
        monkeypatch.setattr(os, "geteuid", lambda: 999_999)
        assert places.runtime_dir(state, {"XDG_RUNTIME_DIR": wrong}) == f"{state}/run"
    assert f"{state}/run" in places.candidates(state, {})


def test_a_folder_of_somebody_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places.make(str(tmp_path / "mine"))
    assert stat.S_IMODE(os.stat(tmp_path / "mine").st_mode) == 0o700
    (tmp_path / "link").symlink_to(tmp_path / "mine")
    with pytest.raises(OSError):
        places.make(str(tmp_path / "link"))
    os.chown(tmp_path / "mine", 1500, 1500) if os.geteuid() == 0 else None
    monkeypatch.setattr(os, "geteuid", lambda: 1501)
    with pytest.raises(PermissionError):
        places.make(str(tmp_path / "mine"))
