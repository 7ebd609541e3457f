"""What a start takes besides the worker: what the launcher is told, what must hold, what is undone."""

from __future__ import annotations

import contextlib
import os
import time

from anchorhold.broker.table import TABLE
from anchorhold.cell import filters
from anchorhold.errors import LayerError
from anchorhold.kernel.syscalls import NR
from anchorhold.supervisor.limits import LEFTOVER_SECONDS
from anchorhold.supervisor.spawn import NOBODY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from anchorhold.policy.schema import Policy
    from anchorhold.supervisor.limits import Limits
    from anchorhold.supervisor.spawn import Launched

_lethal: list[int] | None = None
"""What the first launcher found out about the filters above this process (`anchorhold.cell.above`). They stay
on it for ever, and trying takes a tenth of a second and more."""

_ANSWERED = [NR[name] for name in TABLE if name in NR]
"""Numbers of the calls that the broker has an answer for."""


def launch_config(policy: Policy, limits: Limits, entry: str, config: dict[str, object]) -> dict[str, object]:
    """What the launcher is told. ``entry`` and ``config``: as for `anchorhold.supervisor.session.Session`."""
    held = {"cgroup": limits.cgroup_words} if limits.cgroup_words else {}
    return {
        "entry": entry,
        "worker": config,
        "filters": (filters.boot_filter(), filters.sealed_filter()),
        # None: what is forbidden is refused, and no more; then nothing is to end for it either.
        "answered": _ANSWERED if policy.breach.on_forbidden_syscall == "kill" else None,
        "lethal": _lethal,
        "rlimits": limits.rlimits(),
        "tasks": policy.limits.tasks,
        "user": (NOBODY, NOBODY) if os.geteuid() == 0 else None,
        "held": held,
    }


def remember(words: Mapping[str, str]) -> None:
    """Keep what a launcher says that it found out, before anything of the engine ran in it."""
    global _lethal
    if "lethal" in words:
        _lethal = [int(number) for number in words["lethal"].split()]


def demand(required: Iterable[str], held: Mapping[str, str], missing: Mapping[str, str]) -> None:
    """Raises LayerError, with the reasons, where a layer that the policy requires is not held."""
    lacking = [name for name in required if name not in held]
    if lacking:
        causes: dict[str, list[str]] = {}
        for name in lacking:
            causes.setdefault(missing.get(name, "not available"), []).append(name)
        reasons = "; ".join(f"{', '.join(names)}: {cause}" for cause, names in causes.items())
        raise LayerError(
            f"required {'layers are' if len(lacking) > 1 else 'layer is'} missing: {reasons}",
            hint="Nothing was started. [require] layers (or --require) decides what a cell must have.",
        )


def empty_folder(state_dir: Path) -> int:
    """A descriptor of a folder that is empty and gone: what the worker holds for every folder it opens."""
    # Of supervisors that were killed between the two lines below; a young one is of a start that goes on.
    for name in os.listdir(state_dir):
        if name.startswith(".folder-"):
            with contextlib.suppress(OSError):
                left = os.path.join(state_dir, name)
                if time.time() - os.stat(left).st_mtime > LEFTOVER_SECONDS:
                    os.rmdir(left)
    path = os.path.join(state_dir, f".folder-{os.getpid()}-{os.urandom(4).hex()}")
    os.mkdir(path, 0o500)
    try:
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    finally:
        os.rmdir(path)


def give_up(launched: Launched) -> None:
    if launched.pid > 0:
        with contextlib.suppress(OSError):
            os.kill(launched.pid, 9)
            os.waitpid(launched.pid, 0)
    launched.close()


def boot_id() -> str:
    """The kernel's name for this boot: `mono` of entries compares within one."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""
