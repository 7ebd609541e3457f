"""OCSF 1.8.0 events, one JSON object a line (github.com/ocsf/ocsf-schema, commit 3dcb905).

Which class an entry becomes is a table (`CLASSES`, docs/export.md). What OCSF has no attribute for stands
in ``unmapped`` under the entry's own names, so nothing is lost. All text is in `text.escape`'s form: many
readers of JSON refuse the lone surrogates that a name can hold. The host is the one that exports; the log
names none.
"""

from __future__ import annotations

import json
import os

from anchorhold import __version__
from anchorhold.audit.export.kinds import grade, kind_of, summary, title
from anchorhold.audit.export.text import escape, milliseconds, number, plain, word

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

VERSION = "1.8.0"
PRODUCT = {"name": "anchorhold", "vendor_name": "anchorhold", "version": __version__}
LOG_NAME = "anchorhold audit log"
APP = "anchorhold worker"

OTHER = 99
SEVERITIES = {1: "Informational", 2: "Low", 3: "Medium", 5: "Critical"}

BASE = (0, 0, "Base Event")
FILE = (1, 1001, "File System Activity")
KERNEL = (1, 1003, "Kernel Activity")
EVENT_LOG = (1, 1008, "Event Log Activity")
FINDING = (2, 2004, "Detection Finding")
LIFECYCLE = (6, 6002, "Application Lifecycle")
"""Each: category_uid, class_uid, class_name."""

CATEGORIES = {0: "Uncategorized", 1: "System Activity", 2: "Findings", 6: "Application Activity"}

READ, OPEN, CREATE, DELETE, RENAME = (2, "Read"), (14, "Open"), (1, "Create"), (4, "Delete"), (5, "Rename")
SET_ATTRIBUTES, SET_SECURITY, GET_ATTRIBUTES = (
    (6, "Set Attributes"),
    (7, "Set Security"),
    (8, "Get Attributes"),
)
INVOKE = (4, "Invoke")

CLASSES: dict[str, tuple[tuple[int, int, str], tuple[int, str]]] = {
    "session.start": (LIFECYCLE, (3, "Start")),
    "session.sealed": (LIFECYCLE, (OTHER, "")),
    "session.end": (LIFECYCLE, (4, "Stop")),
    "kill": (LIFECYCLE, (4, "Stop")),
    "limit": (LIFECYCLE, (4, "Stop")),
    "policy.load": (LIFECYCLE, (OTHER, "")),
    "request.start": (LIFECYCLE, (OTHER, "")),
    "request.end": (LIFECYCLE, (OTHER, "")),
    "grant": (FILE, READ),
    "list": (FILE, READ),
    "denial": (FILE, OPEN),
    "breach": (FINDING, (1, "Create")),
    "epoch.start": (EVENT_LOG, (6, "Start")),
    "epoch.end": (EVENT_LOG, (5, "Rotate")),
    "redaction": (EVENT_LOG, (2, "Delete")),
    "prune": (EVENT_LOG, (2, "Delete")),
    "log.recovered": (EVENT_LOG, (OTHER, "")),
}
"""By kind; any other kind is a `BASE` event. Activity 99 carries the kind as its name."""

CALLS = {
    "open": OPEN, "openat": OPEN, "openat2": OPEN, "getdents64": READ, "creat": CREATE, "mkdir": CREATE,
    "mkdirat": CREATE, "mknod": CREATE, "mknodat": CREATE, "link": CREATE, "linkat": CREATE,
    "symlink": CREATE, "symlinkat": CREATE, "unlink": DELETE, "unlinkat": DELETE, "rmdir": DELETE,
    "rename": RENAME, "renameat": RENAME, "renameat2": RENAME, "stat": GET_ATTRIBUTES,
    "lstat": GET_ATTRIBUTES,
    "newfstatat": GET_ATTRIBUTES, "statx": GET_ATTRIBUTES, "access": GET_ATTRIBUTES,
    "faccessat": GET_ATTRIBUTES, "faccessat2": GET_ATTRIBUTES, "readlink": GET_ATTRIBUTES,
    "readlinkat": GET_ATTRIBUTES, "utimensat": SET_ATTRIBUTES, "truncate": SET_ATTRIBUTES,
    "chmod": SET_SECURITY, "fchmodat": SET_SECURITY, "chown": SET_SECURITY, "fchownat": SET_SECURITY,
}  # fmt: skip
"""What a refused system call wanted of a file. Others with a path are activity 99, without one `KERNEL`."""

COMMON = frozenset({"seq", "time", "session", "kind", "v", "epoch"})
"""Fields that always have an attribute of their own, in ``metadata``."""


class Ocsf:
    """Makes events; knows the host's name."""

    def __init__(self, hostname: str = "") -> None:
        name = escape(hostname or os.uname().nodename) or "localhost"
        self._device = {"hostname": name, "type_id": 0, "type": "Unknown"}

    def line(self, entry: dict[str, Any]) -> bytes:
        return (
            json.dumps(self.event(entry), allow_nan=False).replace("\x7f", "\\u007f").encode("ascii") + b"\n"
        )

    def event(self, entry: dict[str, Any]) -> dict[str, Any]:
        kind = kind_of(entry)
        (category, cls, class_name), (activity, activity_name) = _classified(kind, entry)
        activity_name = activity_name or kind
        severity = grade(entry).ocsf
        event: dict[str, Any] = {
            "category_uid": category,
            "category_name": CATEGORIES[category],
            "class_uid": cls,
            "class_name": class_name,
            "activity_id": activity,
            "activity_name": activity_name,
            "type_uid": cls * 100 + activity,
            "type_name": f"{class_name}: {activity_name if activity != OTHER else 'Other'}",
            "severity_id": severity,
            "severity": SEVERITIES[severity],
            "time": milliseconds(entry.get("time")) or 0,
            "message": summary(entry),
            "metadata": _metadata(kind, entry),
            "device": self._device,
            "actor": _actor(entry),
        }
        event.update(_outcome(kind, cls))
        times = number(entry.get("count"), 2**31 - 1)
        if times:
            event["count"] = times
        if isinstance(entry.get("reason"), str):
            event["status_detail"] = escape(entry["reason"])
        event.update(_of_class(cls, kind, entry))
        unmapped = {name: value for name, value in entry.items() if name not in COMMON | _used(event, entry)}
        if unmapped:
            event["unmapped"] = plain(unmapped)
        return event


def _used(event: dict[str, Any], entry: dict[str, Any]) -> set[str]:
    """The fields that stand whole in an attribute, and need not stand in ``unmapped`` too."""
    file = event.get("file", {})
    used = {name for name, at in (("reason", "status_detail"), ("count", "count")) if at in event}
    used |= {name for name, at in (("size", "size"), ("sha256", "hashes")) if at in file}
    if "path" in file:
        used |= {name for name in ("path", "resolved") if entry.get(name) == _path(entry)}
    if "kernel" in event:
        used.add("call")
    return used


def _classified(kind: str, entry: dict[str, Any]) -> tuple[tuple[int, int, str], tuple[int, str]]:
    cls, activity = CLASSES.get(kind, (BASE, (OTHER, "")))
    if kind == "denial":
        call = entry.get("call")
        known = CALLS.get(call) if isinstance(call, str) else None
        if known is None and not isinstance(entry.get("path"), str):
            return KERNEL, INVOKE
        return FILE, known or (OTHER, word(call) if call else "")
    if kind == "grant" and entry.get("mode") == "direct":
        return FILE, OPEN
    return cls, activity


def _metadata(kind: str, entry: dict[str, Any]) -> dict[str, Any]:
    metadata: dict[str, Any] = {
        "version": VERSION,
        "product": PRODUCT,
        "log_name": LOG_NAME,
        "event_code": kind,
        "original_time": word(entry.get("time", "")),
        "uid": _uid(entry),
    }
    sequence = number(entry.get("seq"), 2**31 - 1)
    if sequence is not None:
        metadata["sequence"] = sequence
    if "v" in entry:
        metadata["log_version"] = word(entry["v"])
    if isinstance(entry.get("session"), str) and entry["session"]:
        metadata["correlation_uid"] = escape(entry["session"])
    if kind in ("grant", "list", "denial", "breach"):
        metadata["profiles"] = ["host", "security_control"]
    else:
        metadata["profiles"] = ["host"]
    return metadata


def _uid(entry: dict[str, Any]) -> str:
    """``<epoch>/<seq>``: names one entry of one log."""
    return f"{word(entry.get('epoch', 0))}/{word(entry.get('seq', '?'))}"


def _actor(entry: dict[str, Any]) -> dict[str, Any]:
    actor: dict[str, Any] = {"app_name": APP}
    if isinstance(entry.get("session"), str) and entry["session"]:
        actor["session"] = {"uid": escape(entry["session"])}
    return actor


def _outcome(kind: str, cls: int) -> dict[str, Any]:
    """Status, and what the control did where one decided."""
    if kind in ("grant", "list"):
        return {
            "status_id": 1, "status": "Success", "action_id": 1, "action": "Allowed",
            "disposition_id": 1, "disposition": "Allowed",
        }  # fmt: skip
    if kind in ("denial", "breach"):
        refused = {"action_id": 2, "action": "Denied", "disposition_id": 2, "disposition": "Blocked"}
        status = (
            {"status_id": 1, "status": "New"} if cls == FINDING[1] else {"status_id": 2, "status": "Failure"}
        )
        return {**status, **refused}
    if kind == "limit":
        return {"status_id": 2, "status": "Failure"}
    if kind in CLASSES:
        return {"status_id": 1, "status": "Success"}
    return {"status_id": 0, "status": "Unknown"}


def _of_class(cls: int, kind: str, entry: dict[str, Any]) -> dict[str, Any]:
    """The attributes that only this class has."""
    if cls == FILE[1]:
        return {"file": _file(kind, entry)}
    if cls == KERNEL[1]:
        return {"kernel": {"name": word(entry.get("call") or "unknown"), "type_id": 2, "type": "System Call"}}
    if cls == EVENT_LOG[1]:
        return {"log_name": LOG_NAME}
    if cls == LIFECYCLE[1]:
        return {"app": {"name": APP, "vendor_name": "anchorhold", "version": __version__}}
    if cls == FINDING[1]:
        evidence: dict[str, Any] = {"data": {"call": word(entry.get("call") or "unknown")}}
        if isinstance(entry.get("path"), str) and entry["path"]:
            evidence["file"] = _file(kind, entry)
        return {
            "is_alert": True,
            "finding_info": {"uid": _uid(entry), "title": title(entry), "desc": summary(entry)},
            "evidences": [evidence],
        }
    return {}


def _path(entry: dict[str, Any]) -> str:
    for name in ("resolved", "path"):
        if isinstance(entry.get(name), str) and entry[name]:
            return str(entry[name])
    return ""


def _file(kind: str, entry: dict[str, Any]) -> dict[str, Any]:
    """The file an entry is about: by the name it has, not the one that was asked for (``unmapped.path``)."""
    path = _path(entry)
    file: dict[str, Any] = {"type_id": 0, "type": "Unknown"}
    if kind == "grant":
        file = {"type_id": 1, "type": "Regular File"}
    elif kind == "list":
        file = {"type_id": 2, "type": "Folder"}
    if path:
        file["name"] = escape(path.rstrip("/").rpartition("/")[2] or "/")
        file["path"] = escape(path)
        if path == "-" and entry.get("class") == "stdin":
            file = {"type_id": OTHER, "type": "Standard input", "name": "-"}
    else:
        file["name"] = "(redacted)" if entry.get("redacted") else "(unknown)"
    size = number(entry.get("size"))
    if size is not None and kind == "grant":
        file["size"] = size
    digest = entry.get("sha256")
    if isinstance(digest, str) and digest:
        file["hashes"] = [{"algorithm_id": 3, "algorithm": "SHA-256", "value": escape(digest)}]
    return file
