# SPDX-License-Identifier: Apache-2.0
"""What mitigations that train a classifier share: from labelled rows to the training loop, and to the export.

A training example knows its cell: the product of the groups that its row states on the job's axes, and its label.
`Celled` wraps the plain classification objective and hands a mitigation the losses of a step with the cells they
come from. Evaluations go past it: they see every example's own loss.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from cloister_workers.errors import TrainerError
from cloister_workers.messages import FailureCode, FailureNumber, Metrics, RefusalReason, RowReason
from cloister_workers.trainer.debias.labelled import BETWEEN, group_of
from cloister_workers.trainer.debias.mitigation import Case, Layer, Mitigated, Refused
from cloister_workers.trainer.debias.shapes import Labelled
from cloister_workers.trainer.debias.training import Trained
from cloister_workers.trainer.example import Example, Outcome, digest_of
from cloister_workers.trainer.export import export_files
from cloister_workers.trainer.objectives.classification import Classification

Cell = tuple[str, str]
"""Group and label."""


@dataclass(frozen=True, slots=True)
class CellExample(Example):
    """An example that knows its group and label by number in the list of cells."""

    cell: int = 0


def objective_of(case: Case) -> Classification:
    """The plain classification loss for the subject's tokenizer and labels."""
    wanted = case.hyperparameters
    return Classification(
        tokenizer=case.subject.tokenizer,
        max_seq_length=wanted.max_seq_length,
        micro_batch_size=wanted.micro_batch_size or wanted.batch_size,
        device=case.subject.device,
        labels=tuple(case.subject.labels),
    )


def examples_of(objective: Classification, rows: Sequence[Labelled]) -> tuple[Example, ...]:
    """The rows as examples, in their order. Raises TrainerError ROWS_INVALID where a label is none of the model's."""
    read = objective.read([{"text": row.text, "label": row.label} for row in rows])
    found = [entry for entry in read if not isinstance(entry, RowReason)]
    if len(found) < len(read):
        raise TrainerError(
            FailureCode.ROWS_INVALID,
            f"{len(read) - len(found)} rows have a label that the classifier does not know; mend or leave them out",
            {FailureNumber.TOTAL_ERRORS: len(read) - len(found)},
        )
    return tuple(found)


def cell_examples(
    objective: Classification, rows: Sequence[Labelled], axes: Sequence[str], cells: Sequence[Cell]
) -> tuple[CellExample, ...]:
    """The rows that state their groups and whose cell is among `cells`, as examples that know it; in their order."""
    place = {cell: number for number, cell in enumerate(cells)}
    stated = [row for row in rows if (joined(row, axes), row.label) in place]
    return tuple(
        CellExample(
            tokens=example.tokens,
            group=example.group,
            digest=digest_of(example.digest.hex(), joined(row, axes)),
            label=example.label,
            truncated=example.truncated,
            cell=place[joined(row, axes), row.label],
        )
        for row, example in zip(stated, examples_of(objective, stated), strict=True)
    )


def joined(row: Labelled, axes: Sequence[str]) -> str:
    """The product of a row's groups on all axes, each once; "" where it does not state all of them."""
    return group_of(row, BETWEEN.join(dict.fromkeys(name for axis in axes for name in axis.split(BETWEEN))))


def cell_counts(rows: Sequence[Labelled], axes: Sequence[str]) -> Mapping[Cell, int]:
    """How many rows each cell that occurs has, sorted."""
    return dict(sorted(Counter((joined(row, axes), row.label) for row in rows).items()))


def refuse_without_groups(case: Case) -> None:
    """Raises Refused NO_GROUPS where a row of the fit part does not state its groups on the job's axes, or all state
    the same, and TOO_FEW_ROWS where a group has no row of some label.
    """
    rows = case.fit.rows.of(Labelled)
    counts = cell_counts(rows, case.axes)
    groups, labels = {group for group, _ in counts}, {label for _, label in counts}
    silent = sum(count for (group, _), count in counts.items() if not group)
    if silent or len(groups) < 2:
        raise Refused(
            RefusalReason.NO_GROUPS,
            f"{silent} of {len(rows)} rows to fit on state no group and {len(groups - {''})} groups occur; "
            "state the group of every row, two groups or more",
            {FailureNumber.ROWS: silent or len(rows)},
        )
    if len(counts) < len(groups) * len(labels):
        raise Refused(
            RefusalReason.TOO_FEW_ROWS,
            f"{len(groups) * len(labels) - len(counts)} of {len(groups) * len(labels)} pairs of group and label have "
            "no row to fit on, so nothing can be weighed up for them; add rows or leave out an axis",
            {FailureNumber.ROWS: len(rows)},
        )


def exported(case: Case, trained: Trained, notes: Mapping[str, float]) -> Mitigated:
    """The subject's model as it is now: its adapter, or the whole folder where it has none."""
    return Mitigated(
        layer=layer_of(case.subject.model),
        files=export_files(case.subject.model, case.subject.tokenizer, case.model_name, case.scratch),
        trained_tokens=trained.trained_tokens,
        steps=trained.steps,
        notes=notes,
    )


def layer_of(model: torch.nn.Module) -> Layer:
    """What an export of this model is."""
    return Layer.ADAPTER if hasattr(model, "peft_config") else Layer.MERGED


class Celled:
    """The plain objective, with losses of a step scaled by `scale`. Subclasses decide how."""

    def __init__(self, plain: Classification) -> None:
        self._plain = plain

    def scale(self, losses: torch.Tensor, cells: torch.Tensor) -> torch.Tensor:
        """Factors [n] of the losses [n] of a micro batch whose examples are of these cells [n]; the step's loss is
        the sum of factor times loss, over the examples of the step. Called in training alone.
        """
        raise NotImplementedError

    def read(self, rows: Sequence[dict[str, object]]) -> list[Example | RowReason]:
        return self._plain.read(rows)

    def micro_batches(self, batch: Sequence[Example]) -> list[list[Example]]:
        return self._plain.micro_batches(batch)

    def weight(self, example: Example) -> float:
        return self._plain.weight(example)

    def outcome(self, model: torch.nn.Module, examples: Sequence[Any]) -> Outcome:
        plain = self._plain.outcome(model, examples)
        if not torch.is_grad_enabled():
            return plain
        cells = torch.tensor([example.cell for example in examples], device=plain.sums.device)
        return Outcome(plain.sums * self.scale(plain.sums.detach(), cells), plain.predicted)

    def score(self, examples: Sequence[Example], sums: Sequence[float], predicted: Sequence[Any]) -> Metrics:
        return self._plain.score(examples, sums, predicted)
