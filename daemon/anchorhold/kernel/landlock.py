"""Landlock: a domain that refuses what no rule grants. Needs ``no_new_privs`` before ``restrict_self``.

A right that the running kernel does not know must not be asked for: ``handled(abi())`` gives the most that
it can refuse. Sources: linux/landlock.h, Documentation/userspace-api/landlock.rst.
"""

from __future__ import annotations

import errno
import struct

from anchorhold.kernel import libc
from anchorhold.kernel.errors import kernel_error
from anchorhold.kernel.syscalls import NR

LANDLOCK_CREATE_RULESET_VERSION = 1 << 0
LANDLOCK_CREATE_RULESET_ERRATA = 1 << 1
LANDLOCK_RULE_PATH_BENEATH = 1
LANDLOCK_RULE_NET_PORT = 2

LANDLOCK_ACCESS_FS_EXECUTE = 1 << 0
LANDLOCK_ACCESS_FS_WRITE_FILE = 1 << 1
LANDLOCK_ACCESS_FS_READ_FILE = 1 << 2
LANDLOCK_ACCESS_FS_READ_DIR = 1 << 3
LANDLOCK_ACCESS_FS_REMOVE_DIR = 1 << 4
LANDLOCK_ACCESS_FS_REMOVE_FILE = 1 << 5
LANDLOCK_ACCESS_FS_MAKE_CHAR = 1 << 6
LANDLOCK_ACCESS_FS_MAKE_DIR = 1 << 7
LANDLOCK_ACCESS_FS_MAKE_REG = 1 << 8
LANDLOCK_ACCESS_FS_MAKE_SOCK = 1 << 9
LANDLOCK_ACCESS_FS_MAKE_FIFO = 1 << 10
LANDLOCK_ACCESS_FS_MAKE_BLOCK = 1 << 11
LANDLOCK_ACCESS_FS_MAKE_SYM = 1 << 12
LANDLOCK_ACCESS_FS_REFER = 1 << 13  # ABI 2
LANDLOCK_ACCESS_FS_TRUNCATE = 1 << 14  # ABI 3
LANDLOCK_ACCESS_FS_IOCTL_DEV = 1 << 15  # ABI 5

LANDLOCK_ACCESS_NET_BIND_TCP = 1 << 0  # ABI 4
LANDLOCK_ACCESS_NET_CONNECT_TCP = 1 << 1  # ABI 4

LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET = 1 << 0  # ABI 6
LANDLOCK_SCOPE_SIGNAL = 1 << 1  # ABI 6

LANDLOCK_RESTRICT_SELF_LOG_SAME_EXEC_OFF = 1 << 0  # ABI 7
LANDLOCK_RESTRICT_SELF_LOG_NEW_EXEC_ON = 1 << 1  # ABI 7
LANDLOCK_RESTRICT_SELF_LOG_SUBDOMAINS_OFF = 1 << 2  # ABI 7

NEWEST_ABI = 7  # the newest whose rights are named here

_FS_BITS = {1: 13, 2: 14, 3: 15, 4: 15}  # by ABI how many bits from 0; 16 from ABI 5 on
_CREATE = NR["landlock_create_ruleset"]
_OFF_HINT = (
    'Landlock is not running: boot with "landlock" in the lsm= kernel parameter, on Linux 5.13 or newer'
)


def abi() -> int:
    """The version the running kernel speaks; 0 when it has none or it is switched off."""
    result = libc.raw_syscall(_CREATE, None, 0, LANDLOCK_CREATE_RULESET_VERSION)
    if result in (-errno.ENOSYS, -errno.EOPNOTSUPP):
        return 0
    if result < 0:
        raise kernel_error(-result, "landlock_create_ruleset", "LANDLOCK_CREATE_RULESET_VERSION")
    return result


def errata() -> int:
    """The bits of the errata fixed in the running kernel; 0 when it cannot say (before Linux 6.15)."""
    return max(libc.raw_syscall(_CREATE, None, 0, LANDLOCK_CREATE_RULESET_ERRATA), 0)


def handled(abi: int) -> tuple[int, int, int]:
    """All rights a ruleset can refuse under ``abi``: of the file system, of the network, and scopes."""
    if abi <= 0:
        return 0, 0, 0
    fs = (1 << _FS_BITS.get(abi, 16)) - 1
    net = LANDLOCK_ACCESS_NET_BIND_TCP | LANDLOCK_ACCESS_NET_CONNECT_TCP if abi >= 4 else 0
    scoped = LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET | LANDLOCK_SCOPE_SIGNAL if abi >= 6 else 0
    return fs, net, scoped


def create_ruleset(fs: int, net: int = 0, scoped: int = 0) -> int:
    """A descriptor of a new ruleset that refuses these rights save where a rule grants them."""
    attr = struct.pack("=QQQ", fs, net, scoped)
    result = libc.raw_syscall(_CREATE, attr, len(attr), 0)
    if result < 0:
        hint = _OFF_HINT if result in (-errno.ENOSYS, -errno.EOPNOTSUPP) else "Ask only for handled(abi())"
        raise kernel_error(
            -result, "landlock_create_ruleset", f"fs={fs:#x} net={net:#x} scoped={scoped:#x}", hint
        )
    return result


def add_path_rule(ruleset: int, fd: int, access: int) -> None:
    """Grants ``access`` beneath the file or directory that ``fd`` (O_PATH) names."""
    attr = struct.pack("=Qi", access, fd)  # packed: 12 bytes
    libc.syscall(
        NR["landlock_add_rule"],
        ruleset,
        LANDLOCK_RULE_PATH_BENEATH,
        attr,
        0,
        subject=f"descriptor {fd}, access {access:#x}",
        hint="Grant only rights the ruleset handles, and to a file only those that files have",
    )


def add_port_rule(ruleset: int, port: int, access: int) -> None:
    """Grants ``access`` (LANDLOCK_ACCESS_NET_*) to the TCP port ``port``. ABI 4."""
    libc.syscall(
        NR["landlock_add_rule"],
        ruleset,
        LANDLOCK_RULE_NET_PORT,
        struct.pack("=QQ", access, port),
        0,
        subject=f"port {port}, access {access:#x}",
        hint="Grant only rights the ruleset handles; ports need ABI 4 (Linux 6.7)",
    )


def restrict_self(fd: int, flags: int = 0) -> None:
    """Puts this thread and its future children under the ruleset ``fd``: for ever."""
    libc.syscall(
        NR["landlock_restrict_self"],
        fd,
        flags,
        subject=f"ruleset {fd}",
        hint="Set no_new_privs first; at most 16 domains can be stacked; flags need ABI 7",
    )
