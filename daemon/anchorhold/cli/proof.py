"""``anchorhold audit key | checkpoint | receipt | verify-receipt``: what can be shown to somebody else."""

from __future__ import annotations

import json
import os
import sys

import click

from anchorhold.cli import place
from anchorhold.cli.output import STDOUT, Notes, write_all
from anchorhold.cli.selection import key_given, say
from anchorhold.cli.state import state_dir
from anchorhold.cli.terminal import count
from anchorhold.errors import AnchorholdError, AuditError, UsageError, VerifyError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path

    from anchorhold.audit.cosign import Cosigner


@click.command()
@click.option("--epoch", type=click.IntRange(0), help="The key of this epoch instead of the root key.")
@click.option("--export-public", metavar="FILE", help="Write the keys of all epochs to FILE, one a line.")
@click.option("--rotate", is_flag=True, help="End the epoch now: its key is destroyed, a new one made.")
@click.pass_context
def key(ctx: click.Context, epoch: int | None, export_public: str | None, rotate: bool) -> None:
    """Print the log's public key (a C2SP vkey). Give it away early: it is what all later proof is held
    against.

    The root key verifies the whole log, since each epoch's key is named in the epoch before it.
    """
    from anchorhold.audit.files import read_file
    from anchorhold.audit.log import Log
    from anchorhold.audit.read import Snapshot, log_folder

    if rotate:
        log_folder(state_dir(ctx))  # a log is not made here
        log = Log.open(state_dir(ctx))
        try:
            log.checkpoint(rotate=True)
        finally:
            log.close()
    folder = log_folder(state_dir(ctx))
    try:
        names = [f"{one.number}/vkey" for one in Snapshot(folder).epochs]
        if epoch is not None and epoch >= len(names):
            raise UsageError(
                f"the log has no epoch {epoch}", hint=f"It has the epochs 0 to {len(names) - 1}."
            )
        keys = [(read_file(os.path.join(folder, name)) or b"").decode("ascii", "replace") for name in names]
        root = (read_file(os.path.join(folder, "vkey")) or b"").decode("ascii", "replace")
    except OSError as error:
        raise AuditError(f"the log's key cannot be read: {error}") from error
    if export_public:
        place.write(export_public, "".join(keys).encode(), mode=0o644)
    else:
        say((root if epoch is None else keys[epoch]).rstrip("\n"))


@click.command()
@click.option("--qr", is_flag=True, help="As a QR code on the terminal too.")
@click.option(
    "--to",
    "targets",
    multiple=True,
    metavar="WITNESS",
    help="Give it to folder:DIR, git:DIR or command:PROGRAM too.",
)
@click.option("--policy", metavar="FILE", help="Give it to the witnesses of this policy too.")
@click.option(
    "--for-witness",
    "old",
    type=click.IntRange(0),
    metavar="OLD_SIZE",
    help="Print it as the body of tlog-witness's add-checkpoint: with the proof that it goes on from the"
    " OLD_SIZE entries which that witness saw of this epoch last (0: none).",
)
@click.pass_context
def checkpoint(
    ctx: click.Context, qr: bool, targets: tuple[str, ...], policy: str | None, old: int | None
) -> None:
    """Sign what is in the log, and print the signed head.

    Runs give their heads to the witnesses that their policy names. Commands without a policy (key --rotate,
    redact, prune) give it to nobody: the next run does, or this command with --policy.

    Kept elsewhere (on paper, in a mail, as a photo of the QR code) it shows later whether the log was rolled
    back or rewritten: anchorhold audit verify --witness FOLDER
    """
    from anchorhold.audit.log import Log
    from anchorhold.audit.read import log_folder
    from anchorhold.audit.witness import parse

    log_folder(state_dir(ctx))  # a log is not made here
    for target in targets:
        parse(target)  # a slip of the hand is told before anything is signed, and is no witness that failed
    if policy is not None:
        targets += _witnesses_of(policy, state_dir(ctx))
    log = Log.open(state_dir(ctx))
    try:
        note = log.checkpoint().note.decode()
    finally:
        log.close()
    if old is None:
        say(note.removesuffix("\n"))
    else:
        from anchorhold.audit.consistency import add_checkpoint

        sys.stdout.flush()
        write_all(STDOUT, add_checkpoint(state_dir(ctx), old))  # UTF-8, whatever the terminal's is
    if qr:
        from anchorhold.cli.qr import lines

        notes = Notes()
        say("")
        for line in lines(note, colour=notes.colour, light=False):
            say(line)
    if targets:
        from anchorhold.audit.witness import deliver

        problems = deliver(state_dir(ctx), dict.fromkeys(targets))
        for problem in problems:
            Notes().line(str(problem))
        told = [problem for problem in problems if problem.contradicts]
        if told:
            raise VerifyError(f"the log is not what {count(len(told), 'witness', 'witnesses')} saw of it")
        if problems:
            raise AuditError(
                f"{len(problems)} of {count(len(targets), 'witness', 'witnesses')} did not take the head",
                hint="The log itself is in order, and the head is signed.",
            )


def _witnesses_of(policy: str, state: Path) -> tuple[str, ...]:
    """Those that a policy names. PolicyError, UsageError."""
    from anchorhold.policy.load import load

    found = load(policy, state).audit.witness
    if not found:
        raise UsageError(
            f"the policy {ascii(policy)} names no witness", hint="[audit] witness in it, or --to, does."
        )
    return found


@click.command()
@click.argument("which", metavar="SESSION|REQUEST")
@click.option("-o", "--output", metavar="FILE", help="Write to this file; else to standard output.")
@click.option("--hide-paths", is_flag=True, help="Withhold names: counts, times, classes and digests stay.")
@click.option("--hide-digests", is_flag=True, help="Withhold the digests of files too.")
@click.pass_context
def receipt(ctx: click.Context, which: str, output: str | None, hide_paths: bool, hide_digests: bool) -> None:
    """What an answer was made from, with the proof: for whoever has the log's public key, anywhere.

    REQUEST is a session's name and a number, as `anchorhold audit list --kind request.end` shows it. The
    beginning of the session's name will do.
    """
    from anchorhold.audit.receipt import make
    from anchorhold.cli.named import whole_name

    hide = ("names", "text") if hide_paths else ()
    which = whole_name(state_dir(ctx), which)
    data = make(state_dir(ctx), which, hide=(*hide, "digests") if hide_digests else hide)
    if output:
        place.write(output, data)
    else:
        say(data.decode("ascii").removesuffix("\n"))


@click.command("verify-receipt")
@click.argument("file", metavar="FILE")
@click.option(
    "--key",
    "vkey",
    metavar="VKEY|FILE",
    required=True,
    help="The log's public key, or a file with it: anchorhold audit key",
)
@click.option(
    "--with", "files", multiple=True, metavar="FILE", help="A document or answer to look for in it."
)
@click.option("--json", "as_json", is_flag=True, help="The whole result as one JSON object.")
def verify_receipt(file: str, vkey: str | None, files: tuple[str, ...], as_json: bool) -> None:
    """Check a receipt with the log's public key alone. Needs no log. Exit code 5 if it does not hold.

    --with confirms that a document was shown to the model, or that an answer is the one the receipt is of.
    """
    from anchorhold.verify.receipt import LIMIT, ReceiptError, report, text
    from anchorhold.verify.receipt import verify_receipt as check

    try:
        proved = check(_read(file, LIMIT + 1), key_given(vkey) or "")
    except ReceiptError as error:
        if as_json:
            say(json.dumps({"ok": False, "problem": str(error)}))
        raise VerifyError(f"the receipt does not verify: {ascii(str(error))[1:-1]}") from None
    result, known = report(proved, [(name, _read(name)) for name in files])
    say(json.dumps(result) if as_json else text(result))
    if not known:
        withheld = any(one.get("sha256") is None for one in proved.grants)
        raise VerifyError(
            "a file given by --with is not shown by this receipt, which withholds digests"
            if withheld
            else "a file given by --with is not in this receipt"
        )


@click.command()
@click.argument("directory", metavar="LOG", required=False)
@click.option("--key", "vkey", metavar="VKEY|FILE", help="The log's public key, as you were given it.")
@click.option(
    "--as", "name", metavar="NAME", help="Your witness's name, the first time: witness.example/anna"
)
@click.option(
    "--memory", metavar="DIR", help="Where your witness's key is, and what it saw. Default: beside the state."
)
@click.option("-o", "--output", metavar="FILE", help="Write the cosigned head to FILE.")
@click.option("--add", metavar="FILE", help="On the log's own machine: keep a head that a witness cosigned.")
@click.option("--vkey", "show", is_flag=True, help="Print your witness's public key.")
@click.pass_context
def cosign(
    ctx: click.Context,
    directory: str | None,
    vkey: str | None,
    name: str | None,
    memory: str | None,
    output: str | None,
    add: str | None,
    show: bool,
) -> None:
    """Be a witness: check that somebody's log goes on from what you saw last, and sign its head.

    LOG is a copy of the log's folder; one without names is enough (leave out journal, openings and key). The
    log is verified whole, with the key that you were given. Exit code 5 if it does not hold, or was rolled
    back or rewritten since.
    """
    from anchorhold.audit.cosign import Cosigner, keep_cosigned

    if add:
        keep_cosigned(state_dir(ctx), _read(add))
        return
    folder = memory or str(state_dir(ctx) / "witness")
    try:
        witness = Cosigner(folder, name)
        if show:
            say(witness.vkey())
            return
        if not directory or not vkey:
            raise UsageError(
                "a log and its public key are needed", hint="anchorhold audit cosign LOG --key VKEY"
            )
        note = _cosigned(witness, folder, directory, key_given(vkey) or "")
    except OSError as error:
        raise AnchorholdError(
            f"the witness's folder {ascii(folder)} cannot be used: {error.strerror}"
        ) from error
    if output:
        place.write(output, note, mode=0o644)
    else:
        say(note.decode().removesuffix("\n"))


def _cosigned(witness: Cosigner, folder: str, directory: str, vkey: str) -> bytes:
    """Verify, compare with what was seen before, and only then sign."""
    from anchorhold.audit.note import Checkpoint
    from anchorhold.verify.check import verify as check
    from anchorhold.verify.result import LogUnreadable

    seen = [entry for entry in os.scandir(folder) if entry.name.endswith(".seen")]
    heads = [(_read(entry.path), entry.stat().st_mtime) for entry in seen]
    try:
        result = check(directory, vkey=vkey, names=False, heads=heads)
    except LogUnreadable as error:
        raise AuditError(str(error)) from None
    if not result.ok or not result.proven:
        raise VerifyError(f"nothing was signed: {result.first_bad or 'the log is not proven'}")
    head = Checkpoint.parse(result.note)  # not the file again: another may be there by now
    if head.origin != result.origin or head.root.hex() != result.root or head.size == 0:
        raise VerifyError("nothing was signed: the log has no entry that is signed")
    return witness.cosign(head)


def _read(name: str, most: int = -1) -> bytes:
    """A file, or so many of its bytes."""
    try:
        with open(name, "rb") as file:
            return file.read(most)
    except OSError as error:
        raise AnchorholdError(f"{ascii(name)} cannot be read: {error.strerror}") from error
