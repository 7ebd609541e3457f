"""Types and helpers that tests share. The fixtures made of them are in conftest.py."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

TOP = Path(__file__).resolve().parent.parent
UID = 1500  # nobody's on any usual system; has no entry in passwd, no home and no rights

# Inside a user namespace of its own, a process may lower the limit on user namespaces below it; it does so
# while it still has capabilities there, then gives them up for good.
WITHOUT_USER_NAMESPACES = (
    "echo 0 >/proc/sys/user/max_user_namespaces && "
    'exec setpriv --inh-caps=-all --ambient-caps=-all --bounding-set=-all "$@"'
)


class Runner(Protocol):
    """Runs a command to its end and returns what it said, as text. A time-out fails the test."""

    def __call__(
        self,
        *command: str | Path,
        stdin: str = "",
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        timeout: float = 45,
    ) -> subprocess.CompletedProcess[str]: ...


def runner(prefix: Sequence[str]) -> Runner:
    """A Runner that puts ``prefix`` before each command."""

    def run(
        *command: str | Path,
        stdin: str = "",
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        timeout: float = 45,
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*prefix, *map(str, command)],
            input=stdin,
            env={**os.environ, **(env or {})},
            cwd=cwd,
            timeout=timeout,
            capture_output=True,
            encoding="utf-8",
            errors="surrogateescape",
            check=False,
        )

    return run


def first_closed(path: Path) -> Path | None:
    """The topmost directory on the way to ``path`` that other users cannot enter."""
    for directory in [*reversed(path.parents), path]:
        if directory.is_dir() and not directory.stat().st_mode & 0o001:
            return directory
    return None


def reopened(paths: Sequence[Path]) -> list[str]:
    """A command prefix (for root) under which everybody can reach ``paths``, under the names they have.

    A clone in root's home is closed to other users, and an environment cannot be moved. So the closed
    directory is covered by an empty open one, in a mount namespace of the command's own, and only ``paths``
    are put back.
    """
    closed = {path: directory for path in paths if (directory := first_closed(path)) is not None}
    if not closed:
        return []
    script = ["set -e", "hold=$(mktemp -d /var/tmp/anchorhold-test.XXXXXX)", "mount -t tmpfs none $hold"]
    for number, directory in enumerate(sorted(set(closed.values()))):
        script += [f"mkdir $hold/{number}", f"mount --rbind {shlex.quote(str(directory))} $hold/{number}"]
        script += [f"mount -t tmpfs -o mode=755 none {shlex.quote(str(directory))}"]
        for path in sorted(path for path, parent in closed.items() if parent == directory):
            inside = shlex.quote(str(path.relative_to(directory)))
            target = shlex.quote(str(path))
            script += [f"mkdir -p {target}", f"mount --rbind $hold/{number}/{inside} {target}"]
    script += ["umount -l $hold", "rmdir $hold", 'cd "$PWD" || cd /', 'exec "$@"']
    return ["unshare", "--mount", "sh", "-c", "; ".join(script), "sh"]


def unprivileged_prefix() -> list[str]:
    """What to put before a command so that it runs without rights: as UID for root, as oneself otherwise."""
    if os.geteuid() != 0:
        return []
    become = ["setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups", "--inh-caps=-all", "--"]
    needed = [TOP, Path(sys.prefix), Path(sys.base_prefix)]
    return [*reopened(needed), *become]


def no_userns_prefix() -> list[str]:
    """The same, where no further user namespace can be made (hardened kernels, Ubuntu's AppArmor rule)."""
    enter = [
        "unshare",
        "--user",
        "--map-current-user",
        "--keep-caps",
        "sh",
        "-c",
        WITHOUT_USER_NAMESPACES,
        "sh",
    ]
    return [*unprivileged_prefix(), *enter]


def session_entries(state: Path, first: int = 0) -> list[dict[str, Any]]:
    """The log's entries that belong to a session: without those of the log's own, as an epoch's first."""
    from anchorhold.audit.query import entries

    return [entry for entry in entries(state, first=first) if entry["session"]]
