"""The dispatch table: which system calls have an answer, in which phase. All others are refused and recorded.

``openat`` and its like decide by class: model and data exist in the sealed phase only.
"""

from __future__ import annotations

BOTH = "both"
BOOT = "boot"
SEALED = "sealed"

TABLE: dict[str, tuple[str, str]] = {
    "open": ("open", BOTH),
    "openat": ("openat", BOTH),
    "openat2": ("openat2", BOTH),
    "stat": ("stat", BOTH),
    "lstat": ("stat", BOTH),
    "newfstatat": ("newfstatat", BOTH),
    "statx": ("statx", BOTH),
    "access": ("access", BOTH),
    "faccessat": ("faccessat", BOTH),
    "faccessat2": ("faccessat", BOTH),
    "readlink": ("readlink", BOTH),
    "readlinkat": ("readlinkat", BOTH),
    "getdents64": ("getdents64", BOTH),
    "getcwd": ("getcwd", BOTH),
    "uname": ("uname", BOTH),
    "sysinfo": ("sysinfo", BOTH),
    # Asked for by libraries as a matter of course; refused without a word, since nothing is gained by them.
    "fadvise64": ("nothing_to_do", BOTH),
    "flock": ("nothing_to_do", BOTH),
    "get_mempolicy": ("not_here", BOTH),
    "set_mempolicy": ("not_here", BOTH),
    "mbind": ("not_here", BOTH),
    "fstatfs": ("not_here", BOTH),
    "statfs": ("not_here", BOTH),
    "memfd_create": ("not_here", BOOT),
    "epoll_create1": ("not_here", BOTH),  # selectors tries it at import, and takes poll then
    "sched_setaffinity": ("not_here", BOTH),
    # Of another thread or process, whether there is one or not.
    "sched_getaffinity": ("no_such_process", BOTH),
    "clock_gettime": ("not_valid", BOTH),
    "clock_getres": ("not_valid", BOTH),
    "clock_nanosleep": ("not_valid", BOTH),
    "sched_getparam": ("not_here", BOTH),
    "sched_getscheduler": ("not_here", BOTH),
}
