# SPDX-License-Identifier: Apache-2.0
"""Sequences of different lengths as one padded batch, for models that are not packed."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Protocol

import torch

from cloister_workers.trainer.example import Example


class Sequenced(Protocol):
    """Token ids, and the token type of each (empty: all 0)."""

    @property
    def tokens(self) -> array[int]: ...

    @property
    def segments(self) -> bytes: ...


def padded(examples: Sequence[Sequenced], pad_token_id: int, device: torch.device) -> dict[str, torch.Tensor]:
    """What a model is called with: `input_ids` and `attention_mask`, int64 [n, longest], padded at the right; and
    `token_type_ids` of the same shape where an example has them.
    """
    width = max(len(example.tokens) for example in examples)
    lengths = torch.tensor([len(example.tokens) for example in examples])
    ids = [example.tokens.tolist() + [pad_token_id] * (width - len(example.tokens)) for example in examples]
    batch = {"input_ids": torch.tensor(ids), "attention_mask": (torch.arange(width) < lengths[:, None]).long()}
    if any(example.segments for example in examples):
        batch["token_type_ids"] = torch.tensor([list(example.segments.ljust(width, b"\0")) for example in examples])
    return {name: tensor.to(device) for name, tensor in batch.items()}


def slices(batch: Sequence[Example], size: int) -> list[list[Example]]:
    """The batch in its order, in micro batches of `size`."""
    return [list(batch[start : start + size]) for start in range(0, len(batch), size)]
