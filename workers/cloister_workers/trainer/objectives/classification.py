# SPDX-License-Identifier: Apache-2.0
"""Sequence classification: rows of `text` and `label`.

A label is a string or a whole number (then its decimal form); the classes are the labels of all training
rows, held-out parts included, in code point order. Texts are cut to max_seq_length tokens, special tokens
included, by the tokenizer. A forward pass is padded at the right to the longest of its micro batch. Keys
other than text and label are ignored.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.nn import functional

from cloister_workers.errors import TrainerError
from cloister_workers.messages import FailureCode, FailureNumber, MetricName, Metrics, RowReason
from cloister_workers.trainer import metrics
from cloister_workers.trainer.example import Example, Outcome, digest_of
from cloister_workers.trainer.method import Setup, TrainingMethod
from cloister_workers.trainer.model import Base, load_classifier
from cloister_workers.trainer.padding import least_padding
from cloister_workers.trainer.rows import checked_text, text_of
from cloister_workers.trainer.spec import Method


@dataclass(frozen=True)
class Classification:
    """Text to one of `labels`; `labels` is empty while the training rows are read, which then define it."""

    tokenizer: Any
    max_seq_length: int
    micro_batch_size: int
    device: torch.device
    labels: tuple[str, ...] = ()

    def read(self, rows: Sequence[dict[str, object]]) -> list[Example | RowReason]:
        pairs = [self._parse(row) for row in rows]
        texts = [pair[0] for pair in pairs if not isinstance(pair, RowReason)]
        tokens = iter(self.tokenizer(texts)["input_ids"] if texts else ())
        return [pair if isinstance(pair, RowReason) else self._example(*pair, next(tokens)) for pair in pairs]

    def _parse(self, row: dict[str, object]) -> tuple[str, str] | RowReason:
        text = text_of(row, "text")
        if isinstance(text, RowReason):
            return text
        if "label" not in row:
            return RowReason.MISSING_KEY
        value = row["label"]
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        label = checked_text(value)
        if isinstance(label, RowReason):
            return label
        if self.labels and label not in self.labels:
            return RowReason.UNKNOWN_LABEL
        return text, label

    def _example(self, text: str, label: str, tokens: list[int]) -> Example:
        truncated = len(tokens) > self.max_seq_length
        if truncated:
            tokens = self.tokenizer(text, truncation=True, max_length=self.max_seq_length)["input_ids"]
        return Example(
            tokens=array("i", tokens),
            group=digest_of(text),
            digest=digest_of(text, label),
            label=label,
            truncated=truncated,
        )

    def micro_batches(self, batch: Sequence[Example]) -> list[list[Example]]:
        groups = least_padding([len(example.tokens) for example in batch], self.micro_batch_size)
        return [[batch[index] for index in group] for group in groups]

    def with_micro_batch(self, size: int) -> Classification:
        return replace(self, micro_batch_size=size)

    def weight(self, example: Example) -> int:
        return 1

    def outcome(self, model: torch.nn.Module, examples: Sequence[Example]) -> Outcome:
        width = max(len(example.tokens) for example in examples)
        pad = self.tokenizer.pad_token_id
        ids = torch.tensor([example.tokens.tolist() + [pad] * (width - len(example.tokens)) for example in examples])
        lengths = torch.tensor([len(example.tokens) for example in examples])
        mask = (torch.arange(width) < lengths[:, None]).long()
        logits = model(input_ids=ids.to(self.device), attention_mask=mask.to(self.device)).logits.float()
        true = torch.tensor([self.labels.index(example.label) for example in examples], device=self.device)
        return Outcome(functional.cross_entropy(logits, true, reduction="none"), logits.detach().argmax(-1))

    def score(self, examples: Sequence[Example], sums: Sequence[float], predicted: Sequence[int]) -> Metrics:
        true = [self.labels.index(example.label) for example in examples]
        hits = sum(p == t for p, t in zip(predicted, true, strict=True))
        low, high = metrics.wilson_interval(hits, len(true))
        return {
            MetricName.EVAL_LOSS: sum(sums) / len(true),
            MetricName.EVAL_ROWS: float(len(true)),
            MetricName.EVAL_ACCURACY: hits / len(true),
            MetricName.EVAL_ACCURACY_CI_LOW: low,
            MetricName.EVAL_ACCURACY_CI_HIGH: high,
            MetricName.EVAL_MACRO_F1: metrics.macro_f1(predicted, true),
        }


def _objective(setup: Setup) -> Classification:
    wanted = setup.hyperparameters
    return Classification(setup.tokenizer, wanted.max_seq_length, wanted.micro_batch_size, setup.device, setup.labels)


def _fitted(objective: Classification, examples: Sequence[Example]) -> Classification:
    """With the classes of the training rows, in code point order, where the model brings none."""
    labels = tuple(sorted({example.label for example in examples}))
    if len(labels) < 2:
        raise TrainerError(
            FailureCode.TOO_FEW_LABELS,
            f"the training rows have {len(labels)} labels; classification needs 2 or more",
            {FailureNumber.LABELS: len(labels)},
        )
    return replace(objective, labels=objective.labels or labels)


def _load(model_dir: str, objective: Classification, device: torch.device) -> Base:
    return load_classifier(model_dir, objective.labels, int(objective.tokenizer.pad_token_id), device)


METHOD = TrainingMethod(name=Method.CLASSIFICATION, objective=_objective, fitted=_fitted, load=_load, padded=True)
