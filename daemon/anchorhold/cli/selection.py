"""Which entries a person means: points in time, patterns of paths. And how results are said."""

from __future__ import annotations

import os
import re
import sys
from datetime import datetime, timedelta

import click

from anchorhold.errors import AnchorholdError, AuditError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path

    from anchorhold.verify.result import LogUnreadable

UNITS = {"w": "weeks", "d": "days", "h": "hours", "m": "minutes", "s": "seconds"}


def moment(text: str | None, *, end: bool = False) -> datetime | None:
    """A point in time: a day, a day and time (local without a zone), or ``-30d`` from now."""
    if text is None:
        return None
    now = datetime.now().astimezone()
    relative = re.fullmatch(r"-(\d{1,6})([wdhms])", text, re.ASCII)
    try:
        if relative:
            return now - timedelta(**{UNITS[relative[2]]: int(relative[1])})
        moment = datetime.fromisoformat(text)
        if end and re.fullmatch(r"\d{4}-\d\d-\d\d", text, re.ASCII):
            moment += timedelta(days=1)
        return moment.astimezone()
    except (ValueError, OverflowError, OSError):
        raise UsageError(
            f"{ascii(text)} is no time",
            hint="Write 2026-01-31, 2026-01-31T18:30, 2026-01-31T18:30:00Z, or -30d, -12h, -15m before now.",
        ) from None


def pattern(path: str | None) -> str | None:
    """``~`` and relative patterns with a folder are completed; a bare name stays one."""
    if path is None or ("/" not in path and path != "~"):
        return path
    path = os.path.expanduser(path)
    return path if path.startswith(("/", "*")) else os.path.normpath(os.path.join(os.getcwd(), path))


def content_asked(file: str | None, digest: str | None, *, least: int = 4) -> str | None:
    """The beginning of the digest that ``--file`` and ``--digest`` ask for; None where neither does.

    At least ``least`` digits. UsageError where it is no digest, or they name two contents; AnchorholdError
    where the file cannot be read.
    """
    if digest is not None and not re.fullmatch(rf"[0-9a-fA-F]{{{least},64}}", digest, re.ASCII):
        raise UsageError(f"{ascii(digest)} is no digest", hint=f"Write {least} to 64 hexadecimal digits.")
    digest = digest.lower() if digest is not None else None
    if file is None:
        return digest
    content = _digest_of(file)
    if digest is not None and not content.startswith(digest):
        raise UsageError(f"{ascii(file)} has another digest: {content}")
    return content


def _digest_of(name: str) -> str:
    import hashlib

    try:
        with open(name, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise AnchorholdError(f"{ascii(name)} cannot be read: {error.strerror}") from error


def key_given(key: str | None) -> str | None:
    """The vkey of ``--key``, which can name a file instead. A slip of the hand is no log that was changed."""
    if key is None:
        return None
    from anchorhold.verify.note import NoteError, given_key

    try:
        return given_key(key)
    except NoteError as error:
        raise UsageError(str(error), hint="On the log's machine `anchorhold audit key` prints it.") from None


def not_verified(state: Path, error: LogUnreadable) -> AuditError:
    """Why a log could not be verified at all: where it is not there or may not be read, in the words of the
    commands that only read it."""
    from anchorhold.audit.files import audit_error
    from anchorhold.audit.read import log_folder

    try:
        log = log_folder(state)
    except AuditError as same:
        return same
    if isinstance(error.__cause__, OSError):
        return audit_error(error.__cause__, "be read", error.__cause__.filename or log)
    return AuditError(str(error), hint="Name the state directory with --state-dir.")


def say(text: str) -> None:
    """A line of results, as ASCII where the terminal's encoding has no more."""
    encoding = sys.stdout.encoding or "ascii"
    click.echo(text.encode(encoding, "backslashreplace").decode(encoding))
