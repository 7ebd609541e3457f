"""The latch: a file that says that nothing of a name starts any more, until a person takes it away.

It is in the state directory, so it holds over restart and reboot. One is for a name, one for every name. A
spare one is made while all is well and renamed when it is needed: on a full disk a rename still finds room
where a new file may not.
"""

from __future__ import annotations

import os

FOLDER = "latch"
ALL = "*"
"""How the latch of every name is shown; no policy can be called so."""

ALL_FILE = "every"

SUFFIX = ".latched"
SPARE = ".spare"


def _file(state_dir: str, name: str | None) -> str:
    return os.path.join(state_dir, FOLDER, ALL_FILE if name is None else name + SUFFIX)


def prepare(state_dir: str) -> None:
    """Make the folder and a spare latch. Raises OSError: where no latch can be made, nothing starts."""
    folder = os.path.join(state_dir, FOLDER)
    os.makedirs(folder, 0o700, exist_ok=True)
    spare = os.path.join(folder, SPARE)
    if not os.path.lexists(spare):
        try:
            fd = os.open(spare, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except FileExistsError:
            return
        os.fsync(fd)
        os.close(fd)
        _sync(folder)


def latch(state_dir: str, name: str | None) -> None:
    """Latch one name, or all. It is on the disk when this returns. Raises OSError."""
    folder, path = os.path.join(state_dir, FOLDER), _file(state_dir, name)
    if os.path.lexists(path):
        return
    spare = os.path.join(folder, SPARE)
    try:
        os.makedirs(folder, 0o700, exist_ok=True)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
    except OSError:
        os.rename(spare, path)  # whatever was wrong with the one above, this one says
    _owner(folder, path)
    _sync(folder)


def _owner(folder: str, path: str) -> None:
    """Root latches for another user, who must be able to see what it is."""
    if os.geteuid() == 0:
        found = os.stat(folder)
        try:
            os.chown(path, found.st_uid, found.st_gid, follow_symlinks=False)
        except OSError:
            return


def latched(state_dir: str, name: str) -> str | None:
    """What holds this name back: the name itself, `ALL`, or None. A latch that cannot be looked for holds.

    Raises OSError for that.
    """
    for wanted, word in ((None, ALL), (name, name)):
        try:
            os.lstat(_file(state_dir, wanted))
        except (FileNotFoundError, NotADirectoryError):
            continue
        return word
    return None


def held(state_dir: str) -> list[str]:
    """Everything that is latched. Raises OSError."""
    try:
        names = os.listdir(os.path.join(state_dir, FOLDER))
    except FileNotFoundError:
        return []
    found = [name.removesuffix(SUFFIX) for name in names if name.endswith(SUFFIX)]
    return sorted(found + [ALL] * (ALL_FILE in names))


def rearm(state_dir: str, name: str | None) -> list[str]:
    """Take the latch of one name away, or all latches. Returns what was taken away. Raises OSError."""
    taken = [one for one in held(state_dir) if name in (None, one)]
    for one in taken:
        os.unlink(_file(state_dir, None if one == ALL else one))
    if taken:
        _sync(os.path.join(state_dir, FOLDER))
    return taken


def _sync(folder: str) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
