"""Clients in the background, and what they were told."""

from __future__ import annotations

import random
import threading
import time

from tests.daemon import Daemon, Said, ask, body

QUESTIONS = ("Say hello.", "When did the harbour freeze?", "Tell of a boat.")
TIMEOUT = 30.0


class Traffic:
    """Some threads that ask without end. ``told``: every answer of which at least the header came."""

    def __init__(self, daemon: Daemon, seed: int, clients: int = 4) -> None:
        self.told: list[Said] = []
        self.failed = 0
        """Requests that got no answer, or an error: in chaos that may be."""
        self._daemon = daemon
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=self._run, args=(seed, number), daemon=True) for number in range(clients)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> int:
        """How many did not come back in time."""
        self._stop.set()
        for thread in self._threads:
            thread.join(TIMEOUT + 10.0)
        return sum(thread.is_alive() for thread in self._threads)

    def taken(self) -> list[Said]:
        """What was told so far."""
        with self._lock:
            return list(self.told)

    def keep(self, said: Said) -> None:
        """An answer that somebody else got, to be checked as well."""
        with self._lock:
            self.told.append(said)

    def _run(self, seed: int, number: int) -> None:
        chance = random.Random(f"{seed}/client/{number}")
        while not self._stop.is_set():
            door = self._daemon.doors[number % 2]
            files = [str(self._daemon.papers / "paper.txt")] if chance.random() < 0.3 else []
            data = body(
                door,
                chance.choice(QUESTIONS),
                chance.randint(1, 24),
                stream=chance.random() < 0.5,
                files=files,
            )
            said = ask(door, data, timeout=TIMEOUT)
            if said.request:
                self.keep(said)
            if not said.whole:
                self.failed += 1
                time.sleep(0.1)
