"""What is installed is pinned by hash, and the files that say so name no place to get it from."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from anchorhold import __version__
from tests.support import TOP

LOCKS = sorted((TOP / "requirements").glob("*.txt"))
PIN = re.compile(r"([a-z0-9-]+)==(\S+?)(?:\s*;[^\\]*)? \\")
HASH = re.compile(r"    --hash=sha256:[0-9a-f]{64}(?: \\)?")


def project() -> dict[str, Any]:
    loaded: dict[str, Any] = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]
    return loaded


def name_of(requirement: str) -> str:
    match = re.match(r"[A-Za-z0-9-]+", requirement)
    assert match is not None
    return match[0].lower()


def pinned(path: Path) -> dict[str, str]:
    """Name and version of each distribution of a lock file; any line that is neither pin nor hash fails."""
    found: dict[str, str] = {}
    hashes = 0
    for line in path.read_text().splitlines():
        if line.startswith("#"):
            continue
        if pin := PIN.fullmatch(line):
            found[pin[1]] = pin[2]
            hashes = 0
        else:
            assert HASH.fullmatch(line), f"{path.name}: {line}"
            hashes += 1
        assert found, f"{path.name}: a hash before the first name"
    assert hashes, f"{path.name} ends without a hash"
    return found


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.name)
def test_every_version_is_pinned_by_hash_and_no_registry_named(path: Path) -> None:
    assert pinned(path)
    assert "://" not in path.read_text()


def test_a_line_without_a_hash_is_found(tmp_path: Path) -> None:
    for text in (
        "click==8.1.0\n",
        "click==8.1.0 \\\n",
        "--index-url x\n",
        "click>=8 \\\n    --hash=sha256:00\n",
    ):
        lock = tmp_path / "lock.txt"
        lock.write_text(text)
        with pytest.raises(AssertionError):
            pinned(lock)


def test_what_the_project_asks_for_is_locked() -> None:
    locked = {path.stem: pinned(path) for path in LOCKS}
    assert {name_of(one) for one in project()["dependencies"]} <= {*locked["run"], *locked["engine"]}
    extras = project()["optional-dependencies"]
    assert {name_of(one) for one in extras["dev"]} <= {*locked["run"], *locked["dev"]}
    assert {name_of(one) for one in extras["demo"]} == set(locked["demo"])


def test_one_version_of_each_whatever_file_names_it() -> None:
    seen: dict[str, str] = {}
    for path in LOCKS:
        for name, version in pinned(path).items():
            assert seen.setdefault(name, version) == version, name


def test_a_requirement_has_a_lower_bound_and_nothing_else() -> None:
    everything = [*project()["dependencies"], *sum(project()["optional-dependencies"].values(), [])]
    assert [one for one in everything if not re.fullmatch(r"[a-z0-9-]+>=[0-9.]+", one)] == []


def test_python_m_says_the_version() -> None:
    command = [sys.executable, "-m", "anchorhold", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    assert __version__ in done.stdout
