# SPDX-License-Identifier: Apache-2.0
"""Metrics of a model on held-out examples."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch

from cloister_workers.messages import Metrics
from cloister_workers.trainer.example import Example
from cloister_workers.trainer.objectives import Examining, Objective


def evaluate(
    model: torch.nn.Module,
    objective: Objective,
    examples: Sequence[Example],
    batch_size: int,
    before_batch: Callable[[], object],
) -> Metrics:
    """Score `examples` (none: no metrics) without dropout and without touching gradients or random state.

    Examples go through in order of length, so little padding is computed. `before_batch` is called ahead of
    each micro batch and may raise to stop.
    """
    by_length = sorted(examples, key=lambda example: len(example.tokens))
    sums: list[float] = []
    predicted: list[int] = []
    seen: list[Example] = []
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            for start in range(0, len(by_length), batch_size):
                for micro in objective.micro_batches(by_length[start : start + batch_size]):
                    before_batch()
                    outcome = objective.outcome(model, micro)
                    sums += outcome.sums.tolist()
                    predicted += outcome.predicted.tolist()
                    seen += micro
    finally:
        model.train(was_training)
    finite = all(math.isfinite(value) for value in sums)
    return objective.score(seen, sums, predicted) if seen and finite else {}


def examine(
    model: torch.nn.Module,
    objective: Objective,
    examples: Sequence[Example],
    batch_size: int,
    before_batch: Callable[[], object],
) -> Metrics:
    """`evaluate`, and whatever else the objective can tell of the model, such as how good its generated answers are."""
    found = evaluate(model, objective, examples, batch_size, before_batch)
    if not (examples and isinstance(objective, Examining)):
        return found
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            return {**found, **objective.examine(model, examples, before_batch)}
    finally:
        model.train(was_training)
