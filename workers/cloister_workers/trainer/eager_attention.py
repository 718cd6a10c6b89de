# SPDX-License-Identifier: Apache-2.0
"""Causal forward passes with padding, by transformers' own eager attention: for models whose results packing changes.

Their logits may be more than the output head makes of hidden states (soft caps, scales), so whole logits are taken,
tokens x vocabulary of a packed row. Padding stands at the right, where causal attention of real tokens never looks.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch

from cloister_workers.trainer.packing import cumulative_lengths
from cloister_workers.trainer.padding import padded

PADDED = "eager"  # transformers' name of the attention that every architecture has in full


def padded_logits(
    causal: Any,  # noqa: ANN401 - a transformers model
    tokens: Sequence[int],
    lengths: Sequence[int],
    device: torch.device,
) -> torch.Tensor:
    """Logits [1, T, V] of the sequences with these lengths, concatenated in `tokens`."""
    sequences = [tokens[start:end] for start, end in pairwise(cumulative_lengths(lengths))]
    found: dict[int, torch.Tensor] = {}
    for group in _alike(lengths):
        logits = causal(**padded([sequences[index] for index in group], 0, device), use_cache=False).logits
        found |= {index: logits[row, : lengths[index]] for row, index in enumerate(group)}
    return torch.cat([found[index] for index in range(len(lengths))])[None]


def _alike(lengths: Sequence[int]) -> list[list[int]]:
    """Indices by falling length, in groups where the longest is at most twice the shortest: half is padding at most."""
    groups: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda place: (-lengths[place], place)):
        if groups and 2 * lengths[index] >= lengths[groups[-1][0]]:
            groups[-1].append(index)
        else:
            groups.append([index])
    return groups
