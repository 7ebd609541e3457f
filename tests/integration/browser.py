"""A real browser without a window, driven over a pipe by the DevTools protocol; the standard library only.

Each message is JSON with a zero byte after it: on descriptor 3 to the browser, on 4 from it. So no port is
opened, and nothing else on the machine can talk to it.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PATIENCE = 90.0

# Nothing but the page: no update, no check-in, no extension, no shared memory that a container may lack.
OPTIONS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
    "--disable-extensions", "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-default-apps", "--mute-audio", "--hide-scrollbars", "--password-store=basic",
    "--remote-debugging-pipe",
)  # fmt: skip


_COLOURS = """
(async () => {
  const image = new Image();
  image.src = 'data:image/png;base64,%s';
  await image.decode();
  const canvas = document.createElement('canvas');
  canvas.width = image.width; canvas.height = image.height;
  const drawing = canvas.getContext('2d');
  drawing.drawImage(image, 0, 0);
  const data = new Uint32Array(drawing.getImageData(0, 0, image.width, image.height).data.buffer);
  const counts = new Map();
  let light = 0;
  for (const one of data) {
    counts.set(one, (counts.get(one) || 0) + 1);
    light += ((one & 255) + (one >> 8 & 255) + (one >> 16 & 255)) / 765;
  }
  return {width: image.width, height: image.height, colours: counts.size, light: light / data.length,
          inked: 1 - Math.max(...counts.values()) / data.length};
})()
"""


def installed() -> str | None:
    """The browser's program, if this machine has one."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


def _high(fd: int) -> int:
    high = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10)
    os.close(fd)
    return high


class Browser:
    """One browser with one page. ``requests`` and ``complaints`` are what the page asked for (and was not
    kept from by its own policy) and what the browser found wrong with it, since it was opened."""

    def __init__(self, program: str, folder: Path) -> None:
        # Above 10, so that neither is one of the two numbers that they get below; by bash, since dash knows
        # descriptors of one digit only.
        to_read, self._to = map(_high, os.pipe())
        self._from, from_write = map(_high, os.pipe())
        self._buffer = b""
        self._number = 0
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self._events: list[dict[str, Any]] = []
        self._urls: dict[str, str] = {}
        (folder / "home").mkdir(parents=True, exist_ok=True)
        script = f'exec "$@" 3<&{to_read} 4>&{from_write}'
        with (folder / "browser.log").open("wb") as log:
            self.process = subprocess.Popen(
                [
                    "bash",
                    "-c",
                    script,
                    "bash",
                    program,
                    *OPTIONS,
                    f"--user-data-dir={folder / 'profile'}",
                    "about:blank",
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                pass_fds=(to_read, from_write),
                start_new_session=True,
                env={"PATH": os.environ["PATH"], "HOME": str(folder / "home"), "LANG": "C.UTF-8"},
            )
        os.close(to_read)
        os.close(from_write)
        self._session = ""
        targets = self.call("Target.getTargets")["targetInfos"]
        page = next(target["targetId"] for target in targets if target["type"] == "page")
        attached = self.call("Target.attachToTarget", targetId=page, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command, to its answer."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        data = memoryview(json.dumps(message).encode() + b"\0")
        while data:
            data = data[os.write(self._to, data) :]
        end = time.monotonic() + PATIENCE
        while True:
            answer = self._receive(end)
            if answer.get("id") == self._number:
                assert "error" not in answer, (method, answer["error"])
                result: dict[str, Any] = answer["result"]
                return result
            self._note(answer)

    def _receive(self, end: float) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._from], [], [], max(0.0, end - time.monotonic()))
            assert ready, "the browser does not answer"
            data = os.read(self._from, 1 << 20)
            assert data, f"the browser ended ({self.process.poll()})"
            self._buffer += data
        message, _, self._buffer = self._buffer.partition(b"\0")
        answer: dict[str, Any] = json.loads(message)
        return answer

    def _note(self, event: dict[str, Any]) -> None:
        method, parameters = event.get("method"), event.get("params", {})
        if method == "Network.requestWillBeSent":
            self.requests.append(parameters["request"]["url"])
            self._urls[parameters["requestId"]] = parameters["request"]["url"]
        elif method == "Network.loadingFailed" and parameters.get("blockedReason") == "csp":
            self.requests.remove(self._urls[parameters["requestId"]])  # it was stopped before it left
        elif method == "Log.entryAdded":
            self.complaints.append(str(parameters["entry"].get("text")))
        elif method in (
            "Runtime.consoleAPICalled",
            "Runtime.exceptionThrown",
            "Page.javascriptDialogOpening",
        ):
            self.complaints.append(json.dumps(parameters))
        self._events.append(event)

    def open(self, page: Path, width: int, height: int, *, dark: bool = False) -> None:
        """Show a file, as a phone or a desk of that size would, once it is loaded."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", media="", features=[scheme])
        self.requests, self.complaints, self._events = [], [], []
        self.call("Page.navigate", url=page.absolute().as_uri())
        end = time.monotonic() + PATIENCE
        while not any(event.get("method") == "Page.loadEventFired" for event in self._events):
            self._note(self._receive(end))

    def ask(self, expression: str) -> Any:
        """The value of a JavaScript expression. The page's policy forbids it scripts, not a debugger."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def click(self, expression: str) -> None:
        """Press and let go in the middle of an element, as a finger or a mouse does."""
        self.ask(f"({expression}).scrollIntoView({{block: 'center'}})")
        box = self.ask(f"(({expression}).getBoundingClientRect()).toJSON()")
        place = {"x": box["x"] + min(box["width"] / 2, 60), "y": box["y"] + box["height"] / 2}
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **place)

    def print_media(self, *, dark: bool) -> None:
        """Apply the style that is for paper."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", media="print", features=[scheme])

    def colours(self, png: bytes) -> dict[str, Any]:
        """What is in a picture: its size, how many colours, its mean lightness, and how much of it is not its
        most frequent colour. The browser reads it, on an empty page."""
        self.call("Page.navigate", url="about:blank")
        answer: dict[str, Any] = self.ask(_COLOURS % base64.b64encode(png).decode())
        return answer

    def picture(self, *, whole: bool = False) -> bytes:
        """A PNG of what is in view, or of the whole page."""
        return base64.b64decode(self.call("Page.captureScreenshot", captureBeyondViewport=whole)["data"])

    def pdf(self) -> bytes:
        """The page as it would be printed, on A4."""
        answer = self.call("Page.printToPDF", paperWidth=8.27, paperHeight=11.69, preferCSSPageSize=False)
        return base64.b64decode(answer["data"])

    def close(self) -> None:
        """End it with all its processes: they are a process group of their own."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(30)
        os.close(self._to)
        os.close(self._from)
