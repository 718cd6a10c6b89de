# SPDX-License-Identifier: Apache-2.0
"""Greedy continuations by a causal model with packed attention: many prompts in one forward pass, each token with the
whole of what stands before it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate

import torch

from cloister_workers.trainer.decoder import hidden_states, output_head
from cloister_workers.trainer.packing import best_fit_decreasing


def continuations(
    model: torch.nn.Module,
    prompts: Sequence[Sequence[int]],
    limits: Sequence[int],
    stop: int | None,
    row_tokens: int,
    device: torch.device,
    before_batch: Callable[[], object],
) -> list[list[int]]:
    """Up to limits[i] tokens after prompt i, ended by `stop`, which is left out. A forward pass takes `row_tokens`
    tokens, or one longer sequence.
    """
    written: list[list[int]] = [[] for _ in prompts]
    unfinished = [number for number, limit in enumerate(limits) if limit > 0]
    while unfinished:
        sequences = [[*prompts[number], *written[number]] for number in unfinished]
        sizes = [len(sequence) for sequence in sequences]
        rest = []
        for row in best_fit_decreasing(sizes, max(row_tokens, *sizes)):
            before_batch()
            for place, token in zip(row, _next(model, [sequences[place] for place in row], device), strict=True):
                number = unfinished[place]
                if token == stop:
                    continue
                written[number].append(token)
                if len(written[number]) < limits[number]:
                    rest.append(number)
        unfinished = sorted(rest)
    return written


def _next(model: torch.nn.Module, sequences: Sequence[Sequence[int]], device: torch.device) -> list[int]:
    lengths = [len(sequence) for sequence in sequences]
    states = hidden_states(model, [token for sequence in sequences for token in sequence], lengths, device)
    ends = torch.tensor([end - 1 for end in accumulate(lengths)], device=device)
    chosen: list[int] = output_head(model)(states[0, ends]).argmax(-1).tolist()
    return chosen
