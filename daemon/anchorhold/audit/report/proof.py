"""What verification found, and how a reader finds the same.

Constraint: the page must not claim more than was checked. It is a summary that anybody can edit; the proof is
the log, so it says how to check that.
"""

from __future__ import annotations

import re

from anchorhold.audit.report.text import count, name, number, visible, words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from anchorhold.audit.report.gather import Gathered

FINDINGS = 60
_KEY = re.compile(r"[\w+/=.<>:-]{1,300}", re.ASCII)

_TICK = (
    '<svg viewBox="0 0 36 36" aria-hidden="true"><circle cx="18" cy="18" r="16" fill="none"'
    ' stroke="currentColor"'
    ' stroke-width="3"/><path d="M11 18.5l5 5 9.5-11" fill="none" stroke="currentColor"'
    ' stroke-width="3.4"/></svg>'
)
_CROSS = (
    '<svg viewBox="0 0 36 36" aria-hidden="true"><path d="M18 3 34 32H2z" fill="none" stroke="currentColor"'
    ' stroke-width="3" stroke-linejoin="round"/><path d="M18 13v9m0 4v.5" fill="none" stroke="currentColor"'
    ' stroke-width="3.4" stroke-linecap="round"/></svg>'
)


def _whole(verification: dict[str, Any], field: str) -> int:
    value = verification.get(field)
    return min(value, 10**15) if isinstance(value, int) else 0


def _listed(verification: dict[str, Any], field: str) -> list[Any]:
    value = verification.get(field)
    return value if isinstance(value, list) else []


def banner(verification: dict[str, Any], found: Gathered) -> str:
    """The verdict, first of all."""
    lost = ""
    if found.unreadable:
        lost = (
            f" {count(found.unreadable, 'entry', 'entries')} could not be read ({words(found.problem)}):"
            " this report does not know what was in them."
        )
    if verification.get("ok") is not True:
        title = "The log does NOT verify"
        said = (
            "Something in it was changed, removed or damaged after it was written. Do not rely on this report"
            f" before that is explained.{lost} <a href='#proof'>What was found</a>"
        )
    elif found.unreadable:
        title, said = "This report is NOT complete", lost
    else:
        entries = _whole(verification, "entries")
        late = entries - _whole(verification, "signed")
        unsigned = ""
        if late > 0:
            which = "The last one is" if late == 1 else f"The last {number(late)} of them are"
            unsigned = f" {which} not signed yet."
        said = (
            f"{count(entries, 'entry', 'entries')} checked: up to the signed head none was changed, removed"
            f" or put in.{unsigned}"
            " <a href='#check'>Check it yourself</a>"
        )
        return _banner("good", _TICK, "The log verifies", said)
    return _banner("bad", _CROSS, title, said)


def _banner(kind: str, sign: str, title: str, said: str) -> str:
    return f"<div class='verdict {kind}'>{sign}<div><strong>{title}</strong><p>{said}</p></div></div>"


def verification(result: dict[str, Any], found: Gathered, key_given: bool) -> str:
    """What was checked, and everything that is wrong."""
    key = (
        "the key that whoever made this report named as the right one"
        if key_given
        else "the key that lies beside the log. To know that it is the right one, compare it with a copy that"
        " you got another way"
    )
    facts = [
        (
            "Result",
            "<span class=tag>verifies</span>"
            if result.get("ok") is True
            else "<span class='tag r'>does not verify</span>",
        ),
        ("Entries in the log", number(_whole(result, "entries"))),
        ("Covered by the signature", number(_whole(result, "signed"))),
        ("Entries in this report", _covered(found)),
        ("Checked with", key),
        ("Root of the log", f"<code>{name(result.get('root') or '–')}</code>"),
    ]
    redacted = _whole(result, "redacted")
    if redacted:
        facts.append(("Redacted", f"{count(redacted, 'entry', 'entries')}, as the log itself tells"))
    if _whole(result, "epochs"):
        facts.append(("Signing keys so far", number(_whole(result, "epochs"))))
    if _whole(result, "pruned_epochs"):
        facts.append(
            ("Removed as planned", f"{count(_whole(result, 'pruned_epochs'), 'epoch')}, signed heads kept")
        )
    witnesses = _listed(result, "witnesses")
    if witnesses:
        facts.append(("Witnesses", "; ".join(_witness(one) for one in witnesses[:20])))
    body = "<dl>" + "".join(f"<dt>{term}<dd>{value}" for term, value in facts) + "</dl>"
    if found.recovered:
        body += (
            f"<p>After {count(found.recovered, 'crash', 'crashes')} the log was put in order again;"
            " what was torn was"
            " set aside and recorded.</p>"
        )
    return body + _findings(result) + _notes(result) + _LIMITS


_LIMITS = (
    "<h3>What this does not show</h3><p>Whether the log was exchanged as a whole: for another one with"
    " another key, or for an older copy of itself. The first shows when the key is compared, the second when"
    " a signed head that was kept elsewhere is compared. See"
    " <a href='#check'>how to check this yourself</a>.</p>"
)


def _covered(found: Gathered) -> str:
    if found.first_seq is None or found.last_seq is None:
        return "none"
    return f"{number(found.entries)} (number {name(found.first_seq)} to {name(found.last_seq)})"


def _witness(one: object) -> str:
    if isinstance(one, dict):
        return ", ".join(f"{name(key)} {name(value)}" for key, value in list(one.items())[:6])
    return name(one)


def _findings(result: dict[str, Any]) -> str:
    findings = [one for one in _listed(result, "findings") if isinstance(one, dict)]
    if not findings:
        return ""
    items = []
    for one in findings[:FINDINGS]:
        seq, last = one.get("seq"), one.get("last")
        where = (
            ""
            if seq is None
            else f"entry {name(seq)}"
            if last in (seq, None)
            else f"entries {name(seq)} to {name(last)}"
        )
        items.append(
            f"<li>{where}{': ' if where else ''}{words(one.get('problem'))} <span"
            f" class=hint>({name(one.get('place'))})</span>"
        )
    more = len(findings) - len(items) + _whole(result, "findings_left_out")
    rest = f"<p class=rest>and {number(more)} more</p>" if more else ""
    sound = ""
    if result.get("proven") is True:
        bad = _whole(result, "bad_entries")
        sound = f"<p>All other entries are proven to be as they were written ({number(bad)} are not).</p>"
    else:
        sound = "<p>The signature does not cover what is there, so no entry is proven.</p>"
    return f"<h3>What is wrong</h3><ul>{''.join(items)}</ul>{rest}{sound}"


def _notes(result: dict[str, Any]) -> str:
    notes = _listed(result, "notes")
    if not notes:
        return ""
    items = "".join(f"<li>{words(note)}" for note in notes[:FINDINGS])
    return f"<h3>Notes</h3><ul>{items}</ul>"


def how_to(result: dict[str, Any], checkpoint: str, options: str = "") -> str:
    """Steps for a reader, or for somebody whom the reader asks."""
    key = result.get("key")
    # It is copied into a shell: what is no key is not offered for that.
    vkey = name(key) if isinstance(key, str) and _KEY.fullmatch(key) else "KEY"
    lines = [visible(line) for line in checkpoint.rstrip("\n").split("\n")[:40]]
    head = "<pre>" + "\n".join(f"<bdi>{line}</bdi>" for line in lines) + "</pre>"
    parts = [
        "<p>This page is a summary, and a page can be edited by anybody. The proof is the log itself."
        " To check it, you"
        " need a copy of the log's folder and the log's public key, and nothing from whoever keeps the"
        " log but these.</p>"
        "<ol class=steps>"
        "<li><p><strong>Ask for a copy of the folder</strong> that holds the log. On a computer of your"
        " own, put it into"
        " a folder that is called <code>LOG</code> below.</p>"
        "<li><p><strong>Compare the public key.</strong> It should be the one that you were given when"
        " the log began, on"
        f" paper or by another person. The key of this log is:</p><pre>{vkey}</pre>"
        "<li><p><strong>Verify</strong>, with the verifier alone, which changes nothing and needs no"
        " network:</p>"
        f"<pre>python -m anchorhold.verify LOG --key '{vkey}'</pre><p>or, on the computer that keeps"
        " the log:</p>"
        f"<pre>anchorhold audit verify --key '{vkey}'</pre>"
        "<p>Both say “the log verifies” and end with code 0, or name what is wrong and end with code 5.</p>"
        "<li><p><strong>Make this report again</strong> from the log that you verified, and compare the"
        " numbers:</p>"
        f"<pre>anchorhold audit report {options}--html again.html</pre>"
    ]
    if checkpoint:
        parts.append(
            "<li><p><strong>Keep the signed head.</strong> These lines stand for the whole log as it is"
            " now. Kept"
            " somewhere else, on paper even, they show later whether anything was taken back:</p>" + head
        )
    return "".join(parts) + "</ol>"
