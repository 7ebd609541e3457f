"""Who may ask, decided from headers alone, before a byte of the body is read.

Against DNS rebinding: a TCP listener answers only to an IP address, to ``localhost`` where it listens on
loopback, and to names that its policy gives. Against drive-by pages: a request with an Origin that no policy
names, or that a browser says comes from another site, is refused, and so is a body that a form could send.
Tokens are known by their SHA-256 only and compared in constant time.
Sources: RFC 9110 (Host), RFC 6454 (Origin), RFC 6750 (Bearer), Fetch Metadata (Sec-Fetch-Site), Fetch (CORS).
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from typing import Any

from anchorhold.gateway.errors import ApiError

Headers = list[tuple[bytes, bytes]]
MOST_HEAD = 16 << 10
"""Bytes of a request's line and headers."""
SAFE_SITES = (b"none", b"same-origin")


class Listener:
    """One way in, as the supervisor configured it. ``fd`` −1: connections are handed in one by one."""

    __slots__ = (
        "concurrency", "fd", "hosts", "idle", "loopback", "max_body", "max_tokens", "number", "open",
        "origins", "policies", "port", "queue", "read", "tls", "tokens", "unix", "write",
    )  # fmt: skip

    def __init__(self, number: int, config: dict[str, Any]) -> None:
        """config: plain values from the trusted side; seconds, bytes."""
        self.number = number
        self.open = 0
        self.unix: bool = config["unix"]
        self.fd: int = config["fd"]
        self.loopback: bool = config["loopback"]
        self.port: int = config["port"]
        self.policies: tuple[str, ...] = tuple(config["policies"])
        # SHA-256 of a token → the policies that it opens. Empty: none is asked for.
        self.tokens = {bytes.fromhex(digest): tuple(names) for digest, names in config["tokens"].items()}
        self.hosts = frozenset(config["hosts"])
        self.origins = frozenset(config["origins"])
        self.tls: tuple[int, int] | None = tuple(config["tls"]) if config["tls"] else None
        self.max_body: int = config["max_body"]
        self.max_tokens: int = config["max_tokens"]
        self.concurrency: int = config["concurrency"]
        self.queue: int = config["queue"]
        self.read: float = config["read_timeout"]
        self.write: float = config["write_timeout"]
        self.idle: float = config["idle_timeout"]


class Caller:
    """Who asks, and which policies are open to them."""

    __slots__ = ("policies", "principal")

    def __init__(self, principal: str, policies: tuple[str, ...]) -> None:
        self.principal, self.policies = principal, policies


def _all(headers: Headers, name: bytes) -> list[bytes]:
    return [value for key, value in headers if key == name]


def one(headers: Headers, name: bytes) -> bytes | None:
    """The value of a header that may be there once. Raises ApiError 400."""
    found = _all(headers, name)
    if len(found) > 1:
        raise ApiError(400, f"The header {name.decode()} is there twice.", code="bad_header")
    return found[0] if found else None


def check_head(headers: Headers) -> None:
    """Raises ApiError where the head is over the limit, or says two things about where the body ends."""
    if sum(len(name) + len(value) + 4 for name, value in headers) > MOST_HEAD:
        raise ApiError(431, f"The headers are over {MOST_HEAD} bytes.", code="bad_http", close=True)
    if one(headers, b"content-length") is not None and one(headers, b"transfer-encoding") is not None:
        raise ApiError(400, "Two lengths are given for one body.", code="bad_http", close=True)


def check_host(listener: Listener, headers: Headers) -> None:
    """Raises ApiError 403 where the name is not this listener's: then it is some page's that points here."""
    if listener.unix:
        return  # no browser gets here, and clients make up a name
    host = one(headers, b"host")
    if host is not None and _host_is_ours(listener, host):
        return
    raise ApiError(403, "The Host header names no address of this service.", code="wrong_host")


def _host_is_ours(listener: Listener, host: bytes) -> bool:
    try:
        text = host.decode("ascii").lower()
    except UnicodeDecodeError:
        return False
    if text.startswith("["):
        address, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            return False
        port = rest[1:]
    else:
        address, _colon, port = text.partition(":")
    usual = 443 if listener.tls else 80
    if (port or str(usual)) != str(listener.port):
        return False
    if address in listener.hosts or (listener.loopback and address == "localhost"):
        return True
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    return parsed.is_loopback or not listener.loopback


def check_origin(listener: Listener, headers: Headers) -> str | None:
    """The origin that may read the answer, None when no page asks. Raises ApiError 403 for any other."""
    origin = one(headers, b"origin")
    if origin is not None:
        text = origin.decode("latin-1")
        if text in listener.origins:
            return text
        raise ApiError(
            403, "Pages of that origin may not use this service (api.origins).", code="wrong_origin"
        )
    site = one(headers, b"sec-fetch-site")
    if site is not None and site not in SAFE_SITES:
        raise ApiError(403, "Pages of another site may not use this service.", code="wrong_origin")
    return None


def cors(origin: str | None) -> list[tuple[str, str]]:
    """The headers that let a named origin read the answer."""
    if origin is None:
        return []
    return [
        ("access-control-allow-origin", origin),
        ("access-control-expose-headers", "x-request-id, retry-after"),
        ("vary", "origin"),
    ]


def preflight(origin: str, headers: Headers) -> list[tuple[str, str]]:
    """The answer to a browser that asks before it asks (Fetch, CORS-preflight)."""
    wanted = one(headers, b"access-control-request-headers") or b""
    names = [name.strip() for name in wanted.decode("latin-1").lower().split(",") if name.strip()]
    fine = [name for name in names if name.replace("-", "").isalnum() and len(name) <= 64][:32]
    return [
        *cors(origin),
        ("access-control-allow-methods", "GET, POST"),
        ("access-control-allow-headers", ", ".join(fine)),
        ("access-control-max-age", "600"),
    ]


def identify(listener: Listener, peer: str, headers: Headers) -> Caller:
    """By token where the listener has any, else by the peer. Raises ApiError 401."""
    if not listener.tokens:
        return Caller(peer, listener.policies)
    digest = hashlib.sha256(_token(headers)).digest()
    found: bytes | None = None
    for known in listener.tokens:  # all of them, whichever it is
        if hmac.compare_digest(known, digest):
            found = known
    if found is None:
        raise ApiError(
            401,
            "A token is needed: Authorization: Bearer TOKEN. The service's owner finds it in the file "
            "token-POLICY of its state directory.",
            code="invalid_api_key",
            headers=(("www-authenticate", "Bearer"),),
        )
    return Caller(f"token:{found.hex()[:8]}", listener.tokens[found])


def _token(headers: Headers) -> bytes:
    """What was presented; empty if nothing was. x-api-key is how clients of /v1/messages say it."""
    bearer = one(headers, b"authorization")
    if bearer is not None:
        scheme, _space, token = bearer.partition(b" ")
        return token.strip() if scheme.lower() == b"bearer" else b""
    return (one(headers, b"x-api-key") or b"").strip()


def check_json(headers: Headers) -> None:
    """A body is JSON and says so: what a form or a no-cors fetch can send does not."""
    kind = (one(headers, b"content-type") or b"").split(b";")[0].strip().lower()
    if kind != b"application/json":
        raise ApiError(
            415, "The Content-Type must be application/json.", code="wrong_content_type", close=True
        )
    encoding = one(headers, b"content-encoding")
    if encoding is not None and encoding.strip().lower() not in (b"", b"identity"):
        raise ApiError(415, "A compressed body is not taken.", code="wrong_content_type", close=True)
