"""What is asked of the log, and the one test that says whether an entry answers it.

Constraint: the index only proposes entries. Each one goes through `Filter.__call__`, the test that reading
the whole log uses too, so the two ways cannot find different ones.
"""

from __future__ import annotations

import re

from anchorhold.audit.query import PATH_FIELDS, entries, path_pattern, stamp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from datetime import datetime
    from pathlib import Path
    from typing import Any

    Entry = dict[str, Any]

REFUSED = frozenset({"denial", "breach"})
"""Kinds that are refusals whatever they hold."""

MODEL_DIGEST = re.compile(r"[0-9a-f]{4,64}", re.ASCII)


class Filter:
    """Conditions, all of which must hold. ``session`` and ``digest`` are beginnings; ``path`` and ``model``
    are patterns (`path_pattern`), ``model`` also the beginning of a digest; times are in the log's form;
    ``refused``: `is_refusal`."""

    __slots__ = (
        "cls", "digest", "kinds", "matches", "model", "path", "refused", "request", "session", "sessions",
        "since", "until",
    )  # fmt: skip

    def __init__(
        self,
        *,
        session: str | None = None,
        request: str | None = None,
        kinds: Collection[str] = (),
        cls: str | None = None,
        path: str | None = None,
        digest: str | None = None,
        model: str | None = None,
        since: str | datetime | None = None,
        until: str | datetime | None = None,
        refused: bool = False,
    ) -> None:
        self.refused = refused
        self.session, self.request, self.cls = session, request, cls
        self.kinds = frozenset(kinds)
        self.path, self.digest, self.model = path, digest, model
        self.since, self.until = stamp(since), stamp(until)
        self.matches: Callable[[str], bool] | None = None if path is None else path_pattern(path)
        self.sessions: frozenset[str] | None = None
        """The sessions that ran ``model``; whoever reads has to find them first."""

    def __call__(self, entry: Entry) -> bool:
        """Whether an entry answers."""
        if self.kinds and entry.get("kind") not in self.kinds:
            return False
        if self.refused and not is_refusal(entry):
            return False
        if self.cls is not None and entry.get("class") != self.cls:
            return False
        if self.session is not None and not str(entry.get("session", "")).startswith(self.session):
            return False
        if self.request is not None and str(entry.get("request", "")) != self.request:
            return False
        if self.digest is not None and not str(entry.get("sha256", "")).startswith(self.digest):
            return False
        if self.since is not None or self.until is not None:
            time = str(entry.get("time", ""))
            if (self.since is not None and time < self.since) or (
                self.until is not None and time >= self.until
            ):
                return False
        if self.sessions is not None and str(entry.get("session", "")) not in self.sessions:
            return False
        matches = self.matches
        return matches is None or any(name in entry and matches(str(entry[name])) for name in PATH_FIELDS)

    def model_test(self) -> Callable[[tuple[str, str]], bool]:
        """Whether a model, told as its digest and its path, is the one that is asked for."""
        model = self.model or ""
        digest = MODEL_DIGEST.fullmatch(model) is not None
        fits = path_pattern(model)
        return lambda told: (digest and told[0].startswith(model)) or fits(told[1])


def is_refusal(entry: Entry) -> bool:
    """Whether something was kept from the model: a denial, a breach, or a listing of the user's data that
    left names out."""
    kind = entry.get("kind")
    if kind == "list":
        return entry.get("class") == "data" and is_left_out(entry.get("hidden"))
    return kind in REFUSED


def is_left_out(hidden: object) -> bool:
    """Whether the field ``hidden`` of a listing says that names were left out."""
    return type(hidden) is int and hidden > 0


def model_of(entry: Entry) -> tuple[str, str]:
    """Digest and path of the model as ``session.start`` tells them."""
    told = entry.get("model")
    content = str(told.get("sha256", "")) if isinstance(told, dict) else ""
    return content, str(entry.get("model_path", ""))


def scan(state_dir: Path, wanted: Filter, first: int = 0) -> Iterator[Entry]:
    """Read the log from entry ``first`` on and give those that match. AuditError."""
    if wanted.model is not None and wanted.sessions is None:
        ran = wanted.model_test()
        wanted.sessions = frozenset(
            str(entry.get("session", ""))
            for entry in entries(state_dir, kinds=("session.start",))
            if ran(model_of(entry))
        )
    for entry in entries(state_dir, first=first):
        if wanted(entry):
            yield entry
