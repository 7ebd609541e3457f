"""The shipped policies hold what their comments say; what `show` and `init` write loads again as the same."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

import pytest

from anchorhold.errors import PolicyError
from anchorhold.policy import find, load, places
from anchorhold.policy.match import Matcher
from anchorhold.policy.render import effective, size, string, template
from anchorhold.policy.schema import DEFAULT_DENY, LAYERS, SECTIONS, Policy

SHIPPED = sorted(Path(find.shipped_folder()).glob("*.toml"))


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "m.gguf"
    path.write_bytes(b"GGUF")
    monkeypatch.setattr(places, "demo_model", lambda: str(path))
    return path


def shipped(name: str) -> Policy:
    return load.load(str(Path(find.shipped_folder()) / f"{name}.toml"))


def test_there_are_three() -> None:
    assert [path.stem for path in SHIPPED] == ["evidence", "notes", "papers"]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_each_loads_is_named_as_its_file_and_explained(path: Path, model: Path, tmp_path: Path) -> None:
    found = load.load(path)
    assert found.name == path.stem and found.model.path == str(model)
    assert found.data.read == (), "folders are for whoever uses it to name"
    text = path.read_text()
    assert f"anchorhold ask --policy {path.stem} --data " in text and text.isascii()
    assert max(map(len, text.splitlines())) <= 120
    (tmp_path / "d").mkdir()
    narrowed = load.from_options(base=found, data=[str(tmp_path / "d")], state_dir=tmp_path / "state")
    assert narrowed.data.read == (str(tmp_path / "d"),) and narrowed.data.deny == found.data.deny


def test_papers_hides_what_lies_beside_papers(model: Path, tmp_path: Path) -> None:
    found = load.from_options(base=shipped("papers"), data=[str(tmp_path)], state_dir="/nowhere")
    decide = Matcher(found.data).decide
    for name in (
        "my Passwords.odt",
        "a/vault.kdbx",
        ".ssh/config",
        "id_rsa",
        "Recovery Codes.txt",
        ".env",
        "wallet.dat",
    ):
        assert not decide(os.fsencode(tmp_path / name)).allowed, name
    for name in ("roof.pdf", "2025/letter.docx", "id_card.pdf", "key facts.txt"):
        assert decide(os.fsencode(tmp_path / name)).allowed, name
    assert found.breach.on_denied_open == found.breach.on_forbidden_syscall == "kill"


def test_evidence_is_as_strict_as_it_can_be(model: Path) -> None:
    found = shipped("evidence")
    assert found.audit.durability == "fsync" and found.audit.prompts == "text"
    assert set(LAYERS) - set(found.require) == {"user", "cgroup"}
    assert found.data.deny == () and found.data.hardlinks == "deny" and not found.data.cross_mounts
    assert found.breach.on_denied_open == found.breach.on_forbidden_syscall == "kill"


def test_notes_answers_with_an_error(model: Path) -> None:
    found = shipped("notes")
    assert found.breach.on_denied_open == "deny" and found.breach.on_forbidden_syscall == "kill"


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_the_effective_policy_loads_as_itself(path: Path, model: Path, tmp_path: Path) -> None:
    found = load.load(path)
    shown = tmp_path / "shown.toml"
    shown.write_text(effective(found))
    shown.chmod(0o600)
    assert load.load(shown).digest == found.digest


def test_defaults_are_marked(model: Path, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    lines = effective(load.from_options(data=[str(tmp_path / "d")], state_dir="/nowhere")).splitlines()
    assert 'name = "command-line"  # default' in lines
    assert f'read = ["{tmp_path}/d"]' in lines
    assert "deny = [  # default" in lines and 'swap = "0"  # default' in lines
    assert "# sha256 is not set" in lines and 'wall_clock = "off"  # default' in lines
    (tmp_path / "f").write_text("x")
    text = effective(load.from_options(files=[str(tmp_path / "f")], state_dir="/nowhere"))
    assert f'# and the single file "{tmp_path}/f"' in text and tomllib.loads(text)


def test_every_key_is_shown(model: Path, tmp_path: Path) -> None:
    from dataclasses import fields, replace

    found = load.from_options(model=str(model))
    found = replace(
        found,
        model=replace(found.model, sha256="a" * 64),
        limits=replace(found.limits, memory=None, idle=90.0, cpu=0.5, swap=None),
        api=replace(found.api, listen="127.0.0.1:1", group="g", tls_cert="/c", tls_key="/k"),
        control=replace(found.control, group="staff"),
    )
    text = effective(found)
    for section, kind in SECTIONS.items():
        shown = tomllib.loads(text)[section]
        assert set(shown) | {"files"} == {one.name for one in fields(kind)} | {"files"}
    assert 'read_timeout = "30s"' in text and 'max_body = "4MiB"' in text
    assert 'idle = "90s"' in text and "cpu = 0.5" in text and 'memory = "off"' in text


def test_sizes_are_shown_in_the_largest_unit() -> None:
    assert [size(one) for one in (0, 1, 1024, 1025, 64 << 20, 4 << 30, 2 << 40)] == [
        "0", "1", "1KiB", "1025", "64MiB", "4GiB", "2TiB",
    ]  # fmt: skip


def test_strings_are_toml_and_harmless() -> None:
    for text in ('a"b\\c', "\x1b[2J", "\u202e", "\U000e0041", "\u00e4\n", "\x00"):
        shown = string(text)
        assert shown.isprintable() and tomllib.loads(f"x = {shown}")["x"] == text


def test_the_template_says_every_key_and_the_defaults(model: Path, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    for folders in ([], [str(tmp_path / "d")]):
        text = template("x", folders, "demo")
        found, problems = load.check_text("x.toml", text, "/nowhere")
        assert found is not None, [str(one) for one in problems]
        assert found.data.read == tuple(folders) and found.data.deny == DEFAULT_DENY
        bare, _problems = load.check_text("x", 'version = 1\nname = "x"\nmodel.path = "demo"\n', "/nowhere")
        assert bare is not None and bare.limits == found.limits and bare.breach == found.breach
        assert (bare.audit, bare.require, bare.data.max_file) == (
            found.audit,
            found.require,
            found.data.max_file,
        )
    for section, keys in load.KEYS.items():
        for key in keys:
            assert f"{key} = " in text or section == "api"


def test_the_template_writes_home_as_a_person_would(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    text = template("x", [f"{tmp_path}/d", str(tmp_path), f"{tmp_path}x"], f"{tmp_path}/m.gguf")
    for line in ('    "~/d",', '    "~",', f'    "{tmp_path}x",', 'path = "~/m.gguf"'):
        assert line in text
    with pytest.raises(PolicyError, match="no UTF-8"):
        template("x", ["/\udcff"], "demo")
