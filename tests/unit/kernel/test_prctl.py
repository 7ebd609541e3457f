from __future__ import annotations

import errno
import mmap
import os
import select
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from anchorhold.kernel import libc, prctl
from anchorhold.kernel.errors import KernelError
from anchorhold.kernel.syscalls import NR

Child = Callable[..., Any]


def _no_new_privs() -> tuple[int, int]:
    before = prctl.prctl(prctl.PR_GET_NO_NEW_PRIVS)
    prctl.set_no_new_privs()
    return before, prctl.prctl(prctl.PR_GET_NO_NEW_PRIVS)


def test_no_new_privs_is_set_and_cannot_be_unset(child: Child) -> None:
    assert child(_no_new_privs)[1] == 1
    with pytest.raises(KernelError, match="PR_SET_NO_NEW_PRIVS"):
        prctl.prctl(prctl.PR_SET_NO_NEW_PRIVS, 0)


def _make_executable() -> int:
    """mprotect of a written page to executable, as injected code would need."""
    length = mmap.PAGESIZE
    where = libc.raw_syscall(NR["mmap"], 0, length, mmap.PROT_READ | mmap.PROT_WRITE, 0x22, -1, 0)
    return libc.raw_syscall(NR["mprotect"], where, length, mmap.PROT_READ | mmap.PROT_EXEC)


def _mdwe() -> tuple[int, int, str]:
    before = _make_executable()
    try:
        prctl.set_mdwe()
    except KernelError as error:  # before Linux 6.3
        assert error.errno == errno.EINVAL
        return 0, -errno.EACCES, "already"
    try:
        prctl.set_mdwe(0)
    except PermissionError as error:
        return before, _make_executable(), str(error)
    return before, _make_executable(), ""


def test_written_memory_becomes_executable_before_mdwe_and_not_after(child_as_anyone: Child) -> None:
    before, after, text = child_as_anyone(_mdwe)
    assert (before, after) == (0, -errno.EACCES)
    assert "already" in text


def _dumpable() -> tuple[int, int]:
    prctl.set_dumpable(prctl.SUID_DUMP_USER)
    before = os.stat("/proc/self/mem").st_uid
    prctl.set_dumpable(prctl.SUID_DUMP_DISABLE)
    return int(before == os.getuid()), os.stat("/proc/self/mem").st_uid


def test_what_is_not_dumpable_belongs_to_root_in_proc(unprivileged: Child) -> None:
    assert unprivileged(_dumpable) == (1, 0)


def _dies_with_parent(read: int, write: int, armed: bool) -> int:
    """The child's child outlives us only if ``armed`` is false: then it writes."""
    pid = os.fork()
    if pid == 0:
        try:
            parent = os.getppid()
            if armed:
                prctl.set_pdeathsig(signal.SIGKILL)
            os.write(write, b"r")
            while os.getppid() == parent:
                time.sleep(0.01)
            time.sleep(0.2)
            os.write(write, b"alive")
        finally:
            os._exit(0)
    assert os.read(read, 1) == b"r"
    prctl.set_pdeathsig(0)
    return pid


@pytest.mark.parametrize(("armed", "after"), [(False, b"alive"), (True, b"")])
def test_a_process_outlives_its_parent_without_the_signal_and_not_with_it(
    child: Child, armed: bool, after: bytes
) -> None:
    read, write = os.pipe()
    child(_dies_with_parent, read, write, armed)
    os.close(write)  # the survivor has the last copy: the end of the pipe is its end
    assert select.select([read], [], [], 10)[0]
    assert os.read(read, 9) == after
    os.close(read)


def _name() -> str:
    prctl.set_name("anchor")
    return Path("/proc/self/comm").read_text().strip()


def test_the_name_is_what_ps_shows(child: Child) -> None:
    assert child(_name) == "anchor"
    with pytest.raises(KernelError, match="NUL"):
        prctl.set_name("a\0b")


def test_an_unknown_option_is_named_by_number() -> None:
    with pytest.raises(KernelError, match=r"prctl\(option 99999\)"):
        prctl.prctl(99999)


@pytest.mark.parametrize("option", ["PR_SET_MDWE", "PR_SET_PDEATHSIG", "PR_SET_NAME", "PR_GET_DUMPABLE"])
def test_an_option_is_named(monkeypatch: pytest.MonkeyPatch, option: str) -> None:
    monkeypatch.setattr(libc, "raw_syscall", lambda *args: -errno.EINVAL)
    with pytest.raises(KernelError, match=rf"prctl\({option}\)"):
        prctl.prctl(getattr(prctl, option))


def test_options_are_those_of_the_header() -> None:
    header = Path("/usr/include/linux/prctl.h")
    text = header.read_text() if header.exists() else "#define PR_SET_PDEATHSIG 1\n"
    checked = 0
    for line in text.splitlines():
        words = line.replace("# define", "#define").split()
        if len(words) > 2 and words[0] == "#define" and words[2][:1].isdigit() and hasattr(prctl, words[1]):
            assert getattr(prctl, words[1]) == int(words[2], 0), words[1]
            checked += 1
    assert checked
