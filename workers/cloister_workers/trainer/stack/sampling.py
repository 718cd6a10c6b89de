# SPDX-License-Identifier: Apache-2.0
"""Answers of a causal or sequence-to-sequence model: the likeliest tokens, or tokens drawn at a temperature by a seed.

Prompts of one length go through together, so nothing is padded and an answer does not hang on its neighbours; what is
drawn for a prompt depends on the seed and on the tokens of that prompt.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from cloister_workers.trainer.debias.subjects.forward import undisturbed, unwrapped


@dataclass(frozen=True)
class Sampler:
    """A causal model that goes on with prompts, or a sequence-to-sequence model that answers them."""

    model: torch.nn.Module
    tokenizer: Any
    device: torch.device
    poll: Callable[[], object]
    """Called before every forward pass; may raise to stop."""
    seed: int
    temperature: float = 0.0
    """0: the likeliest token."""

    def continued(self, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> list[str]:
        """At most so many tokens after each prompt, to the end-of-text token, as text without white space around."""
        found = [""] * len(prompts)
        with undisturbed(self.model, self.device):
            for length in sorted({len(prompt) for prompt in prompts}):
                same = [place for place, prompt in enumerate(prompts) if len(prompt) == length]
                made = self._continued([list(prompts[place]) for place in same], max_new_tokens)
                for place, tokens in zip(same, made, strict=True):
                    found[place] = str(self.tokenizer.decode(tokens, skip_special_tokens=True)).strip()
        return found

    def _continued(self, rows: list[list[int]], count: int) -> list[list[int]]:
        ends, draws = self._ends(), [self._generator(row) for row in rows]
        made: list[list[int]] = [[] for _ in rows]
        open_rows = set(range(len(rows)))
        tokens, given = self._begun(torch.tensor(rows, device=self.device))
        past = None
        for _ in range(count):
            self.poll()
            out = self.model(**{**given, self._input: tokens}, past_key_values=past, use_cache=True)
            past, logits = out.past_key_values, out.logits[:, -1].float().cpu()
            chosen = [self._next(scores, draw) for scores, draw in zip(logits, draws, strict=True)]
            for row, token in enumerate(chosen):
                if row in open_rows and token in ends:
                    open_rows.remove(row)
                elif row in open_rows:
                    made[row].append(token)
            if not open_rows:
                break
            tokens = torch.tensor([[token] for token in chosen], device=self.device)
        return made

    @property
    def _input(self) -> str:
        """Where the model takes what it goes on with."""
        return "decoder_input_ids" if unwrapped(self.model).config.is_encoder_decoder else "input_ids"

    def _begun(self, rows: torch.Tensor) -> tuple[torch.Tensor, dict[str, Any]]:
        """What is gone on with, int64 [n, t], and what stays the same: what an encoder made of the rows, if there is
        one.
        """
        inner = unwrapped(self.model)
        if not inner.config.is_encoder_decoder:
            return rows, {}
        start = torch.full((len(rows), 1), int(inner.config.decoder_start_token_id), device=self.device)
        return start, {"encoder_outputs": inner.get_encoder()(input_ids=rows)}

    def _next(self, logits: torch.Tensor, draw: torch.Generator) -> int:
        if self.temperature == 0:
            return int(logits.argmax())
        chances = (logits.double() / self.temperature).softmax(-1)
        return int(torch.multinomial(chances, 1, generator=draw))

    def _generator(self, prompt: Sequence[int]) -> torch.Generator:
        digest = hashlib.sha256(repr((self.seed, list(prompt))).encode()).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") % 2**63)

    def _ends(self) -> frozenset[int]:
        """Tokens that end a text."""
        stated = getattr(getattr(unwrapped(self.model), "generation_config", None), "eos_token_id", None)
        listed = stated if isinstance(stated, list) else [stated]
        return frozenset(token for token in (*listed, self.tokenizer.eos_token_id) if token is not None)
