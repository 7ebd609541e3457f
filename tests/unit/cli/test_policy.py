"""`policy check|show|explain|init`: what they print where, exit codes, and that nothing is overwritten."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import click
import pytest

from anchorhold.cli import main as cli
from anchorhold.cli.policy import policy as group

MODEL = b"GGUF"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.gguf").write_bytes(MODEL)
    (tmp_path / "taxes").mkdir()
    (tmp_path / "taxes" / "a.txt").write_text("abc")
    return tmp_path


def write(place: Path, rest: str = "", name: str = "p.toml") -> str:
    path = place / name
    path.write_text(f'version = 1\nname = "p"\n[model]\npath = "{place}/m.gguf"\n{rest}')
    path.chmod(0o600)
    return str(path)


class Said:
    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Any:
    def call(*words: str) -> Said:
        code = cli.main(["policy", *words])
        out, err = capfd.readouterr()
        assert "Traceback" not in err and "\x1b" not in out + err
        return Said(code, out, err)

    return call


def test_it_works_in_any_click_group() -> None:
    from click.testing import CliRunner

    root = click.Group("root", commands={"policy": group})
    result = CliRunner().invoke(root, ["policy", "--help"])
    assert result.exit_code == 0
    for name in ("check", "show", "explain", "init"):
        assert name in result.output


def test_check(place: Path, run: Any) -> None:
    good = write(place)
    bad = write(place, "[data]\nbogus = 1\nread = ['x']\n", "bad.toml")
    said = run("check", good)
    assert (said.code, said.out, said.err) == (0, f"{good}: ok\n", "")
    said = run("check", bad, good)
    assert said.code == 2 and said.out == f"{good}: ok\n"
    lines = said.err.splitlines()
    assert lines[0].startswith(f"{bad}:6: data.bogus: unknown key (allowed: read, ")
    assert lines[1].startswith(f'{bad}:7: data.read: "x": a relative path')
    assert lines[2:] == ["anchorhold: 1 policy is wrong"]
    assert run("check").code == 2
    assert run("check", "nowhere.toml", bad).err.endswith("2 policies are wrong\n")


def test_check_as_json(place: Path, run: Any) -> None:
    good, bad = write(place), write(place, "[data]\nbogus = 1\n", "bad.toml")
    said = run("check", "--json", good, bad, "nobody")
    assert said.code == 2
    one, two, three = map(json.loads, said.out.splitlines())
    assert one["ok"] and one["name"] == "p" and one["source"] == good and len(one["digest"]) == 64
    assert one["errors"] == [] and not two["ok"] and two["digest"] is None
    assert two["errors"][0]["line"] == 6 and two["errors"][0]["key"] == "data.bogus"
    assert "evidence, notes, papers" in three["errors"][0]["allowed"]


def test_hostile_names_and_texts_are_shown_escaped(place: Path, run: Any) -> None:
    path = write(place, '[data]\nhardlinks = "\\u001b[2J"\n', "\x1b[31m\n.toml")
    said = run("check", path)
    assert said.code == 2 and "\\x1b[2J" in said.err and len(said.err.splitlines()) == 2
    said = run("check", "--json", path)
    assert "\\u001b" in said.out
    (place / "taxes" / "\x1b[31m").write_text("x")
    said = run("explain", "--data", "taxes", "taxes/\x1b[31m")
    assert said.code == 0 and '\\x1b[31m"' in said.out


def test_show(place: Path, run: Any) -> None:
    path = write(place, "context = 1024\n")
    said = run("show", path)
    assert said.code == 0 and said.err == ""
    assert said.out.startswith(f"# {path}\n# digest ")
    assert "context = 1024\n" in said.out and "threads = 0  # default\n" in said.out
    (place / "again.toml").write_text(said.out)
    (place / "again.toml").chmod(0o600)
    digest = said.out.splitlines()[1].split()[-1]
    assert run("show", "--json", "again.toml").json()["digest"] == digest
    shown = run("show", path, "--json").json()
    assert shown["digest"] == digest and shown["source"] == path
    assert shown["policy"]["model"]["context"] == 1024
    assert "model.threads" in shown["defaults"] and "model.context" not in shown["defaults"]
    assert run("show", "nowhere.toml").code == 2


def test_show_without_a_policy(place: Path, run: Any, demo_model: Path) -> None:
    said = run("show")
    assert said.code == 0 and "# no policy file: the defaults" in said.out and str(demo_model) in said.out
    assert run("show", "--json").json()["source"] is None


OPTIONS = ("--model", "m.gguf", "--data", "taxes")


def test_explain(place: Path, run: Any) -> None:
    (place / "taxes" / "link").symlink_to("a.txt")
    said = run("explain", *OPTIONS, "taxes/link")
    assert said.code == 0 and said.err == ""
    assert said.out.splitlines() == [
        f"path      {place}/taxes/link",
        f'rule      data.read "{place}/taxes"',
        'link      "link" is a link to "a.txt"',
        f"resolved  {place}/taxes/a.txt",
        "worker    gets a snapshot: a sealed copy of its 3 bytes, hashed and recorded first",
    ]
    found = run("explain", *OPTIONS, "--json", "taxes/a.txt").json()
    assert found["outcome"] == "snapshot" and found["size"] == 3 and found["rule"].startswith("data.read")


@pytest.mark.parametrize(
    ("path", "words"),
    [
        (
            "/etc/passwd",
            [
                "outside every root",
                "is refused",
                'yes: the worker is killed (breach.on_denied_open = "kill")',
            ],
        ),
        ("taxes", ["gets a listing"]),
        ("taxes/missing", ["is told that nothing is there"]),
        ("taxes/a.key", ['data.deny "*.key"', "is refused"]),
        ("m.gguf", ["gets the file", "model.path"]),
        ("taxes/big", ["over data.max_file", "no: an error is all it gets"]),
    ],
)
def test_explain_each_outcome(path: str, words: list[str], place: Path, run: Any) -> None:
    with open(place / "taxes" / "big", "wb") as big:
        big.truncate((64 << 20) + 1)
    said = run("explain", *OPTIONS, path)
    assert said.code == 0
    for word in words:
        assert word in said.out


def test_explain_within_a_policy(place: Path, run: Any) -> None:
    path = write(place, f'[data]\nread = ["{place}/taxes"]\n[breach]\non_denied_open = "deny"\n')
    assert "gets a snapshot" in run("explain", "--policy", path, "taxes/a.txt").out
    said = run("explain", "--policy", path, "/etc/passwd")
    assert 'yes, answered with an error (breach.on_denied_open = "deny")' in said.out
    assert run("explain", "--model", "m.gguf", "--file", "taxes/a.txt", "taxes/a.txt").code == 0


@pytest.mark.parametrize(
    "words", [["a"], ["--data", "taxes", ""], ["--data", "nowhere", "a"], ["--policy", "nowhere.toml", "a"]]
)
def test_explain_used_wrongly(words: list[str], place: Path, run: Any) -> None:
    said = run("explain", "--model", "m.gguf", *words)
    assert said.code == 2 and said.err and said.out == ""


def test_init_writes_where_policy_finds_it(place: Path, run: Any) -> None:
    said = run("init", "taxes", "--model", "m.gguf")
    path = place / "config" / "anchorhold" / "taxes.toml"
    assert said.code == 0 and said.out == f"wrote {path}\n"
    assert path.stat().st_mode & 0o777 == 0o600 and path.parent.stat().st_mode & 0o777 == 0o700
    assert '    "~/taxes",' in path.read_text() and 'path = "~/m.gguf"' in path.read_text()
    assert run("check", "taxes").out == "taxes: ok\n"
    assert "gets a snapshot" in run("explain", "--policy", "taxes", "taxes/a.txt").out


def test_init_overwrites_nothing(place: Path, run: Any) -> None:
    (place / "there.toml").write_text("mine")
    (place / "link.toml").symlink_to(place / "new.toml")
    for name in ("there.toml", "link.toml"):
        said = run("init", "--model", "m.gguf", "--output", name)
        assert said.code == 2 and "there already" in said.err
    assert (place / "there.toml").read_text() == "mine" and not (place / "new.toml").exists()


def test_init_to_standard_output(place: Path, run: Any) -> None:
    said = run("init", "taxes", "--name", "x", "--model", "m.gguf", "--output", "-")
    assert said.code == 0 and 'name = "x"' in said.out
    assert not (place / "config").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["nowhere"], "No such file"),
        (["/"], "everything"),
        (["taxes", "--name", "a/b"], "is no name"),
        (["taxes", "--name", ""], "is no name"),
        (["--model", "nowhere.gguf"], "No such file"),
        (["--output", "taxes/a.txt/b.toml"], "cannot be written"),
        (["--output", "/proc/b.toml"], "cannot be written"),
        (["--output", "nul\0.toml"], "NUL"),
        (["."], "state directory"),
    ],
)
def test_init_used_wrongly(
    words: list[str], says: str, place: Path, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANCHORHOLD_STATE_DIR", str(place / "state"))
    model = [] if "--model" in words else ["--model", "m.gguf"]
    said = run("init", *model, *words)
    assert said.code == 2 and says in said.err and said.out == ""


def test_init_names_itself(place: Path, run: Any) -> None:
    for folder, name in (("My Papers", "my-papers"), ("\u00fcber", "mine")):
        (place / folder).mkdir()
        said = run("init", folder, "--model", "m.gguf")
        assert said.out.endswith(f"/{name}.toml\n")


def test_init_without_a_home(place: Path, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setenv("HOME", "")
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    said = run("init", "--model", str(place / "m.gguf"))
    assert said.code == 2 and "--output" in said.err


def test_init_leaves_no_half_file(place: Path, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import builtins

    real = builtins.open

    def full(path: Any, *rest: Any, **more: Any) -> Any:
        if isinstance(path, int) and rest[:1] == ("w",):
            os.close(path)
            raise OSError(28, "No space left on device")
        return real(path, *rest, **more)

    monkeypatch.setattr(builtins, "open", full)
    said = run("init", "--model", "m.gguf", "--output", "new.toml")
    assert said.code == 2 and "No space left" in said.err
    assert not (place / "new.toml").exists()


def test_check_for_the_user_of_a_service(place: Path, run: Any) -> None:
    (place / "taxes").chmod(0o700)
    policy = write(place, f'[data]\nread = ["{place}/taxes"]\n')
    assert run("check", "--user", "root", policy).code == 0
    said = run("check", "--user", "nobody", policy)
    assert said.code == 2 and "user nobody may not" in said.err and "setfacl -m u:nobody:" in said.err
    assert said.err.splitlines()[-1] == "anchorhold: 1 policy is wrong"
    found = run("check", "--json", "--user", "nobody", policy).json()
    assert found["ok"] is False and "may not" in found["errors"][0]["error"]
    assert run("check", "--user", "no-such-user", policy).code == 2
