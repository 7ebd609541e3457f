"""Logs to test with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from anchorhold.audit.log import Log
from anchorhold.verify.check import verify
from anchorhold.verify.result import Result

GRANT: dict[str, object] = {
    "path": "/home/a/taxes/2025/roof.pdf",
    "resolved": "/home/a/taxes/2025/roof.pdf",
    "class": "data",
    "sha256": "ab" * 32,
    "size": 12345,
    "mode": "snapshot",
    "phase": "sealed",
}


def session(log: Log, name: str, grants: int = 3, *, end: bool = True) -> None:
    """One session as the supervisor writes it."""
    log.append("session.start", name, {"policy": "cd" * 32})
    log.append("grant", name, {**GRANT, "class": "runtime", "path": "/usr/lib/x.py"})
    log.append("session.sealed", name, {})
    log.append("request.start", name, {"request": "1"})
    for number in range(grants):
        log.append("grant", name, {**GRANT, "path": f"/home/a/{number}", "request": "1"})
    log.append("request.end", name, {"request": "1"})
    if end:
        log.append("session.end", name, {"reason": "done"})


def filled(state: Path, entries: int, *, sign: bool = True) -> Log:
    """An open log of that many entries that no session rule minds."""
    log = Log.open(state)
    for number in range(entries):
        assert log.append("limit", "s", {"n": number}) == number
    if sign:
        log.checkpoint()
    return log


def records(state: Path) -> list[dict[str, Any]]:
    """All entries, read without the code under test."""
    data = b"".join(
        path.read_bytes()
        for path in [*sorted((state / "log/tile/entries").glob("[0-9][0-9][0-9]")), state / "log/tail"]
        if path.exists()
    )
    found = []
    while data:
        length = int.from_bytes(data[:2], "big")
        assert len(data) >= 2 + length
        found.append(json.loads(data[2 : 2 + length]))
        data = data[2 + length :]
    return found


def good(state: Path) -> Result:
    """Verify, and fail with what was found."""
    result = verify(str(state))
    assert result.ok, result.text()
    return result
