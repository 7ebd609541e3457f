"""Files of a log, changed and copied."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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
