"""Verifies a receipt: what one answer was made from, proved with the log's public key alone.

What is checked: the chain of keys from the given one to the epochs that the receipt is of, each signed head,
that the entries are in the trees with those heads, each opened group against its commitment, and that the
session's entries are numbered without a gap from the first on, so that none was left out. docs/audit-log.md,
Receipts.

Everything in a receipt is hostile until it is proved.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable
from typing import Any

from anchorhold.verify.entries import GROUPS, SALT, Entry, EntryError, encode, no_duplicates
from anchorhold.verify.merkle import ProofError, leaf, proved_root
from anchorhold.verify.note import Head, NoteError, VerifierKey, decode64, read_head
from anchorhold.verify.rules import Rules, Segment, wall_seconds

LIMIT = 256 << 20
"""Bytes of a receipt."""


class ReceiptError(Exception):
    """The receipt does not prove what it says. The text says why."""


class Proved:
    """What a receipt proves. ``entries`` are its entries as readers show them, names in place of commitments
    where they were opened; ``withheld`` counts groups that were not; ``epochs``: numbers of heads that were
    checked."""

    def __init__(self, session: str, request: str | None) -> None:
        self.session, self.request = session, request
        self.entries: list[dict[str, Any]] = []
        self.withheld = 0
        self.signed = 0

    @property
    def grants(self) -> list[dict[str, Any]]:
        """Entries of files that the model was shown: class ``data`` and ``stdin``."""
        return [
            one for one in self.entries if one["kind"] == "grant" and one.get("class") in ("data", "stdin")
        ]

    @property
    def ended(self) -> bool:
        """Whether the session's end is in it: else it shows that nothing is missing up to its last entry, and
        not what came after that."""
        return bool(self.entries[-1]["kind"] == "session.end")

    def find(self, kind: str) -> list[dict[str, Any]]:
        """The entries of a kind."""
        return [one for one in self.entries if one["kind"] == kind]

    def matches(self, data: bytes, others: Iterable[bytes] = ()) -> list[str]:
        """What these bytes are, by the digests and commitments of the receipt; empty if it says nothing of
        them. ``others``: a question with instructions to the model is committed to together with these."""
        digest = hashlib.sha256(data).hexdigest()
        found = []
        for one in self.grants:
            if one.get("sha256") == digest:
                found.append(f"shown to the model: entry {one['seq']}")
        mine, more = _forms(data), [b"", *(form for one in others for form in _forms(one))]
        questions = [text + b"\0" + other for text in mine for other in more]
        instructions = [other + b"\0" + text for text in mine if text for other in more[1:]]
        for kind, name, words, texts in (
            ("request.start", "prompt", "the question", questions),
            ("request.start", "prompt", "the instructions to the model", instructions),
            ("request.end", "output", "the answer", mine),
        ):
            for one in self.find(kind):
                commitment = one.get(name)
                if isinstance(commitment, dict) and _commits(commitment, texts):
                    found.append(f"{words}: entry {one['seq']}")
        return list(dict.fromkeys(found))

    def as_dict(self) -> dict[str, object]:
        """The stable form of ``--json``."""
        start = self.find("session.start")[:1]
        model = start[0].get("model") if start else None
        return {
            "ok": True,
            "session": self.session,
            "request": self.request,
            "entries": len(self.entries),
            "ended": self.ended,
            "withheld": self.withheld,
            "from": self.entries[0]["time"],
            "to": self.entries[-1]["time"],
            "model": model,
            "policy_sha256": start[0].get("policy_sha256") if start else None,
            "shown": [
                {
                    name: one.get(name)
                    for name in ("seq", "time", "class", "path", "resolved", "sha256", "size")
                }
                for one in self.grants
            ],
            "refused": len(self.find("denial")),
            "listed": len(self.find("list")),
            "prompts": [one.get("prompt") for one in self.find("request.start")],
            "outputs": [one.get("output") for one in self.find("request.end")],
        }


def _forms(data: bytes) -> list[bytes]:
    """A text as it is, and without the newline that an editor put at its end."""
    return list(dict.fromkeys((data, data.removesuffix(b"\n"))))


def _commits(commitment: dict[str, Any], texts: Iterable[bytes]) -> bool:
    try:
        salt, digest = bytes.fromhex(str(commitment.get("salt"))), str(commitment.get("sha256"))
    except ValueError:
        return False
    return any(hashlib.sha256(salt + one).hexdigest() == digest for one in texts)


def verify_receipt(data: bytes, vkey: str) -> Proved:
    """Check a receipt with the root's vkey, or that of a later epoch. Raises ReceiptError."""
    try:
        return _Receipt(data, VerifierKey(vkey.strip())).check()
    except (EntryError, NoteError) as error:
        raise ReceiptError(str(error)) from None
    except ProofError:
        raise ReceiptError("a proof in it does not lead to the signed head") from None


class _Receipt:
    def __init__(self, data: bytes, key: VerifierKey) -> None:
        self.receipt = _members(_parse(data), "anchorhold", "v", "session", "request", "chain", "parts")
        self.key = key
        if self.receipt["anchorhold"] != "receipt" or self.receipt["v"] != 2:
            raise ReceiptError("it is no receipt of this form")
        session, request = self.receipt["session"], self.receipt["request"]
        if type(session) is not str or not (request is None or type(request) is str):
            raise ReceiptError("it names no session")
        self.proved = Proved(session, request)

    def check(self) -> Proved:
        """All of it."""
        links, parts = _list(self.receipt["chain"]), _list(self.receipt["parts"])
        if not parts:
            raise ReceiptError("it holds no entries")
        keys = self._chain(links)
        rules, last = Rules(), -1
        for part in parts:
            fields = _members(part, "vkey", "checkpoint", "indexes", "proof", "entries")
            key = keys.get(str(fields["vkey"]))
            if key is None:
                raise ReceiptError("the key of a part does not follow from the given one")
            last = self._part(fields, key, rules, last)
        self._complete()
        return self.proved

    def _chain(self, links: list[Any]) -> dict[str, VerifierKey]:
        """The keys that follow from the given one: each is named by the last entry of the epoch before."""
        keys = {self.key.text: self.key}
        current: VerifierKey | None = None
        for link in links:
            fields = _members(link, "vkey", "checkpoint", "entry", "proof")
            if current is None and fields["vkey"] != self.key.text:
                continue  # before the epoch whose key is trusted
            current = self.key if current is None else current
            if fields["vkey"] != current.text:
                raise ReceiptError("its chain of keys is broken")
            head = self._head(fields["checkpoint"], current)
            data = _encoded(_object(fields["entry"]))
            if proved_root(head.size, [(head.size - 1, leaf(data))], _hashes(fields["proof"])) != head.root:
                raise ProofError
            entry = Entry(data)
            if entry.kind != "epoch.end":
                raise ReceiptError("the last entry of an epoch is not its epoch.end")
            current = VerifierKey(str(entry.fields.get("next")))
            keys[current.text] = current
        return keys

    def _head(self, note: object, key: VerifierKey) -> Head:
        if type(note) is not str:
            raise ReceiptError("a checkpoint is missing")
        return read_head(note.encode("utf-8", "surrogatepass"), key)

    def _part(self, fields: dict[str, Any], key: VerifierKey, rules: Rules, last: int) -> int:
        """The entries of one epoch; returns the seq of the last of them."""
        head = self._head(fields["checkpoint"], key)
        objects = [_object(one) for one in _list(fields["entries"])]
        indexes = _indexes(fields["indexes"], head.size, len(objects))
        leaves, first = [], None
        for index, shown in zip(indexes, objects, strict=True):
            data, flat = self._closed(shown)
            leaves.append((index, leaf(data)))
            entry = Entry(data)
            first = entry.seq - index if first is None else first
            if entry.seq != first + index or entry.seq <= last or entry.session != self.proved.session:
                raise ReceiptError(f"entry {entry.seq} is not at its place, or of another session")
            last = entry.seq
            wall = wall_seconds(entry.second) * 1_000_000 + entry.micro
            detail = entry.fields.get("request" if entry.kind.startswith("request.") else "class")
            if detail is not None and type(detail) not in (str, int):
                raise ReceiptError(f"entry {entry.seq}: its class or request is of the wrong type")
            segment = Segment(entry.session, entry.seq, entry.n, wall - entry.mono)
            segment.add(entry.seq, entry.n, wall - entry.mono, entry.kind, detail)
            for seq, words, _ in rules.check(segment):
                raise ReceiptError(f"entry {seq}: {words}")
            self.proved.entries.append(flat)
        if proved_root(head.size, leaves, _hashes(fields["proof"])) != head.root:
            raise ProofError
        self.proved.signed += head.size
        return last

    def _closed(self, shown: dict[str, Any]) -> tuple[bytes, dict[str, Any]]:
        """An entry's bytes, with the commitments where the receipt has opened groups; and as readers show
        it."""
        closed: dict[str, Any] = {}
        flat: dict[str, Any] = {}
        for name, value in shown.items():
            if name in GROUPS and isinstance(value, list):
                if len(value) != 2 or type(value[0]) is not str or not isinstance(value[1], dict):
                    raise ReceiptError("an opening in it is malformed")
                salt = decode64(value[0])
                if len(salt) != SALT:
                    raise ReceiptError("an opening in it is malformed")
                opening = salt + _encoded(value[1])
                closed[name] = base64.b64encode(hashlib.sha256(opening).digest()).decode()
                flat.update((key, one) for key, one in value[1].items() if key not in shown)
            elif name in GROUPS:
                closed[name] = value
                self.proved.withheld += 1
            else:
                closed[name] = flat[name] = value
        return _encoded(closed), flat

    def _complete(self) -> None:
        """From the session's first entry to the end of what the receipt is about."""
        entries, request = self.proved.entries, self.proved.request
        if entries[0].get("n") != 0:
            raise ReceiptError("it does not begin with the session's first entry: entries are left out")
        if request is not None:
            end = entries[-1]
            if end["kind"] != "request.end" or f"{end['session']}-{end.get('request')}" != request:
                raise ReceiptError(f"it does not end with the end of request {ascii(request)[:60]}")


def _parse(data: bytes) -> Any:
    if len(data) > LIMIT:
        raise ReceiptError("it is too long")

    def refused(text: str) -> object:
        raise ReceiptError("a number in it is no integer")

    def integer(text: str) -> int:
        if len(text) > 20:
            raise ReceiptError("a number in it is too large")
        return int(text)

    try:
        return json.loads(
            data.decode("ascii"),
            object_pairs_hook=no_duplicates,
            parse_float=refused,
            parse_constant=refused,
            parse_int=integer,
        )
    except (ValueError, RecursionError):
        raise ReceiptError("it is no JSON") from None


def _members(value: object, *names: str) -> dict[str, Any]:
    if not isinstance(value, dict) or value.keys() != set(names):
        raise ReceiptError(f"it is no receipt: {', '.join(names)} are expected in one place")
    return value


def _object(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ReceiptError("an entry in it is no object")
    return value


def _list(value: object) -> list[Any]:
    if not isinstance(value, list):
        raise ReceiptError("it is no receipt: a list is expected")
    return value


def _encoded(value: dict[str, Any]) -> bytes:
    try:
        return encode(value).encode("ascii")
    except (ValueError, RecursionError):
        raise ReceiptError("it cannot be put into the canonical form") from None


def _hashes(value: object) -> list[bytes]:
    hashes = [decode64(one) if type(one) is str else b"" for one in _list(value)]
    if any(len(one) != 32 for one in hashes):
        raise ReceiptError("a proof in it is malformed")
    return hashes


def _indexes(value: object, size: int, count: int) -> list[int]:
    """Ranges as a list of ``count`` numbers: a hostile one could name any number of places."""
    found: list[int] = []
    for pair in _list(value):
        if not isinstance(pair, list) or len(pair) != 2 or any(type(one) is not int for one in pair):
            raise ReceiptError("its indexes are malformed")
        first, last = pair
        if not (found[-1] if found else -1) < first <= last < size:
            raise ReceiptError("its indexes are malformed")
        if last - first >= count - len(found):
            break
        found += range(first, last + 1)
    else:
        if found and len(found) == count:
            return found
    raise ReceiptError("it has not as many entries as places for them")


def report(proved: Proved, files: Iterable[tuple[str, bytes]]) -> tuple[dict[str, object], bool]:
    """The result with what is known of some files (name, content); whether each of them is known."""
    result = proved.as_dict()
    given = list(files)
    known = [
        {"file": name, "is": proved.matches(data, [one for other, one in given if other != name])}
        for name, data in given
    ]
    result["with"] = known
    result["ok"] = all(one["is"] for one in known)
    return result, bool(result["ok"])


def text(result: dict[str, Any]) -> str:
    """For people. Names of the receipt are quoted as ASCII."""
    if result["ended"]:
        whole = "from the session's start to its end, none left out"
    elif result["request"]:
        whole = "from the session's start to the request's end, none left out"
    else:
        whole = "none left out before the last one; the session's END IS NOT in it, more can have come"
    lines = [
        f"session  {ascii(result['session'])[1:-1]}",
        f"request  {ascii(result['request'])[1:-1] if result['request'] else '-'}",
        f"time     {result['from']} to {result['to']}",
        f"entries  {result['entries']}, {whole}",
        f"withheld {result['withheld']} names or digests",
        f"model    {ascii(json.dumps(result['model']))[1:-1]}",
        f"policy   {ascii(str(result['policy_sha256']))[1:-1]}",
        f"refused  {result['refused']}",
    ]
    for one in result["shown"]:
        name = ascii(one["path"]) if one["path"] is not None else "(name withheld)"
        digest = ascii(str(one["sha256"]))[1:-1] if one["sha256"] is not None else "(digest withheld)"
        lines.append(f"shown    {digest}  {name}")
    # What is withheld can be that very file: "not in it" would be more than the receipt says.
    hidden = sum(one["sha256"] is None for one in result["shown"])
    unknown = f"NOT SHOWN by this receipt: {hidden} of the digests are withheld" if hidden else ""
    unknown = unknown or "NOT in this receipt"
    for one in result["with"]:
        lines.append(f"file     {ascii(one['file'])}: " + (", ".join(one["is"]) or unknown))
    failed = "a file is NOT SHOWN by this receipt" if hidden else "a file is NOT in this receipt"
    lines.append("result   the receipt verifies" if result["ok"] else f"result   {failed}")
    return "\n".join(lines)
