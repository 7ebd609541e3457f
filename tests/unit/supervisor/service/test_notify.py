"""What the service manager is told, on a real socket."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from anchorhold.supervisor.service.notify import Notifier, inherited


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(2)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield listening


def test_each_word(manager: socket.socket) -> None:
    notifier = Notifier()
    notifier.ready()
    notifier.status("taxes: serving")
    notifier.status("taxes: serving")
    notifier.reloading()
    notifier.alive()
    notifier.stopping()
    said = [manager.recv(4096).decode() for _each in range(5)]
    assert said[:2] == ["READY=1", "STATUS=taxes: serving"], "one that did not change is said once"
    assert said[2].startswith("RELOADING=1\nMONOTONIC_USEC=") and said[3:] == ["WATCHDOG=1", "STOPPING=1"]
    notifier.close()
    assert "NOTIFY_SOCKET" not in os.environ, "what we start must not speak for us"


def test_an_abstract_address(monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"anchorhold-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind("\0" + name)
        listening.settimeout(2)
        monkeypatch.setenv("NOTIFY_SOCKET", "@" + name)
        notifier = Notifier()
        notifier.ready()
        assert listening.recv(100) == b"READY=1"
        notifier.close()


def test_nobody_listens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    notifier = Notifier()
    notifier.ready()
    notifier.close()
    notifier.ready()


@pytest.mark.parametrize(
    ("usec", "pid", "seconds"),
    [("10000000", "", 5.0), ("10000000", "1", None), ("0", "", None), ("x", "", None), ("", "", None)],
)
def test_watchdog(monkeypatch: pytest.MonkeyPatch, usec: str, pid: str, seconds: float | None) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", usec)
    monkeypatch.setenv("WATCHDOG_PID", pid)
    assert Notifier().interval == seconds


def test_sockets_that_are_handed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "set_inheritable", lambda fd, inheritable: None)
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
    monkeypatch.setenv("LISTEN_FDS", "3")
    monkeypatch.setenv("LISTEN_FDNAMES", "taxes::notes")
    assert inherited() == {"taxes": 3, "fd4": 4, "notes": 5}
    assert inherited() == {}, "once"


def test_sockets_for_another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LISTEN_PID", "1")
    monkeypatch.setenv("LISTEN_FDS", "1")
    assert inherited() == {}
