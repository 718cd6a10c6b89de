# SPDX-License-Identifier: Apache-2.0
"""What an objective makes of one row, and what a batch of them gives."""

from __future__ import annotations

import hashlib
import json
from array import array
from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class Example:
    """One row, tokenised.

    `learned` marks with 1 each token that is a target (supervised; empty for classification), `label` is the
    class (classification; empty for supervised). `group` is the digest of the input, `digest` that of input
    and answer.
    """

    tokens: array[int]
    group: bytes
    digest: bytes
    learned: bytes = b""
    label: str = ""
    truncated: bool = False


@dataclass(frozen=True)
class Outcome:
    """Of n examples: the summed loss of each (float32 [n], differentiable) and what was predicted (int64
    [n]): the class, or how many target tokens were right; empty where gradients are on and nobody asks.
    """

    sums: torch.Tensor
    predicted: torch.Tensor


def digest_of(*parts: object) -> bytes:
    """SHA-256 of JSON values; equal for equal values alone."""
    return hashlib.sha256(json.dumps(parts, ensure_ascii=True, sort_keys=True).encode()).digest()
