# SPDX-License-Identifier: Apache-2.0
"""Models that take padded rows: batches of sequences of different lengths, cut so that little padding is computed."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from typing import Protocol

import torch

from cloister_workers.trainer.example import Example

PASS_TOKENS = 128
"""What another forward and backward pass costs beside its tokens, in tokens: launching kernels, building tensors."""
NO_TARGET = -100
"""What transformers and torch call a place without a target."""


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


def rectangle(rows: Sequence[Sequence[int]], fill: int, device: torch.device) -> torch.Tensor:
    """The rows, int64 [n, longest], filled up at the right."""
    width = max(map(len, rows))
    return torch.tensor([[*row, *[fill] * (width - len(row))] for row in rows], dtype=torch.int64).to(device)


def padded(rows: Sequence[Sequence[int]], pad_token_id: int, device: torch.device) -> dict[str, torch.Tensor]:
    """What a model is called with for rows of tokens: `input_ids` and `attention_mask`, int64 [n, longest], padded at
    the right.
    """
    ids = rectangle(rows, pad_token_id, device)
    lengths = torch.tensor([len(row) for row in rows])
    return {"input_ids": ids, "attention_mask": (torch.arange(ids.shape[1]) < lengths[:, None]).long().to(device)}


def padded_examples(examples: Sequence[Sequenced], pad_token_id: int, device: torch.device) -> dict[str, torch.Tensor]:
    """`padded` of their tokens, and `token_type_ids` of the same shape where an example has them."""
    batch = padded([example.tokens for example in examples], pad_token_id, device)
    if any(example.segments for example in examples):
        width = batch["input_ids"].shape[1]
        batch["token_type_ids"] = rectangle([example.segments.ljust(width, b"\0") for example in examples], 0, device)
    return batch


def slices(
    batch: Sequence[Example], size: int, length: Callable[[Example], int] = lambda example: len(example.tokens)
) -> list[list[Example]]:
    """The batch in micro batches of at most `size`, as `least_padding` groups examples of this length."""
    groups = least_padding([length(example) for example in batch], size)
    return [[batch[index] for index in group] for group in groups]
