"""Which entries repeat a name that is to be forgotten, as one of their paths or within free text."""

from __future__ import annotations

import json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

PATHS = ("path", "resolved", "model_path")
TEXTS = ("reason", "detail")


def paths_of(entry: dict[str, Any]) -> Iterator[str]:
    """The paths that an entry names."""
    files = entry.get("files")
    for value in (*(entry.get(name) for name in PATHS), *(files if isinstance(files, list) else ())):
        if isinstance(value, str) and len(value) > 1:
            yield value


class Repeats:
    """Whether an entry repeats one of ``names``, as one of its paths or within its free text."""

    def __init__(self, names: set[str]) -> None:
        self._names = names
        self._forms = {form for name in names for form in _forms(name)}
        self._texts: dict[str, bool] = {}  # an error's words are the same in many entries

    def __call__(self, entry: dict[str, Any]) -> bool:
        return not self._names.isdisjoint(paths_of(entry)) or any(map(self._in_text, _texts(entry)))

    def _in_text(self, text: str) -> bool:
        known = self._texts.get(text)
        if known is None:
            if len(self._texts) > 10_000:
                self._texts.clear()
            known = self._texts[text] = any(form in text for form in self._forms)
        return known


def _texts(entry: dict[str, Any]) -> Iterator[str]:
    """What is free text: an error's words, and the question and system prompt where they were kept."""
    prompt = entry.get("prompt")
    told = prompt.values() if isinstance(prompt, dict) else ()
    for value in (*(entry.get(name) for name in TEXTS), *told):
        if isinstance(value, str):
            yield value


def _forms(name: str) -> set[str]:
    """A name as words can have it: as it is, or escaped in one of Python's ways, or in JSON's (a chat)."""
    raw = name.encode("utf-8", "surrogateescape" if _is_of_bytes(name) else "surrogatepass")
    json_forms = {json.dumps(name, ensure_ascii=escaped)[1:-1] for escaped in (True, False)}
    return {name, ascii(name)[1:-1], repr(name)[1:-1], raw.decode("utf-8", "backslashreplace"), *json_forms}


def _is_of_bytes(name: str) -> bool:
    """Whether its lone surrogates stand for bytes, as those of ``os.fsdecode`` do."""
    try:
        name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return True
