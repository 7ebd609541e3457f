"""Makes a receipt: what one answer was made from, with the proof that the log says so.

Constraint: verifies with the root's public key alone, away from the machine (`anchorhold.verify.receipt`),
and shows that nothing was left out: it holds every entry of the session from the first to the request's end,
and their numbers have no gap. Names can be withheld; the commitments to them stay.

The format is in docs/audit-log.md, Receipts.
"""

from __future__ import annotations

import json
import os
import re
from base64 import b64encode

from anchorhold.audit.entry import GROUPS, SALT, encode, split_openings
from anchorhold.audit.files import audit_error, read_file
from anchorhold.audit.gone import HINT, pruned_before
from anchorhold.audit.note import Checkpoint
from anchorhold.audit.read import Snapshot, log_folder, read_bundle, unreadable
from anchorhold.audit.sessions import Found, of_session
from anchorhold.audit.tree import WIDTH, multiproof
from anchorhold.errors import AuditError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path

    from anchorhold.audit.read import Epoch

_NAME = re.compile(r"([0-9a-f]{16})(-[1-9][0-9]{0,15})?", re.ASCII)
_BEGINNING = re.compile(r"[0-9a-f]{1,15}(-[1-9][0-9]{0,15})?", re.ASCII)


def make(state_dir: Path, which: str, *, hide: tuple[str, ...] = ()) -> bytes:
    """The receipt of a session (16 hex digits) or of one request of it (``<session>-<number>``).

    ``hide``: groups whose openings are withheld. Raises UsageError where it is no such name, AuditError where
    the log has no such thing, or its end is not signed yet.
    """
    name = _NAME.fullmatch(which)
    if name is None:
        gone = pruned_before(state_dir) if _BEGINNING.fullmatch(which) else ""
        raise UsageError(
            f"{ascii(which)} is no session and no request"
            + (gone and f"; such a one may have been pruned: {gone}"),
            hint=HINT if gone else "anchorhold audit list --kind request.end shows them.",
        )
    log = log_folder(state_dir)
    try:
        snapshot = Snapshot(log)
        entries = of_session(snapshot, name[1])
        if not entries or entries[0].fields.get("n") != 0:
            gone = pruned_before(state_dir)
            what = "its beginning was pruned" if entries else "the log has no such session"
            why = gone and (f": {gone}" if entries else f"; it may have been pruned: {gone}")
            raise AuditError(
                f"there is no receipt for {which}: {what}{why}",
                hint=HINT if gone else "Run: anchorhold audit list",
            )
        if name[2]:
            entries = _until(entries, which, int(name[2][1:]))
        numbers = sorted({one.epoch for one in entries})
        parts = [_part(snapshot.epochs[number], entries, hide) for number in numbers]
        chain = [_link(snapshot.epochs[number]) for number in range(entries[-1].epoch)]
    except OSError as error:
        raise audit_error(error, "be read", error.filename or log) from error
    head = {"anchorhold": "receipt", "v": 2, "session": name[1], "request": which if name[2] else None}
    return _text(head, chain, parts)


def _until(entries: list[Found], request: str, number: int) -> list[Found]:
    """Up to the end of the request: what the model was shown before is part of what the answer was made
    from."""
    for at, one in enumerate(entries):
        if one.fields.get("kind") == "request.end" and one.fields.get("request") in (number, request):
            return entries[: at + 1]
    raise AuditError(
        f"there is no receipt for {request}: it has no end in the log",
        hint="Run: anchorhold audit list --kind request.end",
    )


def _part(epoch: Epoch, entries: list[Found], hide: tuple[str, ...]) -> dict[str, object]:
    """What lies in one epoch, proved against its signed head."""
    mine = [one for one in entries if one.epoch == epoch.number]
    note = _text_file(epoch, "checkpoint")
    head = Checkpoint.parse(note.encode())
    indexes = [one.index for one in mine]
    if indexes[-1] >= head.size:
        raise AuditError("the end of it is not signed yet", hint="Run: anchorhold audit checkpoint")
    ranges: list[list[int]] = []
    for index in indexes:
        if ranges and ranges[-1][1] == index - 1:
            ranges[-1][1] = index
        else:
            ranges.append([index, index])
    return {
        "vkey": _text_file(epoch, "vkey").removesuffix("\n"),
        "checkpoint": note,
        "indexes": ranges,
        "proof": _proof(epoch, head.size, indexes),
        "entries": [_opened(one, hide) for one in mine],
    }


def _opened(one: Found, hide: tuple[str, ...]) -> str:
    """The entry with ``["<salt>",{…}]`` in place of each commitment that is not withheld."""
    text = one.data.decode("ascii")
    if one.openings is None:
        return text
    spans, groups, _ = split_openings(one.openings, 0)
    for (start, end), group in zip(spans, groups, strict=True):
        if start < end and GROUPS[group] not in hide and GROUPS[group] in one.fields:
            salt = b64encode(one.openings[start : start + SALT]).decode()
            opening = f'["{salt}",{one.openings[start + SALT : end].decode("ascii")}]'
            # the commitments are the entry's last members
            text = f'"{GROUPS[group]}":{opening}'.join(
                text.rsplit(f'"{GROUPS[group]}":"{one.fields[GROUPS[group]]}"', 1)
            )
    return text


def _link(epoch: Epoch) -> dict[str, object]:
    """How an epoch hands on to the next: its final head, and its last entry, which names the next key."""
    vkey, note = _text_file(epoch, "vkey").removesuffix("\n"), _text_file(epoch, "checkpoint")
    if epoch.pruned:
        try:
            end = json.loads(read_file(os.path.join(epoch.folder, "end")) or b"")
            return {"vkey": vkey, "checkpoint": note, "entry": end["entry"], "proof": end["proof"]}
        except (ValueError, TypeError, KeyError, RecursionError):
            raise unreadable(epoch.first + epoch.size - 1) from None
    last, proof = last_entry(epoch)
    return {"vkey": vkey, "checkpoint": note, "entry": last.decode("ascii"), "proof": proof}


def last_entry(epoch: Epoch) -> tuple[bytes, list[str]]:
    """The last entry of an ended epoch and its proof against the final head. AuditError, OSError."""
    bundle = read_bundle(epoch, (epoch.size - 1) // WIDTH)
    return bundle.entries[-1], _proof(epoch, epoch.size, [epoch.size - 1])


def _proof(epoch: Epoch, size: int, indexes: list[int]) -> list[str]:
    return [b64encode(value).decode() for value in multiproof(epoch.folder, size, indexes)]


def _text_file(epoch: Epoch, name: str) -> str:
    data = read_file(os.path.join(epoch.folder, name))
    if data is None:
        raise AuditError(
            f"the audit log is damaged: {name} of epoch {epoch.number} is missing",
            hint="Run: anchorhold audit verify",
        )
    return data.decode("utf-8", "replace")


def _text(head: dict[str, object], chain: list[dict[str, object]], parts: list[dict[str, object]]) -> bytes:
    """The receipt as JSON, one entry a line. Entries and openings are put in as they are: their bytes are
    hashed."""
    links = [_object(link, {"entry"}) for link in chain]
    pieces = [_object(part, {"entries"}) for part in parts]
    body = (
        encode(head)[:-1] + ',\n"chain":[' + ",\n".join(links) + '],\n"parts":[' + ",\n".join(pieces) + "]}\n"
    )
    return body.encode("ascii")


def _object(fields: dict[str, object], raw: set[str]) -> str:
    members = []
    for name, value in fields.items():
        if name not in raw:
            text = encode(value)
        elif isinstance(value, list):
            text = "[\n" + ",\n".join(value) + "]"
        else:
            text = str(value)
        members.append(f'"{name}":{text}')
    return "{" + ",\n".join(members) + "}"
