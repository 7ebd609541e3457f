"""With the index or without it: the same entries, in the same order, whatever the log holds and is asked."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from anchorhold.audit import redact
from anchorhold.audit.index import find as finding
from anchorhold.audit.index import halves
from anchorhold.audit.index.build import rebuild, update
from anchorhold.audit.index.filters import Filter, scan
from anchorhold.audit.index.find import find
from anchorhold.audit.index.schema import path_of
from anchorhold.audit.log import Log

SESSIONS = ("00000000000000aa", "00000000000000ab", "ffff000000000001")
MANY = (*SESSIONS, *(f"{number * 0x9E3779B97F4A7C15 % 2**64:016x}" for number in range(1, 40)))
NAMES = (
    "a",
    "b.txt",
    "roof.pdf",
    "ä",
    "\udcff",
    "x*y",
    "[z]",
    "\x1b[31m",
    "a b",
    "%",
    "'",
    '"',
    "\ue000",
    "日本",
)
KINDS = ("grant", "denial", "breach", "list", "request.start", "limit")
DIGESTS = ("ab" * 32, "ab" * 31 + "cd", "00" * 32, "f" * 64)
MODELS = ("/models/a.gguf", "/models/b.gguf")
SECONDS = (1_577_836_800, 1_767_225_599, 1_767_225_600, 1_767_225_601, 4_070_908_800)
"""What a clock can show that is set forth and back; the index counts from the third of these."""

TIMES = (
    "2020-01-01T00:00:00.000000Z", "2025-12-31T23:59:59.999999Z", "2026-01-01T00:00:00.000000Z",
    "2026-01-01T00:00:00.5", "2026-01-01", "2099-01-01T00:00:00.000000Z", "2099-01-01T00:00:00.000001Z",
)  # fmt: skip

path = st.one_of(
    st.lists(st.sampled_from(NAMES), min_size=1, max_size=4).map(lambda parts: "/" + "/".join(parts)),
    st.binary(min_size=1, max_size=9).map(lambda data: os.fsdecode(b"/" + data.replace(b"\0", b"/"))),
)
odd = st.sampled_from([1, -1, 2**63, 1.5, None, "", "x", [1], {"a": 1}, "A" * 64, "ab", "\x00", "/a\x00b"])
grant = st.fixed_dictionaries(
    {"class": st.sampled_from(("data", "runtime", "model", "stdin")), "size": st.integers(0, 2**40),
     "mode": st.just("snapshot"), "phase": st.just("sealed"), "path": path,
     "sha256": st.sampled_from(DIGESTS)},
    optional={"request": st.integers(1, 3), "resolved": path},
)  # fmt: skip
anything = st.dictionaries(
    st.sampled_from(
        ("path", "resolved", "class", "sha256", "size", "request", "reason", "more", "count", "hidden")
    ),
    st.one_of(odd.filter(lambda value: not isinstance(value, float)), path),
    max_size=5,
)
listing = st.fixed_dictionaries(
    {"class": st.sampled_from(("data", "runtime")), "path": path, "listed": st.integers(0, 3),
     "hidden": st.integers(0, 2)}
)  # fmt: skip
event = st.one_of(
    st.tuples(st.just("grant"), st.sampled_from(MANY), grant),
    st.tuples(st.sampled_from(KINDS), st.sampled_from(SESSIONS), anything),
    st.tuples(st.just("list"), st.sampled_from(SESSIONS), listing),
    st.tuples(st.just("policy.load"), st.just(""), anything),
    st.tuples(
        st.just("session.start"),
        st.sampled_from(SESSIONS),
        st.fixed_dictionaries(
            {"model": st.fixed_dictionaries({"sha256": st.sampled_from(DIGESTS), "size": st.just(1)}),
             "model_path": st.sampled_from(MODELS)}
        ),
    ),
)  # fmt: skip
pattern = st.one_of(
    path,
    st.lists(st.sampled_from((*NAMES, "*", "**", "?", "[a-b]")), min_size=1, max_size=3).map("/".join),
)
PATTERNS = (
    "*",
    "**",
    "/",
    "/**",
    "*.txt",
    "roof.pdf",
    "/a/**",
    "?",
    "[ab]*",
    "/*/b.txt",
    "**/ä",
    "x[*]y",
    "/a",
)
VALUES: dict[str, tuple[Any, ...]] = {
    "session": (*SESSIONS, "00", "zz", ""),
    "request": (f"{SESSIONS[0]}-1", f"{SESSIONS[1]}-2", "x", f"{SESSIONS[0]}-01", "1"),
    "kinds": (*((kind,) for kind in KINDS), ("grant", "denial"), ("session.start",), ("nothing",), ()),
    "cls": ("data", "runtime", "x", ""),
    "path": PATTERNS,
    "digest": ("ab", "ab" * 32, "", "00", "f", "AB", "xyz", "ab" * 6, "ab" * 31),
    "model": ("ab" * 32, "abab", *MODELS, "a.gguf", "/models", "nobody"),
    "since": TIMES,
    "until": TIMES,
    "refused": (True,),
}
WANTED = {name: st.sampled_from(values) for name, values in VALUES.items()}
WANTED["path"] = st.one_of(WANTED["path"], pattern)
one_condition = st.one_of([st.tuples(st.just(name), values) for name, values in WANTED.items()])
wanted = st.one_of(
    st.lists(one_condition, max_size=2).map(dict),
    st.fixed_dictionaries({}, optional=WANTED),  # many at once; few entries answer that
)
amount = st.one_of(st.none(), st.integers(1, 5))


def _of(session: str, entry: dict[str, Any]) -> bool:
    return entry.get("session") == session


def filled(
    state: Path, events: list[tuple[str, str, dict[str, Any]]], patch: pytest.MonkeyPatch | None = None
) -> None:
    """Write events into the log; those of `done` are done to it. ``patch``: for the clock."""
    log = Log.open(state)
    for kind, session, fields in events:
        if kind == "new epoch":
            log.checkpoint(rotate=True)
        elif kind == "clock":
            assert patch is not None
            patch.setattr(time, "time_ns", partial(int, fields["at"]))
        elif kind == "erase":
            log.checkpoint()
            redact.redact(state, partial(_of, session), **fields)
        else:
            log.append(kind, session, fields)
    log.checkpoint()
    log.close()


MOMENTS = [second * 10**9 + rest for second in SECONDS for rest in (0, 1_000, 500_000_000, 999_999_999)]
moment = st.sampled_from(MOMENTS)
groups = st.sampled_from((("names",), ("digests",), ("names", "text")))
done: st.SearchStrategy[Any] = st.one_of(
    st.tuples(st.just("new epoch"), st.just(""), st.just({})),
    st.tuples(
        st.just("clock"),
        st.just(""),
        st.fixed_dictionaries({"at": moment}),
    ),
    st.tuples(
        st.just("erase"),
        st.sampled_from(SESSIONS),
        st.fixed_dictionaries({"groups": groups, "reason": st.just(""), "by": st.just("me")}),
    ),
)  # fmt: skip


def same(state: Path, asked: list[dict[str, Any]], limit: int | None, last: int | None) -> None:
    told: list[str] = []
    for words in asked:
        whole = list(scan(state, Filter(**words)))
        assert list(find(state, Filter(**words), note=told.append)) == whole
        if limit is not None:
            assert list(find(state, Filter(**words), limit=limit, note=told.append)) == whole[:limit]
        if last is not None:
            assert list(find(state, Filter(**words), last=last, note=told.append)) == whole[-last:]
    assert told == []


@pytest.fixture
def place() -> Any:
    """A folder in memory, if there is one: a log is made for every example."""
    base = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    folder = tempfile.mkdtemp(prefix="anchorhold-test.", dir=base)
    yield Path(folder)
    shutil.rmtree(folder)


def test_each_condition(place: Path) -> None:
    """Every value above, on a log that has something for nearly all."""
    events: list[tuple[str, str, dict[str, Any]]] = []
    for number, name in enumerate(NAMES):
        session = SESSIONS[number % 3]
        model = {"model": {"sha256": DIGESTS[number % 4], "size": 1}, "model_path": MODELS[number % 2]}
        events.append(("session.start", session, model))
        digest = {"sha256": DIGESTS[number % 4], "class": ("data", "runtime")[number % 2], "size": number}
        here = f"/a/{name}" if number % 3 else f"/{name}"
        events.append(
            ("grant", session, {**digest, "path": here, "resolved": f"/b/{name}", "request": number % 3})
        )
        events.append((KINDS[1 + number % 5], session, {"path": here, "count": number}))
    events.append(("policy.load", "", {"path": "/a/a"}))
    filled(place, events)
    rebuild(place)
    answered = 0
    for name, values in VALUES.items():
        for value in values:
            same(place, [{name: value}], 3, 2)
            answered += any(True for _ in scan(place, Filter(**{name: value})))
    assert answered > sum(map(len, VALUES.values())) // 2


@pytest.mark.slow
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    before=st.lists(st.one_of(event, event, event, done), max_size=25),
    after=st.lists(st.one_of(event, event, done), max_size=6),
    unsettled=st.lists(event, max_size=3),
    asked=st.lists(wanted, min_size=1, max_size=8),
    limit=amount,
    last=amount,
    border=st.sampled_from((0, 2048)),
    shared=st.booleans(),
)
def test_the_index_and_the_log_say_the_same(
    place: Path,
    before: list[Any],
    after: list[Any],
    unsettled: list[Any],
    asked: list[dict[str, Any]],
    limit: int | None,
    last: int | None,
    border: int,
    shared: bool,
) -> None:
    """``border`` 0: new entries go into the index; else they are read from the log. ``shared``: two processes
    make it."""
    state = Path(tempfile.mkdtemp(dir=place))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finding, "FEW", border)
        if shared:
            patch.setattr(halves, "ENOUGH", 0)
            patch.setattr(halves, "_is_alone", lambda: True)
        filled(state, before, patch)
        rebuild(state)
        same(state, asked, limit, last)
        filled(state, after, patch)
        log = Log.open(state)
        for kind, session, fields in unsettled:
            log.append(kind, session, fields)
        same(state, asked, limit, last)
        log.close()
        update(state)
        assert [name for name in os.listdir(state) if name.startswith("index.sqlite")] == ["index.sqlite"]
        same(state, asked, limit, last)
    shutil.rmtree(state)


damages = st.lists(
    st.tuples(st.integers(0, 2**31), st.binary(min_size=1, max_size=64)), min_size=1, max_size=8
)


@pytest.mark.slow
@pytest.mark.parametrize("unseen", [False, True])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    events=st.lists(event, min_size=1, max_size=12),
    asked=st.lists(wanted, min_size=1, max_size=3),
    damage=damages,
    cut=st.one_of(st.none(), st.integers(0, 2**31)),
)
def test_a_damaged_index_changes_no_answer(
    place: Path,
    unseen: bool,
    events: list[Any],
    asked: list[dict[str, Any]],
    damage: list[Any],
    cut: int | None,
) -> None:
    """What writes to it is told in one line, and the answers are the log's.

    ``unseen``: a disk that gives back other bytes than it was given, and says nothing. Then the index may
    lie, as any file that is not the log may; but nothing crashes, and what is noticed ends it.
    """
    state = Path(tempfile.mkdtemp(dir=place))
    filled(state, events)
    rebuild(state)
    file = Path(path_of(state))
    content = bytearray(file.read_bytes())
    for at, data in damage:
        at %= len(content)
        content[at : at + len(data)] = data
    times = file.stat().st_atime_ns, file.stat().st_mtime_ns
    file.write_bytes(content if cut is None else content[: cut % len(content)])
    if unseen:
        os.utime(file, ns=times)
    told: list[str] = []
    for words in asked:
        found = list(find(state, Filter(**words), note=told.append))
        assert unseen or found == list(scan(state, Filter(**words)))
    assert len(told) <= 1 and all("\n" not in line for line in told)
    if told:
        assert not file.exists()
        same(state, asked, None, None)
    shutil.rmtree(state)


@pytest.mark.parametrize("bit", range(8))
def test_one_bit_is_noticed(place: Path, bit: int) -> None:
    """And without the seal it would have changed the answer: the test of damage can fail."""
    wanted = Filter(kinds=("grant",))
    filled(place, [("grant", SESSIONS[0], {"class": "data", "size": 1, "path": "/a/secret-name"})] * 3)
    rebuild(place)
    file = Path(path_of(place))
    content = bytearray(file.read_bytes())
    at = content.index(b"secret-name")
    content[at] ^= 1 << bit
    right, times = list(scan(place, wanted)), (file.stat().st_atime_ns, file.stat().st_mtime_ns)
    file.write_bytes(content)
    os.utime(file, ns=times)
    if bit != 7:  # that is no UTF-8
        assert list(find(place, wanted)) != right
    file.write_bytes(content)
    told: list[str] = []
    assert list(find(place, wanted, note=told.append)) == right
    assert len(told) == 1 and "something wrote to it" in told[0]
    assert not file.exists()
