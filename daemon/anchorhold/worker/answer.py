"""One request: read, choose, compute, answer, report.

Named files are given whole or the request fails with the count of tokens of each. Of folders everything is
given if it fits, else the best passages. What was computed of a prompt is used again only by the next request
of the same conversation: one that begins with exactly the turns of the last.
"""

from __future__ import annotations

from anchorhold.channel.messages import Message
from anchorhold.worker import prompt, select
from anchorhold.worker.documents.readers import Readers
from anchorhold.worker.engine import Engine, clock
from anchorhold.worker.failure import Cancelled, Failure
from anchorhold.worker.material import Document, Material, gather
from anchorhold.worker.outbox import Outbox
from anchorhold.worker.template import ChatTemplate, Turn

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
        self._turns: list[Turn] | None = None  # of the last request, with its question
        self._mark = ""
        self._order: dict[str, int] = {}  # of the documents in this conversation's prompt

    def serve(self, request: Message) -> None:
        """Answer one ``ask``. Raises OSError when nobody listens any more."""
        number, work = request["id"], _Work()
        reason, output_tokens = "cancelled", 0
        try:
            self._read(request, work)
            work.first = clock()
            reason, output_tokens = self._engine.generate(
                request["max_tokens"],
                request["temperature"],
                request["seed"],
                lambda text: self._outbox.send("token", id=number, text=text),
            )
        except Cancelled:
            pass
        except Failure as failure:
            self._outbox.send(
                "failed", id=number, code=failure.code, message=failure.message, detail=failure.detail
            )
            return
        now = clock()
        first = now if work.first is None else work.first
        self._outbox.send(
            "done",
            id=number,
            reason=reason,
            prompt_tokens=work.prompt_tokens,
            output_tokens=output_tokens,
            prompt_seconds=first - work.started,
            output_seconds=now - first,
            files=work.files,
        )

    def _read(self, request: Message, work: _Work) -> None:
        """All up to the first token. Raises Cancelled, Failure."""
        material = gather(request, self._readers, self._engine.stop, self._outbox)
        asked = bool(request["files"] or request["roots"])
        if asked and not material.documents:
            raise Failure("no_documents", _none_left(material), {"skipped": material.skipped})
        mark = self._begin(request, material)
        if material.documents:
            tokens, parts = self._fit(request, material, mark)
            self._report(material, parts, work)
        else:
            tokens = self._tokens(request, [], mark)
            room = self._room(request)
            if len(tokens) > room:
                raise self._exceeded(len(tokens), room, [])
        work.prompt_tokens = len(tokens)
        self._engine.read(tokens, lambda done, total: self._outbox.progress("prompt", done, total))

    def _begin(self, request: Message, material: Material) -> str:
        """The mark for this request. Forgets what was computed, unless the conversation goes on."""
        last, history = self._turns, request["history"]
        self._turns = [*history, {"role": "user", "content": request["question"]}]
        same = last is not None and history[: len(last)] == last
        texts = [item.text for item in material.documents]
        texts += [turn["content"] for turn in self._turns] + [item.name for item in material.documents]
        if not same:
            self._engine.forget()
            self._order.clear()
        if not same or any(self._mark in text for text in texts):
            repeatable = request["seed"] is not None or request["temperature"] <= 0
            names = "\0".join(f"{item.name} {len(item.text)}" for item in material.documents)
            self._mark = prompt.new_mark(
                [*texts, request["system"] or ""], f"{request['question']}\0{names}" if repeatable else None
            )
        return self._mark

    # ---- the prompt ---------------------------------------------------------------------------

    def _room(self, request: Message) -> int:
        """Tokens that a prompt may have."""
        context = self._engine.context
        kept: int = min(request["max_tokens"], context // _QUARTER)
        return context - kept

    def _tokens(
        self, request: Message, parts: list[select.Part], mark: str, *, quoted: bool = False
    ) -> list[int]:
        turns: list[Turn] = [*request["history"], {"role": "user", "content": request["question"]}]
        system: str | None = request["system"]
        if parts or quoted:
            # In the user's first turn, so that a conversation about the same documents only grows at its end.
            system = prompt.instructions(system, mark)
            first = next(number for number, turn in enumerate(turns) if turn["role"] == "user")
            blocks = "".join(part.block(mark) for part in parts)
            turns[first] = {"role": "user", "content": prompt.with_documents(blocks, turns[first]["content"])}
        if system:
            turns.insert(0, {"role": "system", "content": system})
        return self._engine.tokens_of(self._template.render(turns))

    def _fit(self, request: Message, material: Material, mark: str) -> tuple[list[int], list[select.Part]]:
        """The prompt and what it holds. Raises Failure context_exceeded."""
        room = self._room(request)
        documents = material.documents
        if material.whole or select.may_fit(documents, room):
            parts = [
                select.whole(document, mark, self._count) for document in self._ordered(request, material)
            ]
            if sum(part.tokens for part in parts) < room:
                tokens = self._tokens(request, parts, mark)
                if len(tokens) <= room:
                    return tokens, parts
            if material.whole:
                base = len(self._tokens(request, [], mark, quoted=True))
                raise self._exceeded(base + sum(part.tokens for part in parts), room, parts)
        given = [select.whole(item, mark, self._count) for item in documents if item.path is None]
        base = len(self._tokens(request, given, mark, quoted=True))
        if base > room:
            raise self._exceeded(base, room, given)
        chosen = select.Chosen([item for item in documents if item.path is not None], mark, self._count)
        chosen.choose(self._words(request), room - base)
        while True:
            parts = given + chosen.parts()
            tokens = self._tokens(request, parts, mark, quoted=True)
            if len(tokens) <= room or not chosen.drop():
                return tokens, parts

    def _ordered(self, request: Message, material: Material) -> list[Document]:
        """Named files as they were named. What folders hold, the best last; in the same order for as long as
        the conversation goes on, so that what was computed of it can be used again."""
        documents = material.documents
        if material.whole or len(documents) < 2:
            return documents
        if not self._order:
            ordered = select.by_worth(documents, self._words(request))
            self._order = {item.path or "": number for number, item in enumerate(ordered)}
        return sorted(documents, key=lambda item: self._order.get(item.path or "", -1))

    @staticmethod
    def _words(request: Message) -> str:
        """What the passages are ranked by: the question, and the one before it, which it may refer to."""
        before = [turn["content"] for turn in request["history"] if turn["role"] == "user"]
        return " ".join([request["question"], *before[-1:]])

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
