"""What is installed is pinned by hash; what is handed out is the same bytes each time."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import pytest

from anchorhold import __version__
from anchorhold.cli.root import COMMANDS
from tests.support import TOP

LOCK = TOP / "requirements"
LOCKS = sorted(LOCK.glob("*.txt"))
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
        if path.stem.startswith(
            "front-end-"
        ):  # each alone in its environment; nothing here imports what is in it
            continue
        for name, version in pinned(path).items():
            assert seen.setdefault(name, version) == version, name


def test_a_requirement_has_a_lower_bound_and_nothing_else() -> None:
    everything = [*project()["dependencies"], *sum(project()["optional-dependencies"].values(), [])]
    assert [one for one in everything if not re.fullmatch(r"[a-z0-9-]+>=[0-9.]+", one)] == []


def test_python_m_says_the_version() -> None:
    command = [sys.executable, "-m", "anchorhold", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    assert __version__ in done.stdout


# ---- what is handed out ------------------------------------------------------------------------------


def tool(name: str) -> ModuleType:
    """A program of tools/ as a module."""
    spec = importlib.util.spec_from_file_location(f"anchorhold_tool_{name}", TOP / "tools" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def copy_of_the_tree(into: Path) -> Path:
    """What git knows or would know of this tree, with the caches that hold what was downloaded and built."""
    names = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=TOP, capture_output=True, check=True, timeout=30,
    ).stdout.decode()  # fmt: skip
    for name in names.rstrip("\0").split("\0"):
        if (TOP / name).is_file():
            (into / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(TOP / name, into / name)
    for name in ("deb", "wheels"):
        (TOP / ".cache" / name).mkdir(parents=True, exist_ok=True)
        (into / ".cache").mkdir(exist_ok=True)
        (into / ".cache" / name).symlink_to(TOP / ".cache" / name)
    return into


def dist(tree: Path, out: Path, *, umask: int, **surroundings: str) -> dict[str, str]:
    """What `make dist` makes there: name → SHA-256."""
    subprocess.run(
        ["tools/dist", out], cwd=tree, check=True, timeout=540, umask=umask, stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHON": sys.executable, "RELEASES": "trixie", "LEVEL": "0",
             "BUILD_PYTHON": str(TOP / ".cache/build-venv/bin/python"), **surroundings},
    )  # fmt: skip
    lines = (out / "SHA256SUMS").read_text().splitlines()
    return {name: digest for digest, _space, name in (line.partition("  ") for line in lines)}


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("unmeasured")
def test_the_same_sources_make_the_same_bytes(tmp_path: Path) -> None:
    """Wheel, sdist, Debian package and all else: in another folder, from files of another time and umask."""
    when = "1767225600"
    first = copy_of_the_tree(tmp_path / "first")
    second = copy_of_the_tree(tmp_path / "a second folder")
    for path in second.rglob("*"):
        if not path.is_symlink():
            os.utime(path, (1, 1))
    one = dist(first, tmp_path / "one", umask=0o022, SOURCE_DATE_EPOCH=when)
    two = dist(
        second, tmp_path / "two", umask=0o077, SOURCE_DATE_EPOCH=when, TZ="Asia/Tokyo", LANG="de_DE.UTF-8",
        PYTHONHASHSEED="7",
    )  # fmt: skip
    assert one == two
    assert {Path(name).suffix for name in one} > {".whl", ".gz", ".deb", ".json", ".pyz", ".1", ".fish"}
    other = dist(first, tmp_path / "three", umask=0o022, SOURCE_DATE_EPOCH="1767312000", RELEASES="")
    assert other["anchorhold.cdx.json"] != one["anchorhold.cdx.json"]  # the time does go in
    look_into_the_package(next((tmp_path / "one").glob("*.deb")), tmp_path / "root")


def look_into_the_package(package: Path, root: Path) -> None:
    subprocess.run(["dpkg-deb", "-R", package, root], check=True, timeout=60)
    packages = next((root / "usr/lib/anchorhold/lib").glob("python3.*")) / "site-packages"
    carried = {re.split(r"-[0-9]", path.name)[0].lower() for path in packages.glob("*.dist-info")}
    wanted = {name.replace("-", "_") for lock in ("run", "engine") for name in pinned(LOCK / f"{lock}.txt")}
    assert {name.replace("-", "_").replace(".", "_") for name in carried} == wanted | {"anchorhold"}
    for place in (
        "usr/lib/systemd/system/anchorhold@.service", "usr/lib/systemd/user/anchorhold@.service",
        "usr/lib/sysusers.d/anchorhold.conf", "usr/share/man/man1/anchorhold-audit-verify.1.gz",
        "usr/share/applications/anchorhold-kill.desktop",
        "usr/share/bash-completion/completions/anchorhold", "usr/share/doc/anchorhold/sbom.cdx.json",
    ):  # fmt: skip
        assert (root / place).is_file(), place
    outside = [path for path in root.rglob("*") if path.stat(follow_symlinks=False).st_mode & 0o022]
    assert [path for path in outside if not path.is_symlink()] == []
    for script in ("preinst", "postinst", "prerm", "postrm"):
        subprocess.run(["sh", "-n", root / "DEBIAN" / script], check=True, timeout=10)


def test_a_wheel_brings_policies_and_units() -> None:
    include = tomllib.loads((TOP / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]
    assert include["wheel"]["sources"]["systemd"] == "anchorhold/systemd"
    assert set(include["wheel"]["only-include"]) == set(include["wheel"]["sources"])
    for folder in ("systemd", "policies"):
        assert f"/{folder}" in include["sdist"]["include"]


def test_every_command_has_a_page_that_roff_takes(tmp_path: Path) -> None:
    pages = dict(tool("manpages").pages())
    for words in (
        "anchorhold",
        "anchorhold-ask",
        "anchorhold-audit-verify-receipt",
        "anchorhold-service-install",
    ):
        assert f"{words}.1" in pages
    assert {f"anchorhold-{name}.1" for name in COMMANDS} <= set(pages)
    assert "--max-tokens" in pages["anchorhold-ask.1"].replace("\\-", "-")
    for name, text in pages.items():
        path = tmp_path / name
        path.write_text(text)
        said = subprocess.run(
            ["groff", "-man", "-Tutf8", "-ww", "-z", path],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert (said.returncode, said.stderr) == (0, ""), name
    (tmp_path / "bad.1").write_text(".TH x 1\n.SH NAME\n\\[nosuchglyph]\n")
    said = subprocess.run(
        ["groff", "-man", "-Tutf8", "-ww", "-z", tmp_path / "bad.1"],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert "nosuchglyph" in said.stderr


def test_a_page_says_what_help_says_whatever_it_looks_like() -> None:
    @click.command(epilog="\b\n.so /etc/passwd\n  'quoted'")
    @click.option("--odd", help="A \\fB back-slash, a `word` and 1–2.")
    def odd() -> None:
        """.TH is no request here.

        And - is a minus.
        """

    text = tool("manpages").page(odd, ("anchorhold", "odd"), "Odd.")
    assert "\n\\&.so /etc/passwd\n" in text and "\n\\&.TH is no request here.\n" in text
    assert "\\efB back\\-slash, a \\fBword\\fR and 1\\[u2013]2" in text and "(aqquoted" in text


def test_completions_are_shell(tmp_path: Path) -> None:
    texts = tool("completions").texts()
    assert set(texts) == {"anchorhold", "_anchorhold", "anchorhold.fish"}
    (tmp_path / "bash").write_text(texts["anchorhold"])
    script = f"source {tmp_path}/bash; complete -p anchorhold"
    said = subprocess.run(["bash", "-ec", script], capture_output=True, text=True, timeout=30, check=True)
    assert "_anchorhold" in said.stdout
    assert texts["_anchorhold"].startswith("#compdef anchorhold")


def test_the_bill_of_materials_is_that_of_the_locks() -> None:
    sbom = tool("sbom")
    locks = [(LOCK / f"{name}.txt").read_text() for name in ("run", "engine")]
    one = sbom.document(locks, project(), __version__, 0)
    assert one == sbom.document(locks, project(), __version__, 0)
    parts = {part["name"]: part for part in one["components"]}
    wanted = {**pinned(LOCK / "run.txt"), **pinned(LOCK / "engine.txt")}
    assert {name: part["version"] for name, part in parts.items()} == wanted
    assert all(
        part["purl"] == part["bom-ref"] == f"pkg:pypi/{name}@{wanted[name]}" for name, part in parts.items()
    )
    assert all(part["properties"] for part in parts.values())
    refs = [part["bom-ref"] for part in one["components"]]
    assert len(set(refs)) == len(refs) and set(one["dependencies"][0]["dependsOn"]) <= set(refs)
    assert len(one["dependencies"][0]["dependsOn"]) == len(project()["dependencies"])
    changed = [locks[0].replace("==", "==9", 1), locks[1]]
    assert sbom.document(changed, project(), __version__, 0)["serialNumber"] != one["serialNumber"]


# ---- units -------------------------------------------------------------------------------------------

UNITS = sorted(path.relative_to(TOP / "systemd") for path in (TOP / "systemd").rglob("anchorhold*@.*"))
OLD_SYSTEMD = 257
"""From here on it knows PrivateUsers=identity."""


def systemd_version() -> int:
    said = subprocess.run(
        ["systemd-analyze", "--version"], capture_output=True, text=True, timeout=30, check=True
    )
    return int(said.stdout.split()[1])


def instances(into: Path, folder: str) -> Path:
    """The units with a program that is there, as those of one name."""
    for path in (TOP / "systemd" / folder).glob("anchorhold*@.*"):
        text = re.sub(r"(?m)^Documentation=.*\n", "", path.read_text())
        (into / path.name).write_text(text.replace("/usr/bin/anchorhold ", f"{sys.executable} "))
    return into


@pytest.mark.parametrize("unit", UNITS, ids=str)
def test_systemd_takes_every_unit(unit: Path, tmp_path: Path) -> None:
    folder = instances(tmp_path, str(unit.parent))
    where = ["--user"] if unit.parent.name else []
    said = subprocess.run(
        ["systemd-analyze", *where, "verify", "--man=no", folder / unit.name.replace("@", "@taxes")],
        env={**os.environ, "SYSTEMD_UNIT_PATH": f"{folder}:", "XDG_RUNTIME_DIR": str(tmp_path)},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    old = systemd_version() < OLD_SYSTEMD
    lines = [
        line for line in said.stderr.splitlines()
        if "anchorhold" in line and not (old and line.endswith("ignoring: identity"))
    ]  # fmt: skip
    assert lines == []


def score(text: str, tmp_path: Path) -> float:
    unit = tmp_path / "anchorhold@taxes.service"
    unit.write_text(text)
    said = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", unit],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    return float(said.stdout.splitlines()[-1].split("service:")[1].split()[0])


def test_the_service_is_as_closed_as_its_work_allows(tmp_path: Path) -> None:
    text = (TOP / "systemd" / "anchorhold@.service").read_text()
    assert score(text, tmp_path) <= (1.5 if systemd_version() >= OLD_SYSTEMD else 1.7)
    assert score(text.replace("PrivateNetwork=yes\n", ""), tmp_path) > 1.7
    assert score((TOP / "systemd" / "anchorhold-verify@.service").read_text(), tmp_path) <= 0.5


def test_what_the_supervisor_cannot_live_with_is_not_in_its_unit() -> None:
    """RestrictSUIDSGID= answers openat2(2) with ENOSYS; a hidden /proc hides workers from the kill switch."""
    for name in ("anchorhold@.service", "user/anchorhold@.service"):
        lines = (TOP / "systemd" / name).read_text().splitlines()
        given = {line.partition("=")[0] for line in lines if not line.startswith("#")}
        assert not given & {
            "RestrictSUIDSGID",
            "RestrictNamespaces",
            "ProtectProc",
            "ProcSubset",
            "DynamicUser",
        }
        assert not [
            line for line in lines if "ENOSYS" in line and not line.startswith("#")
        ]  # libseccomp: EACCES
        assert {"RestartPreventExitStatus=2 6 7", "Delegate=yes", "Type=notify", "KillMode=mixed"} <= set(
            lines
        )
