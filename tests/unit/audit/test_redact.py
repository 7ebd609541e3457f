"""Redaction: nothing is left of a name, everything is left of the proof."""

from __future__ import annotations

import errno
import json
import os
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from anchorhold.audit import prune, redact
from anchorhold.audit.digests import DigestCache
from anchorhold.audit.files import replace, write_all
from anchorhold.audit.log import Log
from anchorhold.audit.query import entries, path_pattern
from anchorhold.audit.state import State
from anchorhold.errors import AuditError
from anchorhold.verify.check import verify
from tests.unit.audit.logs import GRANT, all_bytes, good, session

NAME, OTHER = "00000000000000aa", "00000000000000bb"
SECRET = "/home/a/divorce/letter-to-the-judge.txt"


def matcher(pattern: str) -> Callable[[dict[str, Any]], bool]:
    fits = path_pattern(pattern)
    return lambda entry: any(fits(str(entry.get(name, ""))) for name in ("path", "resolved"))


@pytest.fixture
def state(state_dir: Path) -> Path:
    """Names in every place that can hold one."""
    log = Log.open(state_dir)
    session(log, NAME, 300, end=False)
    log.append("grant", NAME, {**GRANT, "path": SECRET, "resolved": SECRET, "sha256": "cd" * 32})
    log.append("denial", NAME, {"call": "open", "path": SECRET, "reason": "outside", "count": 1})
    log.append("breach", NAME, {"call": "open", "reason": f"it opened {SECRET} twice"})
    log.append("request.start", NAME, {"request": 2, "files": ["/home/a/x", SECRET]})
    log.checkpoint(rotate=True)
    log.append("grant", NAME, {**GRANT, "path": "/home/a/link", "resolved": SECRET, "sha256": "cd" * 32})
    log.checkpoint()
    log.close()
    # a crash that tore a record with the name in it
    log = Log.open(state_dir)
    log.append("grant", NAME, {**GRANT, "path": SECRET})
    (path,) = (state_dir / "log/journal").iterdir()
    log.close()
    os.truncate(path, path.stat().st_size - 3)
    Log.open(state_dir).close()
    # a crash that left a file half-written, an index
    (state_dir / "log/1/openings/.tmp-000-1").write_text(SECRET)
    (state_dir / "index.sqlite").write_text(SECRET)
    (state_dir / "digests.json").write_text(json.dumps({"1:2:3:4:5": "cd" * 32}))
    return state_dir


def test_no_byte_of_the_name_is_left_and_the_log_verifies(state: Path) -> None:
    log = Log.open(state)  # a run that goes on meanwhile, with the name in its journal
    log.append("session.start", OTHER, {})
    log.append("denial", OTHER, {"path": SECRET, "call": "open", "count": 1})
    before = {entry["seq"]: entry for entry in entries(state)}
    assert SECRET.encode() in all_bytes(state)
    pattern = "/home/a/divorce/**"
    test = path_pattern(pattern)
    count = redact.redact(state, matcher(pattern), ("names",), reason="asked to", by="test", path=test)
    assert count == 6
    for part in (SECRET, "divorce", "letter-to-the-judge"):
        assert part.encode() not in all_bytes(state), part
    result = good(state)
    assert result.redacted == 6
    after = list(entries(state))
    told = [entry for entry in after if entry["kind"] == "redaction"]
    assert (
        sum(entry["count"] for entry in told) == 6
        and told[0]["reason"] == "asked to"
        and told[0]["by"] == "test"
    )
    for entry in after:
        old = before.get(entry["seq"])
        if old is not None and "redacted" not in entry:
            assert entry == {key: value for key, value in old.items() if key != "unsettled"}
        elif old is not None:
            assert (
                entry["redacted"] == ["names"]
                and entry["time"] == old["time"]
                and entry["kind"] == old["kind"]
            )
            assert entry.get("sha256") == old.get("sha256") and "path" not in entry and "reason" not in entry
    log.append("denial", OTHER, {"path": "/home/a/after", "call": "open", "count": 1})
    log.checkpoint()
    log.close()
    good(state)


def test_digests_too(state: Path) -> None:
    redact.redact(
        state, lambda entry: entry.get("sha256") == "cd" * 32, ("names", "digests"), reason="", by=""
    )
    assert b"cd" * 32 not in all_bytes(state).replace(b'"policy_sha256":"' + b"cd" * 32, b"")
    assert list(json.loads((state / "digests.json").read_text())) == ["mark"]
    good(state)


def test_texts(state_dir: Path) -> None:
    log = Log.open(state_dir)
    log.append("session.start", NAME, {})
    log.append("request.start", NAME, {"request": 1, "prompt": {"text": "who is my father", "system": None}})
    log.checkpoint()
    log.close()
    assert b"my father" in all_bytes(state_dir)
    assert (
        redact.redact(state_dir, lambda entry: entry["session"] == NAME, ("text",), reason="r", by="b") == 1
    )
    assert b"my father" not in all_bytes(state_dir)
    good(state_dir)


def test_nothing_that_matches_is_nothing_done(state: Path) -> None:
    before = list(entries(state))
    assert redact.redact(state, lambda entry: False, ("names",), reason="r", by="b") == 0
    assert list(entries(state)) == before
    assert redact.redact(state, lambda entry: True, ("names",), reason="r", by="b") > 300
    assert redact.redact(state, lambda entry: True, ("names",), reason="r", by="b") == 0


def test_many_ranges_are_several_entries(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redact, "RANGES", 10)
    log = Log.open(state_dir)
    for number in range(100):
        log.append("policy.load", "", {"path": f"/{number % 2}"})
    log.checkpoint()
    log.close()
    assert (
        redact.redact(state_dir, lambda entry: entry.get("path") == "/1", ("names",), reason="r", by="b")
        == 50
    )
    told = [entry for entry in entries(state_dir) if entry["kind"] == "redaction"]
    assert len(told) == 5 and good(state_dir).redacted == 50


def test_an_opening_that_is_gone_without_a_word_is_found(state: Path, tmp_path: Path) -> None:
    """What a redaction protects against: names taken away in silence."""
    copy = tmp_path / "copy"
    os.system(f"cp -a {state} {copy}")
    redact.redact(copy, lambda entry: entry["seq"] == 7, ("names",), reason="r", by="b")
    (state / "log/0/openings/000").write_bytes((copy / "log/0/openings/000").read_bytes())
    result = verify(str(state))
    assert not result.ok and "no redaction tells of it" in str(result.first_bad) and result.first_bad.seq == 7  # type: ignore[union-attr]


def test_no_log_is_said(tmp_path: Path) -> None:
    with pytest.raises(AuditError, match="there is no audit log"):
        redact.redact(tmp_path, lambda entry: True, ("names",), reason="r", by="b")
    with pytest.raises(AuditError, match="there is no audit log"):
        redact.complete(tmp_path)


@pytest.mark.parametrize(
    "name", ["/home/a/divorcé/café.txt", '/home/a/it\'s "so"\\\n', "/home/a/caf\udce9.txt"]
)
def test_a_name_within_words_is_erased_however_it_is_escaped(state_dir: Path, name: str) -> None:
    """Errors tell of a path in one of Python's ways; so an entry's words can hold it in another form."""
    log = Log.open(state_dir)
    session(log, NAME, 1, end=False)
    log.append("grant", NAME, {**GRANT, "path": name, "resolved": name})
    told = (name, ascii(name), repr(name), os.fsencode(name).decode("utf-8", "backslashreplace"))
    for words in told:
        log.append("breach", NAME, {"call": "open", "reason": f"cannot open {words}: no such file"})
    log.append("breach", NAME, {"call": "open", "reason": "another"})
    log.checkpoint()
    log.close()
    count = redact.redact(state_dir, matcher(name), ("names",), reason="", by="", path=path_pattern(name))
    assert count == 1 + len(told)
    left = [
        entry["reason"] for entry in entries(state_dir) if entry["kind"] == "breach" and "reason" in entry
    ]
    assert left == ["another"]
    good(state_dir)


def test_what_a_writer_adds_meanwhile_comes_after_the_redaction(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its number is not known yet: a redaction that named it would never verify."""
    log = Log.open(state_dir)
    session(log, NAME, 3, end=False)
    plan = redact.plan

    def late(*arguments: Any, **options: Any) -> redact.Plan:
        for _ in range(3):
            log.append("grant", NAME, {**GRANT, "path": SECRET, "resolved": SECRET})
        return plan(*arguments, **options)

    log.append("grant", NAME, {**GRANT, "path": SECRET, "resolved": SECRET})
    monkeypatch.setattr(redact, "plan", late)
    assert redact.redact(state_dir, matcher(SECRET), ["names"], reason="r", by="b") == 1
    log.checkpoint()
    log.close()
    good(state_dir)
    assert sum(entry.get("path") == SECRET for entry in entries(state_dir)) == 3


def test_what_a_power_loss_left_behind_the_last_entry(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Openings are fsynced before the tree has them; a journal that was not is lost then."""
    log = Log.open(state_dir)
    session(log, NAME, 3, end=False)
    log.checkpoint()
    for _ in range(600):
        log.append("grant", NAME, {**GRANT, "path": SECRET, "resolved": SECRET})

    def power_loss(*_: object, **__: object) -> None:
        raise OSError(5, "power loss")

    with monkeypatch.context() as patched:
        patched.setattr(State, "save", power_loss)
        with pytest.raises(AuditError):
            log.checkpoint()
    log.close()
    (path,) = (state_dir / "log/journal").iterdir()
    os.truncate(path, 0)
    assert SECRET.encode() in all_bytes(state_dir)
    redact.redact(state_dir, matcher("/home/a/**"), ["names"], reason="r", by="b")
    assert SECRET.encode() not in all_bytes(state_dir)
    good(state_dir)
    log = Log.open(state_dir)
    session(log, OTHER, 600)
    log.checkpoint()
    log.close()
    good(state_dir)


def test_an_index_that_is_renamed_just_then(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who makes the index anew read the log before the redaction, and has it whole while that goes on."""
    new = state / "index.sqlite.new"
    (state / "index.sqlite").unlink()
    new.write_text(SECRET)
    shred = redact._shred

    def slow(path: str) -> None:
        if new.exists():
            new.rename(state / "index.sqlite")
        shred(path)

    monkeypatch.setattr(redact, "_shred", slow)
    redact.redact(state, matcher(SECRET), ["names"], reason="r", by="b")
    assert not list(state.glob("index.sqlite*"))


@pytest.fixture
def running(state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, DigestCache]:
    """A program that goes on, and knows a digest that it has not saved yet."""
    now = time.time_ns()
    monkeypatch.setattr(time, "time_ns", lambda: now + 10**10)
    model = tmp_path / "model.gguf"
    model.write_bytes(b"GGUF")
    cache = DigestCache(state)
    cache.put(model.stat(), "cd" * 32)
    return model, cache


def forget_digests(state: Path) -> None:
    groups = ("names", "digests")
    redact.redact(state, lambda entry: entry.get("sha256") == "cd" * 32, groups, reason="", by="")


@pytest.mark.parametrize("there", [True, False])
def test_a_digest_does_not_come_back_from_a_run_that_goes_on(
    state: Path, running: tuple[Path, DigestCache], there: bool
) -> None:
    model, cache = running
    if not there:
        (state / "digests.json").unlink()
    forget_digests(state)
    cache.save()
    assert b"cd" * 32 not in (state / "digests.json").read_bytes()
    cache.put(model.stat(), "ef" * 32)  # what it learns from then on is no secret
    cache.save()
    assert DigestCache(state).get(model.stat()) == "ef" * 32


@pytest.mark.parametrize("moment", ["written", "renamed"])
def test_a_digest_that_is_being_saved_just_then(
    state: Path, running: tuple[Path, DigestCache], monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """Read the cache before the redaction, and written or renamed by whoever goes on only during it."""
    _, cache = running
    loaded: list[bytes] = []

    def slow(fd: int, data: bytes) -> None:
        if moment == "written":
            forget_digests(state)
        loaded.append(data)
        write_all(fd, data)

    monkeypatch.setattr("anchorhold.audit.digests.write_all", slow)
    if moment == "renamed":

        def late(path: str, data: bytes, *, sync: bool, owned: bool) -> None:
            replace(path, data, sync=sync, owned=owned)
            if not loaded:
                before, cache._mark = cache._mark, json.loads(data)["mark"]  # as if it had looked before
                cache.save()
                cache._mark = before

        monkeypatch.setattr("anchorhold.audit.redact.replace", late)
        forget_digests(state)
    else:
        cache.save()
    assert loaded and b"cd" * 32 in loaded[0]
    assert b"cd" * 32 not in (state / "digests.json").read_bytes()
    assert not list(state.glob(".tmp-*"))


def left(state: Path, name: bytes) -> list[str]:
    """The files that hold ``name``."""
    found = []
    for path in sorted(state.rglob("*")):
        if path.is_file():
            data = path.read_bytes()
            if "openings" in path.parts and not path.name.startswith(".tmp-"):
                data = zlib.decompress(data[:-4])
            if name in data:
                found.append(str(path.relative_to(state)))
    return found


def tear(state: Path, path: str) -> None:
    """A crash in the middle of a record with ``path`` in it, and the run that finds it."""
    log = Log.open(state)
    log.append("policy.load", "", {"number": 1, "path": path})
    (journal,) = (state / "log/journal").iterdir()
    log.close()
    os.truncate(journal, journal.stat().st_size - 1)
    Log.open(state).close()


def test_what_was_torn_goes_only_where_an_entry_says_so(state_dir: Path) -> None:
    log = Log.open(state_dir)
    log.append("policy.load", "", {"path": SECRET})
    log.checkpoint()
    log.close()
    tear(state_dir, "/home/a/1")
    redact.redact(state_dir, lambda entry: False, ("names",), reason="r", by="b")
    good(state_dir)
    redact.redact(state_dir, matcher(SECRET), ("names",), reason="r", by="b")
    assert os.listdir(state_dir / "log/torn") == []
    tear(state_dir, "/home/a/2")
    redact.complete(state_dir)
    assert len(os.listdir(state_dir / "log/torn")) == 1
    good(state_dir)
    redact.redact(state_dir, lambda entry: entry.get("path") == "/nothing", ("names",), reason="r", by="b")
    good(state_dir)


@pytest.mark.parametrize("part", ["openings", "state"])
def test_a_folder_that_cannot_be_looked_at_is_no_success(
    state: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    scandir = os.scandir

    def failing(path: str) -> Any:
        if str(path).endswith(part) or (part == "state" and os.fspath(path) == str(state)):
            raise OSError(errno.EIO, os.strerror(errno.EIO), path)
        return scandir(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", failing)
        with pytest.raises(AuditError, match="Input/output error"):
            redact.redact(state, matcher(SECRET), ("names",), reason="r", by="b", path=path_pattern(SECRET))
    assert left(state, SECRET.encode())
    assert redact.may_be_cut_short(state)
    redact.complete(state)
    assert left(state, SECRET.encode()) == []
    good(state)


def test_an_epoch_whose_pruning_was_cut_short_holds_no_name(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(epoch: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(prune, "remove", failing)
        with pytest.raises(AuditError, match="Input/output error"):
            prune.prune(state, "2999", reason="", by="")
    assert "log/0/openings/001" in left(state, SECRET.encode()) and redact.may_be_cut_short(state)
    redact.redact(state, matcher(SECRET), ("names",), reason="r", by="b", path=path_pattern(SECRET))
    assert left(state, SECRET.encode()) == []
    good(state)


def test_a_name_in_a_question_that_was_kept(state_dir: Path) -> None:
    name = '/home/a/the "will".txt'
    chat = json.dumps({"messages": [{"role": "user", "content": f"what is in {name}"}]})
    log = Log.open(state_dir)
    log.append("session.start", NAME, {})
    log.append("session.sealed", NAME, {})
    log.append("grant", NAME, {**GRANT, "path": name, "resolved": name})
    for number, text in enumerate((f"compare it with {name}", chat, "and another one"), 1):
        log.append("request.start", NAME, {"request": number, "prompt": {"text": text}})
    log.checkpoint()
    log.close()
    fits = path_pattern(name)
    assert redact.redact(state_dir, matcher(name), ("names", "text"), reason="r", by="b", path=fits) == 3
    assert left(state_dir, b"will") == []
    (kept,) = (entry for entry in entries(state_dir) if "prompt" in entry)
    assert kept["prompt"] == {"text": "and another one"}
    good(state_dir)
