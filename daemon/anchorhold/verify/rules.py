"""What the entries of a session have to be, in which order. Independent of hashes and signatures."""

from __future__ import annotations

from typing import Any

CONTENT = frozenset({"model", "data"})
"""Classes that may be granted only in a sealed cell."""

INSIDE = frozenset({"grant", "list", "session.sealed", "session.end", "request.start", "request.end"})
"""Kinds that belong between a session's start and its end."""


class _Session:
    __slots__ = ("done", "running", "sealed")

    def __init__(self) -> None:
        self.sealed = False
        self.running: set[str] = set()
        self.done: set[str] = set()


class Rules:
    """Fed entry by entry; `check` says what is wrong with one."""

    def __init__(self) -> None:
        self._open: dict[str, _Session] = {}
        self._ended: set[str] = set()

    @property
    def sessions(self) -> int:
        """Sessions that were started."""
        return len(self._open) + len(self._ended)

    @property
    def open_sessions(self) -> int:
        """Sessions without an end: still running, or ended by a crash."""
        return len(self._open)

    def check(self, entry: dict[str, Any]) -> str | None:
        """The rule that this entry breaks, or None."""
        kind, name = entry["kind"], entry["session"]
        if kind == "session.start":
            if not name or name in self._open or name in self._ended:
                return "a session starts that has started before, or has no name"
            self._open[name] = _Session()
            return None
        if kind not in INSIDE:
            return None
        session = self._open.get(name)
        if session is None:
            when = "after its session's end" if name in self._ended else "before its session's start"
            return f"{kind} {when}"
        if kind == "session.sealed":
            session.sealed = True
        elif kind == "session.end":
            del self._open[name]
            self._ended.add(name)
        elif kind in ("request.start", "request.end"):
            return _request(session, kind, entry.get("request"))
        elif type(entry.get("class")) is not str and kind == "grant":
            return "a grant has no class"
        elif entry.get("class") in CONTENT and not session.sealed:
            return f"a {kind} of class {entry['class']} before session.sealed"
        return None


def _request(session: _Session, kind: str, untrusted_name: object) -> str | None:
    if type(untrusted_name) not in (str, int):
        return f"{kind} names no request"
    name = repr(untrusted_name)
    if kind == "request.start":
        if name in session.running or name in session.done:
            return "a request starts that has started before"
        session.running.add(name)
        return None
    if name not in session.running:
        return "request.end without its request.start"
    session.running.remove(name)
    session.done.add(name)
    return None
