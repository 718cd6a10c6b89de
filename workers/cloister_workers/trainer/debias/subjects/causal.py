# SPDX-License-Identifier: Apache-2.0
"""A causal language model as measures see it: likelihoods of texts and of completions, and greedy continuations.

Before a text stands what the tokenizer itself puts there (a beginning-of-text token or nothing). Special tokens that
it would put behind a text are left out. Texts beyond the longest length are cut at the end; a prompt with its
completion is cut at the front, so that the completion stays.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from cloister_workers.trainer.debias.kinds import FloatArray
from cloister_workers.trainer.forward import (
    batches,
    log_probs_of,
    narrowed,
    undisturbed,
    unwrapped,
)
from cloister_workers.trainer.generation import Sampler
from cloister_workers.trainer.model import longest_sequence
from cloister_workers.trainer.padding import padded


@dataclass(frozen=True)
class CausalSubject:
    """A `transformers` causal model, adapted by peft or not, with a fast tokenizer."""

    model: torch.nn.Module
    tokenizer: Any
    device: torch.device
    poll: Callable[[], object]
    """Called before every forward pass; may raise to stop."""
    max_seq_length: int = 1024
    """Tokens, special ones included."""
    batch_size: int = 32
    """Texts in a forward pass at most; fewer where logits would take too much memory."""

    def token_log_probs(self, texts: Sequence[str]) -> list[FloatArray]:
        """For each text, the natural log-probability of each of its tokens given the text before it.

        The first token is given the beginning token where the tokenizer puts one, else the end-of-text token, else
        the beginning token; where there is neither, it is left out.
        """
        lead, start = self._lead(), self._start()
        ids = [[*lead, *entry][: self._longest()] for entry in self._ids(texts)]
        found = self._log_probs(ids, [1] * len(ids))
        if lead or not start:
            return found
        firsts = self._after_start(start[0], [entry[0] if entry else None for entry in ids])
        return [np.concatenate(pair) for pair in zip(firsts, found, strict=True)]

    def completion_log_probs(self, pairs: Sequence[tuple[str, str]]) -> list[FloatArray]:
        """For each (prompt, completion), the log-probability of each token of the completion.

        Both are tokenised together; a token that reaches into the completion belongs to it. An empty prompt is
        replaced by the start: the tokenizer's own beginning, else end-of-text, else beginning token.
        """
        if not pairs:
            return []
        encoded = self.tokenizer(
            [prompt + completion for prompt, completion in pairs],
            add_special_tokens=False,
            return_offsets_mapping=True,
        )
        sequences, firsts = [], []
        for (prompt, _), ids, offsets in zip(pairs, encoded["input_ids"], encoded["offset_mapping"], strict=True):
            inside = (place for place, (_, end) in enumerate(offsets) if end > len(prompt))
            before = next(inside, len(ids)) if prompt else 0
            lead = self._lead() if prompt else self._start()
            dropped = min(before, max(0, len(lead) + len(ids) - self._longest()))
            sequences.append([*lead, *ids[dropped:]][: self._longest()])
            firsts.append(max(1, len(lead) + before - dropped))
        return self._log_probs(sequences, firsts)

    def continue_texts(self, prompts: Sequence[str], max_new_tokens: int) -> list[str]:
        """Greedy continuations, each up to the end-of-text token; prompts of one length go through together."""
        room = self._longest() - max_new_tokens
        lead = self._lead()
        ids = [[*lead, *entry[-max(1, room - len(lead)) :]] or self._start() for entry in self._ids(prompts)]
        sampler = Sampler(self.model, self.tokenizer, self.device, self.poll, batch_size=self.batch_size)
        made = sampler.tokens([entry for entry in ids if entry], max_new_tokens)
        said = iter(self.tokenizer.batch_decode(made, skip_special_tokens=True))
        return [str(next(said)) if entry else "" for entry in ids]

    # ------------------------------------------------------------ tokens
    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        if not texts:
            return []
        ids: list[list[int]] = self.tokenizer(list(texts), add_special_tokens=False)["input_ids"]
        return ids

    def _lead(self) -> list[int]:
        """What the tokenizer puts before a text by itself."""
        own = self.tokenizer("")["input_ids"]
        return [own[0]] if own and own[0] in self.tokenizer.all_special_ids else []

    def _start(self) -> list[int]:
        """What the first token of a text is given."""
        known = (self.tokenizer.eos_token_id, self.tokenizer.bos_token_id)
        return self._lead() or [token for token in known if token is not None][:1]

    def _longest(self) -> int:
        return longest_sequence(unwrapped(self.model).config, self.tokenizer, self.max_seq_length)

    # ------------------------------------------------------------ forward passes
    def _log_probs(self, sequences: Sequence[list[int]], firsts: Sequence[int]) -> list[FloatArray]:
        """Take log P of tokens firsts[i], firsts[i] + 1, ... of sequence i, each given all before it; firsts[i] > 0."""
        found: list[FloatArray] = [np.zeros(0)] * len(sequences)
        asked = [index for index, entry in enumerate(sequences) if len(entry) > firsts[index]]
        pad = self.tokenizer.pad_token_id or 0
        with undisturbed(self.model, self.device):
            for places in batches([len(sequences[index]) for index in asked], self.batch_size, len(self.tokenizer)):
                chosen = [asked[place] for place in places]
                self.poll()
                batch = padded([sequences[index] for index in chosen], pad, self.device)
                spans = [(firsts[index], len(sequences[index])) for index in chosen]
                logits, skipped = self._logits(batch, min(first for first, _ in spans) - 1)
                values = [
                    log_probs_of(
                        logits[row, first - 1 - skipped : end - 1 - skipped], batch["input_ids"][row, first:end]
                    )
                    for row, (first, end) in enumerate(spans)
                ]
                parts = _split(torch.cat(values), [end - first for first, end in spans])
                for index, part in zip(chosen, parts, strict=True):
                    found[index] = part
        return found

    def _logits(self, batch: dict[str, torch.Tensor], skip: int) -> tuple[torch.Tensor, int]:
        """Logits of a batch from position `skip` on, where the model lets us leave out the others, and how many were
        left out.
        """
        with narrowed(self.model, lambda hidden: hidden[:, skip:]):
            logits: torch.Tensor = self.model(**batch, use_cache=False).logits
        return logits, batch["input_ids"].shape[1] - logits.shape[1]

    def _after_start(self, start: int, tokens: Sequence[int | None]) -> list[FloatArray]:
        """Take log P(token | start) for each token, none for None; one forward pass."""
        with undisturbed(self.model, self.device):
            self.poll()
            logits = self.model(**padded([[start]], 0, self.device), use_cache=False).logits[0, -1]
            table = logits.double().log_softmax(0).cpu().numpy()
        return [table[[token]] if token is not None else np.zeros(0) for token in tokens]


def _split(values: torch.Tensor, counts: Sequence[int]) -> list[FloatArray]:
    """One array a sequence from all of a batch, so that a device hands over once."""
    parts = torch.split(values.cpu(), list(counts))
    return [part.numpy() for part in parts]
