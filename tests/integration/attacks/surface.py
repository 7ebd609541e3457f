"""The rest of what the kernel offers: mounts, modules, tracing, clocks, keys to the machine itself."""

from __future__ import annotations

import ctypes
import errno
import os

from tests.integration.attacks.common import FOLDER, GRANTED, NR, cstring, syscall, trial

PLACE = cstring(FOLDER.encode())
FILE = cstring(GRANTED.encode())
OWN_NAMESPACE = "not safely outside: it would change the machine itself"
RIGHTS = "root of this machine may, root of a namespace may not"


@trial("bpf", call="bpf", not_shown=RIGHTS)
def _() -> object:
    attributes = (ctypes.c_uint32 * 32)(2, 4, 4, 1)  # an array of one element
    return syscall("bpf", 0, attributes, ctypes.sizeof(attributes)) >= 0


@trial(
    "perf_event_open", call="perf_event_open", not_shown="kernel.perf_event_paranoid, and not every machine"
)
def _() -> object:
    attributes = (ctypes.c_uint32 * 32)(1, 128)  # a software event
    return syscall("perf_event_open", attributes, 0, -1, -1, 0) >= 0


@trial("mount", call="mount", path=f"none {FOLDER}")
def _() -> object:
    got = syscall("mount", cstring(b"none"), PLACE, cstring(b"tmpfs"), 0, 0) == 0
    if got:
        syscall("umount2", PLACE, 2)
    return got


@trial("umount", call="umount2", path="/")
def _() -> object:
    return syscall("umount2", cstring(b"/"), 0x8) in (
        -errno.EINVAL,
        -errno.EBUSY,
        0,
    )  # UMOUNT_NOFOLLOW: reach


@trial("fsopen", call="fsopen")
def _() -> object:
    return syscall("fsopen", cstring(b"tmpfs"), 0) >= 0


@trial("fsmount", call="fsmount")
def _() -> object:
    context = syscall("fsopen", cstring(b"tmpfs"), 0)
    syscall("fsconfig", context, 6, 0, 0, 0)  # FSCONFIG_CMD_CREATE
    return syscall("fsmount", max(context, 0), 0, 0) >= 0


@trial("fsconfig", call="fsconfig")
def _() -> object:
    return syscall("fsconfig", max(0, syscall("fsopen", cstring(b"tmpfs"), 0)), 6, 0, 0, 0) == 0


@trial("fspick", call="fspick", path=FOLDER)
def _() -> object:
    mounted = syscall("mount", cstring(b"none"), PLACE, cstring(b"tmpfs"), 0, 0) == 0
    got = syscall("fspick", -100, PLACE, 0)
    if mounted:
        syscall("umount2", PLACE, 2)
    return got >= 0


@trial("open_tree", call="open_tree", path=FOLDER)
def _() -> object:
    return syscall("open_tree", -100, PLACE, 1) >= 0


@trial("move_mount", call="move_mount")
def _() -> object:
    tree = syscall("open_tree", -100, PLACE, 1)
    return syscall("move_mount", max(tree, 0), cstring(b""), -100, PLACE, 4) == 0


@trial("mount_setattr", call="mount_setattr")
def _() -> object:
    tree = syscall("open_tree", -100, PLACE, 1)
    attributes = (ctypes.c_uint64 * 4)(1)
    return syscall("mount_setattr", max(tree, 0), cstring(b""), 0x1000, attributes, 32) == 0


@trial("pivot_root", call="pivot_root")
def _() -> object:
    return syscall("pivot_root", cstring(b"."), cstring(b".")) in (0, -errno.EINVAL, -errno.EBUSY)


@trial("chroot", call="chroot")
def _() -> object:
    return syscall("chroot", cstring(b"/")) == 0


@trial("chdir", call="chdir", path="/etc")
def _() -> object:
    return syscall("chdir", cstring(b"/etc")) == 0


@trial("fchdir", call="fchdir")
def _() -> object:
    return syscall("fchdir", os.open(FOLDER, os.O_RDONLY)) == 0


@trial("statmount", call="statmount", not_shown="needs Linux 6.8")
def _() -> object:
    return syscall("statmount", 0, 0, 0, 0) in (-errno.EINVAL, -errno.EFAULT) and "probe" not in __name__


@trial("listmount", call="listmount", not_shown="needs Linux 6.8")
def _() -> object:
    return syscall("listmount", 0, 0, 0, 0) in (-errno.EINVAL, -errno.EFAULT) and "probe" not in __name__


@trial("a file by its handle", call="name_to_handle_at")
def _() -> object:
    handle = ctypes.create_string_buffer((128).to_bytes(4, "little"), 256)
    return syscall("name_to_handle_at", -100, FILE, handle, (ctypes.c_int * 1)(), 0) in (0, -errno.EOPNOTSUPP)


@trial("open by handle", call="open_by_handle_at", not_shown=RIGHTS)
def _() -> object:
    handle = ctypes.create_string_buffer((128).to_bytes(4, "little"), 256)
    syscall("name_to_handle_at", -100, FILE, handle, (ctypes.c_int * 1)(), 0)
    return syscall("open_by_handle_at", -100, handle, 0) >= 0


for _name, _arguments in {
    "init_module": (0, 0, 0),
    "finit_module": (0, 0, 0),
    "delete_module": (0, 0),
    "kexec_load": (0, 0, 0, 0),
    "kexec_file_load": (0, 0, 0, 0, 0),
    "reboot": (0, 0, 0, 0),
    "swapon": (0, 0),
    "swapoff": (0,),
    "acct": (0,),
    "quotactl": (0, 0, 0, 0),
    "settimeofday": (0, 0),
    "clock_settime": (0, 0),
    "setdomainname": (0, 0),
    "syslog": (2, 0, 0),
    "vhangup": (),
    "iopl": (0,),
    "ioperm": (0, 0, 0),
    "modify_ldt": (0, 0, 0),
    "quotactl_fd": (0, 0, 0, 0),
    "lookup_dcookie": (0, 0, 0),
    "nfsservctl": (0, 0, 0),
}.items():
    if _name in NR:

        @trial(f"{_name}, with nothing that it could do", call=_name, not_shown=OWN_NAMESPACE)
        def _(name: str = _name, arguments: tuple[int, ...] = _arguments) -> object:
            return "probe" in __name__ and syscall(name, *arguments) >= 0


@trial("the clock, asked how it is set", call="adjtimex")
def _() -> object:
    return syscall("adjtimex", ctypes.create_string_buffer(256)) >= 0


@trial("another clock, asked how it is set", call="clock_adjtime")
def _() -> object:
    return syscall("clock_adjtime", 0, ctypes.create_string_buffer(256)) >= 0


@trial("sethostname", call="sethostname")
def _() -> object:
    return syscall("sethostname", cstring(b"attack"), 6) == 0


@trial("a Landlock ruleset", call="landlock_create_ruleset")
def _() -> object:
    return syscall("landlock_create_ruleset", 0, 0, 1) > 0


@trial("a Landlock domain", call="landlock_restrict_self", not_shown="needs a ruleset and no_new_privs")
def _() -> object:
    return syscall("landlock_restrict_self", 0, 0) == 0


@trial("what security modules there are", call="lsm_list_modules", not_shown="needs Linux 6.8")
def _() -> object:
    return syscall("lsm_list_modules", 0, 0, 0) not in (-errno.EPERM, -errno.ENOSYS)


@trial("which pages of a file are in memory", call="cachestat", not_shown="needs Linux 6.5")
def _() -> object:
    fd = os.open(GRANTED, os.O_RDONLY)
    return syscall("cachestat", fd, (ctypes.c_uint64 * 2)(0, 4096), (ctypes.c_uint64 * 5)(), 0) == 0


@trial("which pages of a mapping are in memory", call="mincore")
def _() -> object:
    fd = os.open(GRANTED, os.O_RDONLY)
    address = syscall("mmap", 0, 4096, 1, 2, fd, 0)
    return syscall("mincore", address, 4096, ctypes.create_string_buffer(8)) == 0


@trial("attributes of a file", call="getxattr", path=GRANTED)
def _() -> object:
    got = syscall("getxattr", FILE, cstring(b"user.x"), ctypes.create_string_buffer(16), 16)
    return got in (-errno.ENODATA, -errno.EOPNOTSUPP)


@trial("a timer of the process", call="timer_create")
def _() -> object:
    return syscall("timer_create", 1, 0, (ctypes.c_int * 1)()) == 0


@trial("an alarm", call="setitimer")
def _() -> object:
    return syscall("setitimer", 0, ctypes.create_string_buffer(32), 0) == 0


@trial("sync of all disks", call="sync", not_shown="it would wait for every disk of the machine")
def _() -> object:
    return "probe" in __name__ and syscall("sync") == 0


@trial("how full the disk is")
def _() -> object:
    return syscall("statfs", cstring(b"/"), ctypes.create_string_buffer(256)) == 0


@trial("ustat", call="ustat", not_shown="x86 only, and of devices")
def _() -> object:
    return "ustat" in NR and syscall("ustat", 0, ctypes.create_string_buffer(64)) == 0
