"""How grave each kind of entry is, and what it says in one line. For CEF, OCSF, journald and syslog alike."""

from __future__ import annotations

from anchorhold.audit.export.text import escape, number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Grade:
    """One severity in each: syslog's (RFC 5424, 0 is worst), CEF's (10 is worst), OCSF's ``severity_id``."""

    __slots__ = ("cef", "ocsf", "syslog")

    def __init__(self, syslog: int, cef: int, ocsf: int) -> None:
        self.syslog, self.cef, self.ocsf = syslog, cef, ocsf


USUAL = Grade(syslog=6, cef=1, ocsf=1)
NOTABLE = Grade(syslog=5, cef=4, ocsf=2)
WARNING = Grade(syslog=4, cef=6, ocsf=3)
GRAVE = Grade(syslog=2, cef=9, ocsf=5)

GRADES = {
    "session.start": USUAL,
    "session.sealed": USUAL,
    "session.end": USUAL,
    "request.start": USUAL,
    "request.end": USUAL,
    "grant": USUAL,
    "list": USUAL,
    "policy.load": USUAL,
    "epoch.start": USUAL,
    "epoch.end": USUAL,
    "denial": NOTABLE,
    "redaction": NOTABLE,
    "prune": NOTABLE,
    "limit": WARNING,
    "kill": WARNING,
    "log.recovered": WARNING,
    "breach": GRAVE,
}
"""A kind that is not here is `NOTABLE`: a newer log, or something to look at."""

TITLES = {
    "session.start": "Session started",
    "session.sealed": "Cell sealed",
    "session.end": "Session ended",
    "request.start": "Request started",
    "request.end": "Request ended",
    "grant": "File handed to the model",
    "list": "Folder listed to the model",
    "policy.load": "Policy loaded",
    "epoch.start": "Epoch of the log started",
    "epoch.end": "Epoch of the log ended",
    "denial": "Access refused",
    "redaction": "Entries redacted",
    "prune": "Old epochs removed",
    "limit": "Limit exceeded",
    "kill": "Worker killed",
    "log.recovered": "Log recovered after a crash",
    "breach": "Worker asked for what is forbidden",
}


def kind_of(entry: dict[str, Any]) -> str:
    """The kind as safe text; ``unknown`` where there is none."""
    kind = entry.get("kind")
    return escape(kind) if isinstance(kind, str) and kind else "unknown"


def grade(entry: dict[str, Any]) -> Grade:
    return GRADES.get(kind_of(entry), NOTABLE)


def title(entry: dict[str, Any]) -> str:
    kind = kind_of(entry)
    return TITLES.get(kind, kind)


def summary(entry: dict[str, Any]) -> str:
    """One line for people: what happened, to what, and why."""
    words = [title(entry) + ":"]
    for name in ("call", "class"):
        if isinstance(entry.get(name), str):
            words.append(escape(entry[name]))
    for name in ("resolved", "path"):
        if isinstance(entry.get(name), str):
            words.append(escape(entry[name]))
            break
    if isinstance(entry.get("reason"), str):
        words.append(f"({escape(entry['reason'])})")
    times = number(entry.get("count"))
    if times is not None and times > 1:
        words.append(f"x {times}")
    return " ".join(words).removesuffix(":")
