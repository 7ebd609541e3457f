"""Children on real pseudo-terminals, and the stand-in session for what the real one cannot do at will."""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import json
import os
import select
import signal
import subprocess
import sys
import termios
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
PATIENCE = 30.0


def _load_standin() -> types.ModuleType:
    spec = importlib.util.spec_from_file_location("anchorhold_cli_standin", HERE / "standin.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


class Child:
    """One child process; what it wrote to standard output, standard error and its terminal."""

    def __init__(
        self,
        arguments: list[str],
        env: dict[str, str],
        *,
        stdin: str = "null",
        stdout: str = "pipe",
        stderr: str = "pipe",
        cwd: Path | None = None,
        ignored: tuple[int, ...] = (),
    ) -> None:
        self.master = -1
        slave = -1
        if "tty" in (stdin, stdout, stderr):
            self.master, slave = os.openpty()
            fcntl.ioctl(slave, termios.TIOCSWINSZ, b"\x18\x00\xf0\x00" + b"\0" * 4)
        how: dict[str, Any] = {"pipe": subprocess.PIPE, "null": subprocess.DEVNULL, "tty": slave}
        self.process = subprocess.Popen(
            arguments,
            env=env,
            cwd=cwd,
            stdin=how[stdin],
            stdout=how[stdout],
            stderr=how[stderr],
            start_new_session=True,
            preexec_fn=lambda: _prepare(slave, ignored),
        )
        if slave >= 0:
            os.close(slave)
        self.screen = b""
        self.stdout = b""
        self.stderr = b""

    def _sources(self) -> dict[int, str]:
        found = {}
        if self.master >= 0:
            found[self.master] = "screen"
        for name in ("stdout", "stderr"):
            stream = getattr(self.process, name)
            if stream is not None and not stream.closed:
                found[stream.fileno()] = name
        return found

    def read(self, until: Callable[[Child], bool]) -> None:
        """Read what comes until it is enough. Fails after PATIENCE, with what there was."""
        end = time.monotonic() + PATIENCE
        closed: set[int] = set()
        while not until(self):
            sources = {fd: name for fd, name in self._sources().items() if fd not in closed}
            ready, _, _ = select.select(list(sources), [], [], 0.02)
            for fd in ready:
                try:
                    data = os.read(fd, 65536)
                except OSError:  # EIO: the last process has left the terminal
                    data = b""
                if not data:
                    closed.add(fd)
                setattr(self, sources[fd], getattr(self, sources[fd]) + data)
            assert time.monotonic() < end, (self.screen, self.stdout, self.stderr)

    def expect(self, text: str) -> None:
        wanted = text.encode()
        self.read(lambda child: wanted in child.screen + child.stdout + child.stderr)

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def wait(self) -> int:
        """Read to the end; the exit code."""
        gone = []

        def ended(child: Child) -> bool:
            if child.process.poll() is not None:
                gone.append(1)
            return len(gone) > 2

        self.read(ended)
        return self.process.returncode

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(PATIENCE)
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        if self.master >= 0:
            os.close(self.master)


def _prepare(slave: int, ignored: tuple[int, ...]) -> None:
    """In the child: signals as a shell gives them, and its own controlling terminal."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN if number in ignored else signal.SIG_DFL)
    if slave >= 0:
        fcntl.ioctl(slave, termios.TIOCSCTTY, 0)


class Stage:
    """A place to play steps: state, script and record in a folder of their own."""

    def __init__(self, folder: Path, standin: types.ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.standin = standin
        self._monkeypatch = monkeypatch
        self._children: list[Child] = []
        self.env = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "LANG": "C.UTF-8",
            "TERM": "xterm-256color",
            "ANCHORHOLD_STATE_DIR": str(folder / "state"),
        }
        for name in ("PYTHONPATH", "COVERAGE_PROCESS_START", "COVERAGE_PROCESS_CONFIG"):
            if name in os.environ:
                self.env[name] = os.environ[name]

    def script(self, *steps: list[Any]) -> Path:
        path = self.folder / "steps.json"
        path.write_text(json.dumps(steps))
        return path

    def child(self, steps: list[list[Any]], *arguments: str, **how: Any) -> Child:
        """A real process of the command line, on the stand-in session."""
        script = self.script(*steps)
        env = self.env | how.pop("env", {})
        command = [sys.executable, str(HERE / "standin.py"), str(script), str(self.folder / "record")]
        return self.start([*command, *arguments], env, **how)

    def start(self, command: list[str], env: dict[str, str], **how: Any) -> Child:
        child = Child(command, env, cwd=self.folder, **how)
        self._children.append(child)
        return child

    def main(self, steps: list[list[Any]], *arguments: str) -> int:
        """The command line in this process, on the stand-in session."""
        from anchorhold.cli.main import main
        from anchorhold.supervisor import session

        lines = self.folder / "record"
        self._monkeypatch.setattr(session, "Session", self.standin.Player)
        self._monkeypatch.setattr(self.standin.Player, "steps", steps)
        self._monkeypatch.setattr(
            self.standin.Player, "record", staticmethod(lambda line: _append(lines, line))
        )
        for name, value in self.env.items():
            if name not in ("PATH", "PYTHONPATH"):
                self._monkeypatch.setenv(name, value)
        self._monkeypatch.chdir(self.folder)
        return main(list(arguments))

    @property
    def record(self) -> list[str]:
        path = self.folder / "record"
        return path.read_text().splitlines() if path.exists() else []

    def until_recorded(self, line: str) -> None:
        end = time.monotonic() + PATIENCE
        while line not in self.record:
            assert time.monotonic() < end, self.record
            time.sleep(0.01)

    def close(self) -> None:
        for child in self._children:
            child.close()


def _append(path: Path, line: str) -> None:
    with path.open("a") as file:
        file.write(line + "\n")


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    """Plays steps to the command line. The model is a file that nothing reads."""
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    place = Stage(tmp_path, _load_standin(), monkeypatch)
    yield place
    place.close()
