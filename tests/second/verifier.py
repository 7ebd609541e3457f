"""A verifier of a whole log, from docs/audit-log.md. ``python verifier.py STATE_DIR [VKEY]``: exit 0 or 5.

It keeps the whole log in memory and is slow: it was written to be read beside the page, section by section.
"""

from __future__ import annotations

import json
import os
import re
import sys
import zlib
from hashlib import sha256
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # run as a file, alone
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.second.forms import (  # noqa: E402
    Bad,
    Head,
    Key,
    canonical,
    leaf,
    proved,
    root,
    tile_name,
    unbase64,
)

WIDTH = 256
GROUPS = ("names", "digests", "text")
OWN = ("log.recovered", "epoch.start", "epoch.end", "redaction", "prune")
INSIDE = ("grant", "list", "session.sealed", "request.start", "request.end")
KINDS = (*OWN, *INSIDE, "session.start", "session.end", "denial", "breach", "policy.load", "limit", "kill")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", re.ASCII)
DAYS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


def whole(value: Any) -> bool:
    return type(value) is int and value >= 0


def is_time(text: Any) -> bool:
    if type(text) is not str or not TIME.fullmatch(text):
        return False
    year, month, day = int(text[:4]), int(text[5:7]), int(text[8:10])
    hour, minute, second = int(text[11:13]), int(text[14:16]), int(text[17:19])
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    return (
        year >= 1970
        and 1 <= month <= 12
        and 1 <= day <= DAYS[month - 1] + (month == 2 and leap)
        and hour < 24
        and minute < 60
        and second < 60
    )


def posix(text: str) -> int:
    """Microseconds since 1970."""
    year, month, day = int(text[:4]), int(text[5:7]), int(text[8:10])
    days = sum(365 + (y % 4 == 0 and (y % 100 != 0 or y % 400 == 0)) for y in range(1970, year))
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    days += sum(DAYS[: month - 1]) + (month > 2 and leap) + day - 1
    seconds = days * 86_400 + int(text[11:13]) * 3_600 + int(text[14:16]) * 60 + int(text[17:19])
    return seconds * 1_000_000 + int(text[20:26])


class Entry:
    """One entry, its form checked."""

    def __init__(self, data: bytes, seq: int) -> None:
        fields = canonical(data)
        if type(fields) is not dict:
            raise Bad("no object")
        names = list(fields)
        first = ["v", "seq", "time", "mono", "session"]
        first += ["n", "kind"] if fields.get("session") else ["kind"]
        if names[: len(first)] != first or ("n" in fields) != ("n" in first):
            raise Bad("its members are not in order")
        if type(fields["v"]) is not int or fields["v"] != 2 or type(fields["seq"]) is not int:
            raise Bad("version or number is none")
        if fields["seq"] != seq:
            raise Bad(f"it says that it is entry {fields['seq']}")
        self._common(fields)
        self.groups = [name for name in GROUPS if name in fields]
        if names[len(names) - len(self.groups) :] != self.groups:
            raise Bad("its commitments are not last, or not in order")
        for name in self.groups:
            if type(fields[name]) is not str or len(fields[name]) != 44 or len(unbase64(fields[name])) != 32:
                raise Bad("no commitment")
        self.fields, self.seq, self.data = fields, seq, data

    @staticmethod
    def _common(fields: dict[str, Any]) -> None:
        session, kind = fields["session"], fields["kind"]
        if not is_time(fields["time"]) or not whole(fields["mono"]):
            raise Bad("no time")
        if type(session) is not str or not re.fullmatch(r"([0-9a-f]{16})?", session):
            raise Bad("no session's name")
        if session and not whole(fields["n"]):
            raise Bad("no number in its session")
        if kind not in KINDS:
            raise Bad("an unknown kind")
        if (kind in OWN and session) or (
            kind not in OWN and kind not in ("policy.load", "kill") and not session
        ):
            raise Bad("with a session and should not be, or without one")


class Sessions:
    """The rules within a session."""

    def __init__(self, pruned: bool) -> None:
        self.pruned = pruned
        self.known: dict[str, dict[str, Any]] = {}

    def add(self, fields: dict[str, Any]) -> None:
        name, kind = fields["session"], fields["kind"]
        if not name:
            return
        now = self.known.get(name)
        if now is None:
            middle = self.pruned and fields["n"] > 0
            now = {"n": fields["n"] if middle else 0, "start": middle, "sealed": middle, "end": False}
            self.known[name] = {**now, "asked": set(), "answered": set(), "middle": middle}
            now = self.known[name]
        if fields["n"] != now["n"]:
            raise Bad(f"it is number {fields['n']} of its session, but number {now['n']} should come")
        now["n"] += 1
        if now["end"]:
            raise Bad("after its session's end")
        if kind in (*INSIDE, "session.end") and not now["start"]:
            raise Bad("before its session's start")
        if kind == "session.start":
            if now["start"] and not now["middle"]:
                raise Bad("started twice")
            now["start"] = True
        elif kind == "session.sealed":
            now["sealed"] = True
        elif kind == "session.end":
            now["end"] = True
        elif kind in ("grant", "list"):
            if kind == "grant" and type(fields.get("class")) is not str:
                raise Bad("a grant without a class")
            if fields.get("class") in ("model", "data") and not now["sealed"]:
                raise Bad("before session.sealed")
        elif kind in ("request.start", "request.end"):
            self._request(now, kind, fields.get("request"))

    @staticmethod
    def _request(now: dict[str, Any], kind: str, number: Any) -> None:
        if type(number) is not int:
            raise Bad("a request without a number")
        if kind == "request.start":
            if number in now["asked"]:
                raise Bad("a request twice")
            now["asked"].add(number)
        else:
            if number in now["answered"] or (number not in now["asked"] and not now["middle"]):
                raise Bad("an end of a request without its start, or twice")
            now["answered"].add(number)


class Clocks:
    """Wall clock less time since boot, of entries of sessions. ``told`` are (seq, microseconds)."""

    def __init__(self) -> None:
        self.told: list[tuple[int, int]] = []
        self.offsets: dict[str, int] = {}
        self.boots: dict[str, Any] = {}
        self.last = ""

    def add(self, fields: dict[str, Any]) -> None:
        name = fields["session"]
        if not name:
            return
        offset = posix(fields["time"]) - fields["mono"]
        first = name not in self.offsets
        if first:
            boot = fields.get("boot") if fields["kind"] == "session.start" else None
            self.boots[name] = boot if type(boot) is str and 0 < len(boot) <= 64 else None
        before = self.offsets.get(self.last if first else name)
        if before is not None and abs(offset - before) > 1_000_000:
            one_boot = self.boots[name] is not None and self.boots[name] == self.boots[self.last]
            if not first or offset < before or one_boot:
                self.told.append((fields["seq"], offset - before))
        self.offsets[name] = offset
        self.last = name


class Log:
    """Everything found about one log. ``problems`` are (seq or None, words), in the order they were found.
    ``clocks`` are those that were set: before which entry, by how many microseconds."""

    def __init__(self, state_dir: str | Path, vkey: str | None = None) -> None:
        self.folder = Path(state_dir) / "log"
        self.problems: list[tuple[int | None, str]] = []
        self.entries: list[Entry] = []
        self.erased: dict[int, set[str]] = {}
        self.forgotten: list[tuple[int, dict[str, Any]]] = []
        self.torn: dict[str, int] = {}
        self.clocks: list[tuple[int, int]] = []
        self.size = 0
        try:
            self._whole(vkey)
        except Bad as bad:
            self.bad(None, str(bad))

    @property
    def sound(self) -> bool:
        return not self.problems

    @property
    def first_bad(self) -> int | None:
        return min((seq for seq, _ in self.problems if seq is not None), default=None)

    def bad(self, seq: int | None, words: str) -> None:
        self.problems.append((seq, words))

    def read(self, name: str) -> bytes:
        try:
            return (self.folder / name).read_bytes()
        except OSError as error:
            raise Bad(f"{name} cannot be read: {error}") from None

    def line(self, name: str) -> str:
        data = self.read(name)
        if not data.endswith(b"\n") or data.count(b"\n") != 1 or not data.isascii():
            raise Bad(f"{name} is not one line")
        return data[:-1].decode()

    # ---- the whole, and the chain of epochs ---------------------------------------------------

    def _whole(self, vkey: str | None) -> None:
        state = self._state()
        key = Key(self.line("vkey"))
        if key.epoch != 0 or (vkey is not None and vkey != key.text):
            self.bad(None, "vkey is another key")
        first, previous, pruned = 0, None, False
        for number in range(state["epoch"] + 1):
            if self.line(f"{number}/vkey") != key.text:
                raise Bad(f"{number}/vkey is not the key that the chain names")
            head = Head(self.read(f"{number}/checkpoint"), key)
            current = number == state["epoch"]
            if not current and (self.folder / str(number) / "key").exists():
                self.bad(None, "the private key of an ended epoch is still there")
            if not current and (self.folder / str(number) / "end").exists():
                end: dict[str, Any] | None = self._pruned(number, head)
                pruned = True
            else:
                if current and state["first"] != first:
                    raise Bad("state names another first entry")
                end = self._epoch(number, head, state, first, previous, current)
            if not current:
                if end is None:
                    raise Bad(f"epoch {number} does not end with epoch.end")
                key = self._next(key, end, number)
                origin = f"anchorhold/{key.log}/{number}"
                previous = {"origin": origin, "size": head.size, "root": head.root_text}
                first = end["seq"] + 1
            elif state["ended"] != (end is not None):
                self.bad(None, "state says something else about the epoch's end")
        self.size = state["first"] + state["size"]
        sessions, clocks = Sessions(pruned), Clocks()
        for entry in self.entries:
            clocks.add(entry.fields)
            try:
                sessions.add(entry.fields)
            except Bad as bad:
                self.bad(entry.seq, str(bad))
        self.clocks = clocks.told
        self._journals(state, sessions)
        self._redactions()
        self._torn()
        for number in range(state["epoch"] + 1, state["epoch"] + 3):
            if (self.folder / str(number) / "checkpoint").exists():
                self.bad(None, f"epoch {number} is there, and nothing names it")

    def _state(self) -> dict[str, Any]:
        data = self.read("state")
        if not data.endswith(b"\n"):
            raise Bad("state is not one line")
        state = canonical(data[:-1])
        if type(state) is not dict or list(state) != [
            "v", "epoch", "first", "size", "signed", "ended", "journals", "sum",
        ]:  # fmt: skip
            raise Bad("state has other members")
        given = state.pop("sum")
        if sha256(json.dumps(state, separators=(",", ":")).encode()).hexdigest() != given:
            raise Bad("state's sum is wrong")
        if state["v"] != 2 or not all(whole(state[name]) for name in ("epoch", "first", "size", "signed")):
            raise Bad("state is malformed")
        if type(state["journals"]) is not dict or type(state["ended"]) is not bool:
            raise Bad("state is malformed")
        return state

    @staticmethod
    def _next(key: Key, end: dict[str, Any], number: int) -> Key:
        if end.get("epoch") != number or type(end.get("next")) is not str:
            raise Bad("epoch.end names no next key")
        following = Key(end["next"])
        if following.log != key.log or following.epoch != number + 1:
            raise Bad("epoch.end names the key of another log")
        return following

    def _pruned(self, number: int, head: Head) -> dict[str, Any]:
        data = self.read(f"{number}/end")
        found = canonical(data[:-1]) if data.endswith(b"\n") else None
        if type(found) is not dict or list(found) != ["entry", "proof"] or type(found["entry"]) is not str:
            raise Bad("end is malformed")
        proof = found["proof"]
        if type(proof) is not list or not all(type(one) is str for one in proof):
            raise Bad("end's proof is malformed")
        entry = found["entry"].encode("ascii", "replace")
        fields = canonical(entry)
        if type(fields) is not dict or fields.get("kind") != "epoch.end" or not whole(fields.get("seq")):
            raise Bad("end holds no epoch.end")
        Entry(entry, fields["seq"])
        if proved(head.size, {head.size - 1: leaf(entry)}, list(map(unbase64, proof))) != head.root:
            raise Bad("end is not proved")
        if (self.folder / str(number) / "tile").exists():
            self.bad(None, "a pruned epoch has tiles")
        return fields

    # ---- one epoch ----------------------------------------------------------------------------

    def _epoch(
        self, number: int, head: Head, state: dict[str, Any], first: int, previous: Any, current: bool
    ) -> dict[str, Any] | None:
        size = state["size"] if current else head.size
        if head.size > size:
            self.bad(None, f"{head.size - size} signed entries are missing from entry {first + size} on")
            return None
        if current and head.size < state["signed"]:
            self.bad(None, "the checkpoint is an older one, put back")
        raw = self._bundles(number, size)
        hashes = [leaf(data) for data in raw]
        self._tiles(number, hashes, first)
        if root(hashes[: head.size]) != head.root:
            self.bad(None, f"epoch {number} has another root than the signed one")
        found: list[Entry | None] = []
        for at, data in enumerate(raw):
            try:
                found.append(Entry(data, first + at))
            except Bad as bad:
                self.bad(first + at, str(bad))
                found.append(None)
        self._openings(number, found, first)
        self.entries += [entry for entry in found if entry is not None]
        for at, entry in enumerate(found):
            if entry is not None:
                self._own(entry, number, at, size, previous, current)
        last = found[-1] if found else None
        return last.fields if last is not None and last.fields["kind"] == "epoch.end" else None

    def _own(self, entry: Entry, number: int, at: int, size: int, previous: Any, current: bool) -> None:
        """Entries of the log's own."""
        fields, kind = entry.fields, entry.fields["kind"]
        if (kind == "epoch.start") != (at == 0):
            self.bad(entry.seq, "epoch.start is not the first of its epoch, or the first is another")
        elif kind == "epoch.start" and (fields.get("epoch") != number or fields.get("previous") != previous):
            self.bad(entry.seq, "epoch.start names another epoch before it")
        elif kind == "epoch.end" and at != size - 1:
            self.bad(entry.seq, "epoch.end is not the last of its epoch")
        elif kind == "epoch.end":
            try:
                self._next(Key(self.line(f"{number}/vkey")), fields, number)
            except Bad as bad:
                self.bad(entry.seq, str(bad))
        elif kind == "redaction":
            self.forgotten.append((entry.seq, fields))
        elif kind == "log.recovered" and type(fields.get("file")) is str:
            self.torn[fields["file"]] = entry.seq

    def _bundles(self, number: int, size: int) -> list[bytes]:
        found: list[bytes] = []
        for bundle in range((size + WIDTH - 1) // WIDTH):
            need = min(WIDTH, size - bundle * WIDTH)
            rows = []
            for width, data in self._stored(f"{number}/tile/entries", bundle):
                row, good = _row(data, width)
                if good:
                    rows.append(row)
                else:
                    self.bad(None, f"bundle {bundle} of width {width} is malformed after {len(row)} entries")
            enough = [row for row in rows if len(row) >= need]
            if not enough:
                raise Bad(f"{need} entries of bundle {bundle} of epoch {number} are missing")
            for row in rows:
                most = min(len(row), need)
                if row[:most] != enough[0][:most]:
                    self.bad(None, f"a partial bundle {bundle} is not the beginning of its bundle")
            found += enough[0][:need]
        return found

    def _tiles(self, number: int, hashes: list[bytes], first: int) -> None:
        level, row = 0, hashes
        while row:
            for tile in range((len(row) + WIDTH - 1) // WIDTH):
                wanted = row[tile * WIDTH : tile * WIDTH + WIDTH]
                enough = False
                for width, data in self._stored(f"{number}/tile/{level}", tile):
                    most = min(width, len(wanted))
                    enough = enough or width >= len(wanted)
                    if len(data) != 32 * width:
                        self.bad(None, f"tile {level}/{tile} has another length")
                    for at in range(most):
                        if data[32 * at : 32 * at + 32] != wanted[at]:
                            seq = first + tile * WIDTH + at if level == 0 else None
                            self.bad(seq, f"tile {level}/{tile} has another hash at {at}")
                if not enough:
                    self.bad(None, f"tile {level}/{tile} of epoch {number} is missing")
            row = [root(row[at : at + WIDTH]) for at in range(0, len(row) // WIDTH * WIDTH, WIDTH)]
            level += 1

    def _stored(self, folder: str, number: int) -> list[tuple[int, bytes]]:
        """The files of one tile: how many rows each is to have, and its bytes; the widest first."""
        base = self.folder / folder / tile_name(number)
        found = []
        if base.is_file():
            found.append((WIDTH, base.read_bytes()))
        partial = base.with_name(base.name + ".p")
        if partial.is_dir():
            widths = sorted((name for name in os.listdir(partial) if name.isdigit()), key=int, reverse=True)
            found += [(int(name), (partial / name).read_bytes()) for name in widths]
        return found

    def _openings(self, number: int, entries: list[Entry | None], first: int) -> None:
        for bundle in range((len(entries) + WIDTH - 1) // WIDTH):
            part = entries[bundle * WIDTH : bundle * WIDTH + WIDTH]
            try:
                data = _unpacked(self.read(f"{number}/openings/{tile_name(bundle)}"))
                at = 0
                for place, entry in enumerate(part):
                    at = self._opening(data, at, entry, first + bundle * WIDTH + place)
            except Bad as bad:
                self.bad(None, f"openings {bundle} of epoch {number}: {bad}")

    def _opening(self, data: bytes, at: int, entry: Entry | None, seq: int) -> int:
        """Check the openings of one entry; returns where the next one's begin."""
        if at >= len(data) or data[at] > 7:
            raise Bad("they end too early")
        groups = [name for bit, name in enumerate(GROUPS) if data[at] >> bit & 1]
        at += 1
        if entry is not None and groups != entry.groups:
            self.bad(seq, "its openings are of other groups")
        for name in groups:
            length = int.from_bytes(data[at : at + 2], "big")
            opening = data[at + 2 : at + 2 + length]
            if len(data) < at + 2 or len(opening) != length:
                raise Bad("they end too early")
            at += 2 + length
            if not length:
                self.erased.setdefault(seq, set()).add(name)
            elif entry is not None and name in entry.groups:
                try:
                    _check(opening, entry.fields[name])
                except Bad as bad:
                    self.bad(seq, f"its {name}: {bad}")
        return at

    # ---- journals, redactions, torn ------------------------------------------------------------

    def _journals(self, state: dict[str, Any], sessions: Sessions) -> None:
        folder = self.folder / "journal"
        names = sorted(os.listdir(folder)) if folder.is_dir() else []
        for name in names:
            if not re.fullmatch(r"[0-9a-f]{16}", name):
                continue
            data = self.read(f"journal/{name}")
            at = state["journals"].get(name, 0)
            if at > len(data):
                self.bad(None, f"journal {name} has fewer bytes than are in the tree")
            while at < len(data):
                end, text, openings = _record(data, at)
                if end is None:
                    break  # torn, or being written
                try:
                    fields = self._unsettled(text, openings)
                    sessions.add(fields)
                except Bad as bad:
                    self.bad(None, f"journal {name}: {bad}")
                at = end

    @staticmethod
    def _unsettled(text: bytes, openings: bytes) -> dict[str, Any]:
        fields = canonical(b"{" + text + b"}")
        if type(fields) is not dict:
            raise Bad("no object")
        first = ["time", "mono", "session", "n", "kind"] if fields.get("session") else [
            "time", "mono", "session", "kind",
        ]  # fmt: skip
        if list(fields)[: len(first)] != first or ("n" in fields) != ("n" in first):
            raise Bad("its members are not in order")
        Entry._common(fields)
        if any(name in fields for name in GROUPS):
            raise Bad("it has commitments already")
        if not openings or openings[0] > 7:
            raise Bad("its openings are malformed")
        at = 1
        for _ in range(bin(openings[0]).count("1")):
            length = int.from_bytes(openings[at : at + 2], "big")
            opening = openings[at + 2 : at + 2 + length]
            if len(opening) != length:
                raise Bad("its openings are malformed")
            _check(opening, None)
            at += 2 + length
        if at != len(openings):
            raise Bad("its openings are malformed")
        return fields

    def _redactions(self) -> None:
        for seq, names in self.erased.items():
            for name in names:
                if not any(
                    later > seq
                    and name in fields.get("what", ())
                    and any(low <= seq <= high for low, high in fields.get("ranges", ()))
                    for later, fields in self.forgotten
                ):
                    self.bad(seq, f"its {name} were erased, and no redaction tells of it")

    def _torn(self) -> None:
        emptied = max((seq for seq, fields in self.forgotten if fields.get("torn") is True), default=-1)
        for name, seq in self.torn.items():
            try:
                if sha256(self.read(f"torn/{name}")).hexdigest() != name:
                    self.bad(seq, "what a crash tore was changed")
            except Bad:
                if seq > emptied:
                    self.bad(seq, "what a crash tore and was set aside is missing")


def _row(data: bytes, width: int) -> tuple[list[bytes], bool]:
    """The entries of a bundle up to where it is malformed, and whether it is not."""
    found: list[bytes] = []
    at = 0
    while at < len(data):
        length = int.from_bytes(data[at : at + 2], "big")
        if at + 2 + length > len(data):
            return found, False
        found.append(data[at + 2 : at + 2 + length])
        at += 2 + length
    return found, len(found) == width


def _unpacked(data: bytes) -> bytes:
    if len(data) < 4 or zlib.crc32(data[:-4]) != int.from_bytes(data[-4:], "big"):
        raise Bad("the sum is wrong")
    unpacker = zlib.decompressobj()
    try:
        found = unpacker.decompress(data[:-4])
    except zlib.error as error:
        raise Bad(str(error)) from None
    if not unpacker.eof or unpacker.unused_data:
        raise Bad("no zlib stream")
    return found


def _check(opening: bytes, commitment: str | None) -> None:
    if commitment is not None and sha256(opening).digest() != unbase64(commitment):
        raise Bad("are not what was written: the commitment differs")
    if len(opening) <= 16 or type(canonical(opening[16:])) is not dict:
        raise Bad("are no object")


def _record(data: bytes, at: int) -> tuple[int | None, bytes, bytes]:
    if at + 5 > len(data):
        return None, b"", b""
    text = int.from_bytes(data[at : at + 2], "big")
    openings = int.from_bytes(data[at + 2 : at + 5], "big")
    end = at + 5 + text + openings
    if end > len(data) or not text or not openings:
        return None, b"", b""
    return end, data[at + 5 : at + 5 + text], data[at + 5 + text : end]


if __name__ == "__main__":
    log = Log(*sys.argv[1:3])
    for place, words in log.problems:
        print(f"entry {place}: {words}" if place is not None else words)
    print(f"{log.size} entries: {'sound' if log.sound else 'NOT SOUND'}")
    sys.exit(0 if log.sound else 5)
