# SPDX-License-Identifier: Apache-2.0
"""A masked language model as measures see it: how likely a token is where a mask stands in its place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from cloister_workers.errors import TrainerError
from cloister_workers.messages import FailureCode
from cloister_workers.trainer.debias.kinds import FloatArray
from cloister_workers.trainer.forward import (
    batches,
    log_probs_of,
    narrowed,
    undisturbed,
    unwrapped,
)
from cloister_workers.trainer.model import longest_sequence
from cloister_workers.trainer.padding import padded


@dataclass(frozen=True)
class MaskedSubject:
    """A `transformers` masked model, adapted by peft or not, with a fast tokenizer.

    Making one raises TrainerError MODEL_INVALID where the tokenizer has no mask token.
    """

    model: torch.nn.Module
    tokenizer: Any
    device: torch.device
    poll: Callable[[], object]
    """Called before every forward pass; may raise to stop."""
    max_seq_length: int = 512
    """Tokens, special ones included; longer texts are cut at the end."""
    batch_size: int = 32
    """Masked copies in a forward pass at most; fewer where logits would take too much memory."""

    def __post_init__(self) -> None:
        if self.tokenizer.mask_token_id is None:
            raise TrainerError(
                FailureCode.MODEL_INVALID,
                "the model cannot be used: its tokenizer has no mask token; take a masked language model such as BERT",
            )

    def encode(self, text: str) -> list[int]:
        """Token ids with special tokens."""
        room = longest_sequence(unwrapped(self.model).config, self.tokenizer, self.max_seq_length)
        ids: list[int] = self.tokenizer(text, truncation=True, max_length=room)["input_ids"]
        return ids

    def masked_log_probs(
        self, sequences: Sequence[Sequence[int]], positions: Sequence[Sequence[int]]
    ) -> list[FloatArray]:
        """For each sequence of ids and each of its positions: log P(the token there | the sequence with that one
        position masked), natural logarithm.
        """
        asked = [(index, place) for index, places in enumerate(positions) for place in places]
        flat: FloatArray = np.zeros(len(asked))
        pad = self.tokenizer.pad_token_id or 0
        with undisturbed(self.model, self.device):
            widths = [len(sequences[index]) for index, _ in asked]
            for chosen in batches(widths, self.batch_size, len(self.tokenizer)):
                self.poll()
                batch = padded([sequences[asked[number][0]] for number in chosen], pad, self.device)
                rows = torch.arange(len(chosen), device=self.device)
                places = torch.tensor([asked[number][1] for number in chosen], device=self.device)
                true = batch["input_ids"][rows, places]
                batch["input_ids"][rows, places] = self.tokenizer.mask_token_id
                with narrowed(self.model, partial(_at, rows, places)):
                    logits = self.model(**batch).logits
                asked_for = logits[:, 0] if logits.shape[1] == 1 else logits[rows, places]
                flat[chosen] = log_probs_of(asked_for, true).cpu().numpy()
        ends = np.cumsum([len(places) for places in positions])
        return np.split(flat, ends[:-1]) if len(ends) else []


def _at(rows: torch.Tensor, places: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    return hidden[rows, places][:, None]
