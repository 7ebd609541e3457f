"""One request: read, choose, compute, answer, report.

Named files are given whole or the request fails with the count of tokens of each. Of folders everything is
given if it fits, else the best passages. What was computed of a prompt is used again only by the next request
of the same owner and the same conversation: one that begins with exactly the turns of the last, and goes on.
"""

from __future__ import annotations

from typing import Any

from anchorhold.channel.messages import Message
from anchorhold.worker import prompt, select
from anchorhold.worker.documents.readers import Readers
from anchorhold.worker.engine import Engine, clock
from anchorhold.worker.failure import Cancelled, Failure
from anchorhold.worker.material import Document, Material, gather
from anchorhold.worker.outbox import Outbox
from anchorhold.worker.output import Output, Plain
from anchorhold.worker.sampling import Sampler
from anchorhold.worker.task import TASKS, Task
from anchorhold.worker.template import ChatTemplate, Turn
from anchorhold.worker.tools import Calls
from anchorhold.worker.watch import Watch

_MOST_NAMED = 500  # files whose tokens are named in an error
_MOST_COUNTED = 4 << 20  # characters of one text whose tokens are counted; beyond, they are extrapolated
_PIECE = 1 << 16
_BETTER = "other passages go better with the question"
_TOGETHER = (
    100_000  # characters of paths in one message: as JSON at most six times that, below a frame's limit
)
_QUARTER = 4  # of the context is kept for the answer, or all of max_tokens if that is less


class _Work:
    """What is known of a request in progress; its end is reported from this, however it ends."""

    def __init__(self) -> None:
        self.started = clock()
        self.first: float | None = None
        self.prompt_tokens = 0
        self.files: list[str] = []


class Answerer:
    """Serves requests with one model."""

    def __init__(self, engine: Engine, readers: Readers, outbox: Outbox) -> None:
        self._engine = engine
        self._readers = readers
        self._outbox = outbox
        self._template = ChatTemplate(engine.template(), engine.bos(), engine.eos())
        self._watch = Watch(self._late)
        self._serving = 0
        self._turns: list[Turn] | None = None  # of the last request, with its question
        self._key: tuple[Any, ...] = ()
        self._mark = ""
        self._order: dict[str, int] = {}  # of the documents in this conversation's prompt

    def serve(self, request: Message) -> None:
        """Answer one request. Raises OSError when nobody listens any more."""
        work = _Work()
        self._serving = request["id"]
        reason, output_tokens = "cancelled", 0
        try:
            if request["type"] == "embed":
                self._embed(request, work)
                reason = "stop"
            else:
                task = TASKS[request["type"]](request)
                sampler = self._sampler(task)
                try:
                    self._read(task, work)
                    work.first = clock()
                    reason, output_tokens = self._answer(task, sampler)
                finally:
                    sampler.close()
        except Cancelled:
            pass
        except Failure as failure:
            self._outbox.send(
                "failed",
                id=request["id"],
                code=failure.code,
                message=failure.message,
                detail=failure.detail,
            )
            return
        now = clock()
        first = now if work.first is None else work.first
        self._outbox.send(
            "done",
            id=request["id"],
            reason=reason,
            prompt_tokens=work.prompt_tokens,
            output_tokens=output_tokens,
            prompt_seconds=first - work.started,
            output_seconds=now - first,
            files=work.files,
        )

    def _sampler(self, task: Task) -> Sampler:
        grammar = task.wanted.grammar if task.wanted is not None else None
        return self._engine.sampler(task.settings, grammar, self._watch)

    def _late(self) -> None:
        """The engine does not come back from a grammar: said by another thread, before the worker ends."""
        self._outbox.send(
            "failed",
            id=self._serving,
            code="bad_request",
            message="the schema, or the tools, take the engine too long, or too much memory, to follow",
            detail={},
        )

    def _answer(self, task: Task, sampler: Sampler) -> tuple[str, int]:
        """Generate. Returns the reason and the number of tokens."""
        engine, number = self._engine, task.number
        calls = Calls(self._outbox, number, task.wanted.names) if task.wanted and task.wanted.names else None
        output = Output(self._outbox, number, task.stops, calls or Plain(self._outbox, number))
        told = task.settings.logprobs is not None

        def take(token: int, data: bytes) -> bool:
            return output.feed(data, self._chosen(sampler, data) if told else None)

        reason, tokens = engine.generate(task.settings.most, sampler, take, special=calls is not None)
        output.finish()
        if reason == "stop" and calls is not None and calls.called:
            reason = "tool_calls"
        return reason, tokens

    def _chosen(self, sampler: Sampler, data: bytes) -> dict[str, Any]:
        return {
            "text": data.decode("utf-8", "replace"),
            "logprob": sampler.logprob,
            "top": [
                [self._engine.piece(token, special=True).decode("utf-8", "replace"), logprob]
                for token, logprob in sampler.top
            ],
            "data": list(data),
        }

    def _embed(self, request: Message, work: _Work) -> None:
        """One vector for each input. Raises Cancelled, Failure."""
        context = self._engine.context
        texts: list[list[int]] = []
        for text in request["inputs"]:
            tokens, needed = self._engine.tokens_of([(text, False)], context)
            if needed > context:
                raise Failure(
                    "context_exceeded",
                    f"an input needs {needed} tokens; the context has {context}",
                    {"context": context, "room": context, "needed": needed},
                )
            if not tokens:
                raise Failure("bad_request", "an input is empty")
            texts.append(tokens)
            work.prompt_tokens += len(tokens)
        if not texts:
            raise Failure("bad_request", "there is no input")
        for index, tokens in enumerate(texts):
            self._outbox.send("embedding", id=request["id"], index=index, values=self._engine.embed(tokens))

    def _read(self, task: Task, work: _Work) -> None:
        """All up to the first token. Raises Cancelled, Failure."""
        if task.text is not None:
            self._forget()
            self._compute(task, work, *self._engine.tokens_of([(task.text, True)], self._room(task)))
            return
        material = gather(
            task.files, task.roots, task.material, self._readers, self._engine.stop, self._outbox
        )
        asked = bool(task.files or task.roots)
        if asked and not material.documents:
            raise Failure("no_documents", _none_left(material), {"skipped": material.skipped})
        mark = self._begin(task, material)
        if not material.documents:
            self._compute(task, work, *self._tokens(task, [], mark))
            return
        tokens, parts = self._fit(task, material, mark)
        self._report(material, parts, work)
        self._compute(task, work, tokens, len(tokens))

    def _compute(self, task: Task, work: _Work, tokens: list[int], needed: int) -> None:
        room = self._room(task)
        if needed > room:
            raise self._exceeded(needed, room, [])
        if not tokens:
            raise Failure("bad_request", "the prompt is empty")
        work.prompt_tokens = len(tokens)
        self._engine.read(tokens, lambda done, total: self._outbox.progress("prompt", done, total))

    def _forget(self) -> None:
        """Nothing that was computed may be used for what comes now."""
        self._engine.forget()
        self._order.clear()
        self._turns, self._key = None, ()

    def _begin(self, task: Task, material: Material) -> str:
        """The mark for this request. Forgets what was computed, unless the conversation goes on."""
        last = self._turns
        same = (
            last is not None
            and task.key == self._key
            and len(task.turns) > len(last)
            and task.turns[: len(last)] == last
        )
        if not same:
            self._forget()
        self._turns, self._key = task.turns, task.key
        texts = [item.text for item in material.documents]
        texts += [turn["content"] for turn in task.turns] + [item.name for item in material.documents]
        if not same or any(self._mark in text for text in texts):
            repeatable = task.settings.seed is not None or task.settings.temperature <= 0
            names = "\0".join(f"{item.name} {len(item.text)}" for item in material.documents)
            asked = task.turns[-1]["content"] if task.turns else ""
            self._mark = prompt.new_mark(
                [*texts, task.system or ""], f"{asked}\0{names}" if repeatable else None
            )
        return self._mark

    # ---- the prompt ---------------------------------------------------------------------------

    def _room(self, task: Task) -> int:
        """Tokens that a prompt may have."""
        context = self._engine.context
        kept: int = min(task.settings.most, context // _QUARTER)
        return context - kept

    def _tokens(
        self, task: Task, parts: list[select.Part], mark: str, *, quoted: bool = False
    ) -> tuple[list[int], int]:
        """The prompt and its length; see ``Engine.tokens_of``."""
        turns = list(task.turns)
        system = task.system
        if parts or quoted:
            # In the user's first turn, so that a conversation about the same documents only grows at its end.
            system = prompt.instructions(system, mark)
            first = task.question()
            blocks = "".join(part.block(mark) for part in parts)
            turns[first] = {"role": "user", "content": prompt.with_documents(blocks, turns[first]["content"])}
        if system:
            turns.insert(0, {"role": "system", "content": system})
        return self._engine.tokens_of(self._template.render(turns, task.wanted), self._engine.context)

    def _fit(self, task: Task, material: Material, mark: str) -> tuple[list[int], list[select.Part]]:
        """The prompt and what it holds. Raises Failure context_exceeded."""
        room = self._room(task)
        documents = material.documents
        if material.whole or select.may_fit(documents, room):
            parts = [select.whole(document, mark, self._count) for document in self._ordered(task, material)]
            if sum(part.tokens for part in parts) < room:
                tokens, needed = self._tokens(task, parts, mark)
                if needed <= room:
                    return tokens, parts
            if material.whole:
                base = self._tokens(task, [], mark, quoted=True)[1]
                raise self._exceeded(base + sum(part.tokens for part in parts), room, parts)
        given = [select.whole(item, mark, self._count) for item in documents if item.path is None]
        base = self._tokens(task, given, mark, quoted=True)[1]
        if base > room:
            raise self._exceeded(base, room, given)
        chosen = select.Chosen([item for item in documents if item.path is not None], mark, self._count)
        chosen.choose(task.words(), room - base)
        while True:
            parts = given + chosen.parts()
            tokens, needed = self._tokens(task, parts, mark, quoted=True)
            if needed <= room or not chosen.drop():
                return tokens, parts

    def _ordered(self, task: Task, material: Material) -> list[Document]:
        """Named files as they were named. What folders hold, the best last; in the same order for as long as
        the conversation goes on, so that what was computed of it can be used again."""
        documents = material.documents
        if material.whole or len(documents) < 2:
            return documents
        if not self._order:
            ordered = select.by_worth(documents, task.words())
            self._order = {item.path or "": number for number, item in enumerate(ordered)}
        return sorted(documents, key=lambda item: self._order.get(item.path or "", -1))

    def _count(self, text: str) -> int:
        """Tokens of a text, exactly; for a very long one from its first part. Raises Cancelled."""
        if len(text) <= _PIECE:
            return len(self._engine.tokenize(text, special=False))
        tokens, counted = 0, min(len(text), _MOST_COUNTED)
        for start in range(0, counted, _PIECE):
            if self._engine.stop:
                raise Cancelled
            tokens += len(self._engine.tokenize(text[start : min(start + _PIECE, counted)], special=False))
        return tokens * len(text) // counted

    # ---- what is told -------------------------------------------------------------------------

    def _exceeded(self, needed: int, room: int, parts: list[select.Part]) -> Failure:
        detail: dict[str, int | str] = {
            "context": self._engine.context,
            "room": room,
            "needed": needed,
        }
        for part in sorted(parts, key=lambda part: -part.tokens)[:_MOST_NAMED]:
            detail[part.document.path or part.document.name] = part.tokens
        number = len(parts)
        what = "the conversation needs"
        if parts:
            what = f"{number} document{'s' * (number > 1)} and the question need"
        return Failure(
            "context_exceeded",
            f"{what} {needed} tokens; there is room for {room} of the context of {self._engine.context}"
            " (model.context in a policy; of a folder given with --data the best passages are taken)",
            detail,
        )

    def _report(self, material: Material, parts: list[select.Part], work: _Work) -> None:
        """What became of each document."""
        held = {id(part.document): part for part in parts}
        unused: list[str] = []
        room = _TOGETHER
        for document in material.documents:
            if document.path is None:
                continue
            part = held.get(id(document))
            if part is None:
                unused.append(document.path)
                room -= len(document.path)
                if room < 0:
                    self._outbox.hold("unused", paths=unused, reason=_BETTER)
                    unused, room = [], _TOGETHER
                continue
            self._outbox.hold(
                "document",
                path=document.path,
                outcome="used" if part.whole else "partial",
                reason="" if part.whole else _BETTER,
                tokens=part.tokens,
            )
        if unused:
            self._outbox.hold("unused", paths=unused, reason=_BETTER)
        work.files = [part.document.path for part in parts if part.document.path is not None]
        self._outbox.flush()


def _none_left(material: Material) -> str:
    if not material.skipped:
        return "there is no file in these folders"
    return "not one document could be read" if material.skipped > 1 else "the document could not be read"
