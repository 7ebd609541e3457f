"""Entries as `anchorhold.audit.query.entries` gives them, made up."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

START = datetime(2026, 1, 5, 8, tzinfo=UTC)

RESULT: dict[str, Any] = {
    "ok": True,
    "key": "anchorhold/0123456789abcdef+01234567+AcmO4MyGjVFTmDSyY7IRGRqqdaP+0n4FTngEIl9TEsXS",
    "origin": "anchorhold/0123456789abcdef",
    "entries": 100_000,
    "signed": 100_000,
    "unsigned": 0,
    "root": "ab" * 32,
    "proven": True,
    "bad_entries": 0,
    "findings": [],
    "findings_left_out": 0,
    "notes": [],
}

HOSTILE = (
    "<script>window.owned=1</script>.pdf",
    "<img src=x onerror=window.owned=2>",
    "</bdi></section></main><style>*{display:none}</style>",
    "'\"><svg onload=window.owned=3>",
    "&lt;b&gt;&#60;",
    "\u202egpj.exe\u202c",
    "\u2066isolated\u2069",
    "\x1b[2J\x1b]0;owned\x07",
    "byte\udcff\udc80end",
    "\ud83d lone",
    "W" * 4000,
    "\u202e" * 1500,
    "z" + "\u0301" * 60,
    "line\nfeed\ttab\rreturn",
    "\u200bzero\u00adwidth\ufeff\U000e0041",
    "\u05e9\u05dc\u05d5\u05dd \u05e2\u05d5\u05dc\u05dd.txt",
    "name redacted",
    "/".join("d" * 700),
    " lead and trail ",
    "\u3164\u115f\u2800",
)


def stamp(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class Maker:
    """Numbers entries and lets time pass."""

    def __init__(self, at: datetime = START) -> None:
        self.at = at
        self.seq = 0

    def __call__(self, kind: str, session: str = "5e55", /, **fields: Any) -> dict[str, Any]:
        entry = {"v": 2, "seq": self.seq, "time": stamp(self.at), "session": session, "kind": kind, **fields}
        self.seq += 1
        return entry

    def grant(self, path: str, session: str = "5e55", /, **fields: Any) -> dict[str, Any]:
        digest = sha256(path.encode("utf-8", "surrogatepass")).hexdigest()
        given = {"path": path, "resolved": path, "class": "data", "sha256": digest, "size": 4711}
        return self("grant", session, **{**given, "mode": "snapshot", "phase": "sealed", **fields})

    def start(self, session: str = "5e55", /, **fields: Any) -> dict[str, Any]:
        given = {"policy": "office", "policy_sha256": "0f" * 32, "model_path": "/m/small.gguf"}
        return self(
            "session.start", session, **{**given, "model": {"sha256": "ee" * 32, "size": 98}, **fields}
        )


def many(entries: int, *, hostile: bool = False, files: int = 0, seed: int = 4) -> Iterator[dict[str, Any]]:
    """A year of an office: so many entries, as many different files as ``files`` says (all, without)."""
    dice = random.Random(seed)
    make = Maker()
    number = 0
    while make.seq < entries:
        session = f"{dice.getrandbits(64):016x}"
        yield make.start(session)
        yield make("session.sealed", session)
        yield make("request.start", session, request=f"{session}-1")
        for _ in range(min(200, entries - make.seq - 2)):
            make.at += timedelta(seconds=dice.randrange(600))
            number += 1
            at = dice.randrange(files) if files else number
            folder = f"/srv/clients/{at % 97:02} client/{2000 + at % 27}/{at % 11}"
            name = f"{dice.choice(HOSTILE)} {at}" if hostile else f"letter about matter {at:06}.docx"
            if number % 50 == 0:
                yield make(
                    "denial", session, call="openat", path=f"/home/{number}/{name}", phase="sealed", count=1,
                    reason=f"no rule allows {name}" if hostile else "no rule of the policy allows it",
                )  # fmt: skip
            else:
                yield make.grant(f"{folder}/{name}", session)
        yield make("request.end", session, request=f"{session}-1")
        yield make("session.end", session, reason="done")
