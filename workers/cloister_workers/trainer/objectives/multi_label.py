# SPDX-License-Identifier: Apache-2.0
"""Several classes for a text: rows of `text` (and `text_pair`) and `labels`, a list that may be empty.

The classes are those of all training rows, in code point order, each with a probability of its own. The loss of a row
is the mean binary cross-entropy over the classes, as transformers has it; a class is predicted from probability 0.5.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from cloister_workers.errors import TrainerError
from cloister_workers.messages import FailureCode, FailureNumber, MetricName, Metrics, RowReason
from cloister_workers.trainer import metrics
from cloister_workers.trainer.bootstrap import Sums, row_intervals
from cloister_workers.trainer.example import Example, Outcome, digest_of
from cloister_workers.trainer.padding import padded_examples, slices
from cloister_workers.trainer.rows import checked_text
from cloister_workers.trainer.texts import Encoded, TextReader, Texts


@dataclass(frozen=True, slots=True)
class Labelled(Example):
    """An example with any number of classes."""

    classes: tuple[str, ...] = ()


@dataclass(frozen=True)
class MultiLabel:
    """Text to some of `labels`, which are empty while the training rows are read."""

    reader: TextReader
    micro_batch_size: int
    device: torch.device
    labels: tuple[str, ...] = ()

    def read(self, rows: Sequence[dict[str, object]]) -> list[Example | RowReason]:
        return self.reader.examples(rows, self._classes, _example)

    def _classes(self, row: dict[str, object]) -> tuple[str, ...] | RowReason:
        if "labels" not in row:
            return RowReason.MISSING_KEY
        value = row["labels"]
        if not isinstance(value, list):
            return RowReason.WRONG_TYPE
        found: list[str] = []
        for entry in value:
            whole = isinstance(entry, int) and not isinstance(entry, bool)
            label = checked_text(str(entry) if whole else entry)
            if isinstance(label, RowReason):
                return label
            if self.labels and label not in self.labels:
                return RowReason.UNKNOWN_LABEL
            found.append(label)
        return tuple(sorted(set(found)))

    def micro_batches(self, batch: Sequence[Example]) -> list[list[Example]]:
        return slices(batch, self.micro_batch_size)

    def with_micro_batch(self, size: int) -> MultiLabel:
        return replace(self, micro_batch_size=size)

    def weight(self, example: Example) -> int:
        return 1

    def outcome(self, model: torch.nn.Module, examples: Sequence[Example]) -> Outcome:
        """`predicted` is 1 for each class that is predicted: [n, classes]."""
        logits = model(**padded_examples(examples, self.reader.tokenizer.pad_token_id, self.device)).logits.float()
        true = torch.tensor(self._table(examples), device=self.device, dtype=torch.float32)
        losses = functional.binary_cross_entropy_with_logits(logits, true, reduction="none").mean(-1)
        return Outcome(losses, (logits.detach() >= 0).long())

    def _table(self, examples: Sequence[Example]) -> list[list[int]]:
        return [[int(label in _classes_of(example)) for label in self.labels] for example in examples]

    def score(self, examples: Sequence[Example], sums: Sequence[float], predicted: Sequence[Any]) -> Metrics:
        """Accuracy is the share of rows whose classes are all right."""
        true = self._table(examples)
        hits = sum(p == t for p, t in zip(predicted, true, strict=True))
        micro, macro = _f1_scores(_table_of(predicted, true).sum(0, keepdims=True))
        micro_interval, macro_interval = row_intervals(_table_of(predicted, true), _f1_scores)
        return {
            MetricName.EVAL_LOSS: sum(sums) / len(true),
            MetricName.EVAL_ROWS: float(len(true)),
            **metrics.share_of(MetricName.EVAL_ACCURACY, hits, len(true)),
            **metrics.with_ends(MetricName.EVAL_MICRO_F1, float(micro[0]), micro_interval),
            **metrics.with_ends(MetricName.EVAL_MACRO_F1, float(macro[0]), macro_interval),
        }


def with_labels(objective: MultiLabel, examples: Sequence[Example]) -> MultiLabel:
    """With the classes of the training rows where the model brings none. Raises TrainerError TOO_FEW_LABELS."""
    labels = objective.labels or tuple(sorted({label for example in examples for label in _classes_of(example)}))
    if not labels:
        raise TrainerError(
            FailureCode.TOO_FEW_LABELS,
            "no training row has a label; several labels a row need one class or more",
            {FailureNumber.LABELS: 0},
        )
    return replace(objective, labels=labels)


def _example(texts: Texts, encoded: Encoded, classes: tuple[str, ...]) -> Labelled:
    return Labelled(
        tokens=encoded.tokens,
        group=digest_of(*texts),
        digest=digest_of(*texts, list(classes)),
        truncated=encoded.truncated,
        segments=encoded.segments,
        classes=classes,
    )


def _classes_of(example: Example) -> tuple[str, ...]:
    return example.classes if isinstance(example, Labelled) else ()


def _table_of(predicted: Sequence[Sequence[int]], true: Sequence[Sequence[int]]) -> Sums:
    """Of each row, for each class, whether it is both said and there, and how often it is either: [n, 2 classes]."""
    said, are = np.asarray(predicted, dtype=np.float64), np.asarray(true, dtype=np.float64)
    return np.concatenate([said * are, said + are], axis=1)


def _f1_scores(sums: Sums) -> list[Sums]:
    """Micro and macro F1 of summed counts; 1 where nothing is there and nothing is said."""
    both, either = np.split(sums, 2, axis=1)
    micro = np.where(either.sum(1) > 0, 2 * both.sum(1) / either.sum(1).clip(min=1), 1.0)
    macro = np.where(either > 0, 2 * both / either.clip(min=1), 1.0).mean(1)
    return [micro, macro]
