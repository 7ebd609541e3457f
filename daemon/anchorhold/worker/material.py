"""Reading what a request is about: named files, folders, standard input."""

from __future__ import annotations

import os
from collections.abc import Iterable

from anchorhold.worker.bindings import StopFlag
from anchorhold.worker.documents.readers import Readers
from anchorhold.worker.documents.skip import Skip
from anchorhold.worker.failure import Cancelled
from anchorhold.worker.folder import walk
from anchorhold.worker.outbox import Outbox

STDIN = "standard input"
MOST_TEXT = 256 << 20  # characters of all documents of one request


class Document:
    """One document that was read. path: None for standard input."""

    __slots__ = ("name", "path", "text")

    def __init__(self, path: str | None, name: str, text: str) -> None:
        self.path, self.name, self.text = path, name, text


class Material:
    """All that was read for one request, and how many were left out."""

    __slots__ = ("documents", "skipped", "whole")

    def __init__(self, whole: bool) -> None:
        self.whole = whole  # the documents were named one by one: all of each is wanted
        self.documents: list[Document] = []
        self.skipped = 0


def gather(
    named: list[str], roots: list[str], given: str | None, readers: Readers, stop: StopFlag, outbox: Outbox
) -> Material:
    """Read all documents of a request; those left out are told with their reason. Raises Cancelled.

    named: files that are wanted whole, else all below the roots; given: text of standard input.
    """
    material = Material(whole=bool(named))
    if given is not None:
        material.documents.append(Document(None, STDIN, given))
    if named:
        files, skipped = list(dict.fromkeys(named)), []
    else:
        if roots:
            outbox.progress("read", 0, 0)
        found = walk(roots, lambda: bool(stop))
        files, skipped = found.files, found.skipped
    for path, reason in skipped:
        _skip(material, outbox, path, reason)
    names = names_of(files, [] if named else roots)
    total = 0
    seen: dict[str, str] = {}
    for number, path in enumerate(files):
        if stop:
            raise Cancelled
        outbox.progress("read", number, len(files))
        try:
            if total > MOST_TEXT:
                raise Skip(f"too much: more than {MOST_TEXT >> 20} million characters in all")
            text = readers.read(path, lambda: bool(stop))
        except Skip as reason:
            _skip(material, outbox, path, str(reason))
            continue
        if not material.whole:
            # A second name of one file (a link within the folder), or a copy: once is enough for the prompt.
            first = seen.setdefault(text, names[number])
            if first != names[number]:
                shown = first.encode(
                    "utf-8", "backslashreplace"
                ).decode()  # a reason is text, a name any bytes
                _skip(material, outbox, path, f"the same text as {shown}")
                continue
        total += len(text)
        material.documents.append(Document(path, names[number], text))
    return material


def _skip(material: Material, outbox: Outbox, path: str, reason: str) -> None:
    material.skipped += 1
    outbox.hold("document", path=path, outcome="skipped", reason=reason, tokens=0)


def names_of(files: Iterable[str], roots: Iterable[str]) -> list[str]:
    """What the model is told that the files are called: the path below the folder that was given, or the
    last part of it. Two that would be called the same are called by their whole paths."""
    bases = sorted((root.rstrip("/") + "/" for root in roots), key=len, reverse=True)
    names = [_name(path, bases) for path in files]
    seen: dict[str, int] = {}
    for name in names:
        seen[name] = seen.get(name, 0) + 1
    return [path if seen[name] > 1 else name for path, name in zip(files, names, strict=True)]


def _name(path: str, bases: list[str]) -> str:
    for base in bases:
        if path.startswith(base):
            return path[len(base) :]
    return os.path.basename(path) or path
