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

    `learned` marks each token that is a target, others are 0 (empty for classification): supervised with 1, masked
    as `masked_language_model` says. `label` is the class (classification; else empty). `group` is the digest of the
    input, `digest` that of input and answer. `other` is a second sequence to compare with: what a preference
    rejects, the other text of a pair. `segments` is the token type of each token where one sequence holds two texts.
    `row` is the number of the row in its file, from 1 (0: of none), `replayed` whether that file is the replay
    dataset's, `piece` counts the examples that one row was cut into, from 0.
    """

    tokens: array[int]
    group: bytes
    digest: bytes
    learned: bytes = b""
    label: str = ""
    truncated: bool = False
    other: Example | None = None
    row: int = 0
    replayed: bool = False
    piece: int = 0
    segments: bytes = b""

    @property
    def size(self) -> int:
        """Tokens of all its sequences."""
        return sum(len(sequence.tokens) for sequence in self.chain)

    @property
    def chain(self) -> list[Example]:
        """This sequence, and the others that it is compared with."""
        found = [self]
        while (other := found[-1].other) is not None:
            found.append(other)
        return found


@dataclass(frozen=True)
class Outcome:
    """Of n examples: the summed loss of each (float32 [n], differentiable) and what was predicted ([n, ...], as the
    objective's `score` takes it): the class, or how many target tokens were right; empty where gradients are on and
    nobody asks.
    """

    sums: torch.Tensor
    predicted: torch.Tensor


def digest_of(*parts: object) -> bytes:
    """SHA-256 of JSON values; equal for equal values alone."""
    return hashlib.sha256(json.dumps(parts, ensure_ascii=True, sort_keys=True).encode()).digest()
