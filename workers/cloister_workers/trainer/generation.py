# SPDX-License-Identifier: Apache-2.0
"""What a model goes on to say: the likeliest tokens, or tokens drawn at a temperature by a seed.

Of causal models, prompts of one length go through together, so nothing is padded and an answer does not hang on its
neighbours. Of encoder-decoders the sources are padded and masked. What is drawn for a prompt depends on the seed and on
the tokens of that prompt alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from cloister_workers.trainer.forward import undisturbed, unwrapped
from cloister_workers.trainer.model import positions
from cloister_workers.trainer.padding import padded
from cloister_workers.trainer.prompts import Prompt, prompt_tokens


@dataclass(frozen=True)
class Sampler:
    """A causal or sequence-to-sequence model that answers prompts."""

    model: torch.nn.Module
    tokenizer: Any
    device: torch.device
    poll: Callable[[], object]
    """Called before every forward pass; may raise to stop."""
    seed: int = 0
    temperature: float = 0.0
    """0: the likeliest token."""
    batch_size: int = 32
    """Prompts of one forward pass at most."""

    def continued(self, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> list[str]:
        """`tokens` as texts, without white space around."""
        return [self.text(made) for made in self.tokens(prompts, max_new_tokens)]

    def text(self, tokens: Sequence[int]) -> str:
        """The tokens as a text, without special ones and white space around."""
        return str(self.tokenizer.decode(list(tokens), skip_special_tokens=True)).strip()

    def answers(self, prompts: Sequence[Prompt], max_new_tokens: int) -> list[str]:
        """`continued` of texts and chats."""
        whole = self._encodes()
        return self.continued(
            [prompt_tokens(self.tokenizer, prompt, whole=whole) for prompt in prompts], max_new_tokens
        )

    def tokens(self, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> list[list[int]]:
        """At most so many tokens after each prompt, up to the end-of-text token and without it.

        A prompt has one token at least. Draws no random numbers of torch's own generator, and leaves the model as it
        was.
        """
        found: list[list[int]] = [[] for _ in prompts]
        with undisturbed(self.model, self.device):
            for places in self._batches(prompts):
                made = self._continued([list(prompts[place]) for place in places], max_new_tokens)
                for place, tokens in zip(places, made, strict=True):
                    found[place] = tokens
        return found

    def _batches(self, prompts: Sequence[Sequence[int]]) -> list[list[int]]:
        order = sorted(range(len(prompts)), key=lambda place: len(prompts[place]))
        if self._encodes():
            return [order[start : start + self.batch_size] for start in range(0, len(order), self.batch_size)]
        batches: list[list[int]] = []
        for place in order:
            last = batches[-1] if batches else []
            if last and len(prompts[last[0]]) == len(prompts[place]) and len(last) < self.batch_size:
                last.append(place)
            else:
                batches.append([place])
        return batches

    def _encodes(self) -> bool:
        return bool(unwrapped(self.model).config.is_encoder_decoder)

    def _continued(self, rows: list[list[int]], count: int) -> list[list[int]]:
        ends, draws = self._ends(), [self._generator(row) for row in rows]
        made: list[list[int]] = [[] for _ in rows]
        open_rows = set(range(len(rows)))
        given, tokens = self._begun(rows)
        past, first = None, self._forced()
        for step in range(self._room(rows, count)):
            self.poll()
            name = "decoder_input_ids" if given else "input_ids"
            out = self.model(**given, **{name: tokens}, past_key_values=past, use_cache=True)
            past, logits = out.past_key_values, out.logits[:, -1].float().cpu()
            chosen = [self._next(scores, draw) for scores, draw in zip(logits, draws, strict=True)]
            if step == 0 and first is not None:
                chosen = [first] * len(rows)
            for row, token in enumerate(chosen):
                if row in open_rows and token in ends:
                    open_rows.remove(row)
                elif row in open_rows:
                    made[row].append(token)
            if not open_rows:
                break
            tokens = torch.tensor([[token] for token in chosen], device=self.device)
        return made

    def _begun(self, rows: list[list[int]]) -> tuple[dict[str, Any], torch.Tensor]:
        """What every step is given, and the tokens of the first: of an encoder-decoder the encoded sources, and the
        token that its decoder starts with.
        """
        if not self._encodes():
            return {}, torch.tensor(rows, device=self.device)
        inner = unwrapped(self.model)
        batch = padded(rows, int(self.tokenizer.pad_token_id), self.device)
        self.poll()
        encoded = inner.get_encoder()(**batch)
        start = inner.config.decoder_start_token_id
        first = torch.full((len(rows), 1), int(start), device=self.device)
        return {"encoder_outputs": encoded, "attention_mask": batch["attention_mask"]}, first

    def _room(self, rows: list[list[int]], count: int) -> int:
        """Tokens that may follow: no more than the model has positions for, the last one needing none."""
        table = positions(unwrapped(self.model).config, decoder=True)
        if table is None:
            return count
        return min(count, table - (1 if self._encodes() else len(rows[0])) + 1)

    def _forced(self) -> int | None:
        """The token that every answer of an encoder-decoder begins with, such as BART's beginning-of-text token."""
        stated = getattr(unwrapped(self.model).generation_config, "forced_bos_token_id", None)
        return int(stated) if self._encodes() and stated is not None else None

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
