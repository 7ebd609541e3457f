"""A seccomp filter above the cell, as a service or a container has one: what it refuses is not refused in
silence."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from anchorhold.verify.check import verify
from tests.support import TOP, Runner

# What a service's unit puts on: no family but Unix's, no swap; two calls end the process.
FILTERED = """
import os, sys
from anchorhold.kernel import bpf, prctl, seccomp
from anchorhold.kernel.syscalls import NR
p = bpf.Program().load_nr()
for name, label in (("socket", "socket"), ("swapon", "refused"), ("unshare", "namespace"), ("acct", "end"),
                    ("syslog", "end")):
    p.jeq(NR[name], label)
p.ret(seccomp.SECCOMP_RET_ALLOW)
p.label("socket").load_arg(0).jeq(1, "allowed").ret(seccomp.SECCOMP_RET_ERRNO | 97)
p.label("namespace").load_arg(0).jset(0x80, "refused").ret(seccomp.SECCOMP_RET_ALLOW)
p.label("allowed").ret(seccomp.SECCOMP_RET_ALLOW)
p.label("refused").ret(seccomp.SECCOMP_RET_ERRNO | 1)
p.label("end").ret(seccomp.SECCOMP_RET_KILL_PROCESS)
prctl.set_no_new_privs()
seccomp.set_filter(p.assemble())
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""
ATTEMPT = """
import ctypes
def attempt():
    libc = ctypes.CDLL(None, use_errno=True)
    result = libc.syscall(ctypes.c_long({number}), *[ctypes.c_long(one) for one in {arguments}])
    return str(-ctypes.get_errno() if result == -1 else result)
"""

Under = Callable[..., dict[str, Any]]


@pytest.fixture
def under(started_by: Runner, place: Path, demo_model: Path) -> Under:
    """Runs one call in a sealed worker whose supervisor is under such a filter, or under none."""

    def run(call: str, *arguments: int, kill: bool, above: bool = True) -> dict[str, Any]:
        from anchorhold.kernel.syscalls import NR

        wanted = {
            "state": str(place / "state"), "model": str(demo_model), "read": [str(place / "papers")],
            "source": ATTEMPT.format(number=NR[call], arguments=(*arguments, *[0] * 6)[:6]), "kill": kill,
            "unmeasured": True,
        }  # fmt: skip
        program = ["-m", "tests.integration.attacks.inside"]
        done = started_by(
            sys.executable, *(["-c", FILTERED] if above else []), *program, stdin=json.dumps(wanted), cwd=TOP
        )
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        assert verify(str(place / "state")).ok
        return found

    return run


@pytest.mark.parametrize(("call", "argument"), [("socket", 2), ("swapon", 0), ("acct", 0)])
def test_what_is_refused_above_ends_the_worker(call: str, argument: int, under: Under) -> None:
    out = under(call, argument, 1, kill=True)
    assert out["kind"] == "BreachError" and out["exit"] == 3, out
    assert "filter above the cell" in out["error"]
    assert [entry["call"] for entry in out["log"] if entry["kind"] == "breach"] == ["?"]


@pytest.mark.parametrize(("call", "argument"), [("ptrace", 0), ("execve", 0)])
def test_what_is_not_refused_above_is_told_by_name(call: str, argument: int, under: Under) -> None:
    out = under(call, argument, kill=True)
    assert out["kind"] == "BreachError", out
    assert [entry["call"] for entry in out["log"] if entry["kind"] == "breach"] == [call]


def test_without_a_filter_above_the_same_call_is_told_by_name(under: Under) -> None:
    out = under("socket", 2, 1, kill=True, above=False)
    assert [entry["call"] for entry in out["log"] if entry["kind"] == "breach"] == ["socket"]
    assert "above" not in out["log"][0]["layers"]["seccomp"]


def test_where_the_policy_only_denies_the_worker_goes_on_and_the_log_says_what_it_lacks(under: Under) -> None:
    out = under("socket", 2, 1, kill=False)
    assert out["answer"] == "-97", out
    assert "fails without a question" in out["layers"]["seccomp"]


def test_it_is_found_out_once(started_by: Runner, place: Path, demo_model: Path) -> None:
    """A second worker of the same supervisor is told what the first launcher found out, and holds as well."""
    program = """
import json, sys
from pathlib import Path
from anchorhold.supervisor import starting
from tests.integration.attacks import inside
wanted = json.load(sys.stdin)
first = inside.run(wanted)
known = starting._lethal
second = inside.run(wanted)
print(json.dumps([first["kind"], second["kind"], known == starting._lethal, len(known)]))
"""
    from anchorhold.kernel.syscalls import NR

    wanted = {
        "state": str(place / "state"), "model": str(demo_model), "read": [str(place / "papers")],
        "source": ATTEMPT.format(number=NR["socket"], arguments=(2, 1, 0, 0, 0, 0)), "kill": True,
    }  # fmt: skip
    done = started_by(sys.executable, "-c", FILTERED, "-c", program, stdin=json.dumps(wanted), cwd=TOP)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == ["BreachError", "BreachError", True, 3]
