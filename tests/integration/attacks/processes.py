"""New processes, other processes, and namespaces."""

from __future__ import annotations

import os

from tests.integration.attacks.common import child_of, syscall, trial


@trial("fork by clone", call="clone")
def _() -> object:
    return child_of("clone", 17, 0, 0, 0, 0)


@trial("kill with signal 0: its parent", call="kill")
def _() -> object:
    return syscall("kill", os.getppid() or 1, 0) == 0
