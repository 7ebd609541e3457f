"""Logs for the verifier to judge: one small with everything in it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from anchorhold.audit import prune, redact
from anchorhold.audit.log import Log
from tests.unit.audit.logs import GRANT, session

FIRST, SECOND, THIRD = (f"{number:016x}" for number in (1, 2, 3))


def everything(state: Path) -> Path:
    """About 200 entries in two epochs and a pruned one: sessions that overlap, all groups, partial tiles, a
    redaction, what a crash tore; nothing unsigned."""
    log = Log.open(state)
    session(log, FIRST, 3)
    log.checkpoint(rotate=True)
    session(log, SECOND, 60, end=False)
    log.checkpoint()
    log.append("denial", SECOND, {"call": "open", "path": "/etc/x", "reason": "outside", "count": 2})
    log.append("request.start", SECOND, {"request": 2, "prompt": {"text": "why", "system": None}})
    log.append("list", SECOND, {"class": "data", "path": "/home/a", "resolved": "/home/a", "listed": 3})
    log.close()
    (path,) = (state / "log/journal").iterdir()
    os.truncate(path, path.stat().st_size - 5)
    log = Log.open(state)
    session(log, THIRD, 90)
    log.append("policy.load", "", {"path": "/home/a/p.toml"})
    log.checkpoint(rotate=True)
    session(log, f"{4:016x}", 20, end=False)
    log.append("grant", f"{4:016x}", {**GRANT, "path": "/home/a/secret"})
    log.checkpoint()
    log.close()
    redact.redact(state, lambda entry: entry.get("path") == "/home/a/secret", ("names",), reason="r", by="b")
    prune.prune(state, _end_of_first(state), reason="r", by="b")
    return state


def _end_of_first(state: Path) -> str:
    from anchorhold.audit.query import entries

    return next(str(entry["time"]) for entry in entries(state) if entry["session"] == SECOND)


def files(log: Path) -> list[str]:
    """Every file with content, below the log's folder."""
    return sorted(
        str(path.relative_to(log)) for path in log.rglob("*") if path.is_file() and path.stat().st_size
    )


@contextmanager
def changed(path: Path, content: bytes | None) -> Iterator[None]:
    """A file with another content (None: without it) for a while."""
    old = path.read_bytes()
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    try:
        yield
    finally:
        path.write_bytes(old)


def copied(state: Path, to: Path) -> Path:
    shutil.copytree(state, to)
    return to
