"""The bytes of a record, and of the entry that it becomes."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from anchorhold.audit import entry as module
from anchorhold.audit.entry import (
    HEAD,
    LIMIT,
    RECORD_HEAD,
    Encoder,
    build,
    encode_grant,
    encode_group,
    encode_public,
    is_sound,
    records,
    split,
)
from anchorhold.audit.log import Log
from anchorhold.errors import AuditError
from anchorhold.verify.entries import Entry, opened, openings_at
from tests.unit.audit.logs import GRANT
from tests.unit.audit.logs import records as stored

NAME = "a" * 16


def made(fields: dict[str, object], kind: str = "grant", session: str = NAME) -> dict[str, Any]:
    """An event as the verifier, which shares no code with the writer, reads it back."""
    public, groups = split(kind, fields)
    encoded = [encode_group(group) if group else b"" for group in groups]
    record = Encoder().record(session, kind, encode_public(public), *encoded)
    ((shown, openings, end),) = records(record)
    assert end == len(record)
    data = build(7, shown, openings)
    entry = Entry(data)
    found, stop = openings_at(openings, 0)
    assert stop == len(openings) and entry.seq == 7 and len(data) <= LIMIT
    flat = {name: value for name, value in entry.fields.items() if name not in entry.commitments}
    for (_, opening), commitment in zip(found, entry.commitments.values(), strict=True):
        assert base64.b64encode(hashlib.sha256(opening).digest()).decode() == commitment
        flat.update(opened(opening))
    return flat


def test_common_members_come_first_and_the_rest_as_given() -> None:
    before = time.time()
    entry = made(GRANT)
    assert list(entry)[:7] == ["v", "seq", "time", "mono", "session", "n", "kind"]
    assert {name: entry[name] for name in GRANT} == GRANT
    assert (entry["v"], entry["session"], entry["n"], entry["kind"]) == (2, NAME, 0, "grant")
    written = time.strptime(entry["time"][:19], "%Y-%m-%dT%H:%M:%S")
    assert abs(time.mktime(written) - time.mktime(time.gmtime(before))) <= 2
    assert abs(entry["mono"] - time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000) < 2_000_000
    assert "n" not in made({}, "policy.load", "")


def test_the_quick_form_of_a_grant_is_what_the_verifier_matches_at_once() -> None:
    from anchorhold.verify.entries import GRANT as PATTERN

    public = {name: GRANT[name] for name in ("class", "size", "mode", "phase")}
    for more in ({}, {"request": 3}):
        record = Encoder().record(NAME, "grant", encode_public({**public, **more}), b"{}", b"{}")
        ((shown, openings, _),) = records(record)
        assert PATTERN.fullmatch(build(7, shown, openings))


@pytest.mark.parametrize("request_", [None, 3])
@pytest.mark.parametrize("path", ["/a", '/\udcff\u00e9"\\\n\u202e', "/" + "x" * 70_000])
def test_grants_are_encoded_as_everything_is(path: str, request_: int | None) -> None:
    public: dict[str, object] = {"class": "data", "size": 70, "mode": "snapshot", "phase": "sealed"}
    if request_ is not None:
        public["request"] = request_
    names = encode_group({"path": path, "resolved": "/b"})
    assert encode_grant("data", 70, "snapshot", "sealed", request_, path, "/b") == (
        encode_public(public),
        names,
    )


def test_private_fields_are_in_groups() -> None:
    public, (names, digests, text) = split(
        "grant", {"path": "/a", "resolved": "/b", "sha256": "c", "size": 1, "reason": "r", "files": ["/d"]}
    )
    assert public == {"size": 1} and digests == {"sha256": "c"} and text is None
    assert names == {"path": "/a", "resolved": "/b", "reason": "r", "files": ["/d"]}
    assert split("request.end", {"reason": "stop"})[0] == {"reason": "stop"}
    assert split("request.start", {"prompt": {"text": "t"}})[1][2] == {"prompt": {"text": "t"}}
    assert split("request.start", {"prompt": {"salt": "s"}})[0] == {"prompt": {"salt": "s"}}


def test_paths_of_any_bytes_round_trip() -> None:
    raw = bytes(range(1, 256)).replace(b"/", b"")
    path = raw.decode("utf-8", "surrogateescape")
    assert made({"path": path})["path"].encode("utf-8", "surrogateescape") == raw


def test_the_longest_path_of_bytes_that_are_no_utf8_fits_twice() -> None:
    longest = (b"/" + b"\xff" * 4095).decode("utf-8", "surrogateescape")
    entry = made({**GRANT, "path": longest, "resolved": longest})
    assert entry["path"] == entry["resolved"] == longest
    assert "shortened" not in entry


def test_what_does_not_fit_is_shortened_and_committed_to() -> None:
    note, other = "\u00e9" * 40_000, "b" * 70_000
    entry = made({"note": note, "other": other, "number": 1})
    assert entry["number"] == 1
    for name, value in (("note", note), ("other", other)):
        whole = json.dumps(value).encode()
        assert entry[name] == value[:HEAD]
        assert entry["shortened"][name] == {"bytes": len(whole), "sha256": hashlib.sha256(whole).hexdigest()}
    one = made({"reason": note, "path": "c" * 5000})
    assert list(one["shortened"]) == ["reason"]
    assert len(one["path"]) == 5000


def test_what_cannot_be_shortened_is_refused(state_dir: Path) -> None:
    log = Log.open(state_dir)
    long: list[dict[str, object]] = [
        {"files": ["x" * 1000] * 100},
        {"note": ["x" * 1000] * 100, "reason": "y"},
    ]
    for fields in long:
        with pytest.raises(AuditError, match="too long"):
            log.append("grant", NAME, fields)
    log.append("policy.load", "", {})
    log.checkpoint()
    log.close()
    assert len(stored(state_dir)) == 2


@pytest.mark.parametrize("size", [LIMIT - 600, LIMIT - 620, LIMIT - 580])
def test_around_the_limit(size: int) -> None:
    entry = made({"note": "x" * (size - len('{"note":""}'))}, "k" * 20 + "." + "k" * 20)
    assert ("shortened" in entry) == (size > LIMIT - 600)


@pytest.mark.parametrize("name", sorted(module.COMMON))
def test_a_common_member_cannot_be_forged(name: str, state_dir: Path) -> None:
    log = Log.open(state_dir)
    for fields in ({name: "forged"}, {"path": "/x", name: 1}):
        with pytest.raises(AuditError, match="may not set"):
            log.append("grant", NAME, dict(fields))
    with pytest.raises(AuditError, match="may not set"):
        encode_group({name: "forged"})
    log.close()


def test_text_cannot_forge_an_entry(state_dir: Path) -> None:
    hostile = 'x"},{"kind":"kill"\n\0\u2028'
    log = Log.open(state_dir)
    log.append("session.start", NAME, {"path": hostile, hostile: hostile})
    log.checkpoint()
    log.close()
    _, entry = stored(state_dir)
    assert entry["kind"] == "session.start" and entry["path"] == entry[hostile] == hostile


@pytest.mark.parametrize("value", [float("nan"), 1.5, float("inf"), b"bytes", object(), {1, 2}, [[1.5]]])
def test_what_is_no_json_of_integers_is_refused(value: object, state_dir: Path) -> None:
    log = Log.open(state_dir)
    with pytest.raises(AuditError, match="JSON|fraction"):
        log.append("grant", NAME, {"x": value})
    log.close()


def test_nesting_without_end_is_refused() -> None:
    loop: list[object] = []
    loop.append(loop)
    for call in (lambda: split("k", {"x": loop}), lambda: encode_public({"x": loop})):
        with pytest.raises(AuditError, match="JSON"):
            call()


@pytest.mark.parametrize(
    ("session", "kind"),
    [("s", "grant"), ("A" * 16, "grant"), (NAME + "a", "grant"), (NAME, ""), (NAME, "K"), (NAME, "a.b.c"),
     (NAME, 'k"'), (NAME, "k" * 21)],
)  # fmt: skip
def test_names_of_sessions_and_kinds_have_a_form(session: str, kind: str) -> None:
    with pytest.raises(AuditError, match="cannot be of kind"):
        Encoder().record(session, kind, "", b"")


def test_many_sessions_do_not_fill_the_memory() -> None:
    encoder = Encoder()
    for number in range(3000):
        encoder.record(f"{number:016x}", "k", "", b"")
        encoder.written(f"{number:016x}")
        encoder.forget(f"{number:016x}")
    assert len(encoder._heads) <= 1000 and len(encoder._numbers) == 0


def test_without_the_c_encoder_the_bytes_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    import json.encoder

    fields: dict[str, object] = {"path": "\udcff\u00e9", "list": [1, None, True, {"a": "b"}]}
    fast = encode_public(fields)
    monkeypatch.setattr(json.encoder, "c_make_encoder", None)
    monkeypatch.setattr(module, "encode", module._make_encode())
    assert encode_public(fields) == fast


def test_reading_stops_at_what_is_no_record() -> None:
    encoder = Encoder()
    one, two = (encoder.record(NAME, "k", ',"x":1', b"{}") for _ in range(2))
    assert [end for _, _, end in records(one + two)] == [len(one), len(one + two)]
    for cut in range(len(two)):
        assert [end for _, _, end in records(one + two[:cut])] == [len(one)]
    assert len(list(records(one + bytes(4096)))) == 1
    ((shown, openings, _),) = records(two)
    assert is_sound(shown, openings)
    for at in range(RECORD_HEAD, len(two) - 12):
        damaged = two[:at] + bytes(12) + two[at + 12 :]
        found = list(records(damaged))
        in_salt = damaged[: len(two) - 18] == two[: len(two) - 18] and damaged[-2:] == two[-2:]
        assert in_salt or not all(is_sound(shown, openings) for shown, openings, _ in found)
    assert not any(is_sound(shown, openings) for shown, openings, _ in records(os.urandom(1000)))
