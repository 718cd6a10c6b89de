# SPDX-License-Identifier: Apache-2.0
"""The training loop as mitigations see it: examples, an objective and a model go in, a trained model comes out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch

from cloister_workers.messages import Metrics
from cloister_workers.trainer.loop import Parts
from cloister_workers.trainer.objectives import Objective
from cloister_workers.trainer.spec import Hyperparameters


@dataclass(frozen=True)
class Trained:
    """How far the loop came."""

    steps: int
    trained_tokens: int
    loss: float


class Training(Protocol):
    """Trains with progress, cancellation, checkpoints and resume."""

    def __call__(
        self,
        model: torch.nn.Module,
        objective: Objective,
        parts: Parts,
        hyperparameters: Hyperparameters,
        seed: int,
        enough: Callable[[Metrics], bool] = ...,
    ) -> Trained:
        """Train `model` in place; `enough` is asked of each evaluation on the validation part whether to stop there
        (default: never). Raises Cancelled, Paused, TrainerError.
        """
        ...

    def poll(self) -> None:
        """Call often in work outside the loop. Raises Cancelled."""
        ...
