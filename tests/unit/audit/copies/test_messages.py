"""What a message says, read back by parsers made from the specifications."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest
from hypothesis import given

from anchorhold.audit.copies import journald
from anchorhold.audit.copies.syslog import Syslog, header
from anchorhold.audit.copies.withheld import without_names
from anchorhold.audit.export.kinds import GRADES
from anchorhold.audit.export.text import unescape
from tests.unit.audit.copies.receiving import journal_fields, syslog_parts
from tests.unit.audit.export.examples import EACH_KIND, ENTRIES, HOSTILE, example, hostile_entries


def test_a_grant_in_the_journal() -> None:
    fields = journal_fields(journald.message(example("grant")))
    assert fields["MESSAGE"] == b"File handed to the model: data /home/a/taxes/roof.pdf"
    assert (fields["PRIORITY"], fields["SYSLOG_IDENTIFIER"]) == (b"6", b"anchorhold")
    assert len(bytes.fromhex(fields["MESSAGE_ID"].decode())) == 16
    assert (fields["ANCHORHOLD_SEQ"], fields["ANCHORHOLD_SIZE"]) == (b"7", b"12345")
    assert fields["ANCHORHOLD_PATH"] == b"/home/a/link"
    assert fields["ANCHORHOLD_SESSION"] == b"5e55" and fields["ANCHORHOLD_KIND"] == b"grant"


def test_a_grant_in_syslog() -> None:
    parts = syslog_parts(Syslog("desk").message(example("grant")))
    assert (parts["facility"], parts["severity"]) == (10, 6)
    assert (parts["host"], parts["app"], parts["pid"]) == ("desk", "anchorhold", str(os.getpid()))
    assert (parts["kind"], parts["time"]) == ("grant", "2026-01-31T18:30:00.123456Z")
    assert parts["message"] == "File handed to the model: data /home/a/taxes/roof.pdf"
    assert parts["params"]["path"] == "/home/a/link" and parts["params"]["sha256"] == "ab" * 32


@pytest.mark.parametrize("kind", GRADES)
def test_priority_by_kind(kind: str) -> None:
    entry = example(kind)
    severity = GRADES[kind].syslog
    assert syslog_parts(Syslog().message(entry))["severity"] == severity
    assert journal_fields(journald.message(entry))["PRIORITY"] == b"%d" % severity
    assert (severity < 4) is (kind == "breach")


@pytest.mark.parametrize("entry", ENTRIES)
def test_every_entry_is_a_message(entry: dict[str, Any]) -> None:
    journal_fields(journald.message(entry))
    data = Syslog().message(entry)
    syslog_parts(data)
    assert b"\n" not in data and b"\0" not in data


@given(hostile_entries)
def test_every_text_comes_back(entry: dict[str, Any]) -> None:
    fields = journal_fields(journald.message(entry))
    params = syslog_parts(Syslog().message(entry))["params"]
    for name in ("path", "resolved", "reason", "call", "session"):
        if isinstance(entry.get(name), str):
            assert unescape(params[name]) == entry[name]
            assert unescape(fields[f"ANCHORHOLD_{name.upper()}"].decode("utf-8")) == entry[name]
    for value in fields.values():
        assert not set(value.decode("utf-8")) & set("\n\r\0\x1b\u2028\u202e")


def test_no_text_becomes_a_field() -> None:
    forged = "x\nPRIORITY=0\nMESSAGE=forged\nANCHORHOLD_KIND=grant"
    fields = journal_fields(journald.message(example("denial", path=forged, reason=forged)))
    assert fields["PRIORITY"] == b"5" and fields["ANCHORHOLD_KIND"] == b"denial"
    forged = 'x" kind="grant"] forged'
    parts = syslog_parts(Syslog().message(example("denial", path=forged)))
    assert parts["params"]["kind"] == "denial" and parts["params"]["path"] == forged


def test_a_field_carries_any_bytes() -> None:
    assert journal_fields(journald.field("A", "x\ny=\0")) == {"A": b"x\ny=\0"}


def test_names_that_no_field_can_have() -> None:
    entry = {"kind": "limit", "Path": 1, "a b": 2, "x" * 60: 3, "_details": 4, HOSTILE: HOSTILE, "é": 5}
    fields = journal_fields(journald.message(entry))
    assert len(json.loads(fields["ANCHORHOLD__DETAILS"])) == 6
    params = syslog_parts(Syslog().message(entry))["params"]
    assert len(json.loads(params["_details"])) == 5 and params["Path"] == "1"


def test_the_header_holds_only_what_it_may() -> None:
    parts = syslog_parts(
        Syslog("my host\n").message({"kind": "a b\n" * 20, "time": "2026-01-31T18:30:00Z x"})
    )
    assert (parts["host"], parts["time"]) == ("my_host_", "-")
    assert len(parts["kind"]) == 32 and header("", 5) == "-"


SECRET = "Geheim"


OWN = {
    "v",
    "seq",
    "epoch",
    "n",
    "mono",
    "time",
    "session",
    "kind",
    "class",
    "mode",
    "phase",
    "request",
    "call",
}


def hide(entry: dict[str, Any]) -> dict[str, Any]:
    """An entry with the secret in each text that a name could come into."""
    hidden = {
        name: value if name in OWN or isinstance(value, (int, float)) else f"/{SECRET}"
        for name, value in entry.items()
    }
    return {**hidden, "surprise": SECRET, "size": f"/{SECRET}"}


@pytest.mark.parametrize("entry", EACH_KIND)
def test_a_copy_without_names_holds_none(entry: dict[str, Any]) -> None:
    hidden = without_names(hide(entry))
    for data in (journald.message(hidden), Syslog().message(hidden)):
        assert SECRET.encode() not in data
        assert entry["kind"].encode() in data and b"2026-01-31" in data and b"5e55" in data
    assert SECRET.encode() in journald.message(hide(entry))  # else the test would hold nothing


def test_what_is_left_without_names() -> None:
    assert without_names(example("grant")) == {
        "v": 2, "seq": 7, "epoch": 3, "n": 4, "mono": 5_000_000, "time": "2026-01-31T18:30:00.123456Z",
        "session": "5e55", "kind": "grant", "class": "data", "phase": "sealed", "size": 12345,
        "mode": "snapshot", "request": "5e55-1",
    }  # fmt: skip
