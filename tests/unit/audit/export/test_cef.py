"""CEF, read back by a parser of this test's own."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given

from anchorhold.audit.export import export
from anchorhold.audit.export.cef import Cef
from anchorhold.audit.export.kinds import GRADES
from anchorhold.audit.export.text import unescape
from tests.unit.audit.export.examples import ENTRIES, HOSTILE, example, hostile_entries

KEYS = {
    "rt", "dvchost", "externalId", "cat", "act", "outcome", "fname", "filePath", "fsize", "fileHash",
    "fileType", "reason", "cnt", "cs1", "cs1Label", "cs2", "cs2Label", "cs3", "cs3Label", "cs4", "cs4Label",
    "cs5", "cs5Label", "cs6", "cs6Label", "cn1", "cn1Label", "cn2", "cn2Label", "cn3", "cn3Label",
}  # fmt: skip
"""Of ArcSight's extension dictionary."""


def parse(line: bytes) -> tuple[list[str], dict[str, str]]:
    """Header and extension as the CEF Implementation Standard has them, each character looked at once."""
    text = line.decode("utf-8")
    assert text.endswith("\n") and text.count("\n") == 1 and "\r" not in text
    header: list[str] = []
    part, at = "", 0
    while len(header) < 7:
        character = text[at]
        if character == "\\":
            assert text[at + 1] in "\\|", text[at : at + 10]
            part += text[at + 1]
            at += 2
        elif character == "|":
            header.append(part)
            part, at = "", at + 1
        else:
            part += character
            at += 1
    extension: dict[str, str] = {}
    rest = text[at:-1]
    keys = list(re.finditer(r"(?:^| )([A-Za-z0-9]+)(?<!\\)=", rest))
    for this, following in zip(keys, [*keys[1:], None], strict=True):
        raw = rest[this.end() : following.start() if following else len(rest)]
        value = re.sub(r"\\(.)", lambda escaped: {"n": "\n", "r": "\r"}.get(escaped[1], escaped[1]), raw)
        assert re.fullmatch(r"(?:[^\\=]|\\[\\=])*", raw), raw
        assert this[1] not in extension, f"{this[1]} twice"
        extension[this[1]] = value.strip()
    assert not rest or keys[0].start() == 0
    return header, extension


def one(entry: dict[str, Any]) -> tuple[list[str], dict[str, str]]:
    (line,) = export([entry], "cef")
    return parse(line)


def test_a_grant() -> None:
    header, extension = one(example("grant"))
    assert header[:3] == ["CEF:0", "anchorhold", "anchorhold"]
    assert header[4:] == ["grant", "File handed to the model", "1"]
    assert extension["rt"] == "1769884200123"
    assert (extension["act"], extension["outcome"]) == ("allowed", "success")
    assert (extension["fname"], extension["filePath"]) == ("roof.pdf", "/home/a/taxes/roof.pdf")
    assert (extension["cs4"], extension["cs4Label"]) == ("/home/a/link", "pathAsAsked")
    assert (extension["fsize"], extension["fileHash"]) == ("12345", "ab" * 32)
    assert (extension["cs1"], extension["cs2"], extension["externalId"]) == ("5e55", "5e55-1", "3/7")
    assert extension["cs5"] == "snapshot sealed" and json.loads(extension["cs6"]) == {"mono": 5_000_000}
    assert (extension["cn1"], extension["cn2"], extension["cn3"]) == ("7", "3", "4")


@pytest.mark.parametrize("kind", GRADES)
def test_severity_by_kind(kind: str) -> None:
    header, _extension = one(example(kind))
    assert header[4] == kind and header[6] == str(GRADES[kind].cef)
    assert 0 <= int(header[6]) <= 10
    assert (int(header[6]) >= 9) is (kind == "breach")


def test_denials_say_so() -> None:
    _header, extension = one(example("denial"))
    assert (extension["act"], extension["outcome"], extension["cnt"]) == ("denied", "failure", "3")
    assert extension["cs3"] == "openat"


@pytest.mark.parametrize("entry", ENTRIES)
def test_only_keys_of_the_dictionary(entry: dict[str, Any]) -> None:
    _header, extension = one(entry)
    assert extension.keys() <= KEYS
    for name in [name for name in extension if re.fullmatch(r"c[sn]\d", name)]:
        assert extension[f"{name}Label"]


def test_hostile_text_makes_no_field() -> None:
    header, extension = one(example("denial", path=HOSTILE, reason="x act=allowed outcome=success"))
    assert (header[4], extension["act"], extension["outcome"]) == ("denial", "denied", "failure")
    assert unescape(extension["filePath"]) == HOSTILE
    assert extension["reason"] == "x act=allowed outcome=success"


def test_hostile_header() -> None:
    header, _extension = one(example("a|b\\c\nd", path="/x"))
    assert unescape(header[4]) == "a|b\\c\nd" and len(header) == 7


@given(hostile_entries)
def test_every_text_comes_back(entry: dict[str, Any]) -> None:
    _header, extension = one(entry)
    for key, name in (("reason", "reason"), ("cs1", "session"), ("cs3", "call"), ("fileType", "class")):
        if isinstance(entry.get(name), str):
            assert unescape(extension.get(key, "")) == entry[name]


def test_spaces_at_the_ends_stay() -> None:
    _header, extension = one(example("grant", path="/a/ b \u3000", resolved="  "))
    assert unescape(extension["cs4"]) == "/a/ b \u3000"
    assert unescape(extension["filePath"]) == "  "


def test_the_host() -> None:
    _header, extension = parse(Cef("a=b\nc").line(example("grant")))
    assert extension["dvchost"] == "a=b\\u000ac"
