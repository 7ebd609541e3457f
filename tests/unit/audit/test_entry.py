"""The bytes of an entry."""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from anchorhold.audit import entry as module
from anchorhold.audit.entry import HEAD, LIMIT, Encoder, encode_fields, scan
from anchorhold.audit.log import Log
from anchorhold.errors import AuditError
from anchorhold.verify.entries import parse
from tests.unit.audit.logs import GRANT, records


def made(fields: dict[str, object], kind: str = "grant", session: str = "s") -> dict[str, Any]:
    data = Encoder().entry(7, session, kind, encode_fields(fields))
    assert int.from_bytes(data[:2], "big") == len(data) - 2
    return parse(data[2:])


def test_common_fields_come_first_and_the_rest_as_given() -> None:
    before = time.time()
    entry = made(GRANT)
    assert list(entry) == ["v", "seq", "time", "session", "kind", "nonce", *GRANT]
    assert {name: entry[name] for name in GRANT} == GRANT
    assert (entry["v"], entry["seq"], entry["session"], entry["kind"]) == (1, 7, "s", "grant")
    written = time.strptime(entry["time"][:19], "%Y-%m-%dT%H:%M:%S")
    assert abs(time.mktime(written) - time.mktime(time.gmtime(before))) <= 2
    assert made({})["kind"] == "grant"


def test_nonces_never_repeat() -> None:
    encoder = Encoder()
    nonces = {json.loads(encoder.entry(0, "", "k", "}")[2:])["nonce"] for _ in range(2000)}
    assert len(nonces) == 2000
    assert all(len(nonce) == 32 for nonce in nonces)


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
    prompt, other = "\u00e9" * 40_000, "b" * 70_000
    entry = made({"text": prompt, "other": other, "n": 1})
    assert entry["n"] == 1
    for name, value in (("text", prompt), ("other", other)):
        whole = json.dumps(value).encode()
        assert entry[name] == value[:HEAD]
        assert entry["shortened"][name] == {"bytes": len(whole), "sha256": hashlib.sha256(whole).hexdigest()}
    one = made({"text": prompt, "short": "c" * 5000})
    assert list(one["shortened"]) == ["text"]
    assert len(one["short"]) == 5000


def test_what_cannot_be_shortened_is_refused(tmp_path: Path) -> None:
    log = Log.open(tmp_path)
    with pytest.raises(AuditError, match="too long"):
        log.append("grant", "s", {"names": ["x" * 1000] * 100})
    with pytest.raises(AuditError, match="too long"):
        log.append("grant", "s", {"names": ["x" * 1000] * 100, "text": "y" * 10_000})
    assert log.append("grant", "s", {}) == 0
    log.close()


@pytest.mark.parametrize("size", [LIMIT - 400, LIMIT - 420, LIMIT - 380])
def test_around_the_limit(size: int) -> None:
    fields: dict[str, object] = {"text": "x" * (size - len('{"text":""}'))}
    data = Encoder().entry(2**63, "s" * 60, "k" * 20, encode_fields(fields))
    assert len(data) - 2 <= LIMIT
    assert ("shortened" in parse(data[2:])) == (size > LIMIT - 400)


@pytest.mark.parametrize("name", ["v", "seq", "time", "session", "kind", "nonce"])
def test_a_common_field_cannot_be_forged(name: str, tmp_path: Path) -> None:
    log = Log.open(tmp_path)
    with pytest.raises(AuditError, match="may not set"):
        log.append("grant", "s", {name: "forged"})
    assert log.size == 0
    log.close()


def test_text_cannot_forge_an_entry(tmp_path: Path) -> None:
    log = Log.open(tmp_path)
    log.append("grant", 's","kind":"kill', {"path": 'x"},{"kind":"kill"\n\0'})
    log.close()
    (entry,) = records(tmp_path)
    assert entry["kind"] == "grant"
    assert entry["session"] == 's","kind":"kill'


@pytest.mark.parametrize("value", [float("nan"), float("inf"), b"bytes", object(), {1, 2}])
def test_what_is_no_json_is_refused(value: object) -> None:
    with pytest.raises(AuditError, match="JSON"):
        encode_fields({"x": value})


def test_nesting_without_end_is_refused() -> None:
    loop: list[object] = []
    loop.append(loop)
    with pytest.raises(AuditError, match="JSON"):
        encode_fields({"x": loop})


@pytest.mark.parametrize(("session", "kind"), [("s" * 300, "grant"), ("s", "k" * 300), ("s", "")])
def test_session_and_kind_are_bounded(session: str, kind: str) -> None:
    with pytest.raises(AuditError, match="too long or empty"):
        Encoder().entry(0, session, kind, "}")


def test_many_sessions_do_not_fill_the_memory() -> None:
    encoder = Encoder()
    for number in range(3000):
        encoder.entry(0, str(number), "k", "}")
    assert len(encoder._heads) <= 1000


def test_without_the_c_encoder_the_bytes_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    import json.encoder

    fields: dict[str, object] = {"path": "\udcff\u00e9", "n": [1, 2.5, None, True, {"a": "b"}]}
    fast = encode_fields(fields)
    monkeypatch.setattr(json.encoder, "c_make_encoder", None)
    monkeypatch.setattr(module, "_encode", module._make_encode())
    assert encode_fields(fields) == fast


def test_scan_stops_at_what_is_no_entry() -> None:
    encoder = Encoder()
    one, two = (encoder.entry(seq, "s", "k", "}") for seq in (5, 6))
    assert scan(one + two, 5, parse=True) == (2, len(one + two))
    assert scan(two, 5, parse=False) == (0, 0)
    zeros = two[:60] + bytes(10) + two[70:]
    assert scan(one + zeros, 5, parse=False)[0] == 2  # the price of not parsing
    assert scan(one + zeros, 5, parse=True) == (1, len(one))
    for cut in range(len(two)):
        assert scan(one + two[:cut], 5, parse=False) == (1, len(one))
    assert scan(one + bytes(4096), 5, parse=True) == (1, len(one))
    assert scan(os.urandom(1000), 5, parse=True) == (0, 0)
