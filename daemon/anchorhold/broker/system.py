"""Class ``system``: what libraries ask of the machine itself, answered with made-up content.

Nothing here is read from the machine but the number of processors that the worker may use: which
machine this is, who is on it and what it is doing is not for the worker.
"""

from __future__ import annotations

import os
import struct

# Asked for by libc, the engine or numpy, and not there: the cell has no /proc and no /sys.
ABSENT = frozenset(
    (
        b"/etc/localtime", b"/etc/ld.so.preload", b"/etc/ld-nix.so.preload", b"/etc/ssl/openssl.cnf",
        b"/usr/lib/ssl/openssl.cnf", b"/usr/local/ssl/openssl.cnf", b"/etc/gcrypt/fips_enabled",
        b"/etc/gai.conf",
        b"/proc/self/maps", b"/proc/self/exe", b"/proc/self/status", b"/proc/self/cgroup",
        b"/proc/self/mountinfo",
        b"/proc/stat", b"/proc/meminfo", b"/proc/mounts", b"/proc/filesystems", b"/selinux",
        b"/sys/fs/selinux",
        b"/proc/sys/crypto/fips_enabled", b"/sys/devices/system/node", b"/sys/devices/system/node/online",
        b"/sys/kernel/mm/transparent_hugepage/enabled", b"/sys/kernel/mm/transparent_hugepage/hpage_pmd_size",
        b"/sys/kernel/mm/hugepages", b"/sys/devices/system/cpu", b"/sys/devices/system/cpu/smt/active",
        b"/dev/shm", b"/dev/dri", b"/dev/nvidiactl", b"/usr/share/zoneinfo/UTC", b"/etc/os-release",
    )
)  # fmt: skip


class System:
    """The made-up files, for a worker that may use ``processors`` CPUs."""

    def __init__(self, processors: int) -> None:
        self.processors = processors
        span = b"0\n" if processors == 1 else b"0-%d\n" % (processors - 1)
        cpuinfo = b"".join(
            b"processor\t: %d\nphysical id\t: 0\ncore id\t\t: %d\nsiblings\t: %d\ncpu cores\t: %d\n\n"
            % (number, number, processors, processors)
            for number in range(processors)
        )
        self.files: dict[bytes, bytes] = {
            b"/proc/cpuinfo": cpuinfo,
            b"/sys/devices/system/cpu/online": span,
            b"/sys/devices/system/cpu/possible": span,
            b"/sys/devices/system/cpu/present": span,
            b"/proc/sys/vm/overcommit_memory": b"0\n",
        }

    def uname(self) -> bytes:
        """``struct new_utsname``: the kernel's name and version, no host name (uname(2))."""
        real = os.uname()
        words = ("Linux", "anchorhold", real.release, "#1", real.machine, "(none)")
        return b"".join(word.encode("ascii", "replace")[:64].ljust(65, b"\0") for word in words)

    def sysinfo(self, memory: int) -> bytes:
        """``struct sysinfo``: the memory that the worker may use, and nothing of the machine's state."""
        return struct.pack(
            "=qQQQQQQQQQHHxxxxQQI", 0, 0, 0, 0, memory, memory, 0, 0, 0, 0, 1, 0, 0, 0, 1
        ).ljust(112, b"\0")
