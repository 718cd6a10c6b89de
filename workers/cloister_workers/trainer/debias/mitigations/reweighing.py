# SPDX-License-Identifier: Apache-2.0
"""Reweighing (Kamiran and Calders 2012, doi:10.1007/s10115-011-0463-8): weigh every row so that group and label are
independent, and train on.

A row of group g and label y weighs w(g, y) = P(g) P(y) / P(g, y), shares taken over the fit part; the weights add up
to the number of rows. The loss of a step is the mean of weight times cross-entropy over its rows. There is nothing
to set. Several axes count as their product.

Fits classifiers. Refused where rows do not state their groups, or a group lacks a label altogether.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from cloister_workers.trainer.debias.classifying import (
    Cell,
    Celled,
    cell_counts,
    cell_examples,
    examples_of,
    exported,
    objective_of,
    refuse_without_groups,
)
from cloister_workers.trainer.debias.kinds import ModelKind
from cloister_workers.trainer.debias.mitigation import Case, Mitigated
from cloister_workers.trainer.debias.shapes import Labelled
from cloister_workers.trainer.loop import Parts
from cloister_workers.trainer.objectives.classification import Classification


class Weighted(Celled):
    """The plain objective with one fixed weight a cell."""

    def __init__(self, plain: Classification, weights: Sequence[float]) -> None:
        super().__init__(plain)
        self._weights = torch.tensor(list(weights))

    def scale(self, losses: torch.Tensor, cells: torch.Tensor) -> torch.Tensor:
        return self._weights.to(cells.device)[cells]


@dataclass(frozen=True)
class Reweighing:
    """No settings, no state."""

    name: str = "reweighing"
    title: str = "Reweighing of groups and labels"
    kinds: frozenset[ModelKind] = frozenset({ModelKind.CLASSIFIER})
    trained: bool = True
    defaults: Mapping[str, float] = field(default_factory=dict)
    choices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    source: str = "Kamiran and Calders 2012, doi:10.1007/s10115-011-0463-8"

    def refuse(self, case: Case) -> None:
        refuse_without_groups(case)

    def apply(self, case: Case) -> Mitigated:
        self.refuse(case)
        rows, plain = case.fit.rows.of(Labelled), objective_of(case)
        weights = weights_of(cell_counts(rows, case.axes))
        parts = Parts(
            training=cell_examples(plain, rows, case.axes, tuple(weights)),
            validation=examples_of(plain, case.validation.rows.of(Labelled)),
        )
        objective = Weighted(plain, tuple(weights.values()))
        trained = case.training(case.subject.model, objective, parts, case.hyperparameters, case.seed)
        notes = {"rows": float(len(rows)), "cells": float(len(weights))}
        notes |= {"lightest": min(weights.values()), "heaviest": max(weights.values())}
        return exported(case, trained, notes)


def weights_of(counts: Mapping[Cell, int]) -> dict[Cell, float]:
    """w(g, y) = P(g) P(y) / P(g, y) for each cell, in the order of `counts`."""
    total = sum(counts.values())
    of_group: dict[str, int] = {}
    of_label: dict[str, int] = {}
    for (group, label), count in counts.items():
        of_group[group] = of_group.get(group, 0) + count
        of_label[label] = of_label.get(label, 0) + count
    return {(g, y): of_group[g] * of_label[y] / (total * count) for (g, y), count in counts.items()}


MITIGATION = Reweighing()
