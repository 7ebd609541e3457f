"""What the entries add up to, whatever is in them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from anchorhold.audit.report import gather as module
from anchorhold.audit.report.gather import Gathered, gather
from anchorhold.audit.report.page import Frame, render
from anchorhold.audit.report.tree import DEPTH, Tree, split
from tests.unit.audit.report.entries import RESULT, START, Maker, many


def added(*entries: dict[str, Any]) -> Gathered:
    found = gather(entries)
    found.documents.total()
    found.program.total()
    return found


def test_files_and_times() -> None:
    make = Maker()
    found = added(
        make.start(),
        make.grant("/home/a/one"),
        make.grant("/home/a/one"),
        make.grant("/home/a/two", resolved="/home/b/two"),
        make.grant("-", **{"class": "stdin"}),
        make.grant("/usr/lib/x.py", **{"class": "runtime"}),
        make.grant("/proc/cpuinfo", **{"class": "system"}),
        make.grant("/dev/urandom", **{"class": "device"}),
        make.grant("/m/small.gguf", **{"class": "model"}),
        make.grant("/home/a/new", **{"class": "of tomorrow"}),
    )
    assert (found.documents.files, found.documents.times) == (4, 5)
    assert (found.program.files, found.program.times, found.model_grants) == (3, 3, 1)
    assert found.documents.exact
    home = found.documents.root.folders["/home"]
    assert sorted(home.folders) == ["a", "b"]
    assert (home.all_files, home.all_times) == (3, 4)
    assert home.folders["a"].files["one"].times == 2
    assert found.sessions["5e55"].files == 4 and found.sessions["5e55"].exact


def test_a_file_whose_content_changes() -> None:
    make = Maker()
    entries = []
    for digest in ("aa" * 32, "aa" * 32, "bb" * 32, "aa" * 32):
        entries.append(make.grant("/a", sha256=digest))
        make.at += timedelta(hours=1)
    file = added(*entries).documents.root.files["/a"]
    assert (file.times, file.changes, file.digest) == (4, 2, "aa" * 6)
    assert (file.first, file.last) == ("2026-01-05T08:00", "2026-01-05T11:00")


def test_a_clock_that_goes_back() -> None:
    make = Maker()
    late = make.grant("/a")
    make.at -= timedelta(days=3)
    found = added(late, make.grant("/a"))
    assert found.documents.root.files["/a"].first == "2026-01-02T08:00"
    assert found.first < found.last == late["time"]


def test_redacted_names_count_by_digest() -> None:
    make = Maker()

    def withheld(*groups: str, **fields: Any) -> dict[str, Any]:
        return make("grant", **{"class": "data", "size": 1, "redacted": list(groups), **fields})

    found = added(
        withheld("names", sha256="aa" * 32),
        withheld("names", sha256="aa" * 32),
        withheld("names", sha256="bb" * 32),
        withheld("names", "digests"),
        make("denial", call="openat", phase="sealed", count=2, redacted=["names"]),
    )
    assert (found.documents.files, found.documents.times) == (2, 4)
    assert not found.documents.exact and not found.sessions["5e55"].exact
    assert found.with_redaction == 5
    assert found.reasons[False, None].asked == {("openat", ""): 2}


def test_refusals() -> None:
    make = Maker()
    found = added(
        make("denial", call="openat", path="/x", reason="no rule", count=3, phase="sealed"),
        make("denial", call="statx", path="/x", reason="no rule", phase="sealed"),
        make("denial", call="socket", reason="no network", count="many", phase="sealed"),
        make("denial", call="openat", path="/etc/x", reason="no rule", count=7, phase="boot"),
        make("denial", call="openat", path="/x", reason="no rule", count=-5, phase="sealed"),
        make("denial", call="openat", path="/x", reason="no rule", count=True, phase="sealed"),
    )
    assert (found.refused, found.refused_at_start) == (14, 7)
    assert found.reasons[False, "no rule"].asked == {("openat", "/x"): 5, ("statx", "/x"): 1}
    assert found.reasons[True, "no rule"].count == 7
    assert found.sessions["5e55"].refused == 7
    assert found.hours == {"2026-01-05T08": [0, 7]}


def test_models_policies_sessions() -> None:
    make = Maker()
    found = added(
        make.start("one"),
        make("session.end", "one", reason="done"),
        make.start("two", policy="strict", model_path="/m/other name.gguf"),
        make.start("three", redacted=["names"], policy=None, model_path=None),
        make.start("four", policy="old", model={"path": "/m/v1.gguf", "sha256": "dd" * 32, "size": 5}),
    )
    model = found.models["ee" * 32]
    assert (model.sessions, model.names) == (3, ["small.gguf", "other name.gguf", None])
    assert found.models["dd" * 32].names == ["small.gguf"]
    assert found.policies["0f" * 32].users == ["one", "two", "three", "four"]
    assert found.no_end == 3
    assert found.sessions["one"].end and not found.sessions["two"].end


def test_what_went_wrong() -> None:
    make = Maker()
    found = added(
        make("breach", call="execve", path="/bin/sh", reason="no programs"),
        make("kill", reason="Ctrl-C", microseconds=3412),
        make("kill", reason="Ctrl-C", milliseconds=7.4),
        make("kill", reason="Ctrl-C", milliseconds=float("inf")),
        make("limit", limit="memory", detail="too much"),
        make("redaction", "", count=3, what=["names"], ranges=[[1, 3]], reason="asked to", by="anna"),
        make("redaction", "", count=2, what="names"),
        make("log.recovered", ""),
    )
    assert (found.breaches, found.kills, found.limits, found.recovered) == (1, 3, 1, 1)
    assert [event.detail for event in found.incidents] == ["", "dead after 3 ms", "dead after 7 ms", "", ""]
    assert found.redacted_entries == 5
    assert (found.redactions[0].what, found.redactions[0].detail) == ("names", "anna")


def test_memory_is_bounded(monkeypatch: Any) -> None:
    for limit in ("SESSIONS", "REASONS", "ASKED", "EVENTS", "HOURS", "DIGESTS", "SESSION_FILES"):
        monkeypatch.setattr(module, limit, 20)
    found = Gathered()
    found.documents = Tree(files=30, folders=25)
    make = Maker()
    for number in range(500):
        session = f"s{number}"
        make.at += timedelta(hours=1)
        found.add(make.start(session, policy_sha256=f"{number:064}", model={"sha256": f"{number:064}"}))
        found.add(make.grant(f"/top/{number}/file", session))
        found.add(make.grant("/top/again", session))
        found.add(
            make("denial", session, call="openat", path=f"/{number}", reason=str(number), phase="sealed")
        )
        found.add(make("breach", session, call="execve"))
        found.add(make("redaction", "", count=1, what=["names"]))
    assert (len(found.sessions), found.session_count) == (20, 500)
    assert len(found.reasons) <= 22
    assert sum(len(reason.asked) for reason in found.reasons.values()) <= 20
    assert sum(reason.count for reason in found.reasons.values()) == found.refused == 500
    assert (len(found.incidents), found.breaches) == (20, 500)
    assert (len(found.redactions) + found.redactions_left_out, found.redacted_entries) == (500, 500)
    assert len(found.hours) == 20 and found.untimed == 1500 - sum(map(sum, found.hours.values()))
    assert len(found.models) == 20
    found.documents.total()
    assert found.documents.times == 1000
    assert not found.documents.exact and found.documents.files <= 30
    assert "at least" in render(found, RESULT, Frame(START, "1")).decode()


def test_a_session_keeps_no_files_after_its_end() -> None:
    make = Maker()
    entries = [make.start(), *(make.grant(f"/{number}") for number in range(50)), make("session.end")]
    session = added(*entries).sessions["5e55"]
    assert session.files == 50
    assert not session._files


def test_paths_are_split_in_bounded_depth() -> None:
    assert split("/home/a/x") == ["/home", "a", "x"]
    assert split("//home///a/") == ["/home", "a"]
    assert split("x") == ["x"]
    assert split("/") == ["/"]
    assert split("") == ["?"]
    deep = split("/" + "/".join("d" * 3000))
    assert len(deep) == DEPTH
    assert sum(len(part) for part in deep) + DEPTH - 1 == 6000


def test_the_numbers_of_many_entries() -> None:
    found = gather(many(20_000))
    found.documents.total()
    shown = sum(counts[0] for counts in found.hours.values())
    assert found.entries == 20_000
    assert shown == found.documents.times == found.documents.files > 19_000
    assert shown + found.refused + 5 * found.session_count == 20_000


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
FIELDS = (
    "seq", "time", "session", "redacted", "class", "path", "resolved", "sha256", "size", "count", "call",
    "reason", "phase", "policy", "policy_sha256", "model", "model_path", "limit", "detail", "text", "what",
    "by", "step", "listed", "names", "microseconds", "milliseconds", "unsettled", "request",
)  # fmt: skip
KINDS = tuple(module._HANDLERS)
ENTRY = st.builds(
    lambda kind, fields: {"kind": kind, **fields},
    st.sampled_from(KINDS) | JSON,
    st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=len(FIELDS)),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(ENTRY, max_size=12))
def test_no_entry_breaks_it(entries: list[dict[str, Any]]) -> None:
    page = render(gather(entries), RESULT, Frame(START, "1"))
    page.decode("utf-8")


def test_numbers_too_long_to_print() -> None:
    make = Maker()
    huge = 10**5000
    entries = [
        make.grant("/a", size=huge, seq=huge),
        make("denial", call="openat", count=huge, phase="sealed"),
        make("redaction", count=huge, what=[huge]),
        make("kill", milliseconds=huge, microseconds=huge),
    ]
    for entry in entries:
        entry["seq"] = huge
    render(gather(entries), {**RESULT, "entries": huge, "findings": [{"seq": huge}]}, Frame(START, "1"))
