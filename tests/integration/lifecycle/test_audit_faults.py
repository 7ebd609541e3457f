"""The log fails while a real worker runs: no record, no grant, the worker dies, and the reason is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.integration.lifecycle.conftest import Driven

OPENS = 1500
"""More than fit into one bundle of the log, and onto the small disk."""

SOURCE = f"""
from anchorhold.channel import frames, messages
def attempt():
    for number in range({OPENS}):
        with open(QUESTION, "rb") as file:
            assert file.read()
        frames.write_frame(6, messages.encode({{"type": "token", "id": 1, "text": "x"}}))
    return "end"
"""

MOUNTING = ("root", "unprivileged")  # nobody else may mount anything
WITHOUT_RIGHTS = ("unprivileged", "no_userns")  # a mode of a file means nothing to root
EVERYBODY = ("root", "unprivileged", "no_userns")
FAULTS = [
    ("full", MOUNTING, "No space left on device", "Free some space"),
    ("read-only", MOUNTING, "Read-only file system", "remount it"),
    ("closed", WITHOUT_RIGHTS, "Permission denied", "owner and mode"),
    ("removed", EVERYBODY, "removed while in use", "audit verify"),
    ("moved", EVERYBODY, "removed while in use", "audit verify"),
    ("limited", EVERYBODY, "File too large", "ulimit -f"),
]


def data_grants(seen: dict[str, Any]) -> int:
    return sum(entry.get("class") == "data" for entry in seen["log"])


@pytest.mark.parametrize(
    ("mode", "fault", "reason", "remedy"),
    [(mode, fault, reason, remedy) for fault, modes, reason, remedy in FAULTS for mode in modes],
)
def test_no_record_no_grant(driven: Driven, place: Path, fault: str, reason: str, remedy: str) -> None:
    seen = driven("probing", source=SOURCE, question=str(place / "papers/paper.txt"), fault=fault)
    assert seen["exit"] == 1
    kind, text, hint = seen["ends"][0]
    assert kind == "AuditError" and reason in text and remedy in hint, seen["ends"]
    opened = seen["answer"].count("x")
    # what was opened for writing before a folder became read-only can still be written to: all is on record
    assert 0 < opened < OPENS or (fault == "read-only" and opened == OPENS)
    assert seen["cell"] > 0 and seen["left"] == []
    if fault == "removed":
        assert "log" not in seen
        return
    assert seen["verified"] is True
    assert data_grants(seen) >= opened, "the worker has read what is not on record"
    assert seen["log"][0]["kind"] == "session.start"


@pytest.mark.parametrize("mode", ["root"])
def test_without_a_fault_all_of_it_is_read_and_recorded(driven: Driven, place: Path) -> None:
    seen = driven("probing", source=SOURCE, question=str(place / "papers/paper.txt"))
    assert seen["exit"] == 0 and seen["answer"] == "x" * OPENS + "end"
    assert data_grants(seen) == OPENS
    assert [entry["kind"] for entry in seen["log"]][-1] == "session.end"
    assert seen["verified"] is True and seen["left"] == []
