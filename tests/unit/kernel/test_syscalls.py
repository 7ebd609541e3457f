from __future__ import annotations

import ctypes
import errno
import marshal
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from anchorhold.kernel import generate, libc, syscalls
from anchorhold.kernel.errors import KernelError

KERNEL = Path(syscalls.__file__).parent
X86_HEADER = Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")
GENERIC_HEADER = Path("/usr/include/asm-generic/unistd.h")
NEWEST = (6, 19)  # the kernel up to which syscalls.tbl is complete

# What arch/arm64/include/asm/unistd.h selects from the generic table.
ARM64_WANTS = ("RENAMEAT", "NEW_STAT", "SET_GET_RLIMIT", "TIME32_SYSCALLS", "SYS_CLONE3", "MEMFD_SECRET")


def test_the_generated_modules_are_in_step_with_the_table(tmp_path: Path) -> None:
    shutil.copy(KERNEL / "syscalls.tbl", tmp_path)
    assert generate.main(str(tmp_path)) == 0
    for arch in generate.ARCHITECTURES:
        assert (tmp_path / f"_{arch}.py").read_text() == (KERNEL / f"_{arch}.py").read_text()


def test_a_changed_table_changes_the_modules(tmp_path: Path) -> None:
    (tmp_path / "syscalls.tbl").write_text("read 0 63\nopen 2 -\n")
    generate.main(str(tmp_path))
    assert '"open": 2' in (tmp_path / "_x86_64.py").read_text()
    assert "open" not in (tmp_path / "_aarch64.py").read_text()


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("read 0", "line 1"),
        ("# comment\nread 0 63 9", "line 2"),
        ("re-ad 0 63", "line 1"),
        ("read zero 63", "'zero'"),
        ("read -1 63", "'-1'"),
        ("read 0 63\nread 1 64", "read or number 1"),
        ("read 0 63\nwrite 0 64", "write or number 0"),
    ],
)
def test_a_malformed_table_is_refused_naming_the_line(text: str, named: str) -> None:
    with pytest.raises(ValueError, match="syscalls.tbl line") as caught:
        generate.parse(text)
    assert named in str(caught.value)


def test_x86_64_has_every_number_of_this_machines_headers() -> None:
    if X86_HEADER.exists():
        text = X86_HEADER.read_text()
    else:  # another machine or no headers: the numbers that no header could change
        text = "#define __NR_read 0\n#define __NR_openat 257\n#define __NR_memfd_secret 447\n"
    header = {name: int(number) for name, number in re.findall(r"#define __NR_(\w+)\s+(\d+)", text)}
    table = syscalls.load("x86_64")
    assert header.items() <= table.items()


def test_aarch64_has_every_number_of_this_machines_headers() -> None:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if GENERIC_HEADER.exists() and compiler:
        wants = [f"-D__ARCH_WANT_{want}" for want in ARM64_WANTS]
        command = [compiler, "-E", "-dM", "-D__BITS_PER_LONG=64", *wants, "-x", "c", str(GENERIC_HEADER)]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    else:
        text = "#define __NR_read 63\n#define __NR_openat 56\n#define __NR_memfd_secret 447\n"
    raw = dict(re.findall(r"#define (__NR\w*)\s+(\w+)", text))
    header = {}
    for name, value in raw.items():
        if name.startswith("__NR_") and name not in ("__NR_syscalls", "__NR_arch_specific_syscall"):
            while value in raw:
                value = raw[value]
            header[name[5:]] = int(value)
    table = syscalls.load("aarch64")
    assert len(header) >= 3
    assert header.items() <= table.items()
    if len(header) > 3:  # and nothing that the machine does not have, but for newer calls
        assert all(number > max(header.values()) for name, number in table.items() if name not in header)


def test_calls_of_newer_kernels_have_the_same_number_everywhere() -> None:
    x86, arm = syscalls.load("x86_64"), syscalls.load("aarch64")
    assert {name: n for name, n in x86.items() if n >= 424} == {
        name: n for name, n in arm.items() if n >= 424
    }
    assert sorted(n for n in x86.values() if n >= 424) == list(range(424, 471))
    assert (x86["mseal"], x86["setxattrat"], x86["open_tree_attr"], x86["file_getattr"]) == (
        462,
        463,
        467,
        468,
    )


def _unknown_numbers_that_answer(numbers: list[int]) -> list[int]:
    return [number for number in numbers if libc.raw_syscall(number) != -errno.ENOSYS]


def test_the_running_kernel_has_no_call_that_the_table_lacks(child: Callable[..., Any]) -> None:
    running = tuple(map(int, os.uname().release.split("-")[0].split(".")[:2]))
    last = 511 if running <= NEWEST else 470
    absent = [number for number in range(last + 1) if number not in syscalls.NAME]
    assert absent
    assert child(_unknown_numbers_that_answer, absent) == []
    # The probe can tell: getpid answers.
    assert child(_unknown_numbers_that_answer, [syscalls.NR["getpid"]]) == [syscalls.NR["getpid"]]


def test_this_machines_names_and_numbers_are_inverse() -> None:
    assert syscalls.NR is syscalls.load(syscalls.ARCH)
    assert {syscalls.NAME[n]: n for n in syscalls.NAME} == syscalls.NR
    assert syscalls.audit_arch(syscalls.ARCH) == syscalls.AUDIT_ARCH
    assert syscalls.audit_arch("aarch64") == 0xC00000B7
    assert syscalls.audit_arch("x86_64") == 0xC000003E
    assert libc.raw_syscall(syscalls.NR["getpid"]) == os.getpid()


def test_a_number_without_a_name_is_shown_as_a_number() -> None:
    assert syscalls.name(syscalls.NR["openat"]) == "openat"
    assert syscalls.name(9999) == "#9999"


def test_another_machine_is_refused_by_name() -> None:
    with pytest.raises(KernelError, match=r"load\(riscv64\)"):
        syscalls.load("riscv64")


def test_a_32_bit_process_is_not_taken_for_the_machine_it_runs_on() -> None:
    assert syscalls.machine("x86_64", 2**63 - 1) == "x86_64"
    with pytest.raises(KernelError, match="32-bit process"):
        syscalls.load(syscalls.machine("x86_64", 2**31 - 1))


def test_loading_the_table_takes_less_than_a_millisecond() -> None:
    # As from a .pyc, which an installed package has and a checkout may not.
    source = (KERNEL / f"_{syscalls.ARCH}.py").read_text()
    compiled = marshal.dumps(compile(source, "table", "exec"))
    times = []
    for _ in range(20):
        namespace: dict[str, Any] = {}
        start = time.perf_counter()
        exec(marshal.loads(compiled), namespace)
        times.append(time.perf_counter() - start)
    assert namespace["NR"] == syscalls.NR
    assert min(times) < 0.001


def test_integers_reach_the_kernel_with_all_their_64_bits() -> None:
    fd = os.memfd_create("offset")
    assert libc.syscall(syscalls.NR["lseek"], fd, 0x1_2345_6789, os.SEEK_SET) == 0x1_2345_6789
    os.close(fd)


def test_a_failing_call_says_its_name() -> None:
    with pytest.raises(KernelError, match=r"close\(nothing\): Bad file descriptor\. as told") as caught:
        libc.syscall(syscalls.NR["close"], -1, subject="nothing", hint="as told")
    assert caught.value.call == "close"


def test_prepared_calls_do_not_share_their_types() -> None:
    one, two = libc.prepare(ctypes.c_int), libc.prepare(ctypes.c_char_p)
    assert one(syscalls.NR["close"], -1) == -1
    assert libc.get_errno() == errno.EBADF
    assert two(syscalls.NR["rmdir"] if "rmdir" in syscalls.NR else syscalls.NR["chdir"], b"/nowhere") == -1


def test_a_path_with_a_nul_is_refused() -> None:
    assert libc.path_bytes("a\udcff", "mount") == b"a\xff"
    with pytest.raises(KernelError, match="NUL"):
        libc.path_bytes(b"/etc\0/passwd", "mount")
