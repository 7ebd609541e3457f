"""Counts the lines that run inside the cell, which has no file to write to and is killed at the end.

The launcher is started by way of a script that measures; what it counted goes out over a socket that was
opened before any layer, one packet each time that a process waits or ends.
"""

from __future__ import annotations

import marshal
import os
import socket
import tempfile
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import coverage

from anchorhold.supervisor import spawn
from anchorhold.supervisor.loop import Loop
from anchorhold.supervisor.service import gate

PACKET = 1 << 20

SCRIPT = """
import os, sys, threading
import _socket, marshal, zlib
peer = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
peer.connect({address!r})
os.dup2(peer.detach(), {fd})
counted = {{}}
def trace(frame, event, argument):
    code = frame.f_code
    if not code.co_filename.startswith({daemon!r}):
        return None
    arcs = counted.setdefault(code.co_filename, set())
    last = -code.co_firstlineno
    def local(frame, event, argument):
        nonlocal last
        if event == "line":
            arcs.add((last, frame.f_lineno))
            last = frame.f_lineno
        elif event == "return":
            arcs.add((last, -code.co_firstlineno))
        return local
    return local
def tell():
    data = marshal.dumps({{file: list(arcs) for file, arcs in counted.copy().items()}})
    try:
        os.write({fd}, zlib.compress(data, 1))
    except OSError:
        pass
def telling(function):
    def told(*args):
        tell()
        return function(*args)
    return told
os._exit = telling(os._exit)
os.waitpid = telling(os.waitpid)
sys.path[:0] = [{daemon!r}]
threading.settrace(trace)
sys.settrace(trace)
{start}
"""
WORKER = """
from anchorhold.cell import launcher
del sys.path[0]
launcher.FIRST_FREE_FD = 8
launcher.main()
"""
GATEWAY = """
from anchorhold.cell import gateway
del sys.path[0]
def close_others(first):
    os.closerange(first, 500)
    os.closerange(501, 1 << 16)
gateway.close_others = close_others
gateway.main()
"""
"""A tracer of its own: one from a library looks at files, which the cell has none of."""


@contextmanager
def counting() -> Iterator[None]:
    """While it is open, cells that this process starts are measured, if this process is."""
    outer = coverage.Coverage.current()
    if outer is None:
        yield
        return
    got: dict[str, set[tuple[int, int]]] = {}
    address = f"\0anchorhold-coverage-{os.getpid()}-{os.urandom(4).hex()}"
    server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    server.bind(address)
    server.listen(64)
    threading.Thread(target=_accept, args=(server, got), daemon=True).start()
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        os.chmod(folder, 0o755)
        script = Path(folder, "launcher.py")
        daemon = Path(spawn.LAUNCHER).parents[2]
        script.write_text(SCRIPT.format(address=address, daemon=str(daemon), fd=7, start=WORKER))
        other = Path(folder, "gateway.py")
        other.write_text(SCRIPT.format(address=address, daemon=str(daemon), fd=500, start=GATEWAY))
        before, spawn.LAUNCHER = spawn.LAUNCHER, str(script)
        before_gateway, gate.LAUNCHER = gate.LAUNCHER, str(other)
        close = Loop.close

        def close_after_quit(self: Loop) -> None:
            """A worker that ends by itself tells; one that is killed cannot."""
            if self.stage == "serving" and not self.ended.is_set() and self.kill_reason is None:
                self._closing = True
                self.send({"type": "quit"})
                self.ended.wait(3.0)
            close(self)

        Loop.close = close_after_quit  # type: ignore[method-assign]  # for as long as cells are measured
        try:
            yield
        finally:
            Loop.close = close  # type: ignore[method-assign]  # see above
            spawn.LAUNCHER, gate.LAUNCHER = before, before_gateway
            server.close()
    outer.get_data().add_arcs(got)


def _accept(server: socket.socket, got: dict[str, set[tuple[int, int]]]) -> None:
    while True:
        try:
            peer, _address = server.accept()
        except OSError:
            return
        threading.Thread(target=_collect, args=(peer, got), daemon=True).start()


def _collect(peer: socket.socket, got: dict[str, set[tuple[int, int]]]) -> None:
    with peer:
        while packet := peer.recv(PACKET):
            for file, arcs in marshal.loads(zlib.decompress(packet)).items():
                got.setdefault(file, set()).update(arcs)
