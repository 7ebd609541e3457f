"""The peers: where they are, and how they run a command. None is needed; a missing one is named."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

from tests.bench.measure import TOP, Missing

SANDLOCK = "sandlock==0.9.0"
_VENV = TOP / ".cache" / "bench-venv"


def tool(name: str) -> str:
    """The path of a program. Raises Missing."""
    found = shutil.which(name)
    if found is None:
        raise Missing(f"{name} is not installed (Debian: apt-get install {_PACKAGES.get(name, name)})")
    return found


_PACKAGES = {"bwrap": "bubblewrap"}


def sandlock_python() -> str:
    """A Python that has sandlock, in an environment of the bench's own: made on first use. Raises Missing."""
    python = _VENV / "bin" / "python"
    if not python.exists():
        venv.create(_VENV, with_pip=True, symlinks=True)
    if subprocess.run([python, "-c", "import sandlock"], capture_output=True, check=False).returncode:
        command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", SANDLOCK]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        if done.returncode:
            raise Missing(
                f"{SANDLOCK} cannot be installed: {(done.stderr.strip().splitlines() or ['?'])[-1]}"
            )
    return str(python)


def sandlock_run(command: list[str], readable: list[Path]) -> list[str]:
    """A command line that runs ``command`` in sandlock with its supervisor opening every file.

    A denied path makes it do so: with only ``fs_readable`` it looks at a call and lets the kernel go on.
    """
    source = (
        "import sys; from sandlock import Sandbox; "
        f"done = Sandbox(fs_readable={_SYSTEM + [str(path) for path in readable]!r}, "
        f"fs_denied=['/nonexistent/denied']).run({command!r}, timeout=60); "
        "sys.stdout.buffer.write(done.stdout); sys.stderr.buffer.write(done.stderr); "
        "sys.exit(not done.success)"
    )
    return [sandlock_python(), "-c", source]


_SYSTEM = [
    path for path in ("/usr", "/lib", "/lib64", "/bin", "/etc", "/proc", "/dev") if os.path.exists(path)
]


def outside_python() -> str:
    """The interpreter beneath the environment: a sandbox need not reach the environment for it."""
    return os.path.realpath(sys.executable)
