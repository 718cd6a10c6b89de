# SPDX-License-Identifier: Apache-2.0
"""A number for a text: rows of `text` (and `text_pair`) and `label`, a finite number.

The loss is the squared error of the model's one output, in the numbers' own unit: nothing is scaled, so that the
exported model says the number itself. Numbers far from 0 and 1 are better scaled before they are sealed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from cloister_workers.messages import MetricName, Metrics, RowReason
from cloister_workers.trainer.correlation import pearson, regression_intervals, rmse, spearman, spearman_interval
from cloister_workers.trainer.example import Example, Outcome, digest_of
from cloister_workers.trainer.metrics import with_ends
from cloister_workers.trainer.padding import padded_examples, slices
from cloister_workers.trainer.texts import Encoded, TextReader, Texts

OUTPUT = "value"
"""What the one output is called in the model's configuration."""


@dataclass(frozen=True, slots=True)
class Valued(Example):
    """An example with a number."""

    value: float = 0.0


@dataclass(frozen=True)
class Regression:
    """Text to a number."""

    reader: TextReader
    micro_batch_size: int
    device: torch.device

    def read(self, rows: Sequence[dict[str, object]]) -> list[Example | RowReason]:
        return self.reader.examples(rows, _value, _example)

    def micro_batches(self, batch: Sequence[Example]) -> list[list[Example]]:
        return slices(batch, self.micro_batch_size)

    def with_micro_batch(self, size: int) -> Regression:
        return replace(self, micro_batch_size=size)

    def weight(self, example: Example) -> int:
        return 1

    def outcome(self, model: torch.nn.Module, examples: Sequence[Example]) -> Outcome:
        """`predicted` is the number: [n]."""
        logits = model(**padded_examples(examples, self.reader.tokenizer.pad_token_id, self.device)).logits.float()
        said = logits[:, 0]
        true = torch.tensor(_values(examples), device=self.device, dtype=torch.float32)
        return Outcome((said - true).pow(2), said.detach())

    def score(self, examples: Sequence[Example], sums: Sequence[float], predicted: Sequence[Any]) -> Metrics:
        true = _values(examples)
        error_interval, pearson_interval = regression_intervals(predicted, true)
        ranked = spearman(predicted, true)
        return {
            MetricName.EVAL_LOSS: sum(sums) / len(true),
            MetricName.EVAL_ROWS: float(len(true)),
            **with_ends(MetricName.EVAL_RMSE, rmse(predicted, true), error_interval),
            **with_ends(MetricName.EVAL_PEARSON, pearson(predicted, true), pearson_interval),
            **with_ends(MetricName.EVAL_SPEARMAN, ranked, spearman_interval(ranked, len(true))),
        }


def _value(row: dict[str, object]) -> float | RowReason:
    if "label" not in row:
        return RowReason.MISSING_KEY
    value = row["label"]
    if isinstance(value, bool) or not isinstance(value, int | float):
        return RowReason.WRONG_TYPE
    try:
        number = float(value)
    except OverflowError:
        return RowReason.WRONG_TYPE
    return number if math.isfinite(number) else RowReason.WRONG_TYPE


def _example(texts: Texts, encoded: Encoded, value: float) -> Valued:
    return Valued(
        tokens=encoded.tokens,
        group=digest_of(*texts),
        digest=digest_of(*texts, value),
        truncated=encoded.truncated,
        segments=encoded.segments,
        value=value,
    )


def _values(examples: Sequence[Example]) -> list[float]:
    return [example.value if isinstance(example, Valued) else math.nan for example in examples]
