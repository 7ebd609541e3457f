"""Makes a Debian package: the program with all that it needs, units, man pages, completions, the SBOM.

    deb.py --release trixie --wheel ANCHORHOLD.whl --engine ENGINE.whl --man DIR --completions DIR \\
        --sbom FILE --out DIR

It carries an environment of its own in /usr/lib/anchorhold, for the one Python of that release, made of the
very files that requirements/ names by hash. So nothing is fetched and nothing is built on the user's machine,
every file belongs to the package, and removing it removes all of it. What it takes from the system is Python,
libgomp and libc.

Constraint: the same inputs make the same bytes ($SOURCE_DATE_EPOCH). Needs dpkg-deb, no root, no Debian of
that release. Sources: deb(5), deb-control(5), deb-version(7), Debian Policy 4.7.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
RELEASES = {"trixie": ("3.13", "+deb13"), "bookworm": ("3.11", "+deb12")}
"""Its Python, and what the version ends with, so that an upgrade of the release brings the other package."""

MAINTAINER = "The anchorhold authors <anchorhold@localhost>"
HOME = "usr/lib/anchorhold"
SCRIPTS = {
    "anchorhold": "#!/usr/lib/anchorhold/bin/python3 -I\nimport sys\n\n"
    "from anchorhold.cli.main import main\n\nsys.exit(main())\n",
    # Without site: it starts in a third of the time, and needs nothing but its own package.
    "anchorhold-kill": "#!/usr/bin/python3 -IS\nimport sys\n\nsys.path.append({packages!r})\n"
    "from anchorhold.switch.kill import main\n\nsys.exit(main())\n",
}
UNITS = {"": "usr/lib/systemd/system", "user": "usr/lib/systemd/user"}


def download(python: str, into: Path) -> None:
    """The wheels of requirements/run.txt for that Python, each checked by its hash."""
    command = [sys.executable, "-m", "pip", "download", "-qq", "--no-deps", "--require-hashes"]
    command += ["--only-binary", ":all:", "--python-version", python]
    command += ["--dest", str(into), "-r", str(TOP / "requirements/run.txt")]
    subprocess.run(command, check=True, env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"})


def unpack(wheel: Path, into: Path) -> None:
    """A wheel's files where an installer puts them (binary distribution format: purelib and platlib are one
    here). Scripts are left out: the package has its own."""
    with zipfile.ZipFile(wheel) as archive:
        for entry in archive.infolist():
            name = entry.filename
            parts = name.split("/")
            if parts[0].endswith(".data"):
                if parts[1] not in ("purelib", "platlib"):
                    continue
                name = "/".join(parts[2:])
            if entry.is_dir() or not name or ".." in parts or name.startswith("/"):
                continue
            target = into / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(archive.read(entry))


def environment(root: Path, python: str, wheels: list[Path]) -> Path:
    """A virtual environment as `python3 -m venv` makes it, for a Python that need not be here."""
    home = root / HOME
    packages = home / f"lib/python{python}/site-packages"
    packages.mkdir(parents=True)
    (home / "bin").mkdir()
    (home / f"bin/python{python}").symlink_to(f"/usr/bin/python{python}")
    for name in ("python", "python3"):
        (home / "bin" / name).symlink_to(f"python{python}")
    (home / "pyvenv.cfg").write_text("home = /usr/bin\ninclude-system-site-packages = false\n")
    for wheel in sorted(wheels):
        unpack(wheel, packages)
    for folder in ("bin", "include"):  # what some wheels leave beside their modules
        shutil.rmtree(packages / folder, ignore_errors=True)
    return packages


def compressed(source: Path, target: Path) -> None:
    """gzip -9n: without name and time."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with open(target, "wb") as out, gzip.GzipFile("", "wb", 9, out, mtime=0) as file:
        file.write(source.read_bytes())


def put(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def fill(root: Path, options: argparse.Namespace, packages: str) -> None:
    """Everything but the environment."""
    (root / "usr/bin").mkdir(parents=True)
    for name, text in SCRIPTS.items():
        (root / "usr/bin" / name).write_text(text.format(packages=packages))
    for below, place in UNITS.items():
        for unit in sorted((TOP / "systemd" / below).glob("anchorhold*@.*")):
            put(unit, root / place / unit.name)
    put(TOP / "systemd/anchorhold.sysusers", root / "usr/lib/sysusers.d/anchorhold.conf")
    put(TOP / "systemd/anchorhold.tmpfiles", root / "usr/lib/tmpfiles.d/anchorhold.conf")
    for page in sorted(options.man.iterdir()):
        compressed(page, root / f"usr/share/man/man1/{page.name}.gz")
    put(options.completions / "anchorhold", root / "usr/share/bash-completion/completions/anchorhold")
    put(options.completions / "_anchorhold", root / "usr/share/zsh/vendor-completions/_anchorhold")
    put(options.completions / "anchorhold.fish", root / "usr/share/fish/vendor_completions.d/anchorhold.fish")
    put(TOP / "tools/debian/anchorhold-kill.desktop", root / "usr/share/applications/anchorhold-kill.desktop")
    doc = root / "usr/share/doc/anchorhold"
    put(options.sbom, doc / "sbom.cdx.json")
    for page in sorted((TOP / "docs").glob("*.md")):
        put(page, doc / page.name)
    compressed(TOP / "CHANGELOG.md", doc / "changelog.gz")


def notices(packages: Path) -> str:
    """debian/copyright: our own licence, and for each distribution carried what its metadata says."""
    out = [
        "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/",
        "Upstream-Name: anchorhold", "",
        "Files: *", "Copyright: the anchorhold authors", "License: Apache-2.0",
        " On Debian systems the text is in /usr/share/common-licenses/Apache-2.0.",
    ]  # fmt: skip
    for info in sorted(packages.glob("*.dist-info")):
        text = (info / "METADATA").read_text(encoding="utf-8", errors="replace").partition("\n\n")[0]
        fields = dict(re.findall(r"(?m)^(Name|License-Expression|License|Author|Author-email): (.+)$", text))
        licence = fields.get("License-Expression") or fields.get("License", "").partition("\n")[0]
        if not licence:
            words = re.findall(r"(?m)^Classifier: License :: (?:OSI Approved :: )?(.+)$", text)
            licence = " and ".join(words) or "see its own files"
        out += [
            "", f"Files: usr/lib/anchorhold/lib/*/site-packages/{info.name.split('-')[0]}*",
            f"Copyright: {fields.get('Author') or fields.get('Author-email') or 'its authors'}",
            f"License: {licence}", f" Its text is in the folder {info.name}.",
        ]  # fmt: skip
    return "\n".join(out) + "\n"


def control(version: str, python: str, size: int) -> str:
    major, minor = python.split(".")
    return f"""\
Package: anchorhold
Version: {version}
Architecture: amd64
Maintainer: {MAINTAINER}
Installed-Size: {size}
Depends: python3 (>= {python}~), python3 (<< {major}.{int(minor) + 1}~), libc6 (>= 2.36), libgomp1,
 libstdc++6, systemd | systemd-standalone-sysusers, systemd | systemd-standalone-tmpfiles
Recommends: systemd
Suggests: acl
Section: utils
Priority: optional
Description: runs a local language model in a sealed cell
 The model sees only the files that it is handed, and each of them is on record
 before it is handed: the kernel enforces it, a log proves it, and one command
 ends it.
 .
 This package carries the Python packages that it needs, at the versions that it
 was tested with.
"""


def timed(root: Path, epoch: int) -> None:
    """Modes and times that do not depend on who builds, when, or with which umask."""
    scripts = [root / "DEBIAN" / name for name in SCRIPT_NAMES]
    for path in sorted(root.rglob("*"), reverse=True):
        if path.is_symlink():
            os.utime(path, (epoch, epoch), follow_symlinks=False)
            continue
        runs = path.is_dir() or path.parent == root / "usr/bin" or path in scripts
        path.chmod(0o755 if runs else 0o644)
        os.utime(path, (epoch, epoch))
    root.chmod(0o755)
    os.utime(root, (epoch, epoch))


SCRIPT_NAMES = ("preinst", "postinst", "prerm", "postrm")


def build(options: argparse.Namespace, root: Path, wheels: list[Path]) -> Path:
    python, suffix = RELEASES[options.release]
    epoch = int(os.environ["SOURCE_DATE_EPOCH"])
    own = options.wheel.name.split("-")[1]
    packages = environment(root, python, [*wheels, options.wheel, options.engine])
    fill(root, options, f"/{packages.relative_to(root)}")
    doc = root / "usr/share/doc/anchorhold"
    (doc / "copyright").write_text(notices(packages))
    stamp = time.strftime("%a, %d %b %Y %H:%M:%S +0000", time.gmtime(epoch))
    news = root / "changelog"
    news.write_text(f"anchorhold ({own}{suffix}) {options.release}; urgency=medium\n\n"
                    f"  * Release {own}; see changelog.gz.\n\n -- {MAINTAINER}  {stamp}\n")  # fmt: skip
    compressed(news, doc / "changelog.Debian.gz")
    news.unlink()
    size = sum(-(-path.lstat().st_size // 1024) for path in root.rglob("*") if not path.is_dir())
    meta = root / "DEBIAN"
    meta.mkdir()
    for name in SCRIPT_NAMES:
        source = TOP / "tools/debian" / name
        if source.exists():
            put(source, meta / name)
    sums = [
        f"{hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()}  {path.relative_to(root)}\n"
        for path in sorted(root.rglob("*"))
        if path.is_file() and not path.is_symlink() and meta not in path.parents
    ]
    (meta / "md5sums").write_text("".join(sums))
    (meta / "control").write_text(control(own + suffix, python, size))
    timed(root, epoch)
    target: Path = options.out / f"anchorhold_{own}{suffix}_amd64.deb"
    # One thread: several make other bytes than one, and how many there are is the machine's.
    command = ["dpkg-deb", "--root-owner-group", "-Zxz", f"-z{options.level}", "--threads-max=1"]
    command += ["--build", str(root), str(target)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return target


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--release", choices=RELEASES, required=True)
    for name in ("wheel", "engine", "man", "completions", "sbom", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--wheels", type=Path, help="those of requirements/run.txt, downloaded before")
    parser.add_argument("--level", type=int, default=6, help="of compression: 6 takes a minute, 0 a second")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        kept = options.wheels or Path(work) / "wheels"
        if not kept.is_dir():
            download(RELEASES[options.release][0], kept)
        root = Path(work) / "root"
        root.mkdir()
        print(build(options, root, sorted(kept.glob("*.whl"))))


if __name__ == "__main__":
    main()
