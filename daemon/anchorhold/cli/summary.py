"""The lines after an answer: which files it rests on, what the model was shown and refused.

Two sources, kept apart. What was shown and refused is the supervisor's own knowledge, the same that is
in the log. Which files were in the prompt, whole or in part, is what the worker says.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from anchorhold.cli.terminal import count, human_size, quote

if TYPE_CHECKING:
    from anchorhold.cli.cell import Result
    from anchorhold.supervisor.events import Document
    from anchorhold.supervisor.summary import Summary

SESSION_DIGITS = 12  # of the session's id, in lines for people; `audit show` takes any unique beginning
LEFT_TO_LIMITS = frozenset({"cgroup"})  # its work is done by other means, which the log names limit by limit
STDIN = "-"  # as the log names it
MOST_NAMES = 20
MOST_EXAMPLES = 3


def seen_line(summary: Summary, documents: Iterable[Document]) -> str:
    """``seen: 3 files, 41 kB (2 whole, 1 in part) · refused: nothing · session … · anchorhold audit …``"""
    session = summary.session[:SESSION_DIGITS]
    hidden = [f"hidden by data.deny: {count(summary.hidden, 'name')}"] * bool(summary.hidden)
    hidden += [f"left out of listings: {count(summary.left_out, 'name')}"] * bool(summary.left_out)
    parts = [
        f"seen: {_shown(summary, documents)}",
        f"refused: {_refused(summary)}",
        *hidden,
        f"session {session}",
        f"anchorhold audit show {session}",
    ]
    return " · ".join(parts)


def weaker_line(summary: Summary) -> str | None:
    """``weaker cell: this machine gives no userns, …``; None where every layer holds."""
    missing = sorted(set(summary.missing) - LEFT_TO_LIMITS)
    if not missing:
        return None
    return (
        f"weaker cell: this machine gives no {', '.join(missing)}; --require LAYER refuses to start without"
    )


def _shown(summary: Summary, documents: Iterable[Document]) -> str:
    files = [size for path, _sha256, size in summary.shown if path != STDIN]
    typed = [f"standard input, {human_size(size)}" for path, _sha256, size in summary.shown if path == STDIN]
    if not files:
        return typed[-1] if typed else "nothing"
    text = " and ".join([f"{count(len(files), 'file')}, {human_size(sum(files))}", *typed[-1:]])
    outcomes = [document.outcome for document in documents]
    whole, part = outcomes.count("used"), outcomes.count("partial")
    words = [f"{whole} whole"] * bool(whole) + [f"{part} in part"] * bool(part)
    return f"{text} ({', '.join(words)})" if words else text


def _refused(summary: Summary) -> str:
    total = summary.refused_total
    if not total:
        return "nothing"
    examples = [
        quote(path) + (f" ×{times}" if times > 1 else "")
        for path, _why, times in list(summary.refused)[:MOST_EXAMPLES]
    ]
    named = sum(times for _path, _why, times in list(summary.refused)[:MOST_EXAMPLES])
    if total > named:
        examples.append("…")
    return f"{count(total, 'request')} ({', '.join(examples)})" if examples else count(total, "request")


def from_line(files: Sequence[str], *, typed: bool = False) -> str:
    """``from: roof.pdf, notes/harbour.md``: the files whose text was in the prompt, by short names.

    typed: standard input was, too.
    """
    names = ["standard input"] * typed + [quote(name) for name in short_names(files)]
    if not names:
        return "from: no file"
    more = [f"… and {len(names) - MOST_NAMES} more"] if len(names) > MOST_NAMES else []
    return "from: " + ", ".join(names[:MOST_NAMES] + more)


def end_of_answer(result: Result, summary: Summary) -> list[str]:
    """The lines that end a complete answer."""
    typed = any(path == STDIN for path, _sha256, _size in summary.shown)
    lines = [from_line(result.done.files, typed=typed)]
    if result.done.reason == "length":
        lines.insert(0, f"cut: the answer reached {count(result.done.output_tokens, 'token')} (--max-tokens)")
    return lines


def short_names(paths: Sequence[str]) -> list[str]:
    """Paths without the folders that all of them share."""
    if len(paths) == 1:
        return [os.path.basename(paths[0]) or paths[0]]
    try:
        base = os.path.commonpath([os.path.dirname(path) for path in paths])
    except ValueError:
        return list(paths)
    return [os.path.relpath(path, base) if base else path for path in paths]


def skipped_line(document: Document) -> str:
    return f"skipped: {quote(document.path)}: {document.reason or 'no reason given'}"


def as_json(
    *,
    answer: str,
    reason: str,
    files: Sequence[str],
    documents: Sequence[Document],
    usage: Mapping[str, object],
    summary: Summary,
    policy: str,
    model: str,
) -> dict[str, object]:
    """The object of ``ask --json``, as docs/cli.md describes it. Keys may be added, never changed."""
    digests = {path: sha256 for path, sha256, _size in summary.shown}
    return {
        "v": 1,
        "answer": answer,
        "reason": reason,
        "session": summary.session,
        "model": model,
        "policy": policy,
        "usage": usage,
        "files": list(files),
        "documents": [_document(document, digests) for document in documents],
        "shown": [{"path": path, "sha256": sha256, "size": size} for path, sha256, size in summary.shown],
        "refused": {
            "total": summary.refused_total,
            "examples": [{"path": path, "why": why, "count": times} for path, why, times in summary.refused],
        },
        "layers": dict(summary.layers),
        "missing": dict(summary.missing),
        "hidden": summary.hidden,
        "left_out": summary.left_out,
    }


def _document(document: Document, digests: dict[str, str]) -> dict[str, object]:
    row: dict[str, object] = {
        "path": document.path,
        "outcome": document.outcome,
        "reason": document.reason,
        "tokens": document.tokens,
    }
    sha256 = digests.get(document.path) or digests.get(os.path.realpath(document.path))
    if sha256:
        row["sha256"] = sha256
    return row
