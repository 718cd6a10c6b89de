# SPDX-License-Identifier: Apache-2.0
"""Group DRO (Sagawa, Koh, Hashimoto and Liang 2020, arXiv:1911.08731, algorithm 1): train for the worst group.

A cell is a group together with a label. Each step, with l_g the mean cross-entropy of cell g in the step (0 where
the step has none of it) and n_g its rows in the fit part:

    q_g <- q_g exp(step * (l_g + adjustment / sqrt(n_g))), then q is scaled to add up to 1; it starts even
    loss = sum over g of q_g l_g

`sampling: balanced` repeats the rows of smaller cells until all cells are as large as the largest, so that each is
drawn equally often; an epoch then has (cells * largest) examples. `natural` takes rows as they are. The forward pass
of a step is never divided, because the losses of all cells are needed before any is weighed.

Strong weight decay is part of the method (`hyperparameters.weight_decay`). With `n_evals` above 0 and a validation
part, the weights kept are those whose lowest accuracy over cells was highest, the last of equals, the end of training
included; otherwise those of the end.

Fits classifiers. Refused where rows do not state their groups, or a group lacks a label altogether.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice
from typing import Any

import torch

from cloister_workers.messages import Metrics
from cloister_workers.trainer.debias.classifying import (
    Celled,
    CellExample,
    cell_counts,
    cell_examples,
    exported,
    objective_of,
    refuse_without_groups,
)
from cloister_workers.trainer.debias.kinds import ModelKind
from cloister_workers.trainer.debias.mitigation import Case, Mitigated
from cloister_workers.trainer.debias.shapes import Labelled
from cloister_workers.trainer.evaluate import evaluate
from cloister_workers.trainer.example import Example
from cloister_workers.trainer.loop import Parts
from cloister_workers.trainer.objectives.classification import Classification

_BEST = "best/"


class GroupDro(Celled):
    """The robust loss. Remembers q, and the best weights so far where it is asked to keep them."""

    def __init__(
        self, plain: Classification, counts: Sequence[int], step: float, adjustment: float, keep_of: torch.nn.Module
    ) -> None:
        super().__init__(plain)
        rows = torch.tensor(list(counts), dtype=torch.float64)
        self._step = step
        self._extra = adjustment / rows.sqrt()
        self._q = torch.full_like(rows, 1 / len(rows))
        self._model = keep_of
        self._best: dict[str, torch.Tensor] = {}
        self._worst = torch.tensor(-1.0, dtype=torch.float64)

    @property
    def q(self) -> torch.Tensor:
        """float64 [cells], adding up to 1."""
        return self._q

    @property
    def worst(self) -> float:
        """The highest lowest accuracy over cells of all evaluations so far; -1 before the first."""
        return float(self._worst)

    def micro_batches(self, batch: Sequence[Example]) -> list[list[Example]]:
        return [list(batch)] if torch.is_grad_enabled() else super().micro_batches(batch)

    def scale(self, losses: torch.Tensor, cells: torch.Tensor) -> torch.Tensor:
        here, where = losses.double().cpu(), cells.cpu()
        counts = torch.bincount(where, minlength=len(self._q)).double()
        means = torch.zeros_like(self._q).index_add(0, where, here) / counts.clamp(min=1)
        grown = self._q * torch.exp(self._step * (means + self._extra))
        self._q = grown / grown.sum()
        # the loop divides by the examples of the step, so that the sum of q_g times mean loss is left
        factors = self._q / counts.clamp(min=1) * len(where)
        return factors[where].to(losses)

    def score(self, examples: Sequence[Any], sums: Sequence[float], predicted: Sequence[Any]) -> Metrics:
        self._keep(lowest_accuracy(examples, [int(said) for said, _ in predicted], self._plain.labels))
        return super().score(examples, sums, predicted)

    def _keep(self, worst: float) -> None:
        if worst >= self.worst:
            self._worst = torch.tensor(worst, dtype=torch.float64)
            self._best = {name: param.detach().clone() for name, param in self._trained()}

    def restore_best(self) -> None:
        """Put the best weights back; nothing where none were kept."""
        with torch.no_grad():
            for name, param in self._trained():
                if name in self._best:
                    param.copy_(self._best[name])

    def state(self) -> dict[str, torch.Tensor]:
        """q, and the best weights with their accuracy: bit for bit what the steps to come depend on."""
        return {"q": self._q, "worst": self._worst} | {_BEST + name: tensor for name, tensor in self._best.items()}

    def load(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Put back what `state` gave. Raises KeyError or ValueError where it is of another job."""
        if tensors["q"].shape != self._q.shape:
            raise ValueError("the checkpoint has another number of cells")
        params = dict(self._trained())
        best = {name.removeprefix(_BEST): tensor for name, tensor in tensors.items() if name.startswith(_BEST)}
        if any(tensor.shape != params[name].shape for name, tensor in best.items()):
            raise ValueError("a kept tensor of the checkpoint has another shape than the model's")
        self._q, self._worst = tensors["q"].clone(), tensors["worst"].clone()
        self._best = {name: tensor.to(params[name].device).clone() for name, tensor in best.items()}

    def _trained(self) -> list[tuple[str, torch.nn.Parameter]]:
        return [(name, param) for name, param in self._model.named_parameters() if param.requires_grad]


@dataclass(frozen=True)
class GroupDroMitigation:
    """Settings: `step`, how fast q follows the losses; `adjustment`, the C of C / sqrt(n_g)."""

    name: str = "group_dro"
    title: str = "Group DRO"
    kinds: frozenset[ModelKind] = frozenset({ModelKind.CLASSIFIER})
    trained: bool = True
    defaults: Mapping[str, float] = field(default_factory=lambda: {"step": 0.01, "adjustment": 0.0})
    choices: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: {"sampling": ("balanced", "natural")})
    source: str = "Sagawa, Koh, Hashimoto and Liang 2020, arXiv:1911.08731"

    def refuse(self, case: Case) -> None:
        refuse_without_groups(case)

    def apply(self, case: Case) -> Mitigated:
        self.refuse(case)
        rows, plain, model = case.fit.rows.of(Labelled), objective_of(case), case.subject.model
        counts = cell_counts(rows, case.axes)
        examples = cell_examples(plain, rows, case.axes, tuple(counts))
        validation = cell_examples(plain, case.validation.rows.of(Labelled), case.axes, tuple(counts))
        settings = {**self.defaults, **case.settings}
        objective = GroupDro(plain, tuple(counts.values()), settings["step"], settings["adjustment"], model)
        taken = balanced(examples) if case.options.get("sampling", "balanced") == "balanced" else examples
        trained = case.training(model, objective, Parts(taken, validation), case.hyperparameters, case.seed)
        notes = {"rows": float(len(rows)), "examples_an_epoch": float(len(taken)), "cells": float(len(counts))}
        if validation and case.hyperparameters.n_evals:
            evaluate(model, objective, validation, case.hyperparameters.batch_size, case.training.poll)
            objective.restore_best()
            notes["worst_validation_accuracy"] = objective.worst
        notes["largest_q"] = float(objective.q.max())
        return exported(case, trained, notes)


def balanced(examples: Sequence[CellExample]) -> tuple[CellExample, ...]:
    """All cells as large as the largest: smaller ones over and over in their order."""
    cells: dict[int, list[CellExample]] = {}
    for example in examples:
        cells.setdefault(example.cell, []).append(example)
    largest = max(len(found) for found in cells.values())
    return tuple(example for _, found in sorted(cells.items()) for example in islice(cycle(found), largest))


def lowest_accuracy(examples: Sequence[CellExample], predicted: Sequence[int], labels: Sequence[str]) -> float:
    """The accuracy of the cell where it is lowest."""
    hits: dict[int, list[bool]] = {}
    for example, said in zip(examples, predicted, strict=True):
        hits.setdefault(example.cell, []).append(labels[said] == example.label)
    return min(sum(found) / len(found) for found in hits.values())


MITIGATION = GroupDroMitigation()
