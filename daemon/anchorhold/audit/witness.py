"""Gives each signed head to somebody else, and lets somebody else cosign: what a rolled-back log cannot take
back.

Constraint: a witness is asked after the fact and can fail; it never holds up what the log permits. But before
a head is given away, what is there already is compared: a place that holds a head which contradicts this log
means that this log was rolled back, or that there are two, and that is said with the day on which it was
seen.

Targets: ``folder:DIR`` (a removable disk, another machine's mount), ``git:DIR`` (a work tree; each head is a
commit), ``command:PROGRAM ARGUMENTS`` (gets the head on standard input; no shell).
Sources: https://c2sp.org/tlog-checkpoint, https://c2sp.org/tlog-cosignature.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import time
from urllib.parse import quote

from anchorhold.audit.files import read_file, replace
from anchorhold.audit.keys import Key
from anchorhold.audit.note import Checkpoint, key_identifier, note_line, vkey_text
from anchorhold.audit.read import Epoch, Snapshot, log_folder
from anchorhold.audit.tree import fold, load_edge
from anchorhold.errors import AuditError, PolicyError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path

COSIGNATURE = b"\x04"
"""Signature type of tlog-cosignature with Ed25519."""

SECONDS = 30
"""How long a command or git may take."""

ALLOWED = '"folder:/path", "git:/path" or "command:/path/of/program arguments"'


class Target:
    """One witness: its ``kind`` and where it is."""

    __slots__ = ("arguments", "kind", "path")

    def __init__(self, kind: str, path: str, arguments: list[str]) -> None:
        self.kind, self.path, self.arguments = kind, path, arguments


def parse(text: str) -> Target:
    """Read a target. Raises PolicyError."""
    kind, _, rest = text.partition(":")
    if kind not in ("folder", "git", "command"):
        raise PolicyError(f"{ascii(text)} is no witness", hint=f"Write {ALLOWED}.")
    try:
        words = shlex.split(rest) if kind == "command" else [os.path.expanduser(rest)]
    except ValueError:
        words = []
    if not words or not os.path.isabs(words[0]):
        raise PolicyError(f"the witness {ascii(text)} has no absolute path", hint=f"Write {ALLOWED}.")
    return Target(kind, words[0], words)


def deliver(state_dir: Path, targets: tuple[str, ...]) -> list[str]:
    """Give the signed heads to each target; what went wrong, in words. Raises AuditError if the log cannot be
    read."""
    if not targets:
        return []
    log = log_folder(state_dir)
    try:
        snapshot = Snapshot(log)
        heads = [(epoch, _head(epoch)) for epoch in snapshot.epochs]
    except OSError as error:
        raise AuditError(f"the audit log cannot be read: {error}") from error
    problems = []
    for text in targets:
        try:
            _deliver(parse(text), heads)
        except (OSError, subprocess.SubprocessError, AuditError, PolicyError) as error:
            problems.append(f"witness {text}: {error}")
    return problems


def _head(epoch: Epoch) -> Checkpoint:
    note = read_file(os.path.join(epoch.folder, "checkpoint"))
    if note is None:
        raise AuditError(
            f"the checkpoint of epoch {epoch.number} is missing", hint="Run: anchorhold audit verify"
        )
    return Checkpoint.parse(note)


def _deliver(target: Target, heads: list[tuple[Epoch, Checkpoint]]) -> None:
    if target.kind == "command":
        _run(target.arguments, heads[-1][1].note)
        return
    if not os.path.isdir(target.path):
        raise AuditError("the folder is not there (a disk that is not mounted?)")
    have = _stored(target.path)
    lost = ""  # the newest one that is there, if nothing is left to compare it with
    for epoch, head in heads:
        for other in have.get(head.origin, []):
            path = os.path.join(target.path, other)
            lost = "" if _compare(path, epoch, head) else path
    if lost:
        raise AuditError(
            f"the epoch of the newest head there, seen on {_seen(lost)}, was pruned since: whether this "
            "log goes on from it cannot be told",
            hint="If you know that it does, name a new folder.",
        )
    written = []
    for _, head in heads:
        name = _file_name(head)
        if name not in have.get(head.origin, []):
            replace(os.path.join(target.path, name), head.note, sync=True, mode=0o644)
            written.append(name)
    mine = {head.origin for _, head in heads}
    base = heads[-1][1].origin.rpartition("/")[0]
    for origin, names in have.items():
        if origin.rpartition("/")[0] == base and origin not in mine:
            since = _seen(os.path.join(target.path, names[-1]))
            raise AuditError(
                f"the log was rolled back: it had the epoch {origin} on {since}, and does not have it now"
            )
    if target.kind == "git" and written:
        git = ["git", "-C", target.path, "-c", "core.hooksPath=/dev/null"]
        _run([*git, "add", "--", *written], b"")
        identity = ["-c", "user.name=anchorhold", "-c", "user.email=anchorhold@localhost"]
        _run(
            [*git, *identity, "commit", "-q", "-m", f"Head of {heads[-1][1].size} entries", "--", *written],
            b"",
        )


def _file_name(head: Checkpoint) -> str:
    return f"{head.origin.replace('/', '_')}-{head.size:012d}.txt"


def _stored(folder: str) -> dict[str, list[str]]:
    """Names of the heads in a folder, smallest first, by origin."""
    found: dict[str, list[str]] = {}
    for name in sorted(os.listdir(folder)):
        stem, dash, size = name.removesuffix(".txt").rpartition("-")
        if name.endswith(".txt") and dash and size.isdigit() and stem.startswith("anchorhold_"):
            found.setdefault(stem.replace("_", "/"), []).append(name)
    return found


def _compare(path: str, epoch: Epoch, head: Checkpoint) -> bool:
    """A head that was given away earlier must still be true; False where nothing is left to tell by."""
    note = read_file(path)
    old = Checkpoint.parse(note or b"")
    if old.size > head.size:
        raise AuditError(
            f"the log was rolled back: it had {old.size} entries in epoch {epoch.number} on {_seen(path)}, "
            f"and has {head.size} now"
        )
    if epoch.pruned and old.size != head.size:
        return False
    root = head.root if old.size == head.size else fold(load_edge(epoch.folder, old.size))
    if root != old.root:
        raise AuditError(
            f"the log was rewritten: its first {old.size} entries in epoch {epoch.number} were others "
            f"on {_seen(path)}"
        )
    return True


def _seen(path: str) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(os.stat(path).st_mtime))


def _run(arguments: list[str], note: bytes) -> None:
    """A program of the user's, without a shell, bounded in time; what it says goes into the problem."""
    done = subprocess.run(
        arguments, input=note, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=SECONDS, check=False
    )
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip()[-200:]
        raise AuditError(
            f"{arguments[0]} ended with {done.returncode}{': ' + ascii(said)[1:-1] if said else ''}"
        )


# -- the other side: a second person's machine


class Cosigner:
    """A witness's own key and memory, in a folder of its own: ``key``, and the last head of each origin that
    it saw."""

    def __init__(self, folder: str, name: str | None = None) -> None:
        """Made on first use, with ``name`` (as ``witness.example/anna``). Raises AuditError, OSError."""
        self.folder = folder
        os.makedirs(folder, mode=0o700, exist_ok=True)
        path = os.path.join(folder, "key")
        if not os.path.lexists(path):
            if not name or any(character.isspace() or character == "+" for character in name):
                raise AuditError(
                    "a witness needs a name without spaces and +", hint="Say --as witness.example/anna"
                )
            key = Key.generate(name)
            key.save(path)
            key.wipe()

    def vkey(self) -> str:
        """What the others verify its cosignatures with."""
        key = Key.load(os.path.join(self.folder, "key"))
        try:
            return vkey_text(key.name, key.public, COSIGNATURE)
        finally:
            key.wipe()

    def last(self, origin: str) -> Checkpoint | None:
        """The head of this origin that it cosigned last."""
        note = read_file(self._path(origin))
        return None if note is None else Checkpoint.parse(note)

    def cosign(self, head: Checkpoint) -> bytes:
        """Remember the head, then sign it; the caller has verified it and that it goes on from the `last`
        one.

        Returns the note with the cosignature. The record reaches the disk first: tlog-witness.
        """
        replace(self._path(head.origin), head.note, sync=True)
        now = int(time.time())
        body, _, signatures = head.note.decode().rpartition("\n\n")
        message = f"cosignature/v1\ntime {now}\n{body}\n"
        key = Key.load(os.path.join(self.folder, "key"))
        try:
            signature = now.to_bytes(8, "big") + key.signature(message)
            line = note_line(key.name, key_identifier(key.name, key.public, COSIGNATURE), signature)
        finally:
            key.wipe()
        return f"{body}\n\n{signatures}{line}".encode()

    def _path(self, origin: str) -> str:
        # another origin must not come to the same name: it would take the memory of this one away
        return os.path.join(
            self.folder, quote(origin, safe="/").replace("_", "%5F").replace("/", "_") + ".seen"
        )


def _joined(kept: bytes | None, note: bytes, head: Checkpoint) -> bytes:
    """The note with what others cosigned of the same head. AuditError where a newer head is kept."""
    if kept is None:
        return note
    if Checkpoint.parse(kept).size > head.size:
        raise AuditError("a newer head is kept already", hint="Let the witness cosign that one.")
    (body, _, lines), (others, _, known) = (one.rpartition(b"\n\n") for one in (note, kept))
    if others != body:
        return note
    joined = dict.fromkeys([*known.splitlines(keepends=True), *lines.splitlines(keepends=True)])
    return body + b"\n\n" + b"".join(joined)


def keep_cosigned(state_dir: Path, note: bytes) -> None:
    """Put a cosigned head into the log, if it is a head of this log. Raises AuditError."""
    log = log_folder(state_dir)
    head = Checkpoint.parse(note)
    try:
        for epoch in Snapshot(log).epochs:
            own = _head(epoch)
            if own.origin == head.origin:
                if head.size > own.size:
                    raise AuditError("the cosigned head is newer than this log: was it rolled back?")
                root = own.root if head.size == own.size else fold(load_edge(epoch.folder, head.size))
                if root != head.root:
                    raise AuditError("the cosigned head is of another log with this name: was it rewritten?")
                path = os.path.join(epoch.folder, "cosigned")
                replace(path, _joined(read_file(path), note, head), sync=True)
                return
    except OSError as error:
        raise AuditError(f"the cosigned head cannot be kept: {error}") from error
    raise AuditError("the cosigned head is not of this log")
