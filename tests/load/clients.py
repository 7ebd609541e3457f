"""Clients that ask one after another, each with a sequence of its own; some leave in the middle."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from dataclasses import dataclass, field

from tests.daemon import Door, ask, body

WORDS = [
    "harbour",
    "boat",
    "winter",
    "roof",
    "letter",
    "mill",
    "stone",
    "river",
    "market",
    "winter",
    "sail",
    "rope",
    "lamp",
    "bread",
]
PROMPTS = (6, 30, 120)
"""Words of a prompt: about as many tokens and a few."""
ANSWERS = (2, 8, 24)
"""Tokens of an answer, at most."""
LEAVING = 0.1
LONGEST_STAY = 4.0
"""Seconds after which one who leaves without having seen anything has left."""


@dataclass
class Seen:
    """What one client met. Times in seconds."""

    served: int = 0
    left: int = 0
    full: int = 0
    """How often it was told 429."""
    waits: list[float] = field(default_factory=list)
    """To the first byte of each answer, but of its first one: the queue was still filling."""
    names: list[str] = field(default_factory=list)
    """Requests whose answer it has whole: acknowledged."""
    errors: Counter[str] = field(default_factory=Counter)


class Client(threading.Thread):
    """Asks until ``stop`` is set, then takes the answer it waits for."""

    def __init__(self, door: Door, number: int, seed: int, stop: threading.Event) -> None:
        super().__init__(name=f"client {number}", daemon=True)
        self.door, self.seen = door, Seen()
        self._stop_asking = stop
        self._chance = random.Random(seed * 1000 + number)

    def run(self) -> None:
        self.once()
        self.seen.waits.clear()
        while not self._stop_asking.is_set():
            self.once()

    def once(self) -> None:
        """One request, of whatever kind comes up."""
        chance, seen = self._chance, self.seen
        text = " ".join(chance.choices(WORDS, k=chance.choice(PROMPTS)))
        data = body(self.door, text, chance.choice(ANSWERS), stream=chance.random() < 0.5)
        leaves, after = chance.random() < LEAVING, chance.uniform(0.0, LONGEST_STAY)
        said = ask(self.door, data, timeout=180.0, leave=leaves, after=after)
        if said.status == 429:
            if said.retry_after is None or not float(said.retry_after) > 0:
                seen.errors["429 without Retry-After"] += 1
            seen.full += 1
            time.sleep(float(said.retry_after or 1.0) * chance.uniform(1.0, 1.5))
        elif leaves and said.status in (0, 200) and not said.error:
            seen.left += 1
        elif said.status == 200 and said.whole:
            seen.served += 1
            seen.names.append(said.request)
            seen.waits.append(said.wait)
        else:
            seen.errors[f"{said.status} {said.error}"] += 1
