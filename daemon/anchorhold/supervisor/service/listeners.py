"""Where the API is reached, and who may: sockets, tokens, certificates, by what the policies say.

Constraint: all of it is opened here, on the trusted side, before the gateway starts; it gets listening
TCP sockets, memory files and the SHA-256 of tokens, never a path. Unix sockets stay here: the kernel tells
whoever accepts a connection who made it (unix(7), SO_PEERCRED), and only an accepted one is handed on.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import ipaddress
import os
import secrets
import socket
import stat
from pathlib import Path

from anchorhold.errors import PolicyError
from anchorhold.kernel import memfd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from anchorhold.policy.schema import Api, Policy

BACKLOG = 256
TOKEN_BYTES = 32
MOST_TOKEN = 4096
MOST_PEM = 1 << 20
OWN = "%t/anchorhold"
"""The daemon's own runtime directory, wherever that is; ``%t`` is the folder around it."""
NOBODY_NAMED = "Name them under [api] in the policy; see docs/api.md."


class Listener:
    """One address, and the policies that are reached there. ``close`` takes a socket's file away again."""

    def __init__(self, api: Api, address: str, policies: list[Policy]) -> None:
        self.api, self.address = api, address
        self.names = [policy.name for policy in policies]
        self.tokens: dict[str, list[str]] = {}
        """SHA-256 in hex → the policies that the token opens."""
        self.socket: socket.socket | None = None
        self._bound: tuple[int, int] | None = None

    @property
    def unix(self) -> bool:
        return self.socket is not None and self.socket.family == socket.AF_UNIX

    @property
    def port(self) -> int:
        if self.socket is None or self.unix:
            return 0
        port: int = self.socket.getsockname()[1]
        return port

    @property
    def loopback(self) -> bool:
        """A TCP socket that only this machine reaches."""
        if self.socket is None or self.unix:
            return False
        return ipaddress.ip_address(self.socket.getsockname()[0].partition("%")[0]).is_loopback

    # ---- opening ------------------------------------------------------------------------------

    def open(self, inherited: int | None) -> None:
        """Bind, or take the socket that was inherited. Raises OSError, PolicyError for what may not be."""
        if inherited is not None:
            self.socket = socket.socket(fileno=os.dup(inherited))
        elif self.address.startswith("unix:"):
            self._bind_unix(self.address[5:])
        else:
            host, _colon, port = self.address.rpartition(":")
            host = host.strip("[]")
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            self.socket = socket.socket(family, socket.SOCK_STREAM)
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                self.socket.bind((host, int(port)))
            except OSError as error:
                raise OSError(error.errno, f"{self.address}: {os.strerror(error.errno or 0)}") from None
        assert self.socket is not None
        if not self.unix and not self.loopback and not (self.api.tls_cert and self.api.tls_key):
            raise PolicyError(
                f"{self.address} is reached from other machines, and api.tls_cert is not set",
                hint="Beyond this machine the API is served by TLS only, and with a token.",
            )
        self.socket.listen(BACKLOG)
        self.socket.setblocking(False)
        os.set_inheritable(self.socket.fileno(), False)

    def _bind_unix(self, path: str) -> None:
        found = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._make_room(path)
            found.bind(path)
            status = os.lstat(path)
            self._bound = (status.st_dev, status.st_ino)
            # Peer credentials decide; the mode is a second door for those it can tell apart.
            os.chmod(path, 0o666 if self.api.group else 0o600)
        except OSError as error:
            found.close()
            raise OSError(error.errno, f"{path}: {error.strerror or error}") from None
        self.socket = found

    @staticmethod
    def _make_room(path: str) -> None:
        """Take away the socket of a daemon that is gone; never one that somebody listens on, nor a file."""
        try:
            status = os.lstat(path)
        except FileNotFoundError:
            return
        if not stat.S_ISSOCK(status.st_mode):
            raise FileExistsError(errno.EEXIST, "something that is no socket is there")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            try:
                probe.connect(path)
            except ConnectionRefusedError:
                os.unlink(path)
                return
        raise OSError(errno.EADDRINUSE, "another process listens there")

    def close(self) -> None:
        if self.socket is not None:
            self.socket.close()
        if self._bound is not None:
            with contextlib.suppress(OSError):
                status = os.lstat(self.address[5:])
                if (status.st_dev, status.st_ino) == self._bound:
                    os.unlink(self.address[5:])
            self._bound = None

    # ---- what the gateway is told -----------------------------------------------------------------

    def config(self, fd: int, tls: tuple[int, int] | None) -> dict[str, Any]:
        """fd: the listening socket's number there, −1 for a Unix socket; tls: those of its memory files."""
        api = self.api
        return {
            "unix": self.unix, "fd": fd, "loopback": self.loopback, "port": self.port,
            "policies": self.names, "tokens": self.tokens, "hosts": list(api.hosts),
            "origins": list(api.origins), "tls": tls, "max_body": api.max_body,
            "max_tokens": api.max_tokens, "concurrency": api.concurrency, "queue": api.queue,
            "read_timeout": api.read_timeout, "write_timeout": api.write_timeout,
            "idle_timeout": api.idle_timeout,
        }  # fmt: skip


def plan(policies: Sequence[Policy], runtime: str) -> list[Listener]:
    """The listeners of these policies: those with one address share it. Raises PolicyError."""
    by_address: dict[str, list[Policy]] = {}
    for policy in policies:
        if policy.api.listen is not None:
            address = policy.api.listen.replace("%n", policy.name)
            address = address.replace(OWN, runtime).replace("%t", os.path.dirname(runtime))
            by_address.setdefault(address, []).append(policy)
    found = []
    for address, sharing in by_address.items():
        first = sharing[0]
        for other in sharing[1:]:
            if other.api != first.api:
                raise PolicyError(
                    f"{first.name} and {other.name} share {address} and differ in [api]",
                    hint="What one address is for all its policies, all of them must say alike.",
                )
        if address.startswith("unix:") and len(address.encode()) > 5 + 107:
            raise PolicyError(
                f"{address[5:]} is too long for a socket", hint="Set api.listen to a shorter path (unix(7))."
            )
        found.append(Listener(first.api, address, sharing))
    return found


def give_tokens(listener: Listener, state_dir: Path, environ: Mapping[str, str]) -> None:
    """Find or make the token of each policy. Raises PolicyError, OSError."""
    for name in listener.names:
        token = _credential(environ, name) or _token_file(state_dir / f"token-{name}")
        digest = hashlib.sha256(token).hexdigest()
        listener.tokens.setdefault(digest, []).append(name)


def _credential(environ: Mapping[str, str], name: str) -> bytes | None:
    """systemd's credential ``token-NAME`` or ``token`` (systemd.exec(5), LoadCredential=), or None."""
    folder = environ.get("CREDENTIALS_DIRECTORY")
    if not folder:
        return None
    for file in (f"token-{name}", "token"):
        with contextlib.suppress(FileNotFoundError):
            return _checked(Path(folder, file).read_bytes()[: MOST_TOKEN + 1], os.path.join(folder, file))
    return None


def _token_file(path: Path) -> bytes:
    """Made on the first start: 32 random bytes in base64url, for its owner alone."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except FileExistsError:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        with os.fdopen(fd, "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode) or status.st_mode & 0o077 or status.st_uid != os.geteuid():
                raise PolicyError(
                    f"{path} can be read by others, or belongs to somebody else",
                    hint=f"Others may have the token: delete {path}, and a new one is made.",
                ) from None
            return _checked(file.read(MOST_TOKEN + 1), str(path))
    token = secrets.token_urlsafe(TOKEN_BYTES).encode("ascii")
    with os.fdopen(fd, "wb") as file:
        file.write(token + b"\n")
        file.flush()
        os.fsync(file.fileno())
    return token


def _checked(data: bytes, where: str) -> bytes:
    token = data.strip()
    if not 20 <= len(token) <= MOST_TOKEN or not token.isascii() or b" " in token or b"\n" in token:
        raise PolicyError(f"{where} holds no token", hint="20 letters and digits at least, on one line.")
    return token


def tls_files(api: Api) -> tuple[int, int] | None:
    """Certificate and key as memory files, ours to close; None without TLS. Raises PolicyError."""
    if not api.tls_cert or not api.tls_key:
        return None
    certificate = _memory_file(api.tls_cert, "api.tls_cert", secret=False)
    try:
        return certificate, _memory_file(api.tls_key, "api.tls_key", secret=True)
    except BaseException:
        os.close(certificate)
        raise


def _memory_file(path: str, key: str, *, secret: bool) -> int:
    try:
        with open(path, "rb") as file:
            status = os.fstat(file.fileno())
            if secret and status.st_mode & 0o007:
                raise PolicyError(
                    f"{key}: {path} can be read by everybody", hint=f"chmod o= {path}, and make a new key."
                )
            data = file.read(MOST_PEM + 1)
    except OSError as error:
        raise PolicyError(f"{key}: {path}: {error.strerror}", hint=NOBODY_NAMED) from None
    if len(data) > MOST_PEM or b"-----BEGIN " not in data:
        raise PolicyError(f"{key}: {path} is no PEM file", hint=NOBODY_NAMED)
    fd = memfd.memfd_create("anchorhold", memfd.MFD_CLOEXEC | memfd.MFD_NOEXEC_SEAL)
    os.write(fd, data)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd
