"""A layer that cannot be had: what is required ends the start with exit 6, what is not is named."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from anchorhold.cell.layers import ALL
from anchorhold.verify.check import verify
from tests.integration.lifecycle.conftest import Driven
from tests.support import TOP, Runner, session_entries

QUESTION = "What froze?"
# An ancestor with a listener that never answers anything: no program makes this call.
LISTENING = """
import os, sys
from anchorhold.kernel import bpf, prctl, seccomp, syscalls
program = bpf.Program().load_nr().jeq(syscalls.NR["lookup_dcookie"], "ask").ret(seccomp.SECCOMP_RET_ALLOW)
program.label("ask").ret(seccomp.SECCOMP_RET_USER_NOTIF)
prctl.set_no_new_privs()
listener = seccomp.set_filter(program.assemble(), seccomp.SECCOMP_FILTER_FLAG_NEW_LISTENER)
child = os.fork()
if child == 0:
    os.execv(sys.executable, [sys.executable, "-m", "anchorhold", *sys.argv[1:]])
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.fixture
def asked(started_by: Runner, place: Path, demo_model: Path) -> Any:
    """Runs ``anchorhold ask`` about the one paper, as the mode says."""

    def run(*options: str, below: tuple[str, ...] = ("-m", "anchorhold")) -> Any:
        return started_by(
            sys.executable, *below, "--state-dir", str(place / "state"), "ask", "--model", str(demo_model),
            "--file", str(place / "papers/paper.txt"), "--max-tokens", "4", *options, QUESTION, cwd=TOP,
        )  # fmt: skip

    return run


def granted(place: Path) -> list[dict[str, Any]]:
    return [entry for entry in session_entries(place / "state") if entry["kind"] == "grant"]


def test_a_listener_above_is_named_with_its_remedy(asked: Any, place: Path) -> None:
    done = asked(below=("-c", LISTENING))
    assert done.returncode == 6, done.stderr
    assert done.stdout == ""
    for word in ("seccomp", "listener", "WSL2", "mirrored", "networkingMode=nat", "container"):
        assert word in done.stderr, done.stderr
    assert granted(place) == []
    result = verify(str(place / "state"))
    assert result.ok and result.signed == result.size, result.text()
    # The same program without the listener above it: what refuses is the listener, nothing else.
    assert asked(below=("-c", LISTENING.replace("listener = ", "# "))).returncode == 0


@pytest.mark.parametrize("mode", ["no_userns"])
@pytest.mark.parametrize("how", ["option", "policy"])
def test_a_required_layer_that_cannot_be_had(asked: Any, place: Path, demo_model: Path, how: str) -> None:
    options = ["--require", "seccomp,userns,netns"]
    if how == "policy":
        rules = place / "strict.toml"
        rules.write_text(
            f'version = 1\nname = "strict"\n[model]\npath = "{demo_model}"\n'
            '[require]\nlayers = ["seccomp", "userns", "netns"]\n'
        )
        os.chown(rules, os.stat(place).st_uid, os.stat(place).st_gid)
        options = ["--policy", str(rules)]
    done = asked(*options)
    assert done.returncode == 6, done.stderr
    assert done.stdout == ""
    for word in ("userns", "netns", "unshare", "require"):
        assert word in done.stderr, done.stderr
    assert "seccomp:" not in done.stderr, "the layer that holds is not missing"
    assert granted(place) == []
    log = session_entries(place / "state")
    assert [entry["kind"] for entry in log] == ["session.start", "session.end"]
    assert {"userns", "netns"} <= set(log[0]["missing"]) and "seccomp" in log[0]["layers"]
    assert verify(str(place / "state")).ok


@pytest.mark.parametrize("mode", ["no_userns"])
def test_without_the_requirement_it_starts_and_names_what_is_missing(asked: Any, place: Path) -> None:
    done = asked("--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    layers = told["layers"]
    missing = ("userns", "mountns", "pidns", "netns", "ipcns", "utsns", "cgroupns", "root")
    assert {"seccomp", "landlock", "no_new_privs", "mdwe"} <= set(layers) and not {*missing} & {*layers}
    log = session_entries(place / "state")
    assert log[0]["kind"] == "session.start"
    for name in missing:
        assert log[0]["missing"][name] == told["missing"][name], name
        assert name in done.stderr, name
    assert any(entry.get("class") == "data" for entry in log)


def test_every_layer_is_held_or_missing_with_a_reason(driven: Driven, mode: str) -> None:
    seen = driven("probing", source="def attempt(): return 'x'")
    rights = mode == "root" and os.geteuid() == 0  # who has none becomes nobody else
    assert sorted([*seen["layers"], *seen["missing"]]) == sorted(set(ALL) - (set() if rights else {"user"}))
    assert not set(seen["layers"]) & set(seen["missing"])
    assert all(seen["layers"].values()) and all(seen["missing"].values())
