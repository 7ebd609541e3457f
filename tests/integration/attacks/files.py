"""Reading, finding out about, or changing what the policy does not grant."""

from __future__ import annotations

import ctypes
import os
import struct

from tests.integration.attacks.common import FOLDER, GRANTED, cstring, syscall, trial

BESIDE = os.path.dirname(FOLDER)
SECRET = BESIDE + "/secret.txt"

# Ways to the secret, or to something else that is not granted; the path as the log must show it.
WAYS = {
    "its path": SECRET,
    "two dots": FOLDER + "/../secret.txt",
    "two dots further down": FOLDER + "/sub/../../secret.txt",
    "two dots from nowhere": FOLDER + "/not-there/../../secret.txt",
    "slashes and dots": FOLDER + "//.//../secret.txt",
    "a link out": FOLDER + "/out.txt",
    "a relative link out": FOLDER + "/relative.txt",
    "a link to a link out": FOLDER + "/chain.txt",
    "a folder that is a link out": FOLDER + "/way/secret.txt",
    "a second name": FOLDER + "/hard.txt",
    "a link to /proc/self/root": FOLDER + "/magic/etc/passwd",
    "/proc/self/root": "/proc/self/root" + SECRET,
    "/proc/self/cwd": "/proc/self/cwd/../../../../../../../../etc/passwd",
    "/proc/thread-self/root": "/proc/thread-self/root" + SECRET,
    "/proc/1/root": "/proc/1/root" + SECRET,
    "/proc/self/environ": "/proc/self/environ",
    "/proc/self/fd/0": "/proc/self/fd/0",
    "/dev/fd/0": "/dev/fd/0",
    "/dev/stdin": "/dev/stdin",
    "/proc/self/exe": "/proc/self/exe",
    "/proc/1/status": "/proc/1/status",
    "/proc/version": "/proc/version",
    "/sys/kernel": "/sys/kernel/mm/ksm/run",
    "/etc/passwd": "/etc/passwd",
    "/etc/hostname by way of the granted file": GRANTED + "/../../../../../../etc/passwd",
}
SPECIAL = {"fifo": "fifo.txt", "socket": "socket.txt", "device": "device.txt"}
# In the cell these are answered with "not there", as made up, and so are no attempts.
UNHEARD = {"/proc/self/exe", "/etc/hostname by way of the granted file"}
NOT_SHOWN = {
    "two dots from nowhere": "path_resolution(7): nothing is behind nothing",
    "/etc/hostname by way of the granted file": "path_resolution(7): a file is no folder",
    "/sys/kernel": "not in every kernel",
    "/proc/1/root": "needs the right to trace process 1",
}


def heard(way: str) -> str:
    """The path as it was asked: what the log must show; "" where the answer is made up."""
    return "" if way in UNHEARD else WAYS[way]


def readable(fd: int) -> bool:
    try:
        os.read(fd, 16)
    except BlockingIOError:
        pass
    finally:
        os.close(fd)
    return True


for _way in WAYS:

    @trial(f"open: {_way}", path=heard(_way), not_shown=NOT_SHOWN.get(_way, ""))
    def _(way: str = _way) -> object:
        return readable(os.open(WAYS[way], os.O_RDONLY | os.O_NONBLOCK))

    @trial(f"open without reading: {_way}", not_shown=NOT_SHOWN.get(_way, ""))
    def _(way: str = _way) -> object:
        return os.open(WAYS[way], os.O_PATH) >= 0

    @trial(f"openat2: {_way}", not_shown=NOT_SHOWN.get(_way, ""))
    def _(way: str = _way) -> object:
        how = ctypes.create_string_buffer(struct.pack("=QQQ", os.O_NONBLOCK, 0, 0))
        return syscall("openat2", -100, cstring(WAYS[way].encode()), how, 24) >= 0

    @trial(f"stat: {_way}", not_shown=NOT_SHOWN.get(_way, ""))
    def _(way: str = _way) -> object:
        return bool(os.stat(WAYS[way]))

    @trial(f"is it there: {_way}", not_shown=NOT_SHOWN.get(_way, ""))
    def _(way: str = _way) -> object:
        return os.access(WAYS[way], os.F_OK)


for _name, _file in SPECIAL.items():

    @trial(f"open a {_name}", call="openat", path=f"{FOLDER}/{_file}", not_shown="root only, or never")
    def _(file: str = _file) -> object:
        return readable(os.open(f"{FOLDER}/{file}", os.O_RDONLY | os.O_NONBLOCK))


@trial("a descriptor of a folder and two dots", path=FOLDER + "/../secret.txt")
def _() -> object:
    return readable(os.open("../secret.txt", os.O_RDONLY, dir_fd=os.open(FOLDER, os.O_RDONLY)))


@trial("a descriptor of a folder and a name beside it", not_shown="a folder holds what is in it")
def _() -> object:
    """The empty directory that stands for a folder is the worker's own: what can it be made to be?"""
    fd = os.open(FOLDER, os.O_RDONLY)
    return syscall("openat", fd, cstring(b"secret.txt"), 0) >= 0


@trial("a descriptor of a granted file as a folder", not_shown="a file is no folder")
def _() -> object:
    return os.open("../secret.txt", os.O_RDONLY, dir_fd=os.open(GRANTED, os.O_RDONLY)) >= 0


@trial("standard input as a folder", not_shown="it is none")
def _() -> object:
    return os.open("secret.txt", os.O_RDONLY, dir_fd=0) >= 0


@trial("an empty path", not_shown="open(2) takes none")
def _() -> object:
    return syscall("openat", os.open(FOLDER, os.O_RDONLY), cstring(b""), 0) >= 0


for _name, _flags in {
    "for writing": os.O_WRONLY,
    "for both": os.O_RDWR,
    "and cut it": os.O_RDONLY | os.O_TRUNC,
    "to append": os.O_WRONLY | os.O_APPEND,
    "to create beside it": os.O_RDONLY | os.O_CREAT,
}.items():

    @trial(f"open a granted file {_name}", call="openat", path=GRANTED)
    def _(flags: int = _flags) -> object:
        saved = b""
        if flags & os.O_TRUNC and "probe" not in __name__:
            with open(GRANTED, "rb") as file:
                saved = file.read()
        os.close(os.open(GRANTED, flags))
        if saved:
            with open(GRANTED, "wb") as file:
                file.write(saved)
        return True


@trial("a nameless file", call="openat", path=FOLDER)
def _() -> object:
    return os.open(FOLDER, os.O_TMPFILE | os.O_RDWR) >= 0


@trial("a new file", call="openat", path=FOLDER + "/new.txt")
def _() -> object:
    os.close(os.open(FOLDER + "/new.txt", os.O_CREAT | os.O_WRONLY | os.O_EXCL))
    os.unlink(FOLDER + "/new.txt")
    return True


@trial("a new folder", path=FOLDER + "/new")
def _() -> object:
    os.mkdir(FOLDER + "/new")
    os.rmdir(FOLDER + "/new")
    return True


@trial("a new link", path=f"{SECRET} {FOLDER}/new-link")
def _() -> object:
    os.symlink(SECRET, FOLDER + "/new-link")
    os.unlink(FOLDER + "/new-link")
    return True


@trial("a new name", path=f"{GRANTED} {FOLDER}/new-name")
def _() -> object:
    os.link(GRANTED, FOLDER + "/new-name")
    os.unlink(FOLDER + "/new-name")
    return True


@trial("another name", path=f"{GRANTED} {FOLDER}/moved")
def _() -> object:
    os.rename(GRANTED, FOLDER + "/moved")
    os.rename(FOLDER + "/moved", GRANTED)
    return True


@trial("other rights", path=GRANTED)
def _() -> object:
    os.chmod(GRANTED, 0o644)
    return True


@trial("other times", path=GRANTED)
def _() -> object:
    os.utime(GRANTED)
    return True


@trial("writing through the descriptor of a granted file")
def _() -> object:
    try:
        fd = os.open(GRANTED, os.O_RDWR)
    except OSError:
        fd = os.open(GRANTED, os.O_RDONLY)
    return os.write(fd, b"granted") == 7


for _name, _arguments in {"ftruncate": (7000,), "fallocate": (0, 0, 4096), "fchmod": (0o644,)}.items():

    @trial(f"{_name} of a granted file", call=_name)
    def _(name: str = _name, arguments: tuple[int, ...] = _arguments) -> object:
        try:
            fd = os.open(GRANTED, os.O_RDWR)
        except OSError:
            fd = os.open(GRANTED, os.O_RDONLY)
        return syscall(name, fd, *arguments) == 0


for _name, _path in {"/etc": "/etc", "what lies beside": BESIDE, "/": "/", "/proc": "/proc"}.items():

    @trial(f"list {_name}", not_shown="")
    def _(path: str = _path) -> object:
        names = os.listdir(path)
        # Of folders on the way to the runtime only those names are shown.
        return {"passwd", "secret.txt", "proc", "self", "tmp"} & set(names)


@trial("where a link leads")
def _() -> object:
    return os.readlink(FOLDER + "/out.txt")


@trial("who owns what it may read")
def _() -> object:
    return os.stat(GRANTED).st_uid != 65534
