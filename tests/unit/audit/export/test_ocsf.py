"""OCSF: every event against tables kept here by hand, from the schema 1.8.0 (github.com/ocsf/ocsf-schema).

They are not the code's: required attributes and values were copied from `events/`, `objects/`, `profiles/`
and `dictionary.json` of that version.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given

from anchorhold.audit.export import export
from anchorhold.audit.export.ocsf import Ocsf
from anchorhold.audit.export.text import escape, unescape
from tests.unit.audit.export.examples import EACH_KIND, ENTRIES, HOSTILE, example, hostile_entries, without

BASE_REQUIRED = {
    "activity_id", "category_uid", "class_uid", "metadata", "severity_id", "time", "type_uid",
}  # fmt: skip
BASE = BASE_REQUIRED | {
    "action", "action_id", "activity_name", "actor", "category_name", "class_name", "count", "device",
    "disposition", "disposition_id", "is_alert", "message", "severity", "status", "status_detail",
    "status_id", "type_name", "unmapped",
}  # fmt: skip
"""Attributes of the base event and of its profiles host and security_control that are used."""

CLASSES: dict[int, dict[str, Any]] = {
    0: {"name": "Base Event", "category": 0, "required": set(), "own": set(), "activities": {0, 99}},
    1001: {
        "name": "File System Activity", "category": 1, "required": {"actor", "device", "file"},
        "own": {"file"},
        "activities": {*range(15), 99},
    },
    1003: {
        "name": "Kernel Activity", "category": 1, "required": {"actor", "device", "kernel"},
        "own": {"kernel"},
        "activities": {0, 1, 2, 3, 4, 99},
    },
    1008: {
        "name": "Event Log Activity", "category": 1, "required": {"log_name"}, "own": {"log_name"},
        "activities": {*range(11), 99},
    },
    2004: {
        "name": "Detection Finding", "category": 2, "required": {"finding_info"},
        "own": {"finding_info", "evidences"}, "activities": {0, 1, 2, 3, 99},
    },
    6002: {
        "name": "Application Lifecycle", "category": 6, "required": {"app"}, "own": {"app"},
        "activities": {*range(9), 99},
    },
}  # fmt: skip
"""``required`` adds to the base event's. Event Log Activity demands one of five; ours is log_name."""

ACTIVITIES = {
    1001: {1: "Create", 2: "Read", 4: "Delete", 5: "Rename", 6: "Set Attributes", 7: "Set Security",
           8: "Get Attributes", 14: "Open"},
    1003: {4: "Invoke"},
    1008: {2: "Delete", 5: "Rotate", 6: "Start"},
    2004: {1: "Create"},
    6002: {3: "Start", 4: "Stop"},
}  # fmt: skip
CATEGORIES = {0: "Uncategorized", 1: "System Activity", 2: "Findings", 6: "Application Activity"}
SEVERITIES = {0: "Unknown", 1: "Informational", 2: "Low", 3: "Medium", 4: "High", 5: "Critical", 6: "Fatal"}
STATUSES = {0: "Unknown", 1: "Success", 2: "Failure"}
FINDING_STATUSES = {0: "Unknown", 1: "New", 2: "In Progress", 3: "Suppressed", 4: "Resolved"}
ACTIONS = {0: "Unknown", 1: "Allowed", 2: "Denied"}
DISPOSITIONS = {0: "Unknown", 1: "Allowed", 2: "Blocked"}
FILE_TYPES = {0: "Unknown", 1: "Regular File", 2: "Folder"}

OBJECTS: dict[str, tuple[set[str], set[str]]] = {
    "metadata": (
        {"product", "version"},
        {"correlation_uid", "event_code", "log_name", "log_version", "original_time", "profiles", "sequence",
         "uid"},
    ),
    "product": (set(), {"name", "vendor_name", "version"}),
    "device": ({"type_id"}, {"hostname", "type"}),
    "actor": (set(), {"app_name", "session"}),
    "session": (set(), {"uid"}),
    "file": ({"name", "type_id"}, {"hashes", "path", "size", "type"}),
    "fingerprint": ({"algorithm_id", "value"}, {"algorithm"}),
    "kernel": ({"name", "type_id"}, {"type"}),
    "finding_info": ({"uid"}, {"title", "desc"}),
    "evidences": (set(), {"data", "file"}),
}  # fmt: skip
"""Of each object: what it must have, and what else of the schema is used."""

LONG, INTEGER = 2**63 - 1, 2**31 - 1


def event(entry: dict[str, Any]) -> dict[str, Any]:
    (line,) = export([entry], "ocsf")
    assert line.isascii() and line.endswith(b"\n") and line.count(b"\n") == 1
    made = json.loads(line, parse_constant=lambda word: pytest.fail(word))
    assert isinstance(made, dict)
    check(made)
    return made


def check(event: dict[str, Any]) -> None:
    """Hold an event against the tables above."""
    cls = CLASSES[event["class_uid"]]
    assert BASE_REQUIRED | cls["required"] <= event.keys()
    assert event.keys() <= BASE | cls["own"]
    assert event["class_name"] == cls["name"]
    assert event["category_uid"] == cls["category"] == event["class_uid"] // 1000
    assert event["category_name"] == CATEGORIES[event["category_uid"]]
    activity = event["activity_id"]
    assert activity in cls["activities"]
    assert event["type_uid"] == event["class_uid"] * 100 + activity
    if activity == 99:
        assert event["activity_name"] and event["type_name"] == f"{cls['name']}: Other"
    else:
        assert event["activity_name"] == ACTIVITIES[event["class_uid"]][activity]
        assert event["type_name"] == f"{cls['name']}: {event['activity_name']}"
    assert SEVERITIES[event["severity_id"]] == event["severity"]
    statuses = FINDING_STATUSES if event["class_uid"] == 2004 else STATUSES
    assert statuses[event["status_id"]] == event["status"]
    assert ("action_id" in event) is ("disposition_id" in event)
    if "action_id" in event:
        assert "security_control" in event["metadata"]["profiles"]
        assert ACTIONS[event["action_id"]] == event["action"]
        assert DISPOSITIONS[event["disposition_id"]] == event["disposition"]
        assert event["action_id"] == event["disposition_id"]
    assert isinstance(event["time"], int) and 0 <= event["time"] <= LONG
    assert isinstance(event.get("count", 1), int) and 1 <= event.get("count", 1) <= INTEGER
    assert isinstance(event.get("unmapped", {}), dict)
    _objects(event)
    _texts(event)


def _objects(event: dict[str, Any]) -> None:
    metadata = event["metadata"]
    _object("metadata", metadata)
    assert metadata["version"] == "1.8.0" and "host" in metadata["profiles"]
    assert 0 <= metadata.get("sequence", 0) <= INTEGER
    _object("product", metadata["product"])
    _object("device", event["device"])
    assert event["device"]["hostname"]
    _object("actor", event["actor"])
    if "session" in event["actor"]:
        _object("session", event["actor"]["session"])
    files = [event["file"]] if "file" in event else []
    for evidence in event.get("evidences", []):
        _object("evidences", evidence)
        files += [evidence["file"]] if "file" in evidence else []
    for file in files:
        _object("file", file)
        assert file["name"]
        assert file["type_id"] == 99 or FILE_TYPES[file["type_id"]] == file["type"]
        assert 0 <= file.get("size", 0) <= LONG
        for one in file.get("hashes", []):
            _object("fingerprint", one)
            assert (one["algorithm_id"], one["algorithm"]) == (3, "SHA-256")
    if "kernel" in event:
        _object("kernel", event["kernel"])
        assert (event["kernel"]["type_id"], event["kernel"]["type"]) == (2, "System Call")
    if "app" in event:
        _object("product", event["app"])
    if "finding_info" in event:
        _object("finding_info", event["finding_info"])


def _object(name: str, value: dict[str, Any]) -> None:
    required, others = OBJECTS[name]
    assert required <= value.keys() <= required | others, f"{name}: {value}"


def _texts(value: Any) -> None:
    """Every text is valid UTF-8 on one line."""
    if isinstance(value, str):
        value.encode("utf-8")
        assert escape(value.replace("\\", "")) == value.replace("\\", "")
    elif isinstance(value, dict):
        for name, one in value.items():
            _texts(name)
            _texts(one)
    elif isinstance(value, list):
        for one in value:
            _texts(one)


@pytest.mark.parametrize("entry", ENTRIES)
def test_each_event_is_of_the_schema(entry: dict[str, Any]) -> None:
    event(entry)


@given(hostile_entries)
def test_whatever_an_entry_holds_the_event_is_of_the_schema(entry: dict[str, Any]) -> None:
    event(entry)


@pytest.mark.parametrize(
    ("kind", "type_uid", "severity"),
    [
        ("grant", 100102, 1), ("list", 100102, 1), ("denial", 100114, 2), ("breach", 200401, 5),
        ("session.start", 600203, 1), ("session.sealed", 600299, 1), ("session.end", 600204, 1),
        ("request.start", 600299, 1), ("request.end", 600299, 1), ("policy.load", 600299, 1),
        ("limit", 600204, 3), ("kill", 600204, 3), ("epoch.start", 100806, 1), ("epoch.end", 100805, 1),
        ("redaction", 100802, 2), ("prune", 100802, 2),
        ("log.recovered", 100899, 3), ("new kind", 99, 2),
    ],
)  # fmt: skip
def test_class_and_severity_by_kind(kind: str, type_uid: int, severity: int) -> None:
    made = event(example(kind))
    assert (made["type_uid"], made["severity_id"]) == (type_uid, severity)
    assert made["metadata"]["event_code"] == kind


def test_every_kind_is_in_that_table() -> None:
    from anchorhold.audit.query import KINDS

    assert set(KINDS) <= {entry["kind"] for entry in EACH_KIND}


def test_a_grant_was_allowed() -> None:
    made = event(example("grant"))
    assert (made["status"], made["action"], made["disposition"]) == ("Success", "Allowed", "Allowed")
    assert made["file"] == {
        "name": "roof.pdf", "path": "/home/a/taxes/roof.pdf", "type_id": 1, "type": "Regular File",
        "size": 12345, "hashes": [{"algorithm_id": 3, "algorithm": "SHA-256", "value": "ab" * 32}],
    }  # fmt: skip
    assert made["time"] == 1769884200123
    assert made["metadata"]["correlation_uid"] == made["actor"]["session"]["uid"] == "5e55"
    assert (made["metadata"]["uid"], made["metadata"]["sequence"]) == ("3/7", 7)
    assert made["unmapped"] == {
        "n": 4, "mono": 5_000_000, "path": "/home/a/link", "class": "data", "phase": "sealed",
        "mode": "snapshot", "request": "5e55-1",
    }  # fmt: skip
    assert event(example("grant", mode="direct"))["activity_name"] == "Open"
    assert event(example("list"))["file"]["type"] == "Folder"


@pytest.mark.parametrize(
    ("call", "activity"),
    [("openat", 14), ("newfstatat", 8), ("getdents64", 2), ("unlinkat", 4), ("renameat2", 5), ("mkdir", 1),
     ("fchmodat", 7), ("utimensat", 6), ("bind", 99)],
)  # fmt: skip
def test_a_denial_was_blocked(call: str, activity: int) -> None:
    made = event(example("denial", call=call))
    assert (made["status"], made["action"], made["disposition"]) == ("Failure", "Denied", "Blocked")
    assert (made["class_uid"], made["activity_id"], made["count"]) == (1001, activity, 3)
    assert made["status_detail"] == "outside every root"
    assert made["file"]["path"] == "/etc/passwd"


def test_a_denial_of_no_file_is_about_the_kernel() -> None:
    made = event(without(example("denial", call="socket"), "path"))
    assert (made["type_uid"], made["kernel"]["name"], made["disposition"]) == (100304, "socket", "Blocked")


def test_a_breach_is_a_finding() -> None:
    made = event(example("breach"))
    assert made["is_alert"] is True and made["disposition"] == "Blocked"
    assert made["evidences"][0]["file"]["path"] == "/etc/shadow"
    assert made["finding_info"]["uid"] == "3/7"
    assert "file" not in event(without(example("breach"), "path"))["evidences"][0]


def test_what_was_redacted_is_said() -> None:
    made = event(without(example("grant", redacted=["names"]), "path", "resolved"))
    assert made["file"]["name"] == "(redacted)" and "path" not in made["file"]
    assert made["unmapped"]["redacted"] == ["names"]
    made = event(without(example("grant"), "path", "resolved"))
    assert made["file"]["name"] == "(unknown)"


def test_names_come_back() -> None:
    made = event(example("grant", resolved=HOSTILE, path="/x"))
    assert unescape(made["file"]["path"]) == HOSTILE
    assert made["unmapped"]["path"] == "/x"


def test_the_check_can_fail() -> None:
    """Each line of the tables bites: an event without an attribute, or with a wrong value, is refused."""
    for entry in EACH_KIND:
        good = event(entry)
        cls = CLASSES[good["class_uid"]]
        for name in BASE_REQUIRED | cls["required"]:
            with pytest.raises((AssertionError, KeyError)):
                check({key: value for key, value in good.items() if key != name})
        for name in ("activity_id", "type_uid", "severity_id", "category_uid", "status_id"):
            with pytest.raises((AssertionError, KeyError)):
                check({**good, name: 77})
        with pytest.raises(AssertionError):
            check({**good, "surprise": 1})


def test_the_host() -> None:
    assert Ocsf("a\nb").event(example("grant"))["device"]["hostname"] == "a\\u000ab"
