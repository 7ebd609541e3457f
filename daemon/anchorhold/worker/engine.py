"""The model: loading, exact token counts, generation.

Cancelling holds at every step: while the prompt is computed (the engine itself looks at the flag between two
operations of its graph) and between tokens. What the engine has computed of a prompt is kept only as far as
the caller says that it belongs to the same conversation.
"""

from __future__ import annotations

import ctypes
import math
import os
import time
from collections.abc import Callable, Iterable
from typing import Any

from anchorhold.worker import bindings
from anchorhold.worker.failure import Cancelled, Failure
from anchorhold.worker.sampling import Sampler, Settings
from anchorhold.worker.watch import Watch

BATCH = 512  # tokens of the prompt handed over at once; progress is told after each
_ABORTED = 2  # llama_decode(): "aborted" (llama.h)
_NO_ROOM = 1  # llama_decode(): "could not find a KV slot"
_PIECE = 1 << 16  # characters tokenized in one go: some 20 ms, between two looks at the flag
_ROOM = 256  # bytes of a token's text, nearly always
_NO_TOKEN = -1  # LLAMA_TOKEN_NULL
_MAGIC = b"GGUF"

Segment = tuple[str, bool]
"""A piece of a prompt, and whether control words in it count as such. In documents they never do."""


class Engine:
    """One model with one context. All methods but ``stop.set`` belong to one thread."""

    def __init__(self, c: Any, stop: bindings.StopFlag) -> None:
        """c: the bindings. Loads nothing yet."""
        self.c = c
        self.stop = stop
        self.context = 0
        self.trained_context = 0
        self.threads = 0
        self.description = ""
        self._callback = bindings.stop_callback(c)
        self._model: Any = None
        self._ctx: Any = None
        self._vocab: Any = None
        self._vectors: Any = None  # a second context, made when it is first asked for
        self._held: list[int] = []  # the tokens that the engine has computed and still holds

    # ---- loading ------------------------------------------------------------------------------

    def load(self, path: str, context: int, threads: int) -> None:
        """Map the model and make a context. 0: the model's own context; all processors that may be used.

        Raises Failure bad_model for what is no model, or none that can answer.
        """
        c = self.c
        size = _check_file(path)
        params = c.llama_model_default_params()
        params.n_gpu_layers = 0
        model = c.llama_model_load_from_file(os.fsencode(path), params)
        if not model:
            raise _bad_model(
                path, "the engine cannot load it: it is damaged, or of a kind it does not know", size
            )
        self._model = model
        self._vocab = c.llama_model_get_vocab(model)
        if not c.llama_vocab_n_tokens(self._vocab) or not c.llama_model_has_decoder(model):
            raise _bad_model(path, "it cannot generate text", size)
        self.trained_context = max(0, c.llama_model_n_ctx_train(model))
        self.threads = threads or len(os.sched_getaffinity(0))
        wanted = min(context or self.trained_context, self.trained_context or context) or 2048
        self._make_context(path, wanted, size)
        words = ctypes.create_string_buffer(256)
        c.llama_model_desc(model, words, len(words))
        self.description = words.value.decode("utf-8", "replace")

    def _make_context(self, path: str, wanted: int, size: int) -> None:
        c = self.c
        self._ctx = c.llama_init_from_model(self._model, self._params(wanted))
        if not self._ctx:
            raise _bad_model(path, f"there is no room for a context of {wanted} tokens", size)
        self.context = min(wanted, c.llama_n_ctx(self._ctx))

    def _params(self, wanted: int) -> Any:
        c = self.c
        params = c.llama_context_default_params()
        params.n_ctx = wanted
        params.n_batch = min(BATCH, wanted)
        params.n_ubatch = min(params.n_batch, _step(c.llama_model_n_params(self._model)))
        params.n_threads = params.n_threads_batch = self.threads
        params.no_perf = True
        params.abort_callback = self._callback
        params.abort_callback_data = self.stop.address
        return params

    @property
    def embeds(self) -> bool:
        """Whether ``embed`` can work: one stack of layers, whose last the engine can pool."""
        return not self.c.llama_model_has_encoder(self._model)

    def embed(self, tokens: list[int]) -> list[float]:
        """One vector of length 1 for a text of at most ``context`` tokens, pooled as the model says, else as
        the mean. It is computed in a context of its own, and nothing of it is kept. Raises Cancelled,
        Failure."""
        c = self.c
        context = self._vectors = self._vectors or self._embedding_context()
        array = (ctypes.c_int32 * len(tokens))(*tokens)
        memory = c.llama_get_memory(context)
        if memory:
            c.llama_memory_clear(memory, True)
        if self.stop:
            raise Cancelled
        status = c.llama_decode(context, c.llama_batch_get_one(array, len(tokens)))
        if status == _ABORTED or self.stop:
            raise Cancelled
        found = c.llama_get_embeddings_seq(context, 0) if status == 0 else None
        if not found:
            raise Failure("engine", f"the engine failed to compute a vector: status {status}")
        size = c.llama_model_n_embd_out(self._model)
        values: list[float] = found[:size]
        if memory:
            c.llama_memory_clear(memory, True)
        length = math.sqrt(math.fsum(value * value for value in values))
        if not length > 0 or not math.isfinite(length):  # also where it is no number
            raise Failure("engine", "the engine computed no vector")
        return [value / length for value in values]

    def _embedding_context(self) -> Any:
        c = self.c
        if not self.embeds:
            raise Failure("not_supported", "this model makes no embeddings")
        params = self._params(self.context)
        params.n_batch = params.n_ubatch = self.context  # a text is pooled in one go
        params.embeddings = True
        context = c.llama_init_from_model(self._model, params)
        kind = c.llama_pooling_type(context) if context else 0
        if context and kind == c.LLAMA_POOLING_TYPE_NONE:
            c.llama_free(context)
            params.pooling_type = c.LLAMA_POOLING_TYPE_MEAN
            context = c.llama_init_from_model(self._model, params)
        elif kind == c.LLAMA_POOLING_TYPE_RANK:
            c.llama_free(context)
            raise Failure("not_supported", "this model ranks texts; it makes no embeddings")
        if not context:
            raise Failure("not_supported", "there is no room to make embeddings with this model")
        return context

    def close(self) -> None:
        """Free all. The engine cannot be used afterwards."""
        for context in (self._ctx, self._vectors):
            if context:
                self.c.llama_free(context)
        if self._model:
            self.c.llama_model_free(self._model)
        self._ctx = self._vectors = self._model = None

    # ---- words and tokens ---------------------------------------------------------------------

    def template(self) -> str | None:
        """The model's own chat template, or None."""
        found = self.c.llama_model_chat_template(self._model, None)
        return found.decode("utf-8", "replace") if found else None

    def bos(self) -> str:
        """The text of the token that begins a text, or ""."""
        return self._word(self.c.llama_vocab_bos(self._vocab))

    def eos(self) -> str:
        return self._word(self.c.llama_vocab_eos(self._vocab))

    def _word(self, token: int) -> str:
        if token == _NO_TOKEN:
            return ""
        found: bytes = self.c.llama_vocab_get_text(self._vocab, token)
        return found.decode("utf-8", "replace")

    def tokenize(self, text: str, *, special: bool) -> list[int]:
        """special: whether control words such as ``<|im_end|>`` become the tokens they name."""
        data = text.encode("utf-8", "replace")
        room = len(data) + 8
        tokens = (ctypes.c_int32 * room)()
        found = self.c.llama_tokenize(self._vocab, data, len(data), tokens, room, False, special)
        if found < 0:  # some vocabulary needs more tokens than the text has bytes
            room = -found
            tokens = (ctypes.c_int32 * room)()
            found = self.c.llama_tokenize(self._vocab, data, len(data), tokens, room, False, special)
        return tokens[:found]

    def tokens_of(self, segments: Iterable[Segment], most: int) -> tuple[list[int], int]:
        """A whole prompt, and how many tokens it has. Begins with the token for that where the model wants it
        and the text has none.

        Of a prompt that has more than ``most`` tokens not all are computed, and their number is estimated. A
        long text is cut at spaces, which seldom changes how it is written in tokens. Raises Cancelled.
        """
        pieces = [(piece, special) for text, special in segments for piece in _pieces(text)]
        tokens: list[int] = []
        done = 0
        for text, special in pieces:
            if len(tokens) > most:
                return tokens, len(tokens) * sum(len(text) for text, _special in pieces) // done
            if self.stop:
                raise Cancelled
            tokens += self.tokenize(text, special=special)
            done += len(text)
        bos = self.c.llama_vocab_bos(self._vocab)
        if self.c.llama_vocab_get_add_bos(self._vocab) and bos != _NO_TOKEN and tokens[:1] != [bos]:
            tokens.insert(0, bos)
        return tokens, len(tokens)

    def piece(self, token: int, *, special: bool) -> bytes:
        """A token's text, which may end within a character. special: also that of a control token."""
        room = _ROOM
        while True:
            buffer = ctypes.create_string_buffer(room)
            length = self.c.llama_token_to_piece(self._vocab, token, buffer, room, 0, special)
            if length >= 0:
                return buffer.raw[:length]
            room = -length

    # ---- generating ---------------------------------------------------------------------------

    def forget(self) -> None:
        """Drop all that was computed: the next prompt belongs to somebody else."""
        self._held.clear()
        self.c.llama_memory_clear(self.c.llama_get_memory(self._ctx), False)

    def read(self, prompt: list[int], progress: Callable[[int, int], None]) -> None:
        """Compute the prompt, but for what is held of its beginning. Raises Cancelled, Failure."""
        same = 0
        most = min(
            len(self._held), len(prompt) - 1
        )  # the last token is always computed: its result is needed
        while same < most and self._held[same] == prompt[same]:
            same += 1
        memory = self.c.llama_get_memory(self._ctx)
        if same < len(self._held) and not self.c.llama_memory_seq_rm(memory, 0, same, -1):
            self.forget()  # a model whose state cannot be cut
            same = 0
        del self._held[same:]
        for start in range(same, len(prompt), BATCH):
            progress(start, len(prompt))
            self._compute(prompt[start : start + BATCH])

    def _compute(self, tokens: list[int]) -> None:
        if self.stop:
            raise Cancelled
        array = (ctypes.c_int32 * len(tokens))(*tokens)
        status = self.c.llama_decode(self._ctx, self.c.llama_batch_get_one(array, len(tokens)))
        if status == 0:
            self._held += tokens
            return
        self.forget()  # part of the tokens may be computed
        if status == _ABORTED or self.stop:
            raise Cancelled
        why = "there is no room left in its context" if status == _NO_ROOM else f"status {status}"
        raise Failure("engine", f"the engine failed to compute: {why}")

    def sampler(self, settings: Settings, grammar: str | None, watch: Watch | None) -> Sampler:
        """For one answer; close it. Raises Failure bad_request for a grammar that cannot be followed."""
        return Sampler(self.c, self._ctx, self._vocab, settings, grammar, watch)

    def generate(
        self, most: int, sampler: Sampler, take: Callable[[int, bytes], bool], *, special: bool = False
    ) -> tuple[str, int]:
        """Continue after ``read``: at most so many tokens, each with its bytes to ``take``, which says
        whether the answer ends there. special: also the text of control tokens.

        Returns the reason ("stop", "length" or "cancelled") and the number of tokens.
        """
        c, vocab, stop = self.c, self._vocab, self.stop
        most = min(most, self.context - len(self._held))
        piece = ctypes.create_string_buffer(_ROOM)
        reason, number = "length", 0
        try:
            while number < most:
                if stop:
                    reason = "cancelled"
                    break
                token = sampler.draw()
                if c.llama_vocab_is_eog(vocab, token):
                    reason = "stop"
                    break
                number += 1
                length = c.llama_token_to_piece(vocab, token, piece, _ROOM, 0, special)
                data = piece.raw[:length] if length >= 0 else self.piece(token, special=special)
                if take(token, data):
                    reason = "stop"
                    break
                if number < most:
                    self._compute([token])
        except Cancelled:
            reason = "cancelled"
        return reason, number


def clock() -> float:
    """Seconds, for durations."""
    return time.monotonic()


def _pieces(text: str) -> Iterable[str]:
    """The text in pieces that are tokenized in one go each."""
    start = 0
    while len(text) - start > _PIECE:
        end = text.rfind(" ", start + _PIECE // 2, start + _PIECE)
        end = end if end > 0 else start + _PIECE
        yield text[start:end]
        start = end
    if text[start:]:
        yield text[start:]


def _step(parameters: int) -> int:
    """Tokens computed in one go. The flag is looked at between operations: for a large model those must be
    small, or a request would be stopped too late."""
    if parameters < 500_000_000:
        return 256
    return 128 if parameters < 5_000_000_000 else 32


def _check_file(path: str) -> int:
    """The file's size in bytes. Says what a person can mend before the engine looks at it. Raises Failure."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            head = os.read(fd, 24)
            size = os.fstat(fd).st_size
        finally:
            os.close(fd)
    except OSError as error:
        raise _bad_model(path, f"it cannot be read: {error.strerror}", 0) from None
    if not size:
        raise _bad_model(path, "it is empty", size)
    if head[:4] != _MAGIC:
        raise _bad_model(path, "it is no GGUF file", size)
    if len(head) < 24:
        raise _bad_model(path, "it is cut off", size)
    version = int.from_bytes(head[4:8], "little")
    tensors, pairs = int.from_bytes(head[8:16], "little"), int.from_bytes(head[16:24], "little")
    if version not in (2, 3):
        raise _bad_model(path, f"it has version {version} of the GGUF format; 2 and 3 are known", size)
    if tensors * 24 + pairs * 12 > size:  # the least that one of each takes
        raise _bad_model(path, "it is cut off or damaged: it names more than it can hold", size)
    return size


def _bad_model(path: str, why: str, size: int) -> Failure:
    return Failure("bad_model", f"this model cannot be used: {why}", {"path": path, "size": size})
