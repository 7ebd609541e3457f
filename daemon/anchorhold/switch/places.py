"""Where the runtime directory is: the records of what runs, and the control socket.

Order: systemd's ``$RUNTIME_DIRECTORY`` (its first entry), ``$XDG_RUNTIME_DIR/anchorhold``,
``/run/anchorhold`` for root, ``/run/user/<uid>/anchorhold`` where that user's directory is there, else
``run`` in the state directory. All but the last are in memory, so they work while the disk is full.
Source: systemd.exec(5), RuntimeDirectory=; XDG Base Directory Specification.
"""

from __future__ import annotations

import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

SYSTEM = "/run/anchorhold"
USERS = "/run/user"
FALLBACK = "run"
"""Its name in the state directory."""


def runtime_dir(state_dir: str, environ: Mapping[str, str] = os.environ) -> str:
    """The directory for this process. Nothing is made here."""
    given = environ.get("RUNTIME_DIRECTORY", "").split(":")[0]
    if os.path.isabs(given):
        return given
    base = environ.get("XDG_RUNTIME_DIR", "")
    if os.path.isabs(base) and os.path.isdir(base):
        return os.path.join(base, "anchorhold")
    uid = os.geteuid()
    if uid == 0:
        return SYSTEM
    base = f"{USERS}/{uid}"
    if os.path.isdir(base):
        return os.path.join(base, "anchorhold")
    return os.path.join(state_dir, FALLBACK)


def make(path: str) -> None:
    """Make the directory, for its owner alone. Raises OSError; PermissionError if another user owns it."""
    os.makedirs(path, 0o700, exist_ok=True)
    found = os.lstat(path)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid not in (0, os.geteuid()):
        raise PermissionError(1, "is not a directory of this user", path)


def candidates(state_dir: str, environ: Mapping[str, str] = os.environ) -> list[str]:
    """Every directory that can hold records of this user's; for root those of all users."""
    found = [runtime_dir(state_dir, environ), os.path.join(state_dir, FALLBACK), SYSTEM]
    try:
        below = [os.path.join(SYSTEM, name) for name in os.listdir(SYSTEM)]  # of service instances
    except OSError:
        below = []
    found += [path for path in below if os.path.isdir(path)]
    uid = os.geteuid()
    try:
        users = os.listdir(USERS) if uid == 0 else [str(uid)]
    except OSError:
        users = []
    found += [f"{USERS}/{user}/anchorhold" for user in users]
    return list(dict.fromkeys(found))
