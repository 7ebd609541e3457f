"""How the next token is drawn: the engine's chain of samplers, a grammar beside it, probabilities if asked
for.

Constraint: a request without grammar and probabilities costs one call of the engine for each token. A grammar
is asked about the token that the chain drew; only when it refuses are all tokens held against it and the draw
is repeated. That gives the same distribution as asking it first (what is refused is drawn again from the
rest), at a hundredth of the cost where the model goes along.

Arrays of the engine's (id, logit, p) are filled by memoryviews with a stride: copies in C, no loop in Python.
"""

from __future__ import annotations

import ctypes
import math
import secrets
from typing import Any

from anchorhold.worker.failure import Failure
from anchorhold.worker.watch import Watch

_TOP_K = 40
_MIN_P = 0.05
_FIELDS = 3  # of llama_token_data: int32 id, float logit, float p
_NEVER = -9999.0  # the OpenAI API's logarithm of no probability
_OWN_SEED = 0xFFFFFFFF  # LLAMA_DEFAULT_SEED (llama.h): the engine draws one itself


class Settings:
    """What a request says about drawing."""

    __slots__ = ("frequency", "logprobs", "most", "presence", "seed", "temperature", "top_p")

    def __init__(
        self,
        most: int,
        temperature: float,
        top_p: float,
        seed: int | None,
        logprobs: int | None = None,
        frequency: float = 0.0,
        presence: float = 0.0,
    ) -> None:
        """most: tokens of the answer."""
        self.most, self.temperature, self.top_p, self.seed = most, temperature, top_p, seed
        self.logprobs, self.frequency, self.presence = logprobs, frequency, presence


class Sampler:
    """Draws tokens for one answer. Close it."""

    def __init__(
        self, c: Any, ctx: Any, vocab: Any, settings: Settings, grammar: str | None, watch: Watch | None
    ) -> None:
        """grammar: GBNF, or None. watch: ends the worker when the engine takes too long over it.

        Raises Failure bad_request for a grammar that the engine cannot follow.
        """
        self._c, self._ctx = c, ctx
        self._most = settings.logprobs
        self._watch = watch if watch is not None and grammar is not None else None
        self._penalized = bool(settings.frequency or settings.presence)
        self._grammar = self._chain = self._even = self._best = None
        if grammar is not None:
            if self._watch is not None:
                self._watch.begin()
            self._grammar = self._watched(
                c.llama_sampler_init_grammar, vocab, grammar.encode("ascii", "strict"), b"root"
            )
            if not self._grammar:
                raise Failure("bad_request", "the schema makes a grammar that the engine cannot follow")
        self._chain = _chain(c, settings, c.llama_vocab_n_tokens(vocab))
        if self._most is not None:
            self._even = c.llama_sampler_init_dist(1)  # fills in the probabilities; its draw is not used
            self._best = c.llama_sampler_init_top_k(max(1, self._most))
        self._all: _All | None = None
        if self._grammar is not None or self._even is not None:
            self._all = _All(c, c.llama_vocab_n_tokens(vocab))
        self.logprob = 0.0
        self.top: list[tuple[int, float]] = []

    def draw(self) -> int:
        """The next token; ``logprob`` and ``top`` (token, logarithm) are of it, where they were asked for.

        Raises Failure engine where nothing goes on from here.
        """
        if self._grammar is None:
            token = int(self._c.llama_sampler_sample(self._chain, self._ctx, -1))
        else:
            token = self._watched(self._draw_by_grammar)
        if self._even is not None:
            self._weigh(token)
        return token

    def _watched(self, call: Any, *values: Any) -> Any:
        if self._watch is None:
            return call(*values)
        with self._watch:
            return call(*values)

    def _draw_by_grammar(self) -> int:
        c, every = self._c, self._all
        assert every is not None
        if self._penalized:  # counts each token that it is told of: the one refused must not be one
            every.fill(self._ctx)
            c.llama_sampler_apply(self._chain, every.reference)
            token = every.selected()[0]
        else:
            token = c.llama_sampler_sample(self._chain, self._ctx, -1)
        if not self._allowed(token):
            every.fill(self._ctx)
            c.llama_sampler_apply(self._grammar, every.reference)
            c.llama_sampler_apply(self._chain, every.reference)
            token, logit = every.selected()
            if logit == -math.inf:
                raise Failure("engine", "no token of the model goes on as the schema wants")
        if self._penalized:
            c.llama_sampler_accept(self._chain, token)
        c.llama_sampler_accept(self._grammar, token)
        return int(token)

    def _allowed(self, token: int) -> bool:
        one = (self._c.llama_token_data * 1)()
        one[0].id, one[0].logit, one[0].p = token, 1.0, 0.0
        array = self._c.llama_token_data_array(data=one, size=1, selected=-1, sorted=False)
        self._c.llama_sampler_apply(self._grammar, ctypes.byref(array))
        return bool(one[0].logit != -math.inf)

    def _weigh(self, token: int) -> None:
        """The probabilities as the model gives them, before any sampler."""
        every = self._all
        assert every is not None
        every.fill(self._ctx)
        logit = every.logit(token)
        self._c.llama_sampler_apply(self._even, every.reference)
        self._c.llama_sampler_apply(self._best, every.reference)
        best = every.first(max(1, self._most or 0))
        # The sum of all exponentials from the likeliest, whose probability is never too small to be told.
        whole = best[0][1] - math.log(best[0][2])
        self.logprob = _told(logit - whole)
        self.top = [(number, _told(value - whole)) for number, value, _p in best[: self._most]]

    def close(self) -> None:
        for sampler in (self._grammar, self._chain, self._even, self._best):
            if sampler is not None:
                self._c.llama_sampler_free(sampler)
        self._grammar = self._chain = self._even = self._best = None


class _All:
    """All tokens of the vocabulary with their logits, as the samplers take them."""

    def __init__(self, c: Any, size: int) -> None:
        self._c, self._size = c, size
        self._data = (c.llama_token_data * size)()
        self._array = c.llama_token_data_array(data=self._data, size=size, selected=-1, sorted=False)
        self.reference = ctypes.byref(self._array)
        bytes_ = memoryview(self._data).cast("B")
        self._ids, self._floats = bytes_.cast("i"), bytes_.cast("f")
        self._numbers = memoryview((ctypes.c_int32 * size)(*range(size))).cast("B").cast("i")
        self._logits = memoryview(b"").cast("B")

    def fill(self, ctx: Any) -> None:
        found = self._c.llama_get_logits_ith(ctx, -1)
        address = ctypes.cast(found, ctypes.c_void_p).value
        assert address is not None
        logits = memoryview((ctypes.c_float * self._size).from_address(address)).cast("B").cast("f")
        self._ids[0::_FIELDS] = self._numbers
        self._floats[1::_FIELDS] = logits
        array = self._array
        array.size, array.selected, array.sorted = self._size, -1, False

    def logit(self, token: int) -> float:
        """Of this token, as long as nothing was sorted."""
        return float(self._floats[token * _FIELDS + 1])

    def selected(self) -> tuple[int, float]:
        at = int(self._array.selected)
        if at < 0:
            raise Failure("engine", "the engine drew no token")
        return int(self._ids[at * _FIELDS]), float(self._floats[at * _FIELDS + 1])

    def first(self, number: int) -> list[tuple[int, float, float]]:
        """(token, logit, probability) of the first ones."""
        ids, floats = self._ids, self._floats
        last = min(number, int(self._array.size)) * _FIELDS
        return [(ids[at], floats[at + 1], floats[at + 2]) for at in range(0, last, _FIELDS)]


def _chain(c: Any, settings: Settings, words: int) -> Any:
    """words: how many tokens there are."""
    chain = c.llama_sampler_chain_init(c.llama_sampler_chain_default_params())

    def add(sampler: Any) -> None:
        c.llama_sampler_chain_add(chain, sampler)

    if settings.frequency or settings.presence:
        values = (min(max(1, settings.most), 1 << 20), 1.0, settings.frequency, settings.presence)
        # Later engines (0.3.36) want the size of the vocabulary first.
        later = len(c.llama_sampler_init_penalties.argtypes) > len(values)
        add(c.llama_sampler_init_penalties(*((words,) if later else ()), *values))
    if settings.temperature <= 0:
        add(c.llama_sampler_init_greedy())
        return chain
    add(c.llama_sampler_init_top_k(_TOP_K))
    if settings.top_p < 1:
        add(c.llama_sampler_init_top_p(settings.top_p, 1))
    add(c.llama_sampler_init_min_p(_MIN_P, 1))
    add(c.llama_sampler_init_temp(settings.temperature))
    seed = secrets.randbelow(_OWN_SEED) if settings.seed is None else min(settings.seed, _OWN_SEED - 1)
    add(c.llama_sampler_init_dist(seed))
    return chain


def _told(value: float) -> float:
    return min(0.0, value) if value > _NEVER else _NEVER
