"""Finding and reading a policy file safely.

``--policy P``: with a slash or ending in ``.toml``, P is a path. Else it is a name: the user's own
``$XDG_CONFIG_HOME/anchorhold/P.toml`` first, then the policies that come with the program. A file of that
name in the current folder is never taken: what a model may read must not depend on where one happens to be.

Whoever can write a policy decides what a model may see, so a file that another user could have written is
refused, and so is one in a folder where another user could have put it.
"""

from __future__ import annotations

import grp
import os
import pwd
import stat
from pathlib import Path

import anchorhold
from anchorhold.errors import PolicyError
from anchorhold.policy.values import is_name, shown

MOST = 256 * 1024
"""Bytes; a policy of a thousand folders has a tenth of it."""


def user_folder() -> str:
    """Where the user's own policies are, or nothing."""
    base = os.environ.get("XDG_CONFIG_HOME", "")
    if not base.startswith("/"):
        base = os.path.expanduser("~/.config")
    return os.path.join(base, "anchorhold") if base.startswith("/") else ""


def shipped_folder() -> str:
    """Beside the modules of an installed package; in a checkout, at its top."""
    package = Path(anchorhold.__file__).resolve().parent
    inside = package / "policies"
    if not inside.is_dir() and package.parent.name == "daemon":
        return str(package.parent.parent / "policies")
    return str(inside)


def names() -> dict[str, str]:
    """Every policy that can be named, and its file."""
    found: dict[str, str] = {}
    for folder in (user_folder(), shipped_folder()):
        try:
            entries = sorted(os.listdir(folder)) if folder else []
        except OSError:
            continue
        for entry in entries:
            stem, suffix = os.path.splitext(entry)
            if suffix == ".toml" and is_name(stem):
                found.setdefault(stem, os.path.join(folder, entry))
    return found


def find(policy: str) -> str:
    """The absolute path of a policy named by path or name. PolicyError if there is none of that name."""
    if "/" in policy or policy.endswith(".toml"):
        return os.path.abspath(os.path.expanduser(policy))
    known = names()
    if policy in known:
        return known[policy]
    raise PolicyError(
        f"no policy is named {shown(policy)}",
        hint=f"Known: {', '.join(sorted(known)) or 'none'}. A file is named by its path, as ./NAME.toml",
    )


def is_shipped(path: str) -> bool:
    return os.path.dirname(path) == shipped_folder()


def read(path: str) -> str:
    """The text of a policy file. PolicyError if it cannot or should not be read."""
    where = shown(path)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "the name has a NUL"
        raise PolicyError(f"{where}: {why}", hint="Name a policy file that you may read.") from None
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise PolicyError(f"{where}: no regular file", hint="A policy is read from a regular file only.")
        if not is_shipped(path):
            # Whoever can write to the shipped ones can write to this program itself.
            _check_writers(path, found)
        with open(fd, "rb", closefd=False) as file:
            data = file.read(MOST + 1)
    except OSError as error:
        raise PolicyError(
            f"{where}: {error.strerror}", hint="Name a policy file that you may read."
        ) from None
    finally:
        os.close(fd)
    if len(data) > MOST:
        raise PolicyError(f"{where}: larger than {MOST} bytes", hint="Is it a policy at all?")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise PolicyError(f"{where}:{line}: not UTF-8", hint="TOML files are UTF-8.") from None


def _check_writers(path: str, found: os.stat_result) -> None:
    other = _other_writer(found)
    if other:
        raise PolicyError(
            f"{shown(path)}: {other} could have written it",
            hint="Make it yours alone: chmod go-w FILE, or copy it.",
        )
    folder = os.path.dirname(os.path.realpath(path))
    status = os.stat(folder)
    other = (
        "" if status.st_mode & stat.S_ISVTX and status.st_uid in (0, os.geteuid()) else _other_writer(status)
    )
    if other:
        raise PolicyError(
            f"{shown(path)}: {other} could have put it there",
            hint=f"Make {shown(folder)} yours alone: chmod go-w, or copy the file elsewhere.",
        )


def _other_writer(found: os.stat_result) -> str:
    """Who besides root and this user may write to it, in words."""
    me = os.geteuid()
    if found.st_uid not in (0, me):
        return f"user {found.st_uid}, its owner,"
    if found.st_mode & stat.S_IWOTH:
        return "any user"
    if found.st_mode & stat.S_IWGRP and found.st_gid != 0 and not _is_own_group(found.st_gid, me):
        return f"group {found.st_gid}"
    return ""


def _is_own_group(gid: int, uid: int) -> bool:
    """Whether a group is the one that many systems make for each user, with nobody else in it."""
    try:
        user, group = pwd.getpwuid(uid), grp.getgrgid(gid)
    except KeyError:
        return False
    return user.pw_gid == gid and group.gr_name == user.pw_name and set(group.gr_mem) <= {user.pw_name}
