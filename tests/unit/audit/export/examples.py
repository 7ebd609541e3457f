"""Entries to export: one of each kind as the supervisor writes it, and hostile ones."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from anchorhold.audit.export.kinds import GRADES

HOSTILE = (
    "/home/a/\x1b]0;owned\x07\x1b[2J\u202eexe.fdp\n  7  forged\r\nCEF:0|x|y|z|1|n|9|act=allowed\udcff\x9b31m"
    '\u2028\x00"q",;=cmd|calc\\]=1\\u000a \ud83d'
)
"""Ends lines, fields and quotes of every format; bytes that are no UTF-8; a formula; our own escapes."""

_HEAD = {
    "v": 2,
    "epoch": 3,
    "n": 4,
    "mono": 5_000_000,
    "time": "2026-01-31T18:30:00.123456Z",
    "session": "5e55",
}
_FILE = {"path": "/home/a/link", "resolved": "/home/a/taxes/roof.pdf", "class": "data", "phase": "sealed"}

FIELDS: dict[str, dict[str, Any]] = {
    "session.start": {"policy": "taxes", "policy_sha256": "cd" * 32, "layers": {"seccomp": "yes"}},
    "session.sealed": {"versions": {"engine": "1"}, "trial": "executable mapping refused"},
    "session.end": {"reason": "done", "shown": 1, "denied": 0},
    "request.start": {"request": "5e55-1", "files": ["/home/a/roof.pdf"], "temperature": 0.7},
    "request.end": {"request": "5e55-1", "reason": "stop", "output_tokens": 12},
    "grant": {**_FILE, "sha256": "ab" * 32, "size": 12345, "mode": "snapshot", "request": "5e55-1"},
    "list": {**_FILE, "names": 3, "hidden": 1},
    "denial": {"call": "openat", "path": "/etc/passwd", "reason": "outside every root", "count": 3},
    "breach": {"call": "openat", "path": "/etc/shadow", "reason": "outside every root"},
    "policy.load": {"policy": "taxes"},
    "limit": {"limit": "memory", "text": "it went over limits.memory"},
    "kill": {"reason": "interrupted", "milliseconds": 3.25},
    "log.recovered": {"bytes": 17, "sha256": "ef" * 32},
    "epoch.start": {},
    "epoch.end": {},
    "prune": {"epochs": [0, 3], "reason": "old", "by": "a"},
    "redaction": {"count": 2, "what": "names", "ranges": [[1, 2]], "reason": "asked", "by": "a"},
}


def example(kind: str, **fields: Any) -> dict[str, Any]:
    return {"v": 2, "seq": 7, **_HEAD, "kind": kind, **FIELDS.get(kind, {}), **fields}


def without(entry: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in entry.items() if name not in names}


EACH_KIND = [example(kind) for kind in GRADES]
ODD = [
    example("denial", path=HOSTILE, reason=HOSTILE, call=HOSTILE),
    without(example("denial", call="socket"), "path"),
    without(example("denial", call="socket", redacted=["names"]), "path"),
    without(example("breach", call="?"), "path"),
    without(example("grant", redacted=["names", "digests"]), "path", "resolved", "sha256"),
    example("grant", mode="direct"),
    example("grant", **{"class": "stdin", "path": "-", "resolved": "-"}),
    example("grant", path="/", resolved="/"),
    example("grant", size="big", count="x", seq="y", epoch=None, n=-1, sha256=["z"], path=7, resolved={}),
    example("grant", size=2**70, seq=2**70, count=0),
    example("kind that nobody knows", x=HOSTILE, nested={"a": [HOSTILE, {HOSTILE: float("nan")}]}),
    example(HOSTILE, session=HOSTILE, time=HOSTILE, v=HOSTILE, **{HOSTILE: HOSTILE}),
    {name: HOSTILE for name in (*example("grant"), "call", "reason", "count", "request", "redacted")},
    {},
    {"kind": None, "time": "9999-99-99T00:00:00Z"},
    {"kind": "grant", "deep": None},
]
ENTRIES = EACH_KIND + ODD

deep: list[Any] = []
for _ in range(200):
    deep = [deep, HOSTILE]
ODD[-1]["deep"] = deep

nasty = st.text(
    st.one_of(
        st.sampled_from(
            "\\\"'|=+-@;,:]) \n\r\t\x00\x1b\x7f\x85\u2028\u202e\ufeff\ud800\udc80\udcff\udfff\U0001f600"
        ),
        st.characters(codec=None),
    ),
    max_size=20,
)
values = st.recursive(
    st.one_of(nasty, st.integers(), st.floats(), st.none(), st.booleans()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(nasty, inner, max_size=3)),
    max_leaves=6,
)
names = st.sampled_from(sorted({*example("grant"), *example("denial"), "redacted", "files", "text"}))
hostile_entries = st.dictionaries(st.one_of(names, nasty), values, max_size=12).flatmap(
    lambda entry: st.sampled_from(sorted(GRADES)).map(lambda kind: {"kind": kind, **entry})
)
"""Any entry that could be read back, and more."""
