"""Devices, terminals, and descriptors that were there from the start."""

from __future__ import annotations

import ctypes
import fcntl
import os
import pty

from tests.integration.attacks.common import cstring, syscall, trial

REQUESTS = {
    "TIOCSTI": 0x5412,
    "TIOCLINUX": 0x541C,
    "TIOCSCTTY": 0x540E,
    "TIOCSWINSZ": 0x5414,
    "TIOCGWINSZ": 0x5413,
    "TIOCNOTTY": 0x5422,
    "TIOCGPTPEER": 0x5441,
    "TCSETS": 0x5402,
    "TCSETSW": 0x5403,
    "TCSBRK": 0x5409,
    "TCFLSH": 0x540B,
    "FIONREAD": 0x541B,
    "FIONBIO": 0x5421,
}
MAY_FAIL = {
    "TIOCSTI": "switched off since Linux 6.2 (dev.tty.legacy_tiocsti)",
    "TIOCLINUX": "only on a console",
    "TIOCSCTTY": "only for the leader of a session",
    "TIOCNOTTY": "only for one's own terminal",
    "TIOCGPTPEER": "only on a master",
}


def _terminal() -> int:
    """The other side of a terminal of its own; where it cannot have one, standard input."""
    try:
        return pty.openpty()[1]
    except OSError:
        return 0


for _name, _request in REQUESTS.items():

    @trial(f"ioctl {_name}", call="ioctl", not_shown=MAY_FAIL.get(_name, ""))
    def _(request: int = _request) -> object:
        buffer = ctypes.create_string_buffer(64)
        terminal = _terminal()
        if request in (0x5402, 0x5403) and terminal:
            syscall("ioctl", terminal, 0x5401, buffer)  # what it is set to, the same again
        fds = (terminal,) if terminal else (0, 1, 2, 5, 6)
        argument = 0 if request in (0x5409, 0x540B) else buffer  # TCSBRK and TCFLSH take a number
        return any(syscall("ioctl", fd, request, argument) >= 0 for fd in fds)


@trial("a terminal of its own", call="openat", path="/dev/ptmx")
def _() -> object:
    return os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY) > 0


@trial("the terminal of whoever started it", call="openat", path="/dev/tty", not_shown="tests may have none")
def _() -> object:
    return os.open("/dev/tty", os.O_RDWR) > 0


@trial("whether standard output is a terminal", not_shown="in the tests it is a pipe")
def _() -> object:
    return any(os.isatty(fd) for fd in (0, 1, 2, 5, 6))


for _path, _why in {
    "/dev/zero": "",
    "/dev/urandom": "",
    "/dev/full": "",
    "/dev/mem": "root's only, where there is one",
    "/dev/kmsg": "root's only",
    "/dev/console": "root's only",
    "/dev/kvm": "not on every machine",
    "/dev/fuse": "not on every machine",
    "/dev/dri/card0": "not on every machine",
    "/dev/nvidia0": "not on every machine",
    "/dev/snd/controlC0": "not on every machine",
    "/dev/input/event0": "not on every machine",
    "/dev/video0": "not on every machine",
    "/dev/sda": "not on every machine",
    "/dev/vda": "not on every machine",
    "/dev/net/tun": "not on every machine",
    "/dev/userfaultfd": "not on every machine",
    "/dev/watchdog": "opening it would arm it",
}.items():

    @trial(f"the device {_path}", call="openat", path=_path, not_shown=_why)
    def _(path: str = _path) -> object:
        if path == "/dev/watchdog" and "probe" not in __name__:
            return False
        return os.open(path, os.O_RDONLY) > 0


@trial("a device node of its own", call="mknodat", not_shown="root of a namespace may not")
def _() -> object:
    return syscall("mknodat", -100, cstring(b"/tmp/anchorhold-node"), 0o20600, 0x105) == 0


@trial("a named pipe of its own", call="mknodat", path="/tmp/anchorhold-fifo")
def _() -> object:
    os.mkfifo("/tmp/anchorhold-fifo")
    os.unlink("/tmp/anchorhold-fifo")
    return True


@trial("blocking reads of the supervisor's pipe", call="fcntl")
def _() -> object:
    """O_NONBLOCK lies in the open file, which all copies of a descriptor share: F_SETFL would reach."""
    fd = 0
    fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL))
    return True
