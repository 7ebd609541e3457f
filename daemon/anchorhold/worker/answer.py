"""One request: what goes into the prompt, and the answer."""

from __future__ import annotations

from anchorhold.channel.messages import Message
from anchorhold.worker.engine import Engine, clock
from anchorhold.worker.failure import Cancelled, Failure
from anchorhold.worker.outbox import Outbox
from anchorhold.worker.template import ChatTemplate


class Answerer:
    """Serves requests with one model."""

    def __init__(self, engine: Engine, outbox: Outbox) -> None:
        self._engine = engine
        self._outbox = outbox
        self._template = ChatTemplate(engine.template(), engine.bos(), engine.eos())

    def serve(self, request: Message) -> None:
        number = request["id"]
        started = clock()
        engine, outbox = self._engine, self._outbox
        prompt_tokens = 0
        try:
            engine.forget()
            turns = [*request["history"], {"role": "user", "content": request["question"]}]
            prompt = engine.tokens_of(self._template.render(turns))
            prompt_tokens = len(prompt)
            engine.read(prompt, lambda done, total: outbox.progress("prompt", done, total))
            middle = clock()
            reason, output_tokens = engine.generate(
                request["max_tokens"],
                request["temperature"],
                request["seed"],
                lambda text: outbox.send("token", id=number, text=text),
            )
        except Cancelled:
            reason, output_tokens, middle = "cancelled", 0, clock()
        except Failure as failure:
            outbox.send(
                "failed", id=number, code=failure.code, message=failure.message, detail=failure.detail
            )
            return
        outbox.send(
            "done",
            id=number,
            reason=reason,
            prompt_tokens=prompt_tokens,
            output_tokens=output_tokens,
            prompt_seconds=middle - started,
            output_seconds=clock() - middle,
            files=[],
        )
