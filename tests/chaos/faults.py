"""The faults. Each hits what is there now and says so, or finds nothing to hit.

What stays in force (a stopped process, a full disk, a held connection) is undone later, so that several lie
over each other. Clock jumps are left out: the wall clock has no namespace, and setting it would hit the whole
machine.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable
from random import Random

from anchorhold.channel import frames
from anchorhold.supervisor.service import control
from tests.daemon import Daemon, Door, ask, body, headers

PROCESSES = ("daemon", "gateway launcher", "gateway", "launcher", "worker")
LONG = "Tell a very long story about a harbour, with many people in it."
STATE_SIZE = "1g"
ABORT = struct.pack("ii", 1, 0)
"""SO_LINGER: the close is a reset."""

MEMORIES = ("64MiB", "90MiB", "110MiB", "130MiB")
"""Of its own a worker with this model has about 100 MiB."""

Undo = Callable[[], object]


class Faults:
    """Faults at one daemon. ``undo``: what is to be undone, oldest first."""

    def __init__(self, daemon: Daemon, *, disk: bool) -> None:
        """disk: the state directory is a tmpfs of this test's own, and this is root."""
        self.daemon, self.disk = daemon, disk
        self.undo: list[Undo] = []
        self.more = daemon.place / "more"
        self.more.mkdir(exist_ok=True)
        (self.more / "more.txt").write_text("The mill burned in May.\n")
        kinds: list[tuple[Callable[[Random], str], int]] = [
            (self.kill, 8),
            (self.stop, 8),
            (self.hang_up, 4),
            (self.half_control, 4),
            (self.half_http, 4),
            (self.slow_client, 4),
            (self.change_policy, 8),
            (self.press_memory, 5),
        ]
        if disk:
            kinds.append((self.fill_disk, 2))
        self._kinds, self._weights = zip(*kinds, strict=True)

    def one(self, chance: Random) -> str:
        """What was done, in words; empty: there was nothing to hit."""
        if not self.daemon.runs():
            return ""
        [kind] = chance.choices(self._kinds, self._weights)
        try:
            return str(kind(chance))
        except (OSError, subprocess.CalledProcessError):
            return ""  # it ended in the same moment, or nobody listens

    def undo_one(self) -> None:
        if self.undo:
            with contextlib.suppress(OSError):
                self.undo.pop(0)()

    def undo_all(self) -> None:
        while self.undo:
            self.undo_one()

    # ---- processes ------------------------------------------------------------------------------

    def _pick(self, chance: Random) -> tuple[str, int]:
        """A process of some kind. Raises ProcessLookupError where there is none."""
        kind = chance.choice(PROCESSES)
        pids = self.daemon.processes().get(kind, [])
        if not pids:
            raise ProcessLookupError
        return kind, chance.choice(sorted(pids))

    def kill(self, chance: Random) -> str:
        kind, pid = self._pick(chance)
        os.kill(pid, signal.SIGKILL)
        return f"SIGKILL of the {kind}"

    def stop(self, chance: Random) -> str:
        kind, pid = self._pick(chance)
        os.kill(pid, signal.SIGSTOP)
        self.undo.append(lambda: os.kill(pid, signal.SIGCONT))
        return f"SIGSTOP of the {kind}"

    # ---- the disk -------------------------------------------------------------------------------

    def fill_disk(self, chance: Random) -> str:
        """The state directory's file system becomes as small as what is in it, and a little."""
        found = os.statvfs(self.daemon.state)
        used = (found.f_blocks - found.f_bfree) * found.f_frsize
        room = chance.choice((0, 4096, 64 << 10))
        self._resize(str(used + room))
        self.undo.append(lambda: self._resize(STATE_SIZE))
        return f"disk full but for {room} bytes"

    def _resize(self, size: str) -> None:
        subprocess.run(
            ["mount", "-o", f"remount,size={size}", str(self.daemon.state)], check=True, capture_output=True
        )

    # ---- clients --------------------------------------------------------------------------------

    def _connected(self, door: Door) -> socket.socket:
        if isinstance(door.place, int):
            return socket.create_connection(("127.0.0.1", door.place), 2.0)
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(2.0)
        try:
            client.connect(str(door.place))
        except OSError:
            client.close()
            raise
        return client

    def _request(self, door: Door) -> bytes:
        data = body(door, LONG, 400, stream=True)
        head = {"Host": "localhost", "Content-Length": str(len(data)), **headers(door)}
        if isinstance(door.place, int):
            head["Host"] = f"127.0.0.1:{door.place}"
        lines = "".join(f"{name}: {value}\r\n" for name, value in head.items())
        return f"POST /v1/chat/completions HTTP/1.1\r\n{lines}\r\n".encode() + data

    def hang_up(self, chance: Random) -> str:
        """Asks for a long answer and resets the connection, at once or in its middle."""
        door = chance.choice(self.daemon.doors)
        with self._connected(door) as client:
            client.sendall(self._request(door))
            time.sleep(chance.choice((0.0, 0.05, 0.3)))
            if isinstance(door.place, int):
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
        return f"{door.word}: hung up"

    def half_http(self, chance: Random) -> str:
        door = chance.choice(self.daemon.doors)
        data = self._request(door)
        client = self._connected(door)
        self.undo.append(client.close)
        client.sendall(data[: chance.randrange(1, len(data))])
        return f"{door.word}: half a request"

    def half_control(self, chance: Random) -> str:
        data = frames.frame(b'{"v":1,"command":"status","name":null}', control.MOST)
        client = socket.socket(socket.AF_UNIX)
        self.undo.append(client.close)
        client.settimeout(2.0)
        client.connect(control.path_of(str(self.daemon.runtime)))
        client.sendall(data[: chance.randrange(1, len(data))])
        return "half a message on the control socket"

    def slow_client(self, chance: Random) -> str:
        """Asks for a long answer and takes nothing of it."""
        door = chance.choice(self.daemon.doors)
        client = self._connected(door)
        self.undo.append(client.close)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        client.sendall(self._request(door))
        return f"{door.word}: a client that does not read"

    # ---- policies -------------------------------------------------------------------------------

    def press_memory(self, chance: Random) -> str:
        """A policy under which the worker gets too little: at its start, in a long prompt, or just not."""
        name, size = chance.choice(("unix", "tcp")), chance.choice(MEMORIES)
        self.daemon.policy(name, self.daemon.text(name).replace("[limits]", f'[limits]\nmemory = "{size}"'))
        self.undo.append(lambda: self.daemon.policy(name))
        data = body(self.daemon.doors[name == "tcp"], "harbour " * 1200, 8, stream=False)
        threading.Thread(
            target=ask, args=(self.daemon.doors[name == "tcp"], data), kwargs={"timeout": 10.0}, daemon=True
        ).start()
        return f"policy {name}: {size} of memory"

    def change_policy(self, chance: Random) -> str:
        daemon, name = self.daemon, chance.choice(("unix", "tcp"))
        both = [str(daemon.papers), str(self.more)]
        kind = chance.choice(("wider", "as before", "other limits", "invalid", "half written", "gone"))
        file = daemon.conf / f"{name}.toml"
        if kind == "wider":  # and back "as before" is narrower
            daemon.policy(name, daemon.text(name, read=both))
        elif kind == "as before":
            daemon.policy(name)
        elif kind == "other limits":
            daemon.policy(name, daemon.text(name).replace("[limits]", "[limits]\ntasks = 200"))
        elif kind == "invalid":
            daemon.policy(name, daemon.text(name, "nonsense = 3\n"))
        elif kind == "half written":
            text = daemon.text(name)
            file.write_text(text[: chance.randrange(len(text))])
        else:
            file.unlink(missing_ok=True)
        if kind in ("invalid", "half written", "gone"):
            self.undo.append(lambda: daemon.policy(name))
        return f"policy {name}: {kind}"
