from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable
from typing import Any

import pytest

from anchorhold.kernel import capabilities, libc, namespaces, prctl
from anchorhold.kernel.errors import KernelError

Child = Callable[..., Any]


def _in_user_namespace(function: Callable[[], Any]) -> Any:
    """With every capability, over a namespace of our own: the same for root and for nobody."""
    uid, gid = os.getuid(), os.getgid()
    namespaces.unshare(namespaces.CLONE_NEWUSER | namespaces.CLONE_NEWUTS)
    namespaces.write_id_maps("self", uid, gid)
    return function()


def _rename() -> int:
    try:
        namespaces.sethostname("x")
    except PermissionError as error:
        return error.errno or -1
    return 0


def _drop() -> dict[str, Any]:
    before = capabilities.current()
    first = _rename()
    left = capabilities.drop_all()
    return {
        "had": before[0] != 0,
        "first": first,
        "left": left,
        "after": capabilities.current(),
        "bounding": capabilities.bounding(),
        "second": _rename(),
    }


def test_a_privilege_works_before_the_drop_and_not_after(child_as_anyone: Child) -> None:
    assert child_as_anyone(_in_user_namespace, _drop) == {
        "had": True,
        "first": 0,
        "left": 0,
        "after": (0, 0, 0),
        "bounding": 0,
        "second": errno.EPERM,
    }


def test_without_setpcap_the_rest_goes_and_what_is_left_is_told(unprivileged: Child) -> None:
    outcome = unprivileged(_drop)
    assert outcome["after"] == (0, 0, 0)
    assert outcome["left"] == outcome["bounding"] != 0


def _lock() -> tuple[int, int, str]:
    before = capabilities.securebits()
    capabilities.lock_securebits()
    after = capabilities.securebits()
    try:
        prctl.prctl(prctl.PR_SET_SECUREBITS, 0)
    except PermissionError as error:
        return before, after, str(error)
    return before, after, ""


def test_locked_securebits_stay(child_as_anyone: Child) -> None:
    before, after, refusal = child_as_anyone(_in_user_namespace, _lock)
    assert before == 0
    assert after == capabilities.SECUREBITS_LOCKED
    assert "PR_SET_SECUREBITS" in refusal


def _lock_refused() -> str:
    try:
        capabilities.lock_securebits()
    except PermissionError as error:
        return str(error)
    return ""


def test_locking_needs_a_capability_and_says_which(unprivileged: Child) -> None:
    assert "CAP_SETPCAP" in unprivileged(_lock_refused)


def _gain() -> str:
    capabilities.set_current(0, 0, 0)
    try:
        capabilities.set_current(1, 1, 0)
    except PermissionError as error:
        return str(error)
    return ""


def test_what_is_not_permitted_cannot_be_taken_back(child: Child) -> None:
    assert "never gain" in child(_gain)


def test_a_high_capability_keeps_its_place() -> None:
    effective, permitted, _ = capabilities.current()
    assert effective & ~permitted == 0
    assert capabilities.names(1 << 21 | 1 << 40 | 1 << 63) == [
        "CAP_SYS_ADMIN",
        "CAP_CHECKPOINT_RESTORE",
        "CAP_63",
    ]
    assert capabilities.names(0) == []
    assert len(capabilities.NAMES) == 41


def test_capabilities_that_stay_are_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capabilities, "prctl", lambda *args: 0)
    monkeypatch.setattr(capabilities, "set_current", lambda *args: None)
    monkeypatch.setattr(capabilities, "current", lambda: (0, 1, 0))
    with pytest.raises(KernelError, match="do not go on"):
        capabilities.drop_all()


@pytest.mark.parametrize("function", [capabilities.bounding, capabilities.drop_all])
def test_a_refusal_in_the_middle_is_no_end_of_the_list(
    monkeypatch: pytest.MonkeyPatch, function: Callable[[], int]
) -> None:
    def refuse(number: int, option: int, *args: int) -> int:
        return -errno.EPERM if option == prctl.PR_CAPBSET_READ else 0

    def refuse_to_drop(number: int, *args: int) -> int:
        ctypes.set_errno(errno.EPERM)
        return -1

    monkeypatch.setattr(capabilities, "current", lambda: (1 << capabilities.CAP_SETPCAP, 0, 0))
    monkeypatch.setattr(libc, "raw_syscall", refuse)
    monkeypatch.setattr(capabilities, "_prctl", refuse_to_drop)
    with pytest.raises(PermissionError):
        function()
