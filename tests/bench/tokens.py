"""Tokens per second, in the cell and outside: two workers that stay, asked in turn."""

from __future__ import annotations

from tests.bench.measure import Row, compared, demo_model, folder, in_turn
from tests.bench.workers import Caged, Plain, ask_message

TOKENS = 160
ASKED = "Write a long story about a lighthouse keeper who finds a map."


def rows(rounds: int) -> list[Row]:
    model = demo_model()
    with folder() as place:
        caged, plain = Caged(place, model), Plain(model, [".txt"])
        try:
            plain.until("loaded")

            def inside() -> float:
                done = caged.ask(ASKED, max_tokens=TOKENS)[1]
                return done.output_tokens / done.output_seconds

            def outside() -> float:
                plain.send(ask_message(ASKED, max_tokens=TOKENS))
                done = plain.until("done")
                return float(done["output_tokens"] / done["output_seconds"])

            found = in_turn(rounds, {"cell": inside, "plain": outside})
        finally:
            plain.close()
            caged.close()
    return [
        compared(
            "tokens per second", found["cell"], "same worker outside", found["plain"], unit="/s", least=0.99
        )
    ]
