# SPDX-License-Identifier: Apache-2.0
"""Models that take padded rows: batches of sequences of different lengths, cut so that little padding is computed."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Protocol

import torch

from cloister_workers.trainer.example import Example

PASS_TOKENS = 128
"""What another forward and backward pass costs beside its tokens, in tokens: launching kernels, building tensors."""


def least_padding(lengths: Sequence[int], most: int) -> list[list[int]]:
    """Groups of at most `most` indices, such that padding every group to its longest costs least.

    The cost of a group is its size times its greatest length, plus `PASS_TOKENS`. In order of length the best groups
    are neighbours, so this is a shortest path over cut points (Bellman's recursion, O(n * most)). Longest first, as
    then memory is asked for once; equal lengths in their given order.
    """
    order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    least, first = [0], [0]
    for end in range(1, len(order) + 1):
        # The first of a group is its longest.
        costs = [
            (least[start] + (end - start) * lengths[order[start]] + PASS_TOKENS, start)
            for start in range(max(0, end - most), end)
        ]
        cost, start = min(costs)
        least.append(cost)
        first.append(start)
    groups: list[list[int]] = []
    end = len(order)
    while end:
        groups.append(order[first[end] : end])
        end = first[end]
    return groups[::-1]


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
    """The batch in micro batches of at most `size`, as `least_padding` groups them."""
    groups = least_padding([len(example.tokens) for example in batch], size)
    return [[batch[index] for index in group] for group in groups]
