"""The worker in a plain process, spoken to over pipes as the supervisor does."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from typing import Any

from anchorhold.channel import frames, messages

# What the cell forbids after the seal is watched here and reported at the end.
CODE = """
import json, os, sys
from anchorhold.worker import main

config = json.loads(sys.argv[1])
seen = []
WATCHED = {"socket.__new__", "os.fork", "os.exec", "os.posix_spawn", "subprocess.Popen", "os.mkdir",
           "os.remove", "os.rename", "os.link", "os.symlink", "os.chmod", "ctypes.dlopen"}

def watch(event, args):
    if event in WATCHED or (event == "open" and isinstance(args[2], int) and args[2] & 3):
        seen.append([event, repr(args)])

def executable():
    with open("/proc/self/maps") as maps:
        rows = [line.split() for line in maps]
    return {" ".join([row[0], row[1], *row[5:]]) for row in rows if "x" in row[1]}

versions = main.prepare(config)
before, modules = executable(), set(sys.modules)
sys.addaudithook(watch)
status = main.serve(3, 4, config)
after = executable()
late = sorted(name for name in set(sys.modules) - modules if not name.startswith("encodings."))
report = {"status": status, "versions": versions, "executable": sorted(after - before), "late": late,
          "writable code": [row for row in after if "rwx" in row], "seen": seen}
print(json.dumps(report))
"""


class Worker:
    """One worker process. Close it."""

    def __init__(self, config: dict[str, Any] | None = None, *, memory: str = "") -> None:
        """memory: KiB of addresses, as ulimit takes them."""
        our_read, self._their_write = os.pipe()
        their_read, self._write = os.pipe()
        self._read = our_read
        # The worker's descriptors are 3 and 4 there, whatever they are here.
        limit = f"ulimit -v {memory}; " if memory else ""
        shell = f'{limit}exec 3<&{their_read} 4>&{self._their_write} && exec "$@"'
        self.process = subprocess.Popen(
            ["/bin/bash", "-c", shell, "bash", sys.executable, "-c", CODE, json.dumps(config or {})],
            pass_fds=(their_read, self._their_write),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        os.close(their_read)
        os.close(self._their_write)
        self._frames = frames.FrameReader()
        self._waiting: list[bytes] = []
        self._number = 0

    def send(self, kind: str, **fields: Any) -> None:
        frames.write_frame(self._write, messages.encode({"type": kind, **fields}), frames.TO_WORKER_LIMIT)

    def send_bytes(self, data: bytes) -> None:
        os.write(self._write, data)

    def receive(self, timeout: float = 50) -> dict[str, Any]:
        until = time.monotonic() + timeout
        while not self._waiting:
            ready, _, _ = select.select([self._read], [], [], max(0.0, until - time.monotonic()))
            assert ready, "the worker says nothing"
            data = os.read(self._read, 65536)
            assert data, f"the worker is gone: {self.process.communicate()[1]}"
            self._waiting += self._frames.feed(data)
        return messages.decode_from_worker(self._waiting.pop(0))

    def load(self, path: str, context: int = 1024, threads: int = 2) -> dict[str, Any]:
        self.send("load", path=path, context=context, threads=threads)
        while (message := self.receive())["type"] == "progress":
            pass
        return message

    def request(self, question: str, **fields: Any) -> int:
        """Send a request and return its number."""
        self._number += 1
        request: dict[str, Any] = {
            "owner": 0, "files": [], "roots": [], "max_tokens": 24, "temperature": 0.0, "seed": 1,
            "system": None, "history": [], "material": None,
        }  # fmt: skip
        self.send("ask", id=self._number, question=question, **{**request, **fields})
        return self._number

    def send_sampled(self, kind: str, **fields: Any) -> int:
        """Send a request of the API's kinds and return its number."""
        self._number += 1
        request: dict[str, Any] = {
            "owner": 1, "max_tokens": 24, "temperature": 0.0, "top_p": 1.0, "seed": 1, "stop": [],
            "logprobs": None, "frequency": 0.0, "presence": 0.0,
        }  # fmt: skip
        if kind == "chat":
            request.update(files=[], tools=None, tool_choice=None, format=None)
        self.send(kind, id=self._number, **{**request, **fields})
        return self._number

    def chat(self, *contents: str | dict[str, Any], **fields: Any) -> Answer:
        """A chat. Texts are those of the user and the assistant in turn; JSON may be given as values."""
        turns = [
            {"role": ("user", "assistant")[number % 2], "content": content}
            if isinstance(content, str)
            else content
            for number, content in enumerate(contents)
        ]
        for name in ("tools", "tool_choice", "format"):
            if not isinstance(fields.get(name, ""), str):
                fields[name] = json.dumps(fields[name])
        self.send_sampled("chat", messages=turns, **fields)
        return self.rest()

    def complete(self, prompt: str, **fields: Any) -> Answer:
        self.send_sampled("complete", prompt=prompt, **fields)
        return self.rest()

    def embed(self, *inputs: str) -> Answer:
        self._number += 1
        self.send("embed", id=self._number, owner=1, inputs=list(inputs))
        return self.rest()

    def rest(self) -> Answer:
        """All messages of the request in progress."""
        found = []
        while True:
            message = self.receive()
            found.append(message)
            if message["type"] in ("done", "failed"):
                return Answer(found)

    def ask(self, question: str, **fields: Any) -> Answer:
        self.request(question, **fields)
        return self.rest()

    def close(self) -> dict[str, Any]:
        """End the channel; what the process says about itself."""
        os.close(self._write)
        try:
            out, err = self.process.communicate(timeout=50)
        finally:
            self.process.kill()
            os.close(self._read)
        assert self.process.returncode == 0, err
        assert err == "", err
        report: dict[str, Any] = json.loads(out)
        return report


class Answer:
    """The messages of one request."""

    def __init__(self, found: list[dict[str, Any]]) -> None:
        self.messages = found
        self.end = found[-1]
        self.text = "".join(message["text"] for message in found if message["type"] == "token")
        self.chosen = [message for message in found if message["type"] == "chosen"]
        self.vectors = [message["values"] for message in found if message["type"] == "embedding"]
        self.documents = {message["path"]: message for message in found if message["type"] == "document"}
        for message in found:
            if message["type"] == "unused":
                told = {"outcome": "unused", "reason": message["reason"], "tokens": 0}
                self.documents.update({path: {"path": path, **told} for path in message["paths"]})

    def calls(self) -> list[tuple[str, str]]:
        """Name and arguments of each tool call."""
        found: dict[int, tuple[str, str]] = {}
        for message in self.messages:
            if message["type"] == "call":
                before = found.get(message["index"], ("", ""))[1]
                found[message["index"]] = (message["name"], before + message["arguments"])
        return [found[index] for index in sorted(found)]

    def outcomes(self) -> dict[str, str]:
        return {os.path.basename(path): message["outcome"] for path, message in self.documents.items()}

    def reasons(self) -> dict[str, str]:
        return {os.path.basename(path): message["reason"] for path, message in self.documents.items()}
