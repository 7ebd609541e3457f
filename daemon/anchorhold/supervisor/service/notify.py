"""What the service manager is told, and the sockets that it hands over.

Sources: sd_notify(3), sd_listen_fds(3), sd_watchdog_enabled(3). Without its variables nothing happens.
"""

from __future__ import annotations

import os
import socket
import time

LISTEN_FDS_START = 3


class Notifier:
    """The datagram socket of $NOTIFY_SOCKET. Never raises: whoever listens there proves nothing."""

    def __init__(self) -> None:
        address = os.environ.pop("NOTIFY_SOCKET", "")  # not for what we start
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._socket: socket.socket | None = None
        self.interval = _watchdog_interval()
        self._status = ""
        if self._address:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            self._socket.setblocking(False)

    def tell(self, *lines: str) -> None:
        if self._socket is not None:
            try:
                self._socket.sendto("\n".join(lines).encode("utf-8", "replace"), self._address)
            except OSError:
                return

    def ready(self) -> None:
        self.tell("READY=1")

    def status(self, text: str) -> None:
        """One line for ``systemctl status``; said once."""
        if text != self._status:
            self._status = text
            self.tell("STATUS=" + text.replace("\n", " "))

    def reloading(self) -> None:
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self.tell("RELOADING=1", f"MONOTONIC_USEC={now}")

    def stopping(self) -> None:
        self.tell("STOPPING=1")

    def alive(self) -> None:
        self.tell("WATCHDOG=1")

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _watchdog_interval() -> float | None:
    """Seconds between two signs of life: half of what the manager waits. None: it does not wait for any."""
    usec, pid = os.environ.pop("WATCHDOG_USEC", ""), os.environ.pop("WATCHDOG_PID", "")
    if not usec.isdigit() or (pid and pid != str(os.getpid())) or not int(usec):
        return None
    return int(usec) / 2_000_000


def inherited() -> dict[str, int]:
    """Listening sockets from the service manager, by name. They are marked close-on-exec here."""
    pid, number = os.environ.pop("LISTEN_PID", ""), os.environ.pop("LISTEN_FDS", "")
    names = os.environ.pop("LISTEN_FDNAMES", "")
    if pid != str(os.getpid()) or not number.isdigit():
        return {}
    found = {}
    given = names.split(":")
    for place in range(int(number)):
        fd = LISTEN_FDS_START + place
        os.set_inheritable(fd, False)
        found[given[place] if place < len(given) and given[place] else f"fd{fd}"] = fd
    return found
