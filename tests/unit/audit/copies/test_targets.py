"""The words a policy names a target with."""

from __future__ import annotations

import socket

import pytest

from anchorhold.audit.copies import Copies, parse
from anchorhold.errors import PolicyError


@pytest.mark.parametrize(
    ("text", "form", "family", "address"),
    [
        ("journald", "journald", socket.AF_UNIX, "/run/systemd/journal/socket"),
        ("journald:unix:///run/x", "journald", socket.AF_UNIX, "/run/x"),
        ("syslog", "syslog", socket.AF_UNIX, "/dev/log"),
        ("syslog:unix:///run/my log", "syslog", socket.AF_UNIX, "/run/my log"),
        ("syslog:udp://127.0.0.1:5140", "syslog", socket.AF_INET, ("127.0.0.1", 5140)),
        ("syslog:udp://192.0.2.7", "syslog", socket.AF_INET, ("192.0.2.7", 514)),
        ("syslog:udp://[::1]:514", "syslog", socket.AF_INET6, ("::1", 514)),
        ("syslog:udp://[2001:db8::7]", "syslog", socket.AF_INET6, ("2001:db8::7", 514)),
    ],
)
def test_good(text: str, form: str, family: int, address: object) -> None:
    target = parse(text)
    assert (target.text, target.form, target.family, target.address) == (text, form, family, address)


@pytest.mark.parametrize(
    "text",
    [
        "", "syslogd", "syslog:", "syslog:tcp://127.0.0.1:514", "syslog:unix://dev/log", "syslog:unix://",
        "syslog:unix:///" + "x" * 107, "syslog:unix:///a\0b", "syslog:udp://", "syslog:udp://:514",
        "syslog:udp://localhost:514", "syslog:udp://example.org:514", "syslog:udp://127.0.0.1:0",
        "syslog:udp://127.0.0.1:65536", "syslog:udp://127.0.0.1:x", "syslog:udp://300.1.1.1:5",
        "syslog:udp://127.1:514", "syslog:udp://::1:514", "syslog:udp://[::1%lo]:514", "syslog:udp://[127.0.0.1]:5",
        "journald:", "journald:udp://127.0.0.1:1", "JOURNALD", " journald", "syslog:udp://127.0.0.1:514\n",
    ],
)  # fmt: skip
def test_bad(text: str) -> None:
    with pytest.raises(PolicyError, match="audit.copy") as caught:
        Copies(["journald", text])
    assert str(caught.value).isascii() and "\n" not in str(caught.value) and caught.value.hint
