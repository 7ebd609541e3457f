"""Executable memory after the seal, by every way; memory shared or read behind the kernel's back."""

from __future__ import annotations

import ctypes
import mmap
import os

from tests.integration.attacks.common import GRANTED, cstring, libc, memory, syscall, trial

READ, WRITE, EXECUTE = 1, 2, 4
PRIVATE_ANONYMOUS = 0x22
SHARED_ANONYMOUS = 0x21
FIXED = 0x10
CODE = ctypes.cast(libc.getpid, ctypes.c_void_p).value or 0
PAGE = CODE & ~4095


for _name, _protection in {
    "read and execute": 5,
    "write and execute": 6,
    "all": 7,
    "execute only": 4,
}.items():

    @trial(f"anonymous memory: {_name}", call="mmap")
    def _(protection: int = _protection) -> object:
        return syscall("mmap", 0, 4096, protection, PRIVATE_ANONYMOUS, -1, 0) > 0


@trial("shared anonymous memory, executable", call="mmap")
def _() -> object:
    return syscall("mmap", 0, 4096, READ | EXECUTE, SHARED_ANONYMOUS, -1, 0) > 0


@trial("a granted file, mapped executable", call="mmap")
def _() -> object:
    return syscall("mmap", 0, 4096, READ | EXECUTE, 2, os.open(GRANTED, os.O_RDONLY), 0) > 0


@trial("a granted file, mapped shared and writable")
def _() -> object:
    # Outside the file belongs to whoever runs this; in the cell the kernel refuses by mode and by seal.
    fd = os.open(GRANTED, os.O_RDWR)
    mmap.mmap(fd, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    return True


@trial("a granted file, mapped shared from the descriptor that it got")
def _() -> object:
    try:
        fd = os.open(GRANTED, os.O_RDWR)
    except OSError:
        fd = os.open(GRANTED, os.O_RDONLY)
    return syscall("mmap", 0, 4096, READ | WRITE, 1, fd, 0) > 0


@trial("a granted file, read-only and then writable")
def _() -> object:
    try:
        fd = os.open(GRANTED, os.O_RDWR)
    except OSError:
        fd = os.open(GRANTED, os.O_RDONLY)
    address = syscall("mmap", 0, 4096, READ, 1, fd, 0)
    return address > 0 and syscall("mprotect", address, 4096, READ | WRITE) == 0


@trial("a memory file, mapped executable", call="memfd_create")
def _() -> object:
    fd = syscall("memfd_create", cstring(b"x"), 0)
    os.ftruncate(fd, 4096)
    return syscall("mmap", 0, 4096, READ | EXECUTE, 1, fd, 0) > 0


@trial("mprotect to executable", call="mprotect")
def _() -> object:
    return syscall("mprotect", memory(), 4096, READ | EXECUTE) == 0


@trial("mprotect of code to writable", call="mprotect", not_shown="it would be the code that runs")
def _() -> object:
    # Without the right to execute it would be let through, and the process would crash: no gain. With it:
    return "probe" in __name__ and syscall("mprotect", PAGE, 4096, 7) == 0


@trial("mprotect down a stack", call="mprotect", not_shown="needs memory that grows down")
def _() -> object:
    return syscall("mprotect", memory(), 4096, READ | EXECUTE | 0x01000000) == 0


@trial("pkey_mprotect to executable", call="pkey_mprotect", only_with="pkey_mprotect")
def _() -> object:
    return syscall("pkey_mprotect", memory(), 4096, READ | EXECUTE, -1) == 0


@trial("memory moved by mremap")
def _() -> object:
    return syscall("mremap", memory(), 4096, 8192, 1) > 0


@trial("code moved by mremap")
def _() -> object:
    # A second mapping of the same pages: old size 0 is for shared memory only, so grow a copy of the page.
    target = memory()
    return syscall("mremap", PAGE, 4096, 4096, 3 | 4, target) > 0  # MREMAP_DONTUNMAP


@trial("remap_file_pages", call="remap_file_pages")
def _() -> object:
    address = syscall("mmap", 0, 8192, READ, SHARED_ANONYMOUS, -1, 0)
    return syscall("remap_file_pages", address, 4096, 0, 1, 0) == 0


@trial("shared memory attached executable", call="shmget")
def _() -> object:
    got = syscall("shmget", 0, 4096, 0o1700)
    address = syscall("shmat", got, 0, 0o100000) if got >= 0 else got
    if got >= 0:
        syscall("shmctl", got, 0, 0)
    return address > 0


@trial("READ_IMPLIES_EXEC", call="personality")
def _() -> object:
    before = syscall("personality", 0xFFFFFFFF)
    got = syscall("personality", 0x0400000 | max(before, 0))
    if got >= 0:
        syscall("personality", before)
    return got >= 0


@trial("ADDR_NO_RANDOMIZE", call="personality")
def _() -> object:
    before = syscall("personality", 0xFFFFFFFF)
    got = syscall("personality", 0x0040000 | max(before, 0))
    if got >= 0:
        syscall("personality", before)
    return got >= 0


@trial("a shadow stack", call="map_shadow_stack", not_shown="needs the processor's support")
def _() -> object:
    return syscall("map_shadow_stack", 0, 4096, 0) > 0


@trial("uselib", call="uselib", not_shown="gone from most kernels", only_with="uselib")
def _() -> object:
    return syscall("uselib", cstring(GRANTED.encode())) == 0


@trial("userfaultfd", call="userfaultfd", not_shown="without rights only for faults of its own code")
def _() -> object:
    return syscall("userfaultfd", 1) >= 0  # UFFD_USER_MODE_ONLY


@trial("its own memory as a file", call="openat", path="/proc/self/mem")
def _() -> object:
    return os.open("/proc/self/mem", os.O_RDWR) > 0


@trial("what is mapped where", call="openat", path="/proc/thread-self/maps")
def _() -> object:
    return os.open("/proc/thread-self/maps", os.O_RDONLY) > 0


@trial("memory that the kernel merges with others'", call="madvise", not_shown="needs KSM")
def _() -> object:
    return syscall("madvise", memory(), 4096, 12) == 0


@trial("locking all memory", call="mlockall", not_shown="needs the right, or a limit that allows it")
def _() -> object:
    return syscall("mlockall", 1) == 0


@trial("sealing its mappings", call="mseal", not_shown="needs Linux 6.10")
def _() -> object:
    return syscall("mseal", memory(), 4096, 0) == 0


@trial("pages of others by move_pages", call="move_pages")
def _() -> object:
    pages, status = (ctypes.c_uint64 * 1)(memory()), (ctypes.c_int * 1)()
    return syscall("move_pages", 0, 1, pages, 0, status, 0) == 0


@trial("the supervisor as a pen: its answers in code")
def _() -> object:
    """getcwd(2) with its buffer in code: elsewhere the kernel refuses it, here the supervisor must."""
    if "probe" not in __name__:
        return True  # outside, /proc/self/mem is the pen: see above
    before = ctypes.string_at(CODE, 64)
    text = cstring(GRANTED.encode())
    syscall("getcwd", CODE, 64)
    syscall("uname", CODE)
    syscall("newfstatat", -100, text, CODE, 0)
    syscall("statx", -100, text, 0, 0x7FF, CODE)
    folder = os.open(os.path.dirname(GRANTED), os.O_RDONLY)
    syscall("getdents64", folder, CODE, 4096)
    syscall("sysinfo", CODE)
    return ctypes.string_at(CODE, 64) != before
