"""Whether a grammar takes a text, by the engine itself with the real model's vocabulary."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

from anchorhold.worker import bindings


class Vocabulary:
    """The demo model's words, without its weights."""

    def __init__(self, model: Path) -> None:
        self.c: Any = bindings.load()
        bindings.silence(self.c)
        params = self.c.llama_model_default_params()
        params.vocab_only = True
        self._model = self.c.llama_model_load_from_file(str(model).encode(), params)
        self._vocab = self.c.llama_model_get_vocab(self._model)

    def tokens(self, text: str) -> list[int]:
        data = text.encode()
        room = len(data) + 8
        found = (ctypes.c_int32 * room)()
        number = self.c.llama_tokenize(self._vocab, data, len(data), found, room, False, False)
        return found[:number]

    def takes(self, grammar: str, text: str, *, whole: bool = True) -> bool:
        """Whether the engine, held by the grammar, could have said this, and (whole) ended there."""
        c = self.c
        sampler = c.llama_sampler_init_grammar(self._vocab, grammar.encode("ascii"), b"root")
        assert sampler, "the engine cannot read the grammar"
        one = (c.llama_token_data * 1)()
        array = c.llama_token_data_array(data=one, size=1, selected=-1, sorted=False)
        try:
            for token in [*self.tokens(text), *([c.llama_vocab_eos(self._vocab)] if whole else [])]:
                one[0].id, one[0].logit, one[0].p, array.size = token, 1.0, 0.0, 1
                c.llama_sampler_apply(sampler, ctypes.byref(array))
                if one[0].logit != 1.0:
                    return False
                c.llama_sampler_accept(sampler, token)
            return True
        finally:
            c.llama_sampler_free(sampler)

    def reads(self, grammar: str) -> bool:
        sampler = self.c.llama_sampler_init_grammar(self._vocab, grammar.encode("ascii"), b"root")
        if sampler:
            self.c.llama_sampler_free(sampler)
        return bool(sampler)

    def close(self) -> None:
        self.c.llama_model_free(self._model)
