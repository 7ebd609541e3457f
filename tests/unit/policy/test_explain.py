"""`explain` against the broker's own view: the same answer for everything that a folder can hold."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from anchorhold.broker.refusal import Absent, Refusal
from anchorhold.broker.view import DataView
from anchorhold.policy import explain as module
from anchorhold.policy.explain import Explanation, explain
from anchorhold.policy.schema import Breach, DataPolicy, ModelPolicy, Policy


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A root with one of everything, and beside it a file that nobody may get."""
    root = tmp_path / "r"
    (root / "sub" / "deep").mkdir(parents=True)
    (root / ".git").mkdir()
    (tmp_path / "secret").write_text("s")
    for name in ("a.txt", "s.key", "sub/b.txt", "sub/deep/c.txt", ".git/config", "new\nline"):
        (root / name).write_text("abc")
    for name, target in {
        "in": "sub/b.txt",
        "in_abs": f"{root}/sub/b.txt",
        "to_root": f"{root}",
        "dir": "sub",
        "chain": "in",
        "up_and_in": "sub/../a.txt",
        "out": "../secret",
        "out_abs": f"{tmp_path}/secret",
        "beside": f"{root}x/y",
        "proc": "/proc/self/root/etc/passwd",
        "nowhere": "missing",
        "loop": "loop",
        "key": "s.key",
        "git": ".git/config",
        "sub/up": "../..",
    }.items():
        (root / name).symlink_to(target)
    os.link(root / "a.txt", root / "two")
    (root / "one").write_text("x")
    os.mkfifo(root / "fifo")
    with open(root / "big", "wb") as big:
        big.truncate(1001)
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.open(root, os.O_PATH)
        listener.bind(f"/proc/self/fd/{here}/sock")
        os.close(here)
        yield root


def policy(place: Path, **data: Any) -> Policy:
    given: dict[str, Any] = {"read": (str(place),), "deny": ("*.key", ".git"), "max_file": 1000}
    return Policy(
        name="x", model=ModelPolicy(path=str(place.parent / "secret")), data=DataPolicy(**{**given, **data})
    )


def broker_says(policy: Policy, path: bytes) -> tuple[str, bool, bytes | None]:
    """Outcome, breach and resolved path, from the broker's own code."""
    view = DataView(policy.data)
    try:
        found = view.find(path)
        try:
            if stat.S_ISDIR(found.stat.st_mode):
                return "listing", False, found.resolved
            os.close(view.open(found))
            return "snapshot", False, found.resolved
        finally:
            os.close(found.fd)
    except Absent:
        return "nothing", False, None
    except Refusal as refusal:
        return "refusal", refusal.breach, None
    finally:
        view.close()


NAMES = [
    "", "a.txt", "two", "one", "s.key", "sub", "sub/b.txt", "sub/deep/c.txt", ".git", ".git/config",
    "new\nline", "in", "in_abs", "to_root", "to_root/one", "dir", "dir/b.txt", "chain", "up_and_in",
    "out", "out_abs", "beside", "proc", "nowhere", "loop", "key", "git", "sub/up", "sub/up/secret",
    "fifo", "sock", "big", "missing", "one/below", "missing/below", "x" * 300, "dir/deep/c.txt",
]  # fmt: skip


@pytest.mark.parametrize("hardlinks", ["deny", "allow"])
@pytest.mark.parametrize("name", NAMES, ids=lambda name: name[:20])
def test_it_says_what_the_broker_does(name: str, hardlinks: str, place: Path) -> None:
    given = policy(place, hardlinks=hardlinks)
    path = os.fsencode(place / name) if name else os.fsencode(place)
    found = explain(given, path)
    outcome, breach, resolved = broker_says(given, path)
    assert (found.outcome, found.breach) == (outcome, breach), found.as_dict()
    if resolved is not None:
        assert found.resolved == resolved
    assert found.reason and found.rule
    assert found.hint or outcome in ("snapshot", "listing")


def outcome(place: Path, name: str, **data: Any) -> Explanation:
    return explain(policy(place, **data), os.fsencode(place / name))


def test_the_words(place: Path) -> None:
    found = outcome(place, "chain")
    assert found.steps == ['"chain" is a link to "in"', '"in" is a link to "sub/b.txt"']
    assert found.resolved == os.fsencode(place / "sub/b.txt") and found.size == 3
    assert outcome(place, "key").rule == 'data.deny "*.key"'
    assert "a FIFO" in outcome(place, "fifo").reason and "a socket" in outcome(place, "sock").reason
    assert "2 names" in outcome(place, "two").reason
    assert "data.max_file = 1000" in outcome(place, "big").reason
    assert "too many links" in outcome(place, "loop").reason
    assert "leads out" in outcome(place, "out").reason
    assert found.as_dict()["outcome"] == "snapshot" and found.as_dict()["resolved"] == str(
        place / "sub/b.txt"
    )


def test_outside_the_file_system_is_not_touched(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = policy(place)
    for name in ("open", "stat", "lstat", "readlink"):
        monkeypatch.setattr(os, name, lambda *_a, **_k: pytest.fail("touched"))
    for path in (b"/etc/passwd", b"/etc/missing", os.fsencode(place) + b"x"):
        found = explain(given, path)
        assert (found.outcome, found.rule, found.breach, found.answer) == (
            "refusal",
            "outside every root",
            True,
            "kill",
        )
        assert found.as_dict()["resolved"] is None


def test_the_answer_to_a_breach_is_the_policys(place: Path) -> None:
    from dataclasses import replace

    mild = replace(policy(place), breach=Breach(on_denied_open="deny"))
    found = explain(mild, b"/etc/passwd")
    assert found.breach and found.answer == "deny"
    assert not explain(mild, os.fsencode(place / "big")).breach


def test_the_model_is_handed_over_itself(place: Path) -> None:
    found = explain(policy(place), os.fsencode(place.parent / "secret"))
    assert found.outcome == "direct" and found.rule.startswith("model.path")


def test_single_files(place: Path) -> None:
    given = policy(place, read=(), files=(str(place / "one"), str(place / "in"), str(place / "gone")))
    assert explain(given, os.fsencode(place / "one")).outcome == "snapshot"
    assert "a link stands" in explain(given, os.fsencode(place / "in")).reason
    assert explain(given, os.fsencode(place / "gone")).outcome == "nothing"
    assert explain(given, os.fsencode(place / "a.txt")).rule == "outside every root"


def test_a_root_that_is_gone_or_closed(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = explain(policy(place, read=("/nowhere",)), b"/nowhere/x")
    assert found.outcome == "refusal" and "No such file" in found.reason and not found.breach
    real = os.open

    def refuse(path: Any, flags: int, *rest: Any) -> int:
        if str(path).startswith("/proc/self/fd"):
            raise PermissionError(13, "Permission denied")
        return real(path, flags, *rest)

    monkeypatch.setattr(os, "open", refuse)
    assert "may not read it" in outcome(place, "one").reason


def test_another_mount(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """/dev/shm or /dev/pts is mounted below /dev on every machine."""
    mount = next(path for path in ("/dev/shm", "/dev/pts", "/dev/mqueue") if os.path.ismount(path))
    given = policy(place, read=("/dev",))
    found = explain(given, os.fsencode(mount))
    assert "another mount" in found.reason and found.outcome == "refusal"
    assert (found.outcome, found.breach) == broker_says(given, os.fsencode(mount))[:2]
    crossing = policy(place, read=("/dev",), cross_mounts=True)
    assert explain(crossing, os.fsencode(mount)).outcome == "listing"
    assert "a character device" in explain(crossing, b"/dev/null").reason


def test_what_the_kernel_refuses_for_other_reasons(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(module, "openat2", refuse)
    found = outcome(place, "one")
    assert "may not reach it: Permission denied" in found.reason and not found.breach


def test_no_descriptor_is_left_open(place: Path) -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    for name in NAMES:
        outcome(place, name)
    assert sorted(os.listdir("/proc/self/fd")) == before
