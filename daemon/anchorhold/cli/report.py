"""``anchorhold audit report``: the log as one page for people who do not program.

Constraint: a report names files, so it is written for its owner alone, whole or not at all, never over a
file that is no report, and never into the state directory: a redaction would not reach it there.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

import click

from anchorhold.cli.output import STDOUT, Notes, write_all
from anchorhold.cli.state import state_dir
from anchorhold.errors import AnchorholdError, AuditError, UsageError, VerifyError


@click.command()
@click.option(
    "--html", "target", required=True, metavar="FILE", help="Write the report here; - is standard output."
)
@click.option("--since", metavar="TIME", help="From this time on: 2026-01-31, 2026-01-31T18:30, -30d, -2h.")
@click.option("--until", metavar="TIME", help="Before this time; a day is included whole.")
@click.option("--session", metavar="ID", help="Only this session; the beginning of its name will do.")
@click.option(
    "--key",
    "vkey",
    metavar="VKEY|FILE",
    help="The verifier key to trust, instead of the one beside the log.",
)
@click.pass_context
def report(
    ctx: click.Context,
    target: str,
    since: str | None,
    until: str | None,
    session: str | None,
    vkey: str | None,
) -> None:
    """Write what the model was shown as one HTML page: for a client, a board, an auditor.

    The page needs no network and nothing else. The log is verified on the way; if it does not verify, the
    page says so at its top and the exit code is 5.
    """
    from datetime import UTC, datetime

    from anchorhold import __version__
    from anchorhold.audit.query import entries
    from anchorhold.audit.report.gather import gather
    from anchorhold.audit.report.page import Frame, render
    from anchorhold.audit.report.source import Source, chosen
    from anchorhold.cli.selection import key_given, moment, not_verified
    from anchorhold.verify.check import verify
    from anchorhold.verify.result import LogUnreadable

    state = state_dir(ctx)
    start, end = moment(since), moment(until, end=True)
    if start is not None and end is not None and start >= end:
        raise UsageError("--since is not before --until")
    trusted = key_given(vkey)
    file = None if target == "-" else Path(target)
    if file is not None:
        _check_target(file, state)
    try:
        result = verify(str(state), vkey=trusted)
    except LogUnreadable as error:
        raise not_verified(state, error) from None
    source = Source(lambda first: entries(state, first=first), result.size)
    found = gather(chosen(source.entries(), session=session, since=start, until=end))
    found.unreadable, found.problem = source.unreadable, source.problem
    if session is not None:
        session = _one_session(session, list(found.sessions), found.unreadable > 0)
    frame = Frame(
        datetime.now(UTC),
        __version__,
        since=start and start.astimezone(UTC),
        until=end and end.astimezone(UTC),
        session=session,
        key_given=vkey is not None,
        checkpoint=_checkpoint(state),
    )
    page = render(found, result.as_dict(), frame)
    if file is None:
        write_all(STDOUT, page)
    else:
        _write(file, page)
        files = found.documents.files
        Notes().line(f"{target}: {len(page):,} bytes, {found.entries:,} entries, {files:,} files shown")
    if not result.ok:
        raise VerifyError(
            f"the audit log does not verify: {result.first_bad}",
            hint="The report says so at its top. Run: anchorhold audit verify",
        )
    if found.unreadable:
        raise AuditError(
            f"{found.unreadable} entries could not be read: {found.problem}",
            hint="The report says so at its top. Run: anchorhold audit verify",
        )


def _one_session(given: str, names: list[str], partly: bool) -> str:
    """The whole name. A report on nothing would say that nothing was shown, so a slip is an error."""
    if given in names or (len(names) == 1 and given):
        return given if given in names else names[0]
    if not names and not partly:
        raise AuditError(
            f"no session {ascii(given)} has an entry in this time", hint="Run: anchorhold audit list"
        )
    if names:
        raise UsageError(
            f"{len(names)} sessions begin with {ascii(given)}",
            hint=f"Write more of it: {', '.join(map(ascii, names[:5]))}",
        )
    return given


def _checkpoint(state: Path) -> str:
    """The newest signed head as text; empty where it cannot be read (verification tells of that)."""
    from anchorhold.audit.files import read_file
    from anchorhold.audit.read import Snapshot, log_folder

    try:
        folder = Snapshot(log_folder(state)).epochs[-1].folder
        return (read_file(os.path.join(folder, "checkpoint")) or b"").decode("utf-8", "replace")
    except (AuditError, OSError, IndexError):
        return ""


def _check_target(file: Path, state: Path) -> None:
    """Refuse what no user can have meant, before the work is done."""
    from anchorhold.audit.report.page import MARK

    try:
        found = os.lstat(file)
    except FileNotFoundError:
        found = None
    except OSError as error:
        raise _unwritable(file, error) from error
    if found is not None:
        if stat.S_ISDIR(found.st_mode):
            raise UsageError(
                f"{ascii(str(file))} is a folder", hint="Name a file in it, as --html report.html"
            )
        if not stat.S_ISREG(found.st_mode):
            raise UsageError(
                f"{ascii(str(file))} is a link or a device, not a file",
                hint="Name the file itself, or - for standard output.",
            )
        try:
            with open(file, "rb") as older:
                begins = older.read(len(MARK))
        except OSError as error:
            raise _unwritable(file, error) from error
        if begins not in (b"", MARK.encode()):
            raise UsageError(
                f"{ascii(str(file))} is there and is no report: not overwritten",
                hint="Name another file, or remove that one first.",
            )
    folder, kept = os.path.realpath(file.parent), os.path.realpath(state)
    if folder == kept or folder.startswith(kept + os.sep):
        raise UsageError(
            "a report names files and may not lie in the state directory: a redaction would not reach it",
            hint="Name a file elsewhere.",
        )


def _write(file: Path, page: bytes) -> None:
    """Whole or not at all, and readable by its owner only."""
    temporary = file.parent / f".{file.name[:100]}.{os.urandom(6).hex()}"
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            try:
                os.fchmod(fd, 0o600)
                write_all(fd, page)
                os.fsync(fd)
            finally:
                os.close(fd)
            os.rename(temporary, file)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        raise _unwritable(file, error) from error


def _unwritable(file: Path, error: OSError) -> AnchorholdError:
    return AnchorholdError(f"the report cannot be written to {ascii(str(file))}: {error.strerror}")
