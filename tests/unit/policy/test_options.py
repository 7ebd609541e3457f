"""Options alone, and options within a policy: they can only narrow it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import pytest

from anchorhold.errors import PolicyError
from anchorhold.policy import load
from anchorhold.policy.match import Matcher
from anchorhold.policy.schema import DEFAULT_DENY, Policy


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with a model, two folders and some files; the current folder."""
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    for name in ("taxes/2025/drafts", "taxes/private", "notes"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("taxes/a.txt", "taxes/2025/b.txt", "taxes/2025/drafts/c.txt", "taxes/s.key", "notes/n.md"):
        (tmp_path / name).write_text("x")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def options(
    *,
    data: Iterable[str] = (),
    files: Iterable[str] = (),
    require: Iterable[str] = (),
    base: Policy | None = None,
) -> Policy:
    return load.from_options(model="m.gguf", data=data, files=files, require=require, base=base)


def policy(place: Path, data: str) -> Policy:
    path = place / "p.toml"
    path.write_text(f'version = 1\nname = "p"\n[model]\npath = "{place}/m.gguf"\n[data]\n{data}\n')
    path.chmod(0o600)
    return load.load(path)


def refused(*words: str, base: Policy | None = None, **given: Iterable[str]) -> PolicyError:
    with pytest.raises(PolicyError) as caught:
        options(base=base, **given)
    for word in words:
        assert word in caught.value.diagnostics(), caught.value.diagnostics()
    assert caught.value.exit_code == 2 and caught.value.hint
    return caught.value


def test_nothing_is_granted_without_options(place: Path) -> None:
    found = options()
    assert found.data.read == () and found.data.files == () and found.data.deny == DEFAULT_DENY
    assert found.name == "command-line" and found.source is None and found.model.path == str(place / "m.gguf")


def test_folders_are_made_absolute(place: Path) -> None:
    found = options(data=["taxes/", "./notes", "taxes", "~/notes/../notes"])
    assert found.data.read == (str(place / "taxes"), str(place / "notes"))
    assert found.given == {"model.path", "data.read"}


def test_a_file_alone_grants_that_file_and_nothing_beside_it(place: Path) -> None:
    found = options(files=["taxes/a.txt", "taxes/a.txt"])
    assert found.data.files == (str(place / "taxes/a.txt"),) and found.data.read == ()
    decide = Matcher(found.data).decide
    assert decide(os.fsencode(place / "taxes/a.txt")).allowed
    assert not decide(os.fsencode(place / "taxes/2025/b.txt")).allowed
    assert not decide(os.fsencode(place / "taxes")).allowed


def test_a_file_within_the_folders_adds_nothing(place: Path) -> None:
    found = options(data=["taxes"], files=["taxes/a.txt"])
    assert found.data.files == () and found == options(data=["taxes"])


def test_a_file_outside_is_refused_and_named_with_the_rule(place: Path) -> None:
    refused(
        str(place / "notes/n.md"),
        "outside the --data folders",
        "data.read",
        str(place / "taxes"),
        data=["taxes"],
        files=["notes/n.md"],
    )
    base = policy(place, 'read = ["~/taxes"]')
    refused("--file", 'outside policy "p"', str(place / "taxes"), base=base, files=["notes/n.md"])
    refused("--file", 'data.deny "*.key"', base=base, files=["taxes/s.key"])
    refused("--file", 'data.deny "*.key"', data=["taxes"], files=["taxes/s.key"])
    refused("--file", 'data.deny "*.key"', files=["taxes/s.key"])
    refused("--file", "outside", data=["taxes"], files=["taxes/../notes/n.md"])


def test_files_that_cannot_be_handed_over(place: Path, tmp_path: Path) -> None:
    (place / "notes/link.md").symlink_to("n.md")
    (place / "notes/out.md").symlink_to("/etc/passwd")
    os.link(place / "notes/n.md", place / "two.md")
    os.mkfifo(place / "fifo")
    with open(place / "big", "wb") as big:
        big.truncate((64 << 20) + 1)
    for data in ((), (".",)):
        for name, says in {
            "missing.md": "No such file",
            "notes": "is a folder",
            "two.md": "has 2 names",
            "fifo": "no regular file",
            "big": "over data.max_file",
            "notes/out.md": "link",
            "m.gguf": "is the model",
        }.items():
            with pytest.raises(PolicyError) as caught:
                load.from_options(model="m.gguf", data=data, files=[name], state_dir="/nowhere")
            text = caught.value.diagnostics()
            assert says in text, text
            assert name in text
    refused("symbolic link", "n.md", files=["notes/link.md"])
    assert options(data=["notes"], files=[]).data.read  # the link stays within its folder:
    os.unlink(place / "two.md")
    options(data=["notes"], files=["notes/link.md"])


def test_odd_names_are_taken_as_they_are(place: Path) -> None:
    for name in (b"new\nline.txt", b"no utf-8 \xff.txt", b"st*r[1].txt", b" "):
        (place / "taxes" / os.fsdecode(name)).write_text("x")
        given = os.path.join("taxes", os.fsdecode(name))
        found = options(files=[given])
        assert os.fsencode(found.data.files[0]).endswith(name) and found.digest
        assert Matcher(found.data).decide(os.fsencode(place) + b"/taxes/" + name).allowed
        options(data=["taxes"], files=[given])


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"data": ["nowhere"]}, "No such file"),
        ({"data": ["taxes/a.txt"]}, "--file"),
        ({"data": ["/"]}, "everything"),
        ({"data": [""]}, "empty"),
        ({"data": ["a\0b"]}, "NUL"),
        ({"data": ["."]}, "state directory"),
        ({"files": [""]}, "empty"),
        ({"files": ["a\0b"]}, "NUL"),
        ({"files": ["/proc/version"]}, "kernel's"),
        ({"files": ["/dev/null"]}, "no regular file"),
        ({"require": ["secomp"]}, "no layer"),
    ],
)
def test_wrong_options(
    given: dict[str, list[str]], says: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(place / "state"))
    refused(
        says,
        data=given.get("data", ()),
        files=given.get("files", ()),
        require=given.get("require", ()),
    )


@pytest.mark.parametrize(
    ("model", "says"),
    [("nowhere.gguf", "No such file"), ("", "empty"), ("a\0", "NUL"), ("taxes", "no regular file")],
)
def test_wrong_models(model: str, says: str, place: Path) -> None:
    with pytest.raises(PolicyError, match=says):
        load.from_options(model=model)


def test_a_linked_folder_is_refused_and_its_target_named(place: Path) -> None:
    (place / "link").symlink_to("taxes")
    refused("symbolic link", str(place / "taxes"), data=["link"])


def test_required_layers(place: Path) -> None:
    assert options().require == ("seccomp", "landlock")
    assert options(require=["netns", "netns"]).require == ("netns",)
    base = policy(place, "")
    assert options(base=base, require=["netns", "seccomp"]).require == ("seccomp", "landlock", "netns")


def test_a_model_within_a_policy_keeps_the_digest_that_it_must_have(place: Path) -> None:
    (place / "other.gguf").write_bytes(b"G" * (3 << 20))
    text = (place / "p.toml").write_text
    text(f'version = 1\nname = "p"\n[model]\npath = "{place}/m.gguf"\nsha256 = "{"a" * 64}"\n')
    base = load.load(place / "p.toml")
    found = load.from_options(model="other.gguf", base=base)
    assert found.model.path == str(place / "other.gguf") and found.model.sha256 == "a" * 64
    assert (found.limits.memory or 0) - (base.limits.memory or 0) == 2 << 20
    assert load.from_options(base=base) == base


# ---- narrowing ------------------------------------------------------------------------


def test_data_within_a_policy_narrows_it(place: Path) -> None:
    base = policy(place, 'read = ["~/taxes"]\ndeny = ["*.key"]')
    found = options(base=base, data=["taxes/2025"])
    assert found.data.read == (str(place / "taxes/2025"),) and found.name == "p"
    assert options(base=base, data=["taxes"]) == base
    refused("--data", 'outside policy "p"', base=base, data=["notes"])
    refused(
        "--data",
        "is denied by",
        base=policy(place, 'read = ["~/taxes"]\ndeny = ["private"]'),
        data=["taxes/private"],
    )


def test_a_policy_without_folders_leaves_them_to_the_options(place: Path) -> None:
    base = policy(place, 'deny = ["drafts"]')
    assert options(base=base, data=["notes"]).data.read == (str(place / "notes"),)
    assert options(base=base, files=["notes/n.md"]).data.files == (str(place / "notes/n.md"),)
    assert options(base=base, data=["taxes"]).data.deny == ("drafts",)


@pytest.mark.parametrize(
    "pattern",
    [
        "2025/drafts",
        "2025/**/c.txt",
        "**/2025/drafts",
        "**/drafts/c.txt",
        "*/drafts",
        "2025/drafts/**",
        "drafts",
        "c.*",
        "*/*/c.txt",
    ],
)
def test_narrowing_gets_around_no_rule(pattern: str, place: Path) -> None:
    base = policy(place, f'read = ["~/taxes"]\ndeny = ["{pattern}"]')
    target = os.fsencode(place / "taxes/2025/drafts/c.txt")
    assert not Matcher(base.data).decide(target).allowed
    assert not Matcher(options(base=base, data=["taxes/2025"]).data).decide(target).allowed


def test_an_anchored_rule_would_be_lost_if_it_were_only_copied(place: Path) -> None:
    from dataclasses import replace

    base = policy(place, 'read = ["~/taxes"]\ndeny = ["2025/drafts"]')
    target = os.fsencode(place / "taxes/2025/drafts/c.txt")
    copied = replace(base.data, read=(str(place / "taxes/2025"),))
    assert Matcher(copied).decide(target).allowed
    assert not Matcher(options(base=base, data=["taxes/2025"]).data).decide(target).allowed


def test_narrowing_below_a_folder_with_letters_that_patterns_use(place: Path) -> None:
    odd = place / "t[a]x*"
    (odd / "in" / "drafts").mkdir(parents=True)
    base = policy(place, f'read = ["{odd}"]\ndeny = ["in/drafts"]')
    found = options(base=base, data=[str(odd / "in")])
    assert not Matcher(found.data).decide(os.fsencode(odd / "in/drafts/x")).allowed
    assert Matcher(found.data).decide(os.fsencode(odd / "in/x")).allowed


def test_the_state_directory_is_kept_from_options(place: Path) -> None:
    for data, files in ((["taxes"], []), ([], ["taxes/a.txt"])):
        with pytest.raises(PolicyError, match="state directory"):
            load.from_options(model="m.gguf", state_dir=place / "taxes", data=data, files=files)
    with pytest.raises(PolicyError, match="state directory"):
        load.from_options(model="m.gguf", state_dir=place / "taxes" / "s", data=["taxes"])
