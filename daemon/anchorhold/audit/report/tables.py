"""The report's tables: what was refused, what went wrong, redactions, models, policies, sessions.

Every table has a bounded number of rows and says how many it leaves out.
"""

from __future__ import annotations

from anchorhold.audit.report.gather import Digest, Event, Gathered, Reason, Session
from anchorhold.audit.report.text import count, name, number, size, when, words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

REASONS = 100
ASKED = 600
"""Rows of things asked for, shared by the reasons."""

AT_ONCE = 10
"""Rows of one reason that are in view at once."""

EVENTS = 100
SESSIONS = 400
FIRST = 20
"""Sessions that are in view at once."""

USERS = 8
SHORT = 8
"""Characters of a session's name; enough to name it with."""

WITHHELD = "<span class=wh>name redacted</span>"

CALLS = {
    "open": "open a file", "openat": "open a file", "openat2": "open a file", "creat": "create a file",
    "stat": "look at a file's details", "lstat": "look at a file's details",
    "newfstatat": "look at a file's details", "statx": "look at a file's details",
    "access": "ask whether a file may be read", "faccessat": "ask whether a file may be read",
    "faccessat2": "ask whether a file may be read", "readlink": "follow a link",
    "readlinkat": "follow a link",
    "getdents64": "list a folder", "getdents": "list a folder", "chdir": "go to a folder",
    "socket": "open a network connection", "connect": "connect to a network", "bind": "serve a network",
    "sendto": "send to a network", "execve": "start a program", "execveat": "start a program",
    "fork": "start a process", "vfork": "start a process", "clone": "start a process",
    "clone3": "start a process", "ptrace": "watch another process", "kill": "signal another process",
    "mmap": "run new code in memory", "mprotect": "run new code in memory", "unlink": "delete a file",
    "unlinkat": "delete a file", "rename": "rename a file", "renameat2": "rename a file",
    "mkdir": "create a folder", "mkdirat": "create a folder", "mount": "attach a disk",
}  # fmt: skip
"""What a system call does, for people."""


def _call(call: str) -> str:
    if not call:
        return ""
    said = CALLS.get(call)
    return f"{said} <span class=hint>({name(call)})</span>" if said else name(call)


def _calls(calls: dict[str, int]) -> str:
    """What was to be done, each thing once, most frequent first."""
    said: dict[str, list[str]] = {}
    for call in sorted(calls, key=lambda call: (-calls[call], call))[:6]:
        said.setdefault(CALLS.get(call, ""), []).append(name(call) if call else "")
    parts = [
        f"{what} <span class=hint>({', '.join(how)})</span>" if what else ", ".join(how)
        for what, how in said.items()
    ]
    more = len(calls) - 6
    return "; ".join(parts) + (f" and {count(more, 'more way')}" if more > 0 else "")


def table(
    heads: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: Sequence[int] = (), cls: str = "wide"
) -> str:
    """Cells are HTML. At the width of a phone each row is a card, its cells labelled by ``data-l``."""
    top = "".join(f"<th{' class=n' if at in numbers else ''}>{head}" for at, head in enumerate(heads))
    body = "".join(
        "<tr>"
        + "".join(
            f'<td data-l="{heads[at]}"{" class=n" if at in numbers else ""}><div>{cell}</div>'
            for at, cell in enumerate(row)
        )
        for row in rows
    )
    return f"<table class='{cls}'><thead><tr>{top}<tbody>{body}</table>"


def _rest(left_out: int, one: str, many: str = "") -> str:
    return (
        f"<p class=rest>and {count(left_out, 'more ' + one, 'more ' + many if many else '')}</p>"
        if left_out > 0
        else ""
    )


def short_session(session: str) -> str:
    """A session's name, short."""
    return name(session[:SHORT]) if session else "–"


# -- refused


def refused(found: Gathered) -> str:
    """By reason, then by what was asked for."""
    while_running = found.refused - found.refused_at_start
    groups = sorted(found.reasons.items(), key=lambda item: -item[1].count)
    sealed = [reason for (starting, _), reason in groups if not starting]
    boot = [reason for (starting, _), reason in groups if starting]
    if not groups and not found.names_left_out:
        return "<p class=none>Nothing was refused.</p>"
    room = ASKED
    if sealed:
        total = f"{count(while_running, 'request')} {'was' if while_running == 1 else 'were'} refused. "
        parts = [f"<p>{total}Nothing of what is listed here was given to the model.</p>"]
    else:
        parts = ["<p class=none>Nothing was refused while documents could be read.</p>"]
    if left_out := found.names_left_out:
        parts.append(
            f"<p>{count(left_out, 'name')} {'was' if left_out == 1 else 'were'} left out of listings:"
            " what a rule hides, what has a second name, what is a link that leads out."
            " A name counts each time that its folder was listed.</p>"
        )
    for reason in sealed[:REASONS]:
        text, room = _reason(reason, room)
        parts.append(text)
    parts.append(_rest(len(sealed) - REASONS, "reason"))
    if boot:
        parts.append(
            "<details class=more><summary>While the program was starting:"
            f" {count(found.refused_at_start, 'request')}"
            " refused</summary><p>Before the cell is sealed there is no document and no model in it."
            " What is refused"
            " then is mostly the program looking for settings it can do without.</p>"
        )
        for reason in boot[:20]:
            text, room = _reason(reason, min(room, 200))
            parts.append(text)
        parts.append(_rest(len(boot) - 20, "reason") + "</details>")
    return "".join(parts)


def _reason(reason: Reason, room: int) -> tuple[str, int]:
    """One reason's table, and how many rows are left for the others."""
    title = words(reason.reason) if reason.reason else "<span class=wh>reason redacted</span>"
    paths: dict[str | None, dict[str, int]] = {}
    for (call, path), times in reason.asked.items():
        paths.setdefault(path, {})[call] = times
    asked = sorted(paths.items(), key=lambda item: (-sum(item[1].values()), str(item[0])))
    shown = asked[: max(3, min(40, room // 3))]
    rows = [[_path(path), _calls(calls), f"{number(sum(calls.values()))}×"] for path, calls in shown]
    more = sum(sum(calls.values()) for _, calls in asked[len(shown) :]) + reason.left_out
    head = f"<h3>{title} <span class='tag r'>{number(reason.count)}×</span></h3>"
    rest = f"<p class=rest>and more of the same kind, {count(more, 'time')}</p>" if more else ""
    heads = ("Asked for", "To", "Times")
    body = table(heads, rows[:AT_ONCE], numbers=(2,), cls="wide ask") if rows else ""
    if rows[AT_ONCE:]:
        later = table(heads, rows[AT_ONCE:], numbers=(2,), cls="wide ask")
        summary = f"{number(len(rows) - AT_ONCE)} more that were asked for"
        body += f"<details class=more><summary>{summary}</summary>{later}</details>"
    return head + body + rest, room - len(shown)


def _path(path: str | None) -> str:
    if path is None:
        return "<span class=none>no file</span>"
    return name(path) if path else WITHHELD


# -- what went wrong

_TITLES = {"breach": "Breach", "kill": "Kill", "limit": "Over a limit"}


def incidents(found: Gathered) -> str:
    """Each breach, kill and limit by itself: they are few, or the first ones say enough."""
    events = found.incidents
    if not events:
        return "<p class=none>None: no session was ended by a breach, a kill or a limit.</p>"
    rows = [
        [
            when(event.time),
            f"<span class='tag {'a' if event.kind == 'limit' else 'r'}'>{_TITLES[event.kind]}</span>",
            _what(event),
            short_session(event.session),
        ]
        for event in events[:EVENTS]
    ]
    total = found.breaches + found.kills + found.limits
    return table(("Time (UTC)", "Kind", "What happened", "Session"), rows) + _rest(total - len(rows), "event")


def _what(event: Event) -> str:
    parts = []
    if event.kind == "breach":
        parts.append(f"tried to {_call(event.what)}" if event.what in CALLS else _call(event.what))
    elif event.kind == "limit" and event.what:
        parts.append(f"limit on {name(event.what)}")
    if event.path:
        parts.append(name(event.path))
    if event.reason:
        parts.append(words(event.reason))
    if event.withheld:
        parts.append("<span class=wh>details redacted</span>")
    if event.detail:
        parts.append(event.detail)
    return " · ".join(part for part in parts if part) or "–"


# -- redactions


def redactions(found: Gathered) -> str:
    """What was erased on purpose, why and by whom."""
    events = found.redactions
    if not events:
        body = "<p class=none>No redaction was made in this time.</p>"
    else:
        rows = [
            [
                when(event.time),
                _erased(event),
                words(event.reason) if event.reason else "<span class=none>no reason given</span>",
                words(event.detail) if event.detail else "<span class=none>not said</span>",
            ]
            for event in events[:EVENTS]
        ]
        body = (
            "<p>Names or other details were erased from the log on purpose. What was done and when"
            " still stands.</p>"
            + table(("Time (UTC)", "Erased", "Why", "By"), rows)
            + _rest(len(events) - len(rows) + found.redactions_left_out, "time", "times")
        )
    if found.with_redaction:
        verb = "has" if found.with_redaction == 1 else "have"
        body += (
            "<p>Of the entries that this report covers,"
            f" {count(found.with_redaction, 'entry', 'entries')} {verb} "
            f"something redacted. A file among them is shown as {WITHHELD}.</p>"
        )
    return body


def _erased(event: Event) -> str:
    if event.kind == "prune":
        return f"all entries of the epochs {name(event.what)}; their signed heads are kept"
    return f"{count(event.count, 'entry', 'entries')}: {name(event.what)}"


# -- models and policies


def models(found: Gathered) -> str:
    """The models, told apart by their digests."""
    rows = [
        [
            _names(digest),
            f"<code class=long>{name(digest.digest)}</code>",
            f"<span class=nw>{size(digest.size)}</span>" if digest.size else "–",
            *_users(digest),
        ]
        for digest in _by_use(found.models)
    ]
    if not rows:
        return "<h3>Models</h3><p class=none>No session of this time names a model.</p>"
    return (
        "<h3>Models</h3>"
        + table(("Model", "Digest", "Size", "Sessions", "Which"), rows, numbers=(3,))
        + _left(found)
    )


def policies(found: Gathered) -> str:
    """The policies, told apart by their digests."""
    rows = [
        [_names(digest), f"<code class=long>{name(digest.digest)}</code>", *_users(digest)]
        for digest in _by_use(found.policies)
    ]
    if not rows:
        return "<h3>Policies</h3><p class=none>No session of this time names a policy.</p>"
    return "<h3>Policies</h3>" + table(("Policy", "Digest", "Sessions", "Which"), rows, numbers=(2,))


def _by_use(known: dict[str, Digest]) -> list[Digest]:
    return sorted(known.values(), key=lambda digest: (-digest.sessions, digest.digest))[:EVENTS]


def _left(found: Gathered) -> str:
    more = found.digests_left_out + max(0, len(found.models) - EVENTS) + max(0, len(found.policies) - EVENTS)
    return "<p class=rest>More models or policies were used than are shown here.</p>" if more else ""


def _names(digest: Digest) -> str:
    return ", ".join(WITHHELD if one is None else name(one) for one in digest.names) or "–"


def _users(digest: Digest) -> list[str]:
    shown = " ".join(short_session(user) for user in digest.users[:USERS])
    more = digest.sessions - min(USERS, len(digest.users))
    return [number(digest.sessions), shown + (f" and {number(more)} more" if more > 0 else "")]


# -- sessions


def sessions(found: Gathered) -> str:
    """One row each, the latest first."""
    known = sorted(found.sessions.values(), key=lambda session: session.first, reverse=True)
    if not known:
        return "<p class=none>No session in this time.</p>"
    rows = [_session(session) for session in known[:SESSIONS]]
    notes = "<p>The latest comes first. All times are UTC.</p>"
    if found.no_end:
        notes = notes.replace(
            "</p>",
            f" {count(found.no_end, 'session has', 'sessions have')} <span class='tag a'>no end</span>"
            " here: still"
            " running, crashed, or ended after the time of this report.</p>",
        )
    heads = ("Session", "Start", "End", "Model", "Policy", "Questions", "Files", "Refused")
    body = table(heads, rows[:FIRST], numbers=(5, 6, 7))
    if rows[FIRST:]:
        body += (
            f"<details class=more><summary>{count(len(rows) - FIRST, 'earlier session')}</summary>"
            f"{table(heads, rows[FIRST:], numbers=(5, 6, 7))}</details>"
        )
    return notes + body + _rest(found.session_count - len(rows), "session")


def _session(session: Session) -> list[str]:
    start = when(session.start) if session.start else f"before {when(session.first)}"
    end = when(session.end) if session.end else "<span class='tag a'>no end</span>"
    for times, word in ((session.breaches, "breach"), (session.kills, "kill"), (session.limits, "limit")):
        if times:
            end += f" <span class='tag r'>{word}</span>"
    return [
        short_session(session.name),
        start,
        end,
        _known(session.model_name, session.model),
        _known(session.policy, session.policy_sha256),
        number(session.requests),
        number(session.files) + ("" if session.exact else "+"),
        number(session.refused),
    ]


def _known(label: str, digest: str) -> str:
    """A name and, below it, the beginning of its digest."""
    parts = [name(label)] if label else []
    parts += [f"<code class=hint>{name(digest[:12])}</code>"] if digest else []
    return "<br>".join(parts) or "–"
