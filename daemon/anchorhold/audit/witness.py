"""Gives each signed head to somebody else: what a rolled-back log cannot take back.

Constraint: a witness is asked after the fact and can fail; it never holds up what the log permits
(`anchorhold.audit.delivery` asks in threads of its own). But before a head is given away, what is there
already is compared: a place that holds a head which contradicts this log means that this log was rolled back,
or that there are two, and that is said with the day on which it was seen.

Targets: ``folder:DIR`` (a removable disk, another machine's mount), ``git:DIR`` (a work tree; each head is a
commit), ``command:PROGRAM ARGUMENTS`` (gets one head a run on standard input; no shell). A folder receives
the final head of every epoch, and each head of the current one. A command receives the newest head the first
time; from then on every epoch's final head and each newer one, in order: what it took last is kept in
``<state>/delivered/``.
Sources: https://c2sp.org/tlog-checkpoint, and https://c2sp.org/tlog-witness for what a witness promises. That
specification's HTTP calls are not spoken here: the supervisor has no network. `anchorhold.audit.consistency`
makes the body of its add-checkpoint request, for a program that does.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import threading
import time
from hashlib import sha256

from anchorhold.audit.files import make_folders, read_file, remove_quietly, replace
from anchorhold.audit.note import Checkpoint
from anchorhold.audit.read import Epoch, log_folder
from anchorhold.audit.state import State
from anchorhold.audit.tree import fold, load_edge
from anchorhold.errors import AuditError, PolicyError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    Head = tuple[Epoch, Checkpoint]

SECONDS = 30
"""How long a command or git may take."""

MOST_SAID = 200
"""Characters of a program's last words that go into a problem."""

ALLOWED = '"folder:/path", "git:/path" or "command:/path/of/program arguments"'


class Contradiction(AuditError):
    """A witness holds a head that this log does not go on from."""


class Problem:
    """Why a witness did not take a head, in words. ``contradicts``: it holds one that speaks against this
    log; else the log may be in order, and the witness was not there."""

    __slots__ = ("contradicts", "text")

    def __init__(self, text: str, *, contradicts: bool = False) -> None:
        self.text, self.contradicts = text, contradicts

    def __str__(self) -> str:
        return self.text


class Target:
    """One witness: its ``kind`` and where it is."""

    __slots__ = ("arguments", "kind", "path", "text")

    def __init__(self, text: str, kind: str, path: str, arguments: list[str]) -> None:
        self.text, self.kind, self.path, self.arguments = text, kind, path, arguments


def parse(text: str) -> Target:
    """Read a target. Raises PolicyError."""
    kind, _, rest = text.partition(":")
    if kind not in ("folder", "git", "command"):
        raise PolicyError(f"{ascii(text)} is no witness", hint=f"Write {ALLOWED}.")
    try:
        words = shlex.split(rest) if kind == "command" else [os.path.expanduser(rest)]
    except ValueError:
        words = []
    if words and kind == "command":
        words[0] = os.path.expanduser(words[0])
    if not words or not os.path.isabs(words[0]):
        raise PolicyError(f"the witness {ascii(text)} has no absolute path", hint=f"Write {ALLOWED}.")
    return Target(text, kind, words[0], words)


def deliver(state_dir: Path, targets: Iterable[str]) -> list[Problem]:
    """Give the signed heads to each target now, a command the newest one in any case. Raises AuditError if
    the log cannot be read."""
    problems = []
    for text in targets:
        problem = Deliverer(state_dir, text).run(again=True)
        if problem is not None:
            problems.append(problem)
    return problems


class Deliverer:
    """Gives the heads of one log to one target, and remembers what it has compared already."""

    def __init__(self, state_dir: Path, text: str) -> None:
        self._text = text
        self._log = log_folder(state_dir)
        digest = sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
        self._given = os.path.join(os.path.dirname(self._log), "delivered", digest[:16])
        self._final: dict[int, Head] = {}  # of ended epochs: they do not change
        self._agreed: set[str] = set()  # files of final heads that were compared
        self._process: subprocess.Popen[bytes] | None = None
        self.stopped = threading.Event()
        """Set where nothing more is to be started (`stop`)."""

    def run(self, *, again: bool = False) -> Problem | None:
        """Give all that the target has not; what went wrong. ``again``: a command gets the newest head even
        if it took that before. AuditError if the log cannot be read."""
        try:
            heads = self._heads()
        except OSError as error:
            raise AuditError(f"the audit log cannot be read: {error}") from error
        try:
            target = parse(self._text)
            if target.kind == "command":
                self._to_command(target, heads, again)
            else:
                self._to_folder(target, heads)
        except Contradiction as error:
            return Problem(f"witness {self._text}: {error}", contradicts=True)
        except (AuditError, PolicyError) as error:
            return Problem(f"witness {self._text}: {error}")
        except OSError as error:
            where = f": {os.fsdecode(error.filename)}" if error.filename else ""
            return Problem(f"witness {self._text}: {error.strerror or error}{where}")
        return None

    def stop(self) -> None:
        """From another thread: end the program that runs, and start none."""
        self.stopped.set()
        process = self._process
        if process is not None:
            _kill(process)

    def _heads(self) -> list[Head]:
        """The final head of each epoch, and the current one's newest. No more is read than that: a running
        session may be busy with its journal."""
        state = State.load(self._log) or State()
        for number in range(state.epoch):
            if number not in self._final:
                epoch = Epoch(self._log, number, 0, 0)
                self._final[number] = epoch, head_of(epoch)
        current = Epoch(self._log, state.epoch, state.first, state.size)
        return [*(self._final[number] for number in range(state.epoch)), (current, head_of(current))]

    # -- a command

    def _to_command(self, target: Target, heads: list[Head], again: bool) -> None:
        note = read_file(self._given)
        todo = heads[-1:] if note is None else list(self._newer(self._last(note), heads))
        if again and not todo:
            todo = heads[-1:]
        for _, head in todo:
            self._run(target.arguments, head.note)
            make_folders(os.path.dirname(self._given), sync=True)
            replace(
                self._given, head.note, sync=True
            )  # an empty one after a power loss would stop it for good

    def _last(self, note: bytes) -> Checkpoint:
        """The head that it took last. AuditError."""
        try:
            return Checkpoint.parse(note)
        except AuditError:
            raise AuditError(
                f"which head it took last cannot be read: {self._given}. Compare what it has by hand, then "
                "remove that file: it is given the newest head then"
            ) from None

    def _newer(self, old: Checkpoint, heads: list[Head]) -> Iterator[Head]:
        """The heads that come after the one it took last, which must still be true."""
        at = next((at for at, (_, head) in enumerate(heads) if head.origin == old.origin), None)
        if at is None:
            if _base(old.origin) == _base(heads[-1][1].origin):
                raise _gone(old.origin, _seen(self._given))
            yield heads[-1]  # another log begins
            return
        epoch, head = heads[at]
        _compare(old, self._given, epoch, head)
        yield from heads[at + (old.size == head.size) :]

    def _run(self, arguments: list[str], note: bytes) -> None:
        """A program of the user's, without a shell, bounded in time; what it says goes into the problem.

        In a session of its own: Ctrl-C at the terminal is not meant for it. Its standard input and error are
        files in memory, so that nobody waits for what it starts and leaves behind.
        """
        name = os.path.basename(arguments[0])
        given, said = os.memfd_create("head"), os.memfd_create("said")
        try:
            os.write(given, note)
            os.lseek(given, 0, os.SEEK_SET)
            if self.stopped.is_set():
                raise AuditError(f"{name} was not started: there was no time left")
            process = self._process = subprocess.Popen(
                arguments, stdin=given, stdout=subprocess.DEVNULL, stderr=said, start_new_session=True
            )
            try:
                if self.stopped.is_set():
                    _kill(process)
                code = process.wait(SECONDS)
            except subprocess.TimeoutExpired:
                _kill(process)
                process.wait()
                raise AuditError(
                    f"{name} did not end within {SECONDS} seconds and was stopped; {_LATER}"
                ) from None
            finally:
                self._process = None
            if self.stopped.is_set() and code == -signal.SIGKILL:
                raise AuditError(f"{name} had not ended and was stopped; {_LATER}")
            if code:
                words = os.pread(said, 1 << 16, 0).decode("utf-8", "replace").strip()[-MOST_SAID:]
                how = f"was killed by signal {-code}" if code < 0 else f"ended with {code}"
                raise AuditError(f"{arguments[0]} {how}{': ' + ascii(words)[1:-1] if words else ''}")
        finally:
            os.close(given)
            os.close(said)

    # -- a folder, which can be a repository

    def _to_folder(self, target: Target, heads: list[Head]) -> None:
        if not os.path.isdir(target.path):
            raise AuditError("the folder is not there (a disk that is not mounted?)")
        git = ["git", "-C", target.path, "-c", "core.hooksPath=/dev/null"]
        if target.kind == "git":  # asked before anything is written there
            self._run([*git, "rev-parse", "--git-dir"], b"")
        have = _stored(target.path)
        mine = {head.origin for _, head in heads}
        for origin, names in have.items():
            if origin not in mine and _base(origin) == _base(heads[-1][1].origin):
                raise _gone(origin, _seen(os.path.join(target.path, names[-1])))
        lost = ""  # the newest one that is there, if nothing is left to compare it with
        for epoch, head in heads:
            names = have.get(head.origin, [])
            # The newest one stands for all: each was compared with those before it when it came.
            if names and names[-1] in self._agreed:
                lost = ""
            elif names:
                path = os.path.join(target.path, names[-1])
                lost = "" if _compare(Checkpoint.parse(read_file(path) or b""), path, epoch, head) else path
        if lost:
            raise Contradiction(
                f"the epoch of the newest head there, seen on {_seen(lost)}, was pruned since: whether this "
                "log goes on from it cannot be told. If you know that it does, name a new folder"
            )
        written = []
        for epoch, head in heads:
            name = _file_name(head)
            if name not in have.get(head.origin, []):
                replace(os.path.join(target.path, name), head.note, sync=True, mode=0o644)
                written.append(name)
            if epoch is not heads[-1][0]:
                self._agreed.add(name)
        if target.kind == "git" and written:
            try:
                self._commit(git, written, heads[-1][1].size)
            except BaseException:
                remove_quietly([os.path.join(target.path, name) for name in written])  # so it is done again
                raise

    def _commit(self, git: list[str], written: list[str], size: int) -> None:
        identity = ["-c", "user.name=anchorhold", "-c", "user.email=anchorhold@localhost"]
        self._run([*git, "add", "--", *written], b"")
        message = f"Head of {size} {'entry' if size == 1 else 'entries'}"
        self._run([*git, *identity, "commit", "-q", "-m", message, "--", *written], b"")


_LATER = "it is given the head again by the next run"


def _kill(process: subprocess.Popen[bytes]) -> None:
    """The program and what it started, which is its session."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except OSError:
        return


def head_of(epoch: Epoch) -> Checkpoint:
    """An epoch's signed head. AuditError, OSError."""
    note = read_file(os.path.join(epoch.folder, "checkpoint"))
    if note is None:
        raise AuditError(
            f"the checkpoint of epoch {epoch.number} is missing", hint="Run: anchorhold audit verify"
        )
    return Checkpoint.parse(note)


def _base(origin: str) -> str:
    """What the origins of all epochs of a log share."""
    return origin.rpartition("/")[0]


def _gone(origin: str, since: str) -> Contradiction:
    return Contradiction(
        f"the log was rolled back: it had the epoch {origin} on {since}, and does not have it now"
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


def _compare(old: Checkpoint, path: str, epoch: Epoch, head: Checkpoint) -> bool:
    """A head that was given away earlier must still be true; False where nothing is left to tell
    by. ``path``: where it lies, for the day."""
    if old.size > head.size:
        raise Contradiction(
            f"the log was rolled back: it had {old.size} entries in epoch {epoch.number} on {_seen(path)}, "
            f"and has {head.size} now"
        )
    if epoch.pruned and old.size != head.size:
        return False
    root = head.root if old.size == head.size else fold(load_edge(epoch.folder, old.size))
    if root != old.root:
        raise Contradiction(
            f"the log was rewritten: its first {old.size} entries in epoch {epoch.number} were others "
            f"on {_seen(path)}"
        )
    return True


def _seen(path: str) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(os.stat(path).st_mtime))
