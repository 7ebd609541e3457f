"""The three ways to start a cell, the folder that it is granted, and how a category of attacks is run."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from anchorhold.kernel.syscalls import NR
from tests.support import TOP, Runner

HERE = Path(__file__).parent
OURS = re.compile(r"^from tests\.[\w.]+ import (\([^)]*\)|.*)$", re.MULTILINE)
ISOLATED = [
    "unshare",
    "--mount",
    "--pid",
    "--fork",
    "--kill-child",
    "--mount-proc",
    "--net",
    "--ipc",
    "--uts",
]

Caged = Callable[..., dict[str, Any]]
REPORT = """
if __name__ == "__main__":
    import json
    print(json.dumps(run_trials(list(TRIALS))))
"""


@pytest.fixture
def place(open_tmp: Path) -> Path:
    """``papers`` is granted, with links, second names and special files in it; secret.txt lies beside it."""
    papers = open_tmp / "papers"
    papers.mkdir()
    (papers / "granted.txt").write_text("granted" * 1000)
    (open_tmp / "secret.txt").write_text("secret")
    (papers / "out.txt").symlink_to(open_tmp / "secret.txt")
    os.link(open_tmp / "secret.txt", papers / "hard.txt")
    (papers / "sub").mkdir()
    (papers / "relative.txt").symlink_to("../secret.txt")
    (papers / "chain.txt").symlink_to("sub/link.txt")
    (papers / "sub" / "link.txt").symlink_to(open_tmp / "secret.txt")
    (papers / "way").symlink_to(open_tmp)
    (papers / "magic").symlink_to("/proc/self/root")
    os.mkfifo(papers / "fifo.txt")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(papers / "socket.txt"))
    if os.geteuid() == 0:
        os.mknod(papers / "device.txt", 0o20666, os.makedev(1, 5))  # what /dev/zero is
    else:
        (papers / "device.txt").symlink_to("/dev/zero")  # nobody else can make one
    for path in [open_tmp, *open_tmp.rglob("*")]:
        os.chown(path, os.stat(open_tmp).st_uid, os.stat(open_tmp).st_gid, follow_symlinks=False)
    return open_tmp


@pytest.fixture
def caged(started_by: Runner, place: Path, demo_model: Path) -> Caged:
    """Runs source text as a sealed worker that may read ``papers``, started as ``mode`` says."""

    def run(source: str, **wanted: Any) -> dict[str, Any]:
        given = {
            "state": str(place / "state"),
            "model": str(demo_model),
            "read": [str(place / "papers")],
            "source": source,
            **wanted,
        }
        done = started_by(
            sys.executable, "-m", "tests.integration.attacks.inside", stdin=json.dumps(given), cwd=TOP
        )
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    return run


def text_of(category: str, place: Path) -> str:
    """The shared text and the category's, as one module without imports of ours."""
    texts = [OURS.sub("", (HERE / f"{name}.py").read_text()) for name in ("common", category)]
    body = "\n".join(text.replace("from __future__ import annotations", "") for text in texts)
    given = f"NR = {NR!r}\nFOLDER = {str(place / 'papers')!r}\n"
    given += "GRANTED = FOLDER + '/granted.txt'\n"
    declared = re.compile(r'^(NR|FOLDER|GRANTED)\b.*=.*\n("""(.|\n)*?"""\n)?', re.MULTILINE)
    return "from __future__ import annotations\n" + given + declared.sub("", body)


def outside(category: str, place: Path) -> dict[str, list[Any]]:
    """The same attacks in a plain process that may do what it likes, in namespaces of its own."""
    script = place / f"{category}.py"
    script.write_text(text_of(category, place) + REPORT)
    isolated = [*ISOLATED] if os.geteuid() == 0 else [*ISOLATED, "--user", "--map-root-user"]
    done = subprocess.run(
        # With a parent of its own: process 1 of a namespace is no process like others.
        [*isolated, "sh", "-c", '"$@"; exit $?', "sh", sys.executable, str(script)],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
        env={"PATH": "/usr/bin:/bin", "SECRET_OF_THE_PARENT": "1"},
    )
    assert done.returncode == 0, done.stderr
    results: dict[str, list[Any]] = json.loads(done.stdout.splitlines()[-1])
    return results
