"""With the index or without it: the same entries, in the same order, whatever the log holds and is asked."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from anchorhold.audit.index import find as finding
from anchorhold.audit.index.build import rebuild, update
from anchorhold.audit.index.filters import Filter, scan
from anchorhold.audit.index.find import find
from anchorhold.audit.index.schema import NEW, path_of
from anchorhold.audit.log import Log

SESSIONS = ("00000000000000aa", "00000000000000ab", "ffff000000000001")
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
TIMES = ("2020-01-01T00:00:00.000000Z", "2026-01-01T00:00:00.000000Z", "2099-01-01T00:00:00.000000Z")

path = st.lists(st.sampled_from(NAMES), min_size=1, max_size=4).map(lambda parts: "/" + "/".join(parts))
odd = st.sampled_from([1, -1, 2**63, 1.5, None, "", "x", [1], {"a": 1}, "A" * 64, "ab", "\x00", "/a\x00b"])
grant = st.fixed_dictionaries(
    {"class": st.sampled_from(("data", "runtime", "model", "stdin")), "size": st.integers(0, 2**40),
     "mode": st.just("snapshot"), "phase": st.just("sealed"), "path": path,
     "sha256": st.sampled_from(DIGESTS)},
    optional={"request": st.integers(1, 3), "resolved": path},
)  # fmt: skip
anything = st.dictionaries(
    st.sampled_from(("path", "resolved", "class", "sha256", "size", "request", "reason", "more", "count")),
    st.one_of(odd.filter(lambda value: not isinstance(value, float)), path),
    max_size=5,
)
event = st.one_of(
    st.tuples(st.just("grant"), st.sampled_from(SESSIONS), grant),
    st.tuples(st.sampled_from(KINDS), st.sampled_from(SESSIONS), anything),
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
}
WANTED = {name: st.sampled_from(values) for name, values in VALUES.items()}
WANTED["path"] = st.one_of(WANTED["path"], pattern)
one_condition = st.one_of([st.tuples(st.just(name), values) for name, values in WANTED.items()])
wanted = st.lists(one_condition, max_size=2).map(dict)
amount = st.one_of(st.none(), st.integers(1, 5))


def filled(state: Path, events: list[tuple[str, str, dict[str, Any]]]) -> None:
    log = Log.open(state)
    for kind, session, fields in events:
        log.append(kind, session, fields)
    log.checkpoint()
    log.close()


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
    before=st.lists(event, max_size=25),
    after=st.lists(event, max_size=6),
    unsettled=st.lists(event, max_size=3),
    asked=st.lists(wanted, min_size=1, max_size=8),
    limit=amount,
    last=amount,
    border=st.sampled_from((0, 2048)),
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
) -> None:
    """``border`` 0: new entries go into the index; else they are read from the log."""
    state = Path(tempfile.mkdtemp(dir=place))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finding, "FEW", border)
        filled(state, before)
        rebuild(state)
        same(state, asked, limit, last)
        filled(state, after)
        log = Log.open(state)
        for kind, session, fields in unsettled:
            log.append(kind, session, fields)
        same(state, asked, limit, last)
        log.close()
        update(state)
        assert sorted(os.listdir(state)).count("index.sqlite") == 1
        same(state, asked, limit, last)
        assert not os.path.lexists(state / NEW)
    shutil.rmtree(state)


@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    events=st.lists(event, min_size=1, max_size=12),
    asked=st.lists(wanted, min_size=1, max_size=3),
    damage=st.lists(
        st.tuples(st.integers(0, 2**31), st.binary(min_size=1, max_size=64)), min_size=1, max_size=8
    ),
    cut=st.one_of(st.none(), st.integers(0, 2**31)),
)
def test_a_damaged_index_never_stops_an_answer(
    place: Path, events: list[Any], asked: list[dict[str, Any]], damage: list[Any], cut: int | None
) -> None:
    """It may lie, as any file that is not the log may; but nothing crashes, and it is told in one line."""
    state = Path(tempfile.mkdtemp(dir=place))
    filled(state, events)
    rebuild(state)
    file = Path(path_of(state))
    content = bytearray(file.read_bytes())
    for at, data in damage:
        at %= len(content)
        content[at : at + len(data)] = data
    file.write_bytes(content if cut is None else content[: cut % len(content)])
    told: list[str] = []
    for words in asked:
        list(find(state, Filter(**words), note=told.append))
    assert len(told) <= 1 and all("\n" not in line for line in told)
    if told:
        assert not file.exists()
        same(state, asked, None, None)
    shutil.rmtree(state)
