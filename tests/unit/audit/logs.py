"""Logs to test with."""

from __future__ import annotations

import json
import os
import zlib
from pathlib import Path
from typing import Any

from anchorhold.audit.log import Log
from anchorhold.verify.check import verify
from anchorhold.verify.result import Result

GRANT: dict[str, object] = {
    "class": "data",
    "size": 12345,
    "mode": "snapshot",
    "phase": "sealed",
    "path": "/home/a/taxes/2025/roof.pdf",
    "resolved": "/home/a/taxes/2025/roof.pdf",
    "sha256": "ab" * 32,
}
"""In the order in which the supervisor writes the fields."""


def session(log: Log, name: str, grants: int = 3, *, end: bool = True) -> None:
    """One session as the supervisor writes it: 6 entries and the grants."""
    log.append(
        "session.start", name, {"policy": "taxes", "policy_sha256": "cd" * 32, "layers": {"seccomp": "on"}}
    )
    log.append("grant", name, {**GRANT, "class": "runtime", "path": "/usr/lib/x.py"})
    log.append("session.sealed", name, {})
    log.append("request.start", name, {"request": 1, "files": ["/home/a/taxes/2025/roof.pdf"]})
    for number in range(grants):
        log.append("grant", name, _grant(number))
    log.append("request.end", name, {"request": 1, "reason": "stop"})
    if end:
        log.append("session.end", name, {"reason": "done"})


def _grant(number: int) -> dict[str, object]:
    public = {name: GRANT[name] for name in ("class", "size", "mode", "phase")}
    private = {name: GRANT[name] for name in ("resolved", "sha256")}
    return {**public, "request": 1, "path": f"/home/a/{number}", **private}


def filled(state: Path, entries: int, *, sign: bool = True) -> Log:
    """An open log with that many entries in its tree, the epoch's own first one included."""
    log = Log.open(state)
    for number in range(entries - 1):
        log.append("policy.load", "", {"number": number, "path": f"/home/a/{number}"})
    if sign:
        log.checkpoint()
    return log


def records(state: Path) -> list[dict[str, Any]]:
    """All entries of the tree, read without the code under test; names and digests from the openings."""
    found = []
    stored = json.loads((state / "log/state").read_bytes())
    for epoch in range(stored["epoch"] + 1):
        folder = state / "log" / str(epoch)
        size = int((folder / "checkpoint").read_text().split("\n")[1])
        size = stored["size"] if epoch == stored["epoch"] else size
        for first in range(0, size, 256):
            name, width = f"{first // 256:03d}", min(256, size - first)
            whole, part = folder / "tile/entries" / name, folder / "tile/entries" / f"{name}.p" / str(width)
            data = (part if width < 256 and part.exists() else whole).read_bytes()
            packed = (folder / "openings" / name).read_bytes()
            assert zlib.crc32(packed[:-4]) == int.from_bytes(packed[-4:], "big")
            openings = zlib.decompress(packed[:-4])
            for _ in range(width):
                length = int.from_bytes(data[:2], "big")
                assert len(data) >= 2 + length
                entry = json.loads(data[2 : 2 + length])
                data = data[2 + length :]
                mask, openings = openings[0], openings[1:]
                for bit, group in ((1, "names"), (2, "digests"), (4, "text")):
                    assert bool(mask & bit) == (group in entry)
                    if mask & bit:
                        length = int.from_bytes(openings[:2], "big")
                        del entry[group]
                        entry.update(json.loads(openings[18 : 2 + length] or b"{}"))
                        openings = openings[2 + length :]
                found.append(entry)
    return found


def good(state: Path) -> Result:
    """Verify, and fail with what was found."""
    result = verify(str(state))
    assert result.ok, result.text()
    return result


def all_bytes(folder: Path) -> bytes:
    """Everything below a folder, names of files too; openings as they are and unpacked."""
    parts = []
    for top, folders, files in os.walk(folder):
        parts += [os.fsencode(name) for name in [*folders, *files]]
        for name in files:
            data = (Path(top) / name).read_bytes()
            parts.append(data)
            if "/openings" in top and not name.startswith("."):
                parts.append(zlib.decompress(data[:-4]))
    return b"\n".join(parts)
