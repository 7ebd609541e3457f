"""The values of ``[api]``, and what they must be together: where the service is reached, and by whom.

Beyond loopback there is no API without TLS; with the token that TCP always asks for, that is the least.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping

from anchorhold.policy import places, values
from anchorhold.policy.values import Bad, shown, strings, text

SOCKET_MOST = 107
"""Bytes of a Unix socket's path (unix(7), sun_path)."""

_GROUP = re.compile(r"[a-z_][a-z0-9_-]{0,31}", re.ASCII)
_HOST = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*", re.ASCII)
_ORIGIN = re.compile(
    r"(https?://([a-z0-9.-]+|\[[0-9a-f:]+\])(:[0-9]{1,5})?|[a-z-]+-extension://[a-z0-9-]+|tauri://localhost)",
    re.ASCII,
)


def listen(value: object) -> str | None:
    """An IP address and a port, a Unix socket, or ``"off"``.

    ``%t`` is the runtime directory, as in systemd, ``%n`` the policy's name.
    """
    allowed = '"127.0.0.1:8765", "[::1]:8765", "unix:/path", "unix:%t/anchorhold/path" or "off"'
    found = text(value, allowed)
    if found == "off":
        return None
    if found.startswith("unix:"):
        path = found[5:]
        rest = path[2:] if path.startswith("%t/") else path
        clean = all(part not in ("", ".", "..") for part in rest[1:].split("/"))
        named = rest.replace("%n", "")
        if not rest.startswith("/") or not clean or "%" in named or len(path.encode()) > SOCKET_MOST:
            raise Bad(f"{shown(value)} names no socket", allowed)
        return found
    host, _colon, port = found.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    try:
        address = ipaddress.ip_address(host[1:-1] if bracketed else host)
    except ValueError:
        raise Bad(f"{shown(value)} has no IP address", allowed) from None
    number = int(port) if port.isascii() and port.isdigit() and len(port) <= 5 else 0
    if (address.version == 6) != bracketed or not 1 <= number <= 65535:
        raise Bad(f"{shown(value)} is no address with a port from 1 to 65535", allowed)
    return found


def group(value: object) -> str:
    """A group's name; whether there is one is seen when somebody comes."""
    allowed = "the name of a group"
    found = text(value, allowed)
    if not _GROUP.fullmatch(found):
        raise Bad(f"{shown(value)} is no name of a group", allowed)
    return found


def hosts(value: object) -> tuple[str, ...]:
    """Names under which the service is reached, as a Host header has them."""
    allowed = 'a list of host names, as ["models.example.org"]'

    def one(name: str) -> str:
        if not _HOST.fullmatch(name.lower()) or len(name) > 253:
            raise Bad(f"{shown(name)} is no host name", allowed)
        return name.lower()

    return strings(value, allowed, one)


def origins(value: object) -> tuple[str, ...]:
    """Web pages that may use the service, as an Origin header has them; none by default, and never all."""
    allowed = 'a list of origins, as ["http://localhost:3000"]'

    def one(origin: str) -> str:
        if not _ORIGIN.fullmatch(origin):
            raise Bad(f"{shown(origin)} is no origin", allowed)
        return origin

    return strings(value, allowed, one)


def file(value: object) -> str:
    """A file of the service's own; it is read when the service starts."""
    return places.absolute(value, "an absolute path of a PEM file")


def seconds(value: object) -> float:
    """A time that is never without end."""
    allowed = 'a time with its unit, from "1s" to "1h"'
    found = None if value == "off" else values.duration(value)
    if found is None or found > 3600:
        raise Bad(f"{shown(value)} is out of range", allowed)
    return found


def together(read: Mapping[str, object]) -> Iterator[tuple[str, Bad]]:
    """What is wrong with keys that are right each by itself: (key, what)."""
    where = read.get("listen", "unix:")
    if ("tls_cert" in read) != ("tls_key" in read):
        missing = "tls_key" if "tls_cert" in read else "tls_cert"
        given = "tls_cert" if "tls_cert" in read else "tls_key"
        yield given, Bad(f"without api.{missing} it is of no use", "both, or neither")
    if where is None:
        return
    if str(where).startswith("unix:"):
        for key in ("tls_cert", "hosts"):
            if read.get(key):
                yield key, Bad("a Unix socket has no use for it", "leave it out, or listen on an address")
        return
    if read.get("group") is not None:
        yield "group", Bad("TCP does not tell who connects", "leave it out, or listen on a Unix socket")
    if read.get("token") is False:
        yield "token", Bad("TCP is never served without a token", "true, or leave it out")
    host = str(where).rpartition(":")[0].strip("[]")
    if not ipaddress.ip_address(host).is_loopback and not ("tls_cert" in read and "tls_key" in read):
        yield (
            "listen",
            Bad(
                f"{shown(where)} is reached from other machines, and there is no TLS",
                "a loopback address, or api.tls_cert and api.tls_key",
            ),
        )
