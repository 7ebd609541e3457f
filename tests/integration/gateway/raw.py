"""A client that says exactly what it is told, byte by byte."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def connected(place: Path | int, timeout: float = 10.0) -> Iterator[socket.socket]:
    """To a Unix socket, or a port of this machine."""
    if isinstance(place, int):
        client = socket.create_connection(("127.0.0.1", place), timeout)
    else:
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(timeout)
        client.connect(str(place))
    with client:
        yield client


def rest(client: socket.socket) -> bytes:
    """All that comes until the other end closes."""
    found = b""
    with contextlib.suppress(ConnectionResetError):
        while data := client.recv(65536):
            found += data
    return found


def said(place: Path | int, data: bytes, timeout: float = 10.0) -> bytes:
    """Send it, close the way there, and take all that comes back."""
    with connected(place, timeout) as client:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            client.sendall(data)
        return rest(client)
