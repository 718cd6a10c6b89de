# SPDX-License-Identifier: Apache-2.0
"""Objectives: each turns rows into examples and a batch of examples into per-example losses."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch

from cloister_workers.messages import Metrics, RowReason
from cloister_workers.trainer.example import Example, Outcome


class Objective(Protocol):
    """What the loop needs to know of a method; it never looks into rows or models itself."""

    def read(self, rows: Sequence[dict[str, object]]) -> Sequence[Example | RowReason | tuple[Example, ...]]:
        """One example or reason per row, or the examples that a long row was cut into: same group, `piece` counted."""
        ...

    def micro_batches(self, batch: Sequence[Example]) -> list[list[Example]]:
        """Cut a step's batch into what one forward pass takes; every example exactly once."""
        ...

    def weight(self, example: Example) -> float:
        """What the example's summed loss is a sum over: 1 for a row, its label tokens, or the weight of its class."""
        ...

    def outcome(self, model: torch.nn.Module, examples: Sequence[Example]) -> Outcome:
        """One forward pass: the summed loss of each example."""
        ...

    def score(self, examples: Sequence[Example], sums: Sequence[float], predicted: Sequence[Any]) -> Metrics:
        """Metrics of an evaluation over all of `examples`; `predicted` holds an entry of `Outcome.predicted` each."""
        ...


@runtime_checkable
class Examining(Protocol):
    """An objective that knows of metrics for which a loss is not enough. They are taken before and after training."""

    def examine(
        self, model: torch.nn.Module, examples: Sequence[Example], before_batch: Callable[[], object]
    ) -> Metrics:
        """Metrics of all `examples`, without gradients or random numbers; call `before_batch` often."""
        ...


@runtime_checkable
class Resizable(Protocol):
    """An objective whose micro batches may have another size than it was made with."""

    def with_micro_batch(self, size: int) -> Objective:
        """The same with at most `size` examples, or the tokens of so many longest ones, in a forward pass."""
        ...


@runtime_checkable
class Stateful(Protocol):
    """An objective whose losses depend on the steps before: what it remembers rides in every checkpoint."""

    def state(self) -> dict[str, torch.Tensor]:
        """Everything that `load` needs, by name."""
        ...

    def load(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Put back what `state` gave. Raises KeyError or ValueError where names or shapes differ."""
        ...
