"""What somebody who runs code in the gateway can do: nothing outside. Each attack works without the cell."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from anchorhold.errors import WorkerError
from anchorhold.supervisor.service.gate import Gate

PROBE = "anchorhold.gateway.probe"
EVERY = {
    "rlimits", "userns", "mountns", "pidns", "netns", "ipcns", "utsns", "cgroupns", "root", "capabilities",
    "no_new_privs", "landlock", "dumpable", "seccomp", "mdwe",
}  # fmt: skip

# Each defines attempt(), whose result is "got it: …" where it got what it wanted. {port}: of a TCP server;
# {path}: a file to read; {pid}: a process of the same user.
ATTACKS = {
    "open a file": """
        def attempt():
            return "got it: " + open({path!r}).read()
    """,
    "open a file by its folder": """
        import os
        def begin():
            global folder
            folder = os.open("/", os.O_PATH)
        def attempt():
            return "got it: " + str(os.open({path!r}.lstrip("/"), os.O_RDONLY, dir_fd=folder))
    """,
    "list a folder": """
        import os
        def attempt():
            return "got it: " + str(os.listdir("/etc"))
    """,
    "write a file": """
        def attempt():
            open({path!r} + ".new", "w").write("x")
            return "got it"
    """,
    "make a socket": """
        import socket
        def attempt():
            return "got it: " + str(socket.socket())
    """,
    "connect": """
        import socket
        def begin():
            global ready
            ready = socket.socket()
        def attempt():
            ready.connect(("127.0.0.1", {port}))
            return "got it"
    """,
    "connect by fast open": """
        import socket
        def begin():
            global ready
            ready = socket.socket()
        def attempt():
            ready.sendto(b"x", socket.MSG_FASTOPEN, ("127.0.0.1", {port}))
            return "got it"
    """,
    "listen": """
        import socket
        def begin():
            global ready
            ready = socket.socket()
            ready.setblocking(True)
        def attempt():
            ready.listen()
            return "got it"
    """,
    "look up a name": """
        import socket
        def attempt():
            return "got it: " + str(socket.getaddrinfo("localhost", 80))
    """,
    "run a program": """
        import os
        def attempt():
            os.execv("/bin/echo", ["echo", "told: got it"])
    """,
    "fork": """
        import os
        def attempt():
            child = os.fork()
            if child == 0:
                os._exit(0)
            return "got it"
    """,
    "start a thread": """
        import threading
        def attempt():
            thread = threading.Thread(target=print)
            thread.start()
            thread.join()
            return "got it"
    """,
    "signal another process": """
        import os
        def attempt():
            os.kill({pid}, 0)
            return "got it"
    """,
    "read another process": """
        import ctypes
        libc = ctypes.CDLL(None, use_errno=True)
        class Part(ctypes.Structure):
            _fields_ = (("base", ctypes.c_void_p), ("size", ctypes.c_size_t))
        def attempt():
            buffer = ctypes.create_string_buffer(8)
            mine = Part(ctypes.addressof(buffer), 8)
            theirs = Part({address}, 8)
            got = libc.process_vm_readv({pid}, ctypes.byref(mine), 1, ctypes.byref(theirs), 1, 0)
            return "got it" if got == 8 else "no: " + str(ctypes.get_errno())
    """,
    "trace its parent": """
        import ctypes, os
        libc = ctypes.CDLL(None, use_errno=True)
        def attempt():
            return "got it" if libc.ptrace(16, {pid}, 0, 0) == 0 else "no: " + str(ctypes.get_errno())
    """,
    "make memory executable": """
        import mmap
        def attempt():
            mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC)
            return "got it"
    """,
    "a namespace of its own": """
        import ctypes
        libc = ctypes.CDLL(None, use_errno=True)
        def attempt():
            return "got it" if libc.unshare(0x10000000) == 0 else "no: " + str(ctypes.get_errno())
    """,
}  # fmt: skip

OUTSIDE = """
import os, sys
sys.path[:0] = [{daemon!r}]
from anchorhold.gateway import probe
probe.prepare({{"source": {source!r}}})
probe.begin()
probe.serve(-1, -1, -1)
"""


@pytest.fixture
def target(tmp_path: Path) -> Iterator[dict[str, object]]:
    """Something to reach: a file, a server, a process of this user, with an address in it."""
    path = tmp_path / "secret"
    path.write_text("secret")
    server = socket.create_server(("127.0.0.1", 0))
    server.setblocking(False)
    code = "import ctypes, time; b = ctypes.create_string_buffer(b'12345678'); "
    code += "print(ctypes.addressof(b), flush=True); time.sleep(60)"
    other = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    try:
        yield {
            "path": str(path),
            "port": server.getsockname()[1],
            "pid": other.pid,
            "address": int(other.stdout.readline()),
        }
    finally:
        other.kill()
        other.wait()
        other.stdout.close()
        server.close()


def confined(source: str) -> tuple[str, int]:
    """What it told from inside the cell, and how it ended: a signal's number, or 0."""
    gate = Gate()
    try:
        gate.start({"source": source}, (), descriptors=8, demand=lambda held, missing: None, entry=PROBE)
        assert not gate.missing
        deadline = time.monotonic() + 20
        while gate.read_errors() and time.monotonic() < deadline:
            select.select([gate.stderr], [], [], 0.5)
        _pid, status = os.waitpid(gate.pid, 0)
        gate.pid = -1
        code = os.waitstatus_to_exitcode(status)
        return gate.said(), code - 128 if code > 128 else 0
    finally:
        gate.close()


def outside(source: str) -> str:
    import anchorhold

    daemon = str(Path(anchorhold.__file__).parents[1])
    code = OUTSIDE.format(daemon=daemon, source=source)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False
    )
    return done.stdout + done.stderr


@pytest.mark.parametrize("title", ATTACKS)
def test_an_attack_works_outside_and_not_inside(title: str, target: dict[str, object]) -> None:
    source = textwrap.dedent(ATTACKS[title]).format(**target)
    assert "told: got it" in outside(source)
    said, number = confined(source)
    assert "told: got it" not in said
    assert number == signal.SIGSYS or "told: " in said  # it was tried, and refused one way or the other


def test_making_processes_and_sockets_is_the_end(target: dict[str, object]) -> None:
    for title in (
        "make a socket",
        "connect",
        "run a program",
        "fork",
        "start a thread",
        "read another process",
    ):
        source = textwrap.dedent(ATTACKS[title]).format(**target)
        assert confined(source)[1] == signal.SIGSYS, title


def test_all_layers_are_there_and_said() -> None:
    gate = Gate()
    try:
        gate.start(
            {"source": "def attempt(): return 1"}, (), descriptors=8, demand=lambda h, m: None, entry=PROBE
        )
        assert set(gate.held) - {"user"} == EVERY and gate.missing == {}
    finally:
        gate.close()


def test_it_dies_with_the_thread_that_started_it() -> None:
    """Whoever it serves for is gone then: in a process, its main thread."""
    found: list[int] = []
    gate = Gate()

    def start() -> None:
        gate.start(
            {"source": "import time\ndef attempt(): time.sleep(30)"}, (), descriptors=8,
            demand=lambda held, missing: None, entry=PROBE,
        )  # fmt: skip
        found.append(gate.child_fd)

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    try:
        assert select.select([found[0]], [], [], 5)[0]
    finally:
        gate.close()


def test_a_launcher_that_fails_says_why() -> None:
    gate = Gate()
    try:
        with pytest.raises(WorkerError) as caught:
            gate.start({"source": "1/0"}, (), descriptors=8, demand=lambda h, m: None, entry=PROBE)
        assert "ZeroDivisionError" in caught.value.detail
    finally:
        gate.close()
