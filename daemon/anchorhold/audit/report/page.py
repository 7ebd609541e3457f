"""Puts the report together: one HTML file for people who do not program.

Constraint: it needs nothing but itself. There is no script and no address of another file in it, and a
content security policy forbids both, and every style but the one whose hash it carries. Each value that
comes from the log goes through `text.name`; what is put in otherwise is a number or a word of ours.
"""

from __future__ import annotations

import base64
import hashlib
import re

from anchorhold.audit.report import proof, tables, timeline, treeview
from anchorhold.audit.report.gather import Gathered
from anchorhold.audit.report.style import STYLE
from anchorhold.audit.report.text import count, long_date, moment, name, number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from datetime import datetime
    from typing import Any

_SESSION = re.compile(r"\w[\w-]{0,99}", re.ASCII)

MARK = "<!doctype html><!-- anchorhold audit report -->"
"""How a report begins: an older one may be overwritten, any other file not."""


class Frame:
    """What the report is about and how it was made."""

    def __init__(
        self,
        made: datetime,
        version: str,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        session: str | None = None,
        key_given: bool = False,
        checkpoint: str = "",
    ) -> None:
        self.made, self.version = made, version
        self.since, self.until, self.session = since, until, session
        self.key_given, self.checkpoint = key_given, checkpoint

    @property
    def whole(self) -> bool:
        """Whether all of the log is in it."""
        return self.since is None and self.until is None and self.session is None

    @property
    def options(self) -> str:
        """The command line's options that make this report again, with a space after them."""
        options = ""
        for word, at in (("since", self.since), ("until", self.until)):
            if at is not None:
                options += f"--{word} {at:%Y-%m-%dT%H:%M:%SZ} "
        # Copied into a shell, so only what is a session's name.
        if self.session and _SESSION.fullmatch(self.session):
            options += f"--session {self.session} "
        return options


def render(found: Gathered, verification: dict[str, Any], frame: Frame) -> bytes:
    """The file's bytes."""
    found.documents.total()
    found.program.total()
    style_hash = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    parts = [
        f'{MARK}\n<html lang="en"><head><meta charset="utf-8">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        f"style-src 'sha256-{style_hash}'; base-uri 'none'; form-action 'none'\">"
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark"><meta name="referrer" content="no-referrer">'
        '<meta name="robots" content="noindex"><meta name="generator" content="anchorhold">'
        f"<title>What the model was shown</title><style>{STYLE}</style></head><body>\n",
        _header(found, verification, frame),
        _contents(found),
        "<main>",
        _section("time", "When", timeline.draw(found.hours) + _untimed(found), found),
        _section("files", "Files the model was shown", _files(found), found),
        _section("refused", "What was refused", tables.refused(found), found),
        _section("incidents", "Breaches, kills and limits", tables.incidents(found), found),
        _section("redactions", "Redactions", tables.redactions(found), found),
        _section("models", "Models and policies", tables.models(found) + tables.policies(found), found),
        _section("sessions", "Sessions", tables.sessions(found), found),
        _section("proof", "Verification", proof.verification(verification, found, frame.key_given)),
        _section(
            "check", "How to check this yourself", proof.how_to(verification, frame.checkpoint, frame.options)
        ),
        _section("words", "Words used here", _WORDS),
        "</main>",
        f"<footer><p>Made on {long_date(frame.made)} at {frame.made:%H:%M} UTC by anchorhold"
        f" {name(frame.version)}, "
        "from the audit log alone. This page holds no script and loads nothing.</p></footer></body></html>\n",
    ]
    # Lone surrogates never get here (`text.visible`); should one, it must not cost the report.
    return "".join(parts).encode("utf-8", "backslashreplace")


def _section(key: str, title: str, body: str, found: Gathered | None = None) -> str:
    if found is not None and found.unreadable:  # "none" may not be said of what could not be read
        body = f"<p class=partly>As far as the log could be read.</p>{body}"
    return f'<section id="{key}"><h2>{title}</h2>{body}</section>\n'


def _header(found: Gathered, verification: dict[str, Any], frame: Frame) -> str:
    origin = name(verification.get("origin") or "unknown")
    session = f" Session {name(frame.session)} only." if frame.session else ""
    return (
        "<header><div class=brand>anchorhold · report on the audit log</div>"
        "<h1>What the model was shown</h1>"
        f"<p class=period>{_period(found, frame)}{session}</p>"
        f"<p class=origin>Log {origin} · made on {long_date(frame.made)}</p>"
        f"{proof.banner(verification, found)}"
        f"<p class=lead>{summary(found)}</p>{_tiles(found)}</header>"
    )


def _period(found: Gathered, frame: Frame) -> str:
    first, last = frame.since or moment(found.first), frame.until or moment(found.last)
    if first is None or last is None:
        return "The whole log" if frame.whole else "No entry in this time"
    if frame.whole:
        return f"The whole log: {_span(first, last)}"
    if frame.since is None and frame.until is None:
        return _span(first, last)
    return f"{long_date(first)}, {first:%H:%M}, to {long_date(last)}, {last:%H:%M} (UTC)"


def _span(first: datetime, last: datetime) -> str:
    if first.date() == last.date():
        return f"{long_date(first)}, {first:%H:%M} to {last:%H:%M} (UTC)"
    return f"{long_date(first)} to {long_date(last)}"


def summary(found: Gathered) -> str:
    """The whole report in a few sentences."""
    if not found.entries:
        if found.unreadable:
            return "No entry of this time could be read."
        return "The log has no entry in this time: no model was shown anything."
    tree = found.documents
    least = "" if tree.exact else "at least "
    files = f"<b>{least}{count(tree.files, 'file')}</b>" if tree.times else "<b>no file</b>"
    often = f", {count(tree.times, 'time')} in all" if tree.times > tree.files else ""
    partly = "As far as the log could be read: in" if found.unreadable else "In"
    said = [f"{partly} <b>{count(found.session_count, 'session')}</b> the model was shown {files}{often}."]
    if found.requests:
        said[0] = said[0].replace(
            "</b> the model", f"</b> with {count(found.requests, 'question')} the model", 1
        )
    if found.listings:
        said.append(f"It was told the names in folders {count(found.listings, 'time')}.")
    refused = found.refused - found.refused_at_start
    said.append(f"<b>{count(refused, 'request')}</b> {'was' if refused == 1 else 'were'} refused." if refused
                else "No request was refused.")  # fmt: skip
    if found.names_left_out:
        said.append(f"{count(found.names_left_out, 'name')} left out of listings.")
    events = (
        (found.breaches, "breach", "breaches"), (found.kills, "kill", ""),
        (found.limits, "exceeded limit", ""),
    )  # fmt: skip
    told = [f"<b>{count(number, one, many)}</b>" for number, one, many in events if number]
    if told:
        said.append(f"On record: {', '.join(told)}.")
    if found.redacted_entries:
        said.append(
            f"{count(found.redacted_entries, 'entry', 'entries')} had names or other details redacted."
        )
    return " ".join(said)


def _tiles(found: Gathered) -> str:
    plus = "" if found.documents.exact else "+"
    refused = found.refused - found.refused_at_start
    tiles = [
        (number(found.session_count), "session" if found.session_count == 1 else "sessions", False),
        (number(found.documents.files) + plus, "different files shown", False),
        (number(found.documents.times), "times a file was shown", False),
        (number(refused), "requests refused", False),
        (number(found.breaches), "breach" if found.breaches == 1 else "breaches", found.breaches > 0),
        (number(found.redacted_entries), "entries redacted", False),
    ]
    return (
        "<ul class=tiles>"
        + "".join(
            f"<li{' class=alert' if alert else ''}><b>{value}</b><span>{word}</span></li>"
            for value, word, alert in tiles
        )
        + "</ul>"
    )


def _contents(found: Gathered) -> str:
    links = (
        ("time", "When"), ("files", "Files"), ("refused", "Refused"), ("incidents", "Breaches and kills"),
        ("redactions", "Redactions"), ("models", "Models and policies"), ("sessions", "Sessions"),
        ("proof", "Verification"), ("check", "Check it yourself"), ("words", "Words"),
    )  # fmt: skip
    items = "".join(f'<li><a href="#{key}">{word}</a></li>' for key, word in links)
    return f'<nav aria-label="Contents"><ul>{items}</ul></nav>'


def _untimed(found: Gathered) -> str:
    if not found.untimed:
        return ""
    return f"<p class=hint>{count(found.untimed, 'event')} could not be placed in time.</p>"


def _files(found: Gathered) -> str:
    tree = found.documents
    if not tree.times and not tree.root.folders:
        body = "<p class=none>No file was shown to the model.</p>"
    else:
        body = (
            f"<p>{count(tree.files, 'different file')}{'' if tree.exact else ' at least'}, shown "
            f"{count(tree.times, 'time')}. What was shown most often comes first; select a folder to"
            " open it. "
            "The <em>digest</em> is a fingerprint of the very bytes the model could see.</p>"
        ) + treeview.draw(tree)
    program = found.program
    if program.times or found.model_grants:
        body += (
            f"<details class=more><summary>The program's own files: {count(program.files, 'file')}, opened "
            f"{count(program.times, 'time')}</summary><p>Parts of the program that runs the model"
            " (libraries and "
            "the like). They are the same for every question and hold none of the documents. The model"
            " itself was "
            f"opened {count(found.model_grants, 'time')}.</p>"
            f"{treeview.draw(program, rows=300, folders=120) if program.times else ''}</details>"
        )
    return body


_WORDS = """<dl>
<dt>Session</dt><dd>One run of a model, from its start to its end, in a sealed cell of its own.</dd>
<dt>Shown</dt><dd>The model was given the file to read. Each time is an entry of the log, written before the
file was handed over.</dd>
<dt>Refused</dt><dd>Something was asked for that the rules do not allow. It was not given. Programs often look
for files that they can do without, so a refusal is not by itself a sign of an attack.</dd>
<dt>Breach</dt><dd>Something was asked for that nothing honest asks for. The session was ended at once.</dd>
<dt>Policy</dt><dd>The rules of a session: what may be read, and how much memory and time it may take.</dd>
<dt>Digest</dt><dd>A fingerprint of content (SHA-256). Two files with the same digest have the same content;
one changed letter gives another digest. Here its first 12 digits are shown, the log has all 64.</dd>
<dt>Redacted</dt><dd>A name or another detail was erased from the log on purpose. The log says so itself, with
the reason, and still proves that nothing else was changed.</dd>
<dt>Epoch</dt><dd>A stretch of the log with a signing key of its own, a day as a rule. Old ones can be removed
as a whole; their signed heads stay, so that what follows is still proven.</dd>
<dt>Verified</dt><dd>Every entry was checked against the log's signature, which nobody can make without its
key.</dd>
</dl>"""
