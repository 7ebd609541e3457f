"""The worker's two entries: ``prepare`` before the seal, ``serve`` after it.

``prepare`` maps every shared library that may be needed: after the seal nothing becomes executable any more.
``serve`` loads the model and answers, one request after another; a second thread reads the channel meanwhile,
so that a request can be stopped at any moment.
"""

from __future__ import annotations

import queue
import threading
from typing import Any

from anchorhold.channel import frames, messages
from anchorhold.channel.errors import ProtocolError
from anchorhold.worker import bindings, template
from anchorhold.worker.answer import Answerer
from anchorhold.worker.bindings import StopFlag
from anchorhold.worker.documents.readers import Readers
from anchorhold.worker.engine import Engine
from anchorhold.worker.failure import Failure
from anchorhold.worker.outbox import Outbox

_MOST_STOPPED = 1000  # requests stopped before they began
_readers = Readers()


def prepare(config: dict[str, Any]) -> dict[str, str]:
    """Import all that ``serve`` needs. config["suffixes"]: which documents there are, where that is known.

    Touches no model and no document. Returns versions, to be shown and logged.
    """
    c = bindings.load()
    bindings.silence(c)
    c.llama_backend_init()
    bindings.stop_callback(c)
    template.warm_up()
    _readers.prepare(config.get("suffixes"))
    return {"llama.cpp": c.llama_version().decode("utf-8", "replace")}


class Inbox(threading.Thread):
    """Reads the channel. A request to stop acts at once, one for a sign of life is answered at once, all else
    waits in order."""

    def __init__(self, fd: int, stop: StopFlag, outbox: Outbox) -> None:
        super().__init__(name="channel", daemon=True)
        self._fd = fd
        self._stop = stop
        self._outbox = outbox
        self._lock = threading.Lock()
        self._current: int | None = None
        self._stopped: set[int] = set()
        self._ended = False
        self._waiting: queue.SimpleQueue[messages.Message | None] = queue.SimpleQueue()

    def run(self) -> None:
        try:
            while (data := frames.read_frame(self._fd)) is not None:
                message = messages.decode_to_worker(data)
                if message["type"] == "quit":
                    break
                if message["type"] == "stop":
                    self._stop_request(message["id"])
                elif message["type"] == "ping":
                    self._outbox.send("pong")
                else:
                    self._waiting.put(message)
        except (ProtocolError, OSError):
            pass  # our only peer is trusted: a channel that broke has no other end any more
        with self._lock:
            self._ended = True
            self._stop.set()
        self._waiting.put(None)

    def _stop_request(self, number: int) -> None:
        with self._lock:
            if self._current == number:
                self._stop.set()
            elif len(self._stopped) < _MOST_STOPPED:
                self._stopped.add(number)

    def begin(self, number: int) -> None:
        """A request is taken up: from now on it can be stopped; perhaps it was already."""
        with self._lock:
            self._current = number
            if number in self._stopped or self._ended:
                self._stop.set()
            else:
                self._stop.clear()
            self._stopped.discard(number)

    def end(self) -> None:
        with self._lock:
            self._current = None

    def next(self) -> messages.Message | None:
        """The next message, or None when there will be none."""
        return self._waiting.get()

    @property
    def ended(self) -> bool:
        return self._ended


def serve(read_fd: int, write_fd: int, config: dict[str, Any]) -> int:
    """Answer until the channel ends. Returns the exit status: 0, or 1 when the model cannot be used."""
    stop = StopFlag()
    outbox = Outbox(write_fd)
    inbox = Inbox(read_fd, stop, outbox)
    inbox.start()
    answerer: Answerer | None = None
    try:
        while (message := inbox.next()) is not None and not inbox.ended:
            if message["type"] == "load":
                answerer = _load(message, outbox, stop)
                if answerer is None:
                    return 1
            elif answerer is None:
                outbox.send(
                    "failed", id=message["id"], code="bad_request", message="no model is loaded", detail={}
                )
            else:
                inbox.begin(message["id"])
                answerer.serve(message)
                inbox.end()
    except BrokenPipeError:
        return 0  # nobody listens any more
    return 0


def _load(message: messages.Message, outbox: Outbox, stop: StopFlag) -> Answerer | None:
    """Load the model and say so; None, and why, when it cannot be used."""
    outbox.send("progress", stage="load", done=0, total=0)
    try:
        engine = Engine(bindings.load(), stop)
        engine.load(message["path"], message["context"], message["threads"])
        answerer = Answerer(engine, _readers, outbox)
    except Failure as failure:
        outbox.send("failed", id=None, code=failure.code, message=failure.message, detail=failure.detail)
        return None
    outbox.send(
        "loaded",
        context=engine.context,
        trained_context=engine.trained_context,
        threads=engine.threads,
        description=engine.description,
        embeddings=engine.embeds,
    )
    return answerer
