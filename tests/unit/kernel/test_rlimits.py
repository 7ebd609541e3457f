from __future__ import annotations

import errno
import os
import resource
from collections.abc import Callable
from typing import Any

import pytest

from anchorhold.kernel import rlimits
from anchorhold.kernel.errors import KernelError

Child = Callable[..., Any]


def _files() -> tuple[int, int]:
    def open_ten() -> int:
        try:
            for fd in [os.dup(0) for _ in range(10)]:
                os.close(fd)
        except OSError as error:
            return error.errno or -1
        return 0

    before = open_ten()
    rlimits.set_limit("NOFILE", 5)
    return before, open_ten()


def test_descriptors_open_without_the_limit_and_not_with_it(child_as_anyone: Child) -> None:
    assert child_as_anyone(_files) == (0, errno.EMFILE)


def _round_trip() -> tuple[tuple[int, int], tuple[int, int]]:
    rlimits.set_limit("CORE", 0, rlimits.get_limit("CORE")[1])
    rlimits.set_limit("FSIZE", 4096, 8192)
    return rlimits.get_limit("FSIZE"), resource.getrlimit(resource.RLIMIT_FSIZE)


def test_what_is_set_is_what_is_there(child_as_anyone: Child) -> None:
    assert child_as_anyone(_round_trip) == ((4096, 8192), (4096, 8192))


def test_no_limit_is_infinity() -> None:
    values = rlimits.get_limit("LOCKS")
    assert values == resource.getrlimit(rlimits.RLIMITS["LOCKS"])
    assert rlimits.RLIM_INFINITY == resource.RLIM_INFINITY


def test_the_numbers_are_those_of_the_c_library() -> None:
    known = {name: getattr(resource, f"RLIMIT_{name}", number) for name, number in rlimits.RLIMITS.items()}
    assert known == rlimits.RLIMITS


def _raise_hard_limit() -> str:
    rlimits.set_limit("NOFILE", 50)
    try:
        rlimits.set_limit("NOFILE", 50, 60)
    except PermissionError as error:
        return str(error)
    return ""


def test_a_hard_limit_is_not_raised_again(unprivileged: Child) -> None:
    text = unprivileged(_raise_hard_limit)
    assert text.startswith("prlimit64(RLIMIT_NOFILE 50:60)")
    assert "CAP_SYS_RESOURCE" in text


def test_a_soft_limit_over_the_hard_one_is_refused() -> None:
    with pytest.raises(KernelError, match="must not exceed"):
        rlimits.set_limit("CORE", 2, 1)


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(KernelError, match="NOFILE"):
        rlimits.set_limit("FILES", 1)
    with pytest.raises(KernelError, match="FILES"):
        rlimits.get_limit("FILES")


def test_another_process_can_be_asked() -> None:
    assert rlimits.get_limit("NOFILE", os.getpid()) == rlimits.get_limit("NOFILE")
