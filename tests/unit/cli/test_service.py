"""`service install|uninstall|show`: what is written where, that nothing of others is touched."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

from anchorhold.cli import main as cli
from anchorhold.cli import units
from anchorhold.policy import load, places

DROPIN = "etc/systemd/system/anchorhold@taxes.service.d/50-policy.conf"
NAMES = ("taxes", "notes")


class Said:
    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with a model and folders, and below it the root of a system to install into."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        units, "PACKAGED", {False: (str(tmp_path / "none"),), True: (str(tmp_path / "none"),)}
    )
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    (tmp_path / "docs").mkdir()
    return tmp_path


def write(place: Path, rest: str = "", name: str = "taxes", data: str = "docs") -> str:
    path = place / f"{name}.toml"
    folder = str(place / data).replace("\\", "\\\\").replace('"', '\\"')
    path.write_text(
        f'version = 1\nname = "{name}"\n[model]\npath = "{place}/m.gguf"\n[data]\nread = ["{folder}"]\n{rest}'
    )
    path.chmod(0o600)
    return str(path)


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], place: Path) -> Any:
    def call(command: str, *words: str, user: bool = False) -> Said:
        where = ["--user"] if user else ["--root", str(place / "root")]
        code = cli.main(["service", command, *where, *words])
        out, err = capfd.readouterr()
        assert "Traceback" not in err and "\x1b" not in out + err
        return Said(code, out, err)

    return call


def tree(place: Path) -> dict[str, str]:
    root = place / "root"
    return {str(path.relative_to(root)): path.read_text() for path in root.rglob("*") if path.is_file()}


def test_install_writes_units_policy_and_drop_in(place: Path, run: Any) -> None:
    policy = write(place)
    said = run("install", policy)
    assert said.code == 0, said.err
    files = tree(place)
    for name in units.TEMPLATES:
        text = files[f"etc/systemd/system/{name}"]
        assert units.is_ours(text) and text.partition("\n")[2] == (units.shipped() / name).read_text()
    assert files["etc/anchorhold/taxes.toml"] == Path(policy).read_text()
    assert {"etc/sysusers.d/anchorhold.conf", "etc/tmpfiles.d/anchorhold.conf"} <= set(files)
    lines = files[DROPIN].splitlines()
    assert f"BindReadOnlyPaths={place}/docs" in lines and f"BindReadOnlyPaths={place}/m.gguf" in lines
    assert lines[-1] != "ProtectHome=yes"
    start = next(line for line in lines if line.startswith("ExecStart=/"))
    assert start.endswith(" serve --policy /etc/anchorhold/taxes.toml")
    assert os.access(start.removeprefix("ExecStart=").split()[0], os.X_OK)


def test_once_more_changes_nothing(place: Path, run: Any) -> None:
    policy = write(place)
    run("install", policy)
    before = tree(place)
    said = run("install", policy)
    assert said.code == 0 and tree(place) == before
    assert {line.split()[0] for line in said.out.splitlines()} == {"unchanged"}


def test_what_install_wrote_is_brought_up_to_date(place: Path, run: Any) -> None:
    run("install", write(place))
    (place / "more").mkdir()
    (place / "root/etc/anchorhold/taxes.toml").unlink()
    said = run("install", write(place, data="more"))
    assert said.code == 0 and "rewrote" in said.out
    assert f"{place}/more" in tree(place)[DROPIN]


@pytest.mark.parametrize(
    "file", [DROPIN, "etc/systemd/system/anchorhold@.service", "etc/anchorhold/taxes.toml"]
)
def test_nothing_is_written_over_what_others_wrote(place: Path, run: Any, file: str) -> None:
    policy = write(place)
    target = place / "root" / file
    target.parent.mkdir(parents=True)
    target.write_text("# mine\n")
    said = run("install", policy)
    assert said.code == 1 and f"/{file}" in said.err and "Nothing was written" in said.err
    assert tree(place) == {file: "# mine\n"}


def test_uninstall_removes_what_was_written_and_keeps_the_rest(place: Path, run: Any) -> None:
    for name in NAMES:
        run("install", write(place, name=name))
    said = run("uninstall", "taxes")
    assert said.code == 0 and "left: the log in /var/lib/anchorhold/taxes, and the policy" in said.out
    left = tree(place)
    assert not [file for file in left if "@taxes" in file]
    assert "etc/systemd/system/anchorhold@.service" in left  # the other one needs it
    assert run("uninstall", "notes").code == 0
    assert sorted(tree(place)) == ["etc/anchorhold/notes.toml", "etc/anchorhold/taxes.toml"]
    assert run("uninstall", "notes").code == 0  # nothing is there any more


def test_uninstall_keeps_what_was_changed_by_hand(place: Path, run: Any) -> None:
    run("install", write(place))
    target = place / "root" / DROPIN
    target.write_text(target.read_text() + "Nice=5\n")
    said = run("uninstall", "taxes")
    assert said.code == 1 and "changed by hand" in said.err and DROPIN in said.err
    assert "Nice=5" in tree(place)[DROPIN]


def test_show(place: Path, run: Any) -> None:
    policy = write(place)
    said = run("show", policy)
    assert said.code == 0 and f"# /{DROPIN} (not there)" in said.out and "BindReadOnlyPaths=" in said.out
    assert not (place / "root").exists()
    run("install", policy)
    target = place / "root" / DROPIN
    assert f"# /{DROPIN} (the same)" in run("show", policy).out
    target.write_text(target.read_text() + "Nice=5\n")
    assert f"# /{DROPIN} (changed by hand, or not from here)" in run("show", policy).out


def test_a_policy_with_a_home_in_it_is_no_policy_for_the_system(place: Path, run: Any) -> None:
    policy = Path(write(place))
    policy.write_text(policy.read_text().replace(f"{place}/docs", "~/docs"))
    said = run("install", str(policy))
    assert said.code == 2 and "data.read" in said.err and "another home" in said.err
    assert not (place / "root").exists()


def test_a_token_is_made_once_and_handed_over(place: Path, run: Any) -> None:
    policy = write(place, '[api]\nlisten = "127.0.0.1:8765"\n')
    run("install", "--token", policy)
    token = place / "root/etc/anchorhold/taxes.token"
    text = token.read_text()
    assert stat.S_IMODE(token.stat().st_mode) == 0o600 and len(text) == 44
    assert "LoadCredential=token:/etc/anchorhold/taxes.token" in tree(place)[DROPIN]
    run("install", policy)
    assert token.read_text() == text and "LoadCredential" in tree(place)[DROPIN]
    socket = tree(place)["etc/systemd/system/anchorhold@taxes.socket.d/50-policy.conf"]
    assert (
        "ListenStream=\nListenStream=127.0.0.1:8765\nIPAddressDeny=any\nIPAddressAllow=localhost\n" in socket
    )


def test_what_a_policy_says_of_the_system_is_in_the_drop_in(place: Path, run: Any) -> None:
    rest = '[limits]\nswap = "1GiB"\n[audit]\ncopy = ["syslog:udp://192.0.2.1:514"]\n'
    rest += f'witness = ["folder:{place}/heads"]\n[api]\nlisten = "unix:%t/anchorhold/x-%n.sock"\n'
    rest += 'group = "daemon"\n'
    assert run("install", write(place, rest)).code == 0
    lines = tree(place)[DROPIN].splitlines()
    assert {"MemorySwapMax=infinity", "PrivateNetwork=no", f"BindPaths={place}/heads"} <= set(lines)
    socket = tree(place)["etc/systemd/system/anchorhold@taxes.socket.d/50-policy.conf"]
    assert "ListenStream=%t/anchorhold/x-taxes.sock\nSocketGroup=daemon\nSocketMode=0660\n" in socket


@pytest.mark.parametrize("name", ["a\u00a0b", "a'b", 'a\\"b'])
def test_a_path_that_no_unit_can_hold(place: Path, run: Any, name: str) -> None:
    (place / name.replace("\\", "")).mkdir()
    policy = Path(write(place))
    policy.write_text(policy.read_text().replace("/docs", f"/{name}"))
    said = run("install", str(policy))
    assert (
        said.code == 2
        and "systemd cannot bind" in said.err
        or "cannot hold" in said.err
        and not (place / "root").exists()
    )


@pytest.mark.parametrize(
    ("path", "bound", "started"),
    [
        ("/a/b-c_d.e", "/a/b-c_d.e", "/a/b-c_d.e"),
        ("/a b", "/a\\ b", '"/a b"'),
        ("/a:b", "/a\\:b", '"/a:b"'),
        ("/100%", "/100%%", "/100%%"),
        ("/a\\b", "/a\\\\b", '"/a\\\\b"'),
        ("/$HOME", "/$HOME", "/$$HOME"),
        ("/ä€", "/ä€", '"/ä€"'),
    ],
)
def test_a_path_in_a_unit(path: str, bound: str, started: str) -> None:
    """What systemd makes of the odd ones again is seen in the virtual machine (tests/vm/service.py)."""
    assert (units.place(path), units.word(path)) == (bound, started)


def test_for_oneself(place: Path, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without systemd it says what is left to do."""
    monkeypatch.setenv("PATH", str(place))
    policy = write(place)
    said = run("install", policy, user=True)
    assert said.code == 0, said.err
    assert (
        "systemd does not run here" in said.err
        and "systemctl --user enable --now anchorhold@taxes" in said.err
    )
    text = (place / "config/systemd/user/anchorhold@taxes.service.d/50-policy.conf").read_text()
    assert f"serve --policy {policy}" in text and "Bind" not in text
    assert not (place / "root").exists()
    said = run("uninstall", "taxes", user=True)
    assert said.code == 0 and not list((place / "config").rglob("*.conf"))
    assert not list((place / "config").rglob("*.service"))


def test_the_system_needs_root(place: Path, capfd: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1500)
    assert cli.main(["service", "install", write(place)]) == 2
    assert "needs root" in capfd.readouterr().err


def test_systemctl_is_asked_in_turn_and_its_failure_is_told(
    place: Path, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = place / "asked"
    fake = place / "bin"
    fake.mkdir()
    (fake / "systemctl").write_text(
        f'#!/bin/sh\necho "$@" >>{log}\n[ "$2" != enable ] || {{ echo no >&2; exit 1; }}\n'
    )
    (fake / "systemctl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake}:/usr/bin:/bin")
    real = os.path.isdir
    monkeypatch.setattr(os.path, "isdir", lambda path: path == "/run/systemd/system" or real(path))
    said = run("install", write(place), user=True)
    assert said.code == 1 and "failed: no" in said.err and "files are written" in said.err
    asked = log.read_text().splitlines()
    assert asked[0] == "--user daemon-reload"
    assert asked[1] == "--user enable --now " + " ".join(units.names("taxes"))
    said = run("uninstall", "taxes", user=True)
    assert said.code == 0 and log.read_text().splitlines()[2].startswith("--user disable --now")


def test_units_of_a_package_are_not_written_once_more(place: Path) -> None:
    policy = load.load(write(place), None)
    assert [file for file in units.files(policy, user=False, packaged=True) if file.shared] == []
    assert [file for file in units.files(policy, user=False, packaged=False) if file.shared]


def test_the_interpreter_is_bound_where_it_would_be_hidden(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = load.load(write(place), None)
    monkeypatch.setattr("sys.prefix", "/home/anna/env")
    text = next(
        file.text for file in units.files(policy, user=False, packaged=True) if "verify" not in file.path
    )
    assert "BindReadOnlyPaths=/home/anna/env\n" in text and "ProtectHome=tmpfs\n" in text
    assert places.home() == str(place)


def test_where_nobody_may_have_a_user_namespace_the_unit_has_none(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = load.load(write(place), None)
    for number, wanted in (("0\n", True), ("127\n", False)):
        (place / "number").write_text(number)
        monkeypatch.setattr(units, "USER_NAMESPACES", str(place / "number"))
        text = next(file.text for file in units.files(policy, user=False) if DROPIN in file.path)
        assert ("PrivateUsers=no\n" in text) == wanted


def test_a_mark_is_for_its_text_alone() -> None:
    whole = units.mark("[Service]\n")
    assert units.is_ours(whole)
    for other in (whole + "\n", whole.replace("Service", "Socket"), "[Service]\n", ""):
        assert not units.is_ours(other)


def test_anchorhold_of_this_environment_can_be_started() -> None:
    command = units.program().split()
    done = subprocess.run([*command, "--version"], capture_output=True, text=True, timeout=30, check=True)
    assert "anchorhold" in done.stdout
