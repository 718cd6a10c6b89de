# SPDX-License-Identifier: Apache-2.0
"""The micro batch that memory takes: halved from a whole batch until one step on the longest examples goes through.

What was found is recorded and rides in every checkpoint: another cut of a step into micro batches adds in another
order, so a resumed job goes on with it on whatever host.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence

import torch

from cloister_workers.trainer.example import Example
from cloister_workers.trainer.failures import is_memory_error
from cloister_workers.trainer.loop import accumulate
from cloister_workers.trainer.objectives import Objective, Resizable


def resized(objective: Objective, size: int) -> Objective:
    """`objective` with micro batches of `size` examples; unchanged where it knows only one way."""
    return objective.with_micro_batch(size) if isinstance(objective, Resizable) else objective


def fit_micro_batch(
    model: torch.nn.Module,
    objective: Objective,
    examples: Sequence[Example],
    batch_size: int,
    poll: Callable[[], object],
) -> int:
    """The largest of batch_size, batch_size / 2, ... with which forward and backward of the `batch_size` longest
    examples fit into memory. Weights, gradients and random state are as before.

    Raises the error of memory where not even one example fits, or the objective knows only one way to cut a step.
    """
    longest = sorted(examples, key=lambda example: example.size, reverse=True)[:batch_size]
    size = batch_size
    while True:
        try:
            _try(model, resized(objective, size), longest, poll)
        except (RuntimeError, MemoryError) as error:
            if size == 1 or not isinstance(objective, Resizable) or not is_memory_error(error):
                raise
            size = (size + 1) // 2
        else:
            return size
        _free()


def _try(model: torch.nn.Module, objective: Objective, examples: Sequence[Example], poll: Callable[[], object]) -> None:
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    was_training = model.training
    model.train()
    try:
        with torch.random.fork_rng(devices):
            accumulate(model, objective, examples, poll)
    finally:
        model.zero_grad(set_to_none=True)
        model.train(was_training)


def _free() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
