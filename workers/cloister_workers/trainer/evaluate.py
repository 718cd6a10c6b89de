# SPDX-License-Identifier: Apache-2.0
"""Metrics of a model on held-out examples."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from cloister_workers.messages import Metrics
from cloister_workers.trainer.example import Example
from cloister_workers.trainer.forward import evaluating
from cloister_workers.trainer.objectives import Examining, Objective


@dataclass(frozen=True)
class Scored:
    """What a model made of examples: for each its summed loss, and what it predicted."""

    examples: tuple[Example, ...]
    sums: tuple[float, ...]
    predicted: tuple[Any, ...]


def evaluate(
    model: torch.nn.Module,
    objective: Objective,
    examples: Sequence[Example],
    batch_size: int,
    before_batch: Callable[[], object],
) -> Metrics:
    """Metrics of `scored` examples; none where there are no examples, or a loss is no number."""
    found = scored(model, objective, examples, batch_size, before_batch)
    return metrics_of(objective, found)


def metrics_of(objective: Objective, found: Scored) -> Metrics:
    """The objective's metrics of what was scored; none where there are no examples, or a loss is no number."""
    finite = all(math.isfinite(value) for value in found.sums)
    return objective.score(found.examples, found.sums, found.predicted) if found.examples and finite else {}


def scored(
    model: torch.nn.Module,
    objective: Objective,
    examples: Sequence[Example],
    batch_size: int,
    before_batch: Callable[[], object],
) -> Scored:
    """Run `examples` without dropout and without touching gradients or random state.

    They go through in order of length, so little padding is computed. `before_batch` is called ahead of each micro
    batch and may raise to stop.
    """
    by_length = sorted(examples, key=lambda example: len(example.tokens))
    sums: list[float] = []
    predicted: list[Any] = []
    seen: list[Example] = []
    with evaluating(model):
        for start in range(0, len(by_length), batch_size):
            for micro in objective.micro_batches(by_length[start : start + batch_size]):
                before_batch()
                outcome = objective.outcome(model, micro)
                sums += outcome.sums.tolist()
                predicted += outcome.predicted.tolist()
                seen += micro
    return Scored(tuple(seen), tuple(sums), tuple(predicted))


def examine(
    model: torch.nn.Module,
    objective: Objective,
    examples: Sequence[Example],
    batch_size: int,
    before_batch: Callable[[], object],
) -> Metrics:
    """`evaluate`, and whatever else the objective can tell of the model, such as how good its generated answers are."""
    found = evaluate(model, objective, examples, batch_size, before_batch)
    return {**found, **examined(model, objective, examples, before_batch)}


def examined(
    model: torch.nn.Module, objective: Objective, examples: Sequence[Example], before_batch: Callable[[], object]
) -> Metrics:
    """What the objective can tell of the model besides losses; often nothing."""
    if not (examples and isinstance(objective, Examining)):
        return {}
    with evaluating(model):
        return objective.examine(model, examples, before_batch)
