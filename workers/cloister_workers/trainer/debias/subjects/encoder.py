# SPDX-License-Identifier: Apache-2.0
"""A sentence encoder as measures see it: texts to embeddings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from cloister_workers.trainer.debias.kinds import FloatArray
from cloister_workers.trainer.debias.subjects.pipeline import SentenceEncoder
from cloister_workers.trainer.forward import evaluating, unwrapped
from cloister_workers.trainer.model import longest_sequence


@dataclass(frozen=True)
class EncoderSubject:
    """Embeds texts as the model's own pipeline does, its default prompt included.

    Texts are cut to `max_seq_length` tokens, or to a bound of the model's own where that is lower.
    """

    model: SentenceEncoder
    tokenizer: Any
    device: torch.device
    poll: Callable[[], None]
    max_seq_length: int = 128
    batch_size: int = 32

    def embed(self, texts: Sequence[str]) -> FloatArray:
        """float64 [n, d], of unit length where the model normalises."""
        return self._run(texts, self.model)

    def unscaled(self, texts: Sequence[str]) -> FloatArray:
        """float64 [n, d] before the model normalises: what an erasure is fitted on and folded behind."""
        return self._run(texts, self.model.unscaled)

    def tokens(self, texts: Sequence[str]) -> dict[str, torch.Tensor]:
        """A padded batch as the model takes it, on its device."""
        lower = bool(self.model.settings.get("do_lower_case"))
        written = [self.model.prompt + text for text in texts]
        batch = self.tokenizer(
            [text.lower() for text in written] if lower else written,
            padding=True,
            truncation=True,
            max_length=self._bound(),
            return_tensors="pt",
        )
        return {name: tensor.to(self.device) for name, tensor in batch.items()}

    def _bound(self) -> int:
        wanted = min(self.max_seq_length, int(self.model.settings.get("max_seq_length") or self.max_seq_length))
        return longest_sequence(unwrapped(self.model.transformer).config, self.tokenizer, wanted)

    def _run(self, texts: Sequence[str], forward: Callable[[dict[str, torch.Tensor]], torch.Tensor]) -> FloatArray:
        """Texts go by length, so that a batch pads little; the answer is in their order."""
        order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
        rows: dict[int, FloatArray] = {}
        with evaluating(self.model):
            for chosen in _batches(order, self.batch_size):
                self.poll()
                answer = forward(self.tokens([texts[index] for index in chosen])).double().cpu().numpy()
                rows.update(zip(chosen, answer, strict=True))
        return np.stack([rows[index] for index in range(len(texts))]) if rows else np.zeros((0, 0))


def _batches(order: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    for start in range(0, len(order), size):
        yield order[start : start + size]
