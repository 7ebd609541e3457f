"""A file that a command is told to write: asked for before the work, written after it.

Constraint: whatever fails, what was there stays. Folders are not made: a name that was mistyped is no wish.
``/dev/stdout``, ``/dev/stderr`` and ``/dev/fd/N`` (which a shell makes of ``>(…)``) are the descriptors that
they name; a device or pipe is written to as it is, and never replaced.
"""

from __future__ import annotations

import fcntl
import os
import re
import stat
import sys

from anchorhold.errors import AnchorholdError, UsageError

_DESCRIPTOR = re.compile(r"/(?:dev|proc/self)/fd/([0-9]{1,6})", re.ASCII)
_STANDARD = {"/dev/stdout": 1, "/dev/stderr": 2}


def check(name: str) -> None:
    """Raise now what `write` would raise after the work, as far as it can be known. UsageError,
    AnchorholdError."""
    try:
        fd = _descriptor(name)
        if fd is not None:
            if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
                raise AnchorholdError(f"{ascii(name)} cannot be written: it is open for reading")
        elif _is_special(name):
            if not os.access(name, os.W_OK):
                raise AnchorholdError(f"{ascii(name)} cannot be written: Permission denied")
        else:
            _try(name)
    except OSError as error:
        raise _cannot(name, error) from error


def write(name: str, data: bytes, mode: int = 0o600) -> None:
    """Write a file whole, or leave what was there. UsageError, AnchorholdError."""
    from anchorhold.audit.files import replace
    from anchorhold.cli.output import write_all

    try:
        fd = _descriptor(name)
        if fd is not None:
            sys.stdout.flush()
            write_all(fd, data)
        elif _is_special(name):
            fd = os.open(name, os.O_WRONLY | os.O_CLOEXEC | os.O_NOCTTY)
            try:
                write_all(fd, data)
            finally:
                os.close(fd)
        else:
            os.stat(_folder(name))
            replace(os.path.abspath(name), data, sync=False, mode=mode)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise _cannot(name, error) from error


def _descriptor(name: str) -> int | None:
    match = _DESCRIPTOR.fullmatch(name)
    return int(match[1]) if match else _STANDARD.get(name)


def _is_special(name: str) -> bool:
    """Whether it is a device or pipe. UsageError where it is nothing that can be written."""
    if not name or "\0" in name or os.path.isdir(name):
        raise UsageError(f"{ascii(name)} is a folder: name a file" if name else "'' names no file")
    if os.path.islink(name):
        raise UsageError(f"{ascii(name)} is a link: name a file")
    try:
        return not stat.S_ISREG(os.stat(name).st_mode)
    except FileNotFoundError:
        return False


def _folder(name: str) -> str:
    return os.path.dirname(os.path.abspath(name))


def _try(name: str) -> None:
    """Make a file beside it and take it away: access(2) knows neither quotas nor immutable folders."""
    path = os.path.join(_folder(name), f".tmp-anchorhold-{os.getpid()}-{os.urandom(4).hex()}")
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    os.close(fd)
    os.unlink(path)


def _cannot(name: str, error: OSError) -> AnchorholdError:
    return AnchorholdError(f"{ascii(name)} cannot be written: {error.strerror}")
