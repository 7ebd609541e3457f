"""Where copies go: ``journald``, ``syslog``, ``syslog:unix:///PATH``, ``syslog:udp://ADDRESS:PORT``.

An address is written in numbers: a name would have to be looked up, which takes as long as it takes, and
would let whoever answers decide where the copy goes.
"""

from __future__ import annotations

import os
import re
import socket

from anchorhold.errors import PolicyError

JOURNALD = "/run/systemd/journal/socket"
SYSLOG = "/dev/log"
PORT = 514
MOST_PATH = 107
"""Bytes of a socket's path: sun_path of unix(7), less its NUL."""

HINT = 'Write "journald", "syslog", "syslog:unix:///dev/log" or "syslog:udp://127.0.0.1:514".'


class Target:
    """One place to send to. ``form`` is ``journald`` or ``syslog``; ``address`` is a path or (host, port)."""

    __slots__ = ("address", "family", "form", "text")

    def __init__(self, text: str, form: str, family: int, address: str | tuple[str, int]) -> None:
        self.text, self.form, self.family, self.address = text, form, family, address

    def connect(self) -> socket.socket:
        """A socket for datagrams that never waits. OSError where nobody listens."""
        kind = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        made = socket.socket(self.family, kind)
        try:
            made.connect(self.address)
        except OSError:
            made.close()
            raise
        return made


def parse(text: str) -> Target:
    """The target that a policy names. Raises PolicyError where it names none."""
    if text == "journald":
        return Target(text, "journald", socket.AF_UNIX, JOURNALD)
    if text == "syslog":
        return Target(text, "syslog", socket.AF_UNIX, SYSLOG)
    if text.startswith("syslog:unix://"):
        return _unix(text, "syslog", text.removeprefix("syslog:unix://"))
    if text.startswith("journald:unix://"):  # for a journal namespace (journalctl --namespace)
        return _unix(text, "journald", text.removeprefix("journald:unix://"))
    if text.startswith("syslog:udp://"):
        return _udp(text, text.removeprefix("syslog:udp://"))
    raise PolicyError(f"audit.copy: {ascii(text)} is no place for a copy", hint=HINT)


def _unix(text: str, form: str, path: str) -> Target:
    if not path.startswith("/") or "\0" in path or len(os.fsencode(path)) > MOST_PATH:
        raise PolicyError(
            f"audit.copy: {ascii(text)} names no socket",
            hint=f"An absolute path of at most {MOST_PATH} bytes.",
        )
    return Target(text, form, socket.AF_UNIX, path)


def _udp(text: str, where: str) -> Target:
    found = re.fullmatch(r"(?:\[([0-9a-fA-F:.]+)\]|([0-9.]+))(?::([0-9]{1,5}))?", where)
    port = int(found[3] or PORT) if found else 0
    if found and 0 < port < 65536:
        family, host = (socket.AF_INET6, found[1]) if found[1] else (socket.AF_INET, found[2])
        try:
            socket.inet_pton(family, host)
            return Target(text, "syslog", family, (host, port))
        except OSError:
            pass
    raise PolicyError(
        f"audit.copy: {ascii(text)} names no address and port",
        hint='Numbers, not a name: "syslog:udp://127.0.0.1:514", "syslog:udp://[::1]:514".',
    )
