"""A journald and a syslogd of the tests' own, on real sockets."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Receiver:
    """A datagram socket that collects what comes. It reads only when asked to."""

    def __init__(self, path: Path | None = None, *, family: int = socket.AF_UNIX) -> None:
        self.socket = socket.socket(family, socket.SOCK_DGRAM)
        self.socket.bind(
            str(path) if path is not None else ("::1" if family == socket.AF_INET6 else "127.0.0.1", 0)
        )
        self.socket.settimeout(10)

    @property
    def port(self) -> int:
        port = self.socket.getsockname()[1]
        assert isinstance(port, int)
        return port

    def read(self, count: int = 1) -> list[bytes]:
        return [self.socket.recv(1 << 20) for _ in range(count)]

    def empty(self) -> bool:
        self.socket.setblocking(False)
        try:
            self.socket.recv(1 << 20)
        except BlockingIOError:
            return True
        finally:
            self.socket.settimeout(10)
        return False

    def close(self) -> None:
        self.socket.close()


def until(true: Callable[[], bool], seconds: float = 10) -> bool:
    """Wait for something that another thread does."""
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True


def journal_fields(data: bytes) -> dict[str, bytes]:
    """A message of journald's native protocol, read as its specification says."""
    found: dict[str, bytes] = {}
    while data:
        line, _, rest = data.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if equals:
            data = rest
        else:
            length = int.from_bytes(rest[:8], "little")
            value = rest[8 : 8 + length]
            assert len(value) == length and rest[8 + length : 9 + length] == b"\n"
            data = rest[9 + length :]
        text = name.decode("ascii")
        assert re.fullmatch(r"[A-Z][A-Z0-9_]{0,63}", text), text
        assert text not in found, f"{text} twice"
        found[text] = value
    return found


_HEAD = re.compile(
    r"<(\d{1,3})>1 (-|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?(?:Z|[+-]\d\d:\d\d)) "
    r"([!-~]{1,255}) ([!-~]{1,48}) ([!-~]{1,128}) ([!-~]{1,32}) "
)
_PARAM = re.compile(r' ([!#-<>-\\^-~]{1,32})="((?:[^"\\\]]|\\["\\\]])*)"')


def syslog_parts(data: bytes) -> dict[str, Any]:
    """A message of RFC 5424, by its ABNF (section 6)."""
    text = data.decode("utf-8")
    head = _HEAD.match(text)
    assert head, text
    assert text[head.end()] == "["
    sd_id = re.compile(r"[!#-<>-\\^-~]{1,32}").match(text, head.end() + 1)
    assert sd_id
    at = sd_id.end()
    params: dict[str, str] = {}
    while text[at] == " ":
        param = _PARAM.match(text, at)
        assert param, text[at : at + 40]
        assert param[1] not in params, f"{param[1]} twice"
        params[param[1]] = re.sub(r"\\(.)", r"\1", param[2])
        at = param.end()
    assert text[at : at + 2] == "] "
    message = text[at + 2 :]
    assert message.isascii() or message.startswith("\ufeff")
    return {
        "facility": int(head[1]) // 8, "severity": int(head[1]) % 8, "time": head[2], "host": head[3],
        "app": head[4], "pid": head[5], "kind": head[6], "id": sd_id[0], "params": params,
        "message": message.removeprefix("\ufeff"),
    }  # fmt: skip
