# SPDX-License-Identifier: Apache-2.0
"""Sequence classification: rows of `text`, or of `text` and `text_pair`, and `label`.

One label a row here; several are in `multi_label.py`, numbers in `regression.py`. A label is a string or a whole
number (then its decimal form); the classes are the labels of all training rows, held-out parts included, in code point
order. Texts are cut to max_seq_length tokens, special tokens included, by the tokenizer, or refused where the
specification says so. A forward pass is padded at the right to the longest of its micro batch. Encoders and causal
models; those classify by their last token. Other keys are ignored.

With balanced weights a row counts w(c) = rows / (classes * rows of class c), whose mean over the training rows is 1,
and the loss of a step is sum w l / sum w, as torch's weighted cross-entropy has it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch.nn import functional

from cloister_workers.errors import TrainerError
from cloister_workers.messages import FailureCode, FailureNumber, MetricName, Metrics, RowReason, SpecField
from cloister_workers.trainer import metrics
from cloister_workers.trainer.calibration import calibration_error
from cloister_workers.trainer.example import Example, Outcome, digest_of
from cloister_workers.trainer.method import Setup, TrainingMethod
from cloister_workers.trainer.model import Base, load_classifier
from cloister_workers.trainer.objectives.multi_label import MultiLabel, with_labels
from cloister_workers.trainer.objectives.regression import OUTPUT, Regression
from cloister_workers.trainer.padding import padded_examples, slices
from cloister_workers.trainer.rows import checked_text
from cloister_workers.trainer.spec import REFUSE, Method, check, read_settings
from cloister_workers.trainer.texts import Encoded, TextReader, Texts


@dataclass(frozen=True)
class Settings:
    """The method's own of the specification."""

    problem_type: str = "single_label"
    class_weights: str = "none"

    def __post_init__(self) -> None:
        kinds, weights = ("single_label", "multi_label", "regression"), ("none", "balanced")
        check(self.problem_type in kinds, SpecField.PROBLEM_TYPE, f"one of {kinds}", self.problem_type)
        check(self.class_weights in weights, SpecField.CLASS_WEIGHTS, f"one of {weights}", self.class_weights)
        plain = self.class_weights == "none" or self.problem_type == "single_label"
        wanted = f"none with problem_type {self.problem_type}; it belongs to single_label"
        check(plain, SpecField.CLASS_WEIGHTS, wanted, self.class_weights)


@dataclass(frozen=True)
class Classification:
    """Text to one of `labels`; `labels` is empty while the training rows are read, which then define it. `weights` of
    classes are 1 where none is given.
    """

    tokenizer: Any
    max_seq_length: int
    micro_batch_size: int
    device: torch.device
    labels: tuple[str, ...] = ()
    refuse: bool = False
    balanced: bool = False
    weights: Mapping[str, float] = field(default_factory=dict)

    def read(self, rows: Sequence[dict[str, object]]) -> list[Example | RowReason]:
        reader = TextReader(self.tokenizer, self.max_seq_length, self.refuse)
        return reader.examples(rows, self._label, _example)

    def _label(self, row: dict[str, object]) -> str | RowReason:
        if "label" not in row:
            return RowReason.MISSING_KEY
        value = row["label"]
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        label = checked_text(value)
        if isinstance(label, RowReason):
            return label
        return RowReason.UNKNOWN_LABEL if self.labels and label not in self.labels else label

    def micro_batches(self, batch: Sequence[Example]) -> list[list[Example]]:
        return slices(batch, self.micro_batch_size)

    def with_micro_batch(self, size: int) -> Classification:
        return replace(self, micro_batch_size=size)

    def weight(self, example: Example) -> float:
        return self.weights.get(example.label, 1.0)

    def outcome(self, model: torch.nn.Module, examples: Sequence[Example]) -> Outcome:
        """`predicted` is the class, and its probability: [n, 2]."""
        logits = model(**padded_examples(examples, self.tokenizer.pad_token_id, self.device)).logits.float()
        true = torch.tensor([self.labels.index(example.label) for example in examples], device=self.device)
        losses = functional.cross_entropy(logits, true, reduction="none")
        if self.weights:
            losses = losses * torch.tensor([self.weight(example) for example in examples], device=self.device)
        confidence, said = logits.detach().softmax(-1).max(-1)
        return Outcome(losses, torch.stack([said.double(), confidence.double()], -1))

    def score(self, examples: Sequence[Example], sums: Sequence[float], predicted: Sequence[Any]) -> Metrics:
        true = [self.labels.index(example.label) for example in examples]
        said = [int(entry[0]) for entry in predicted]
        right = [p == t for p, t in zip(said, true, strict=True)]
        return {
            MetricName.EVAL_LOSS: sum(sums) / sum(self.weight(example) for example in examples),
            MetricName.EVAL_ROWS: float(len(true)),
            **metrics.share_of(MetricName.EVAL_ACCURACY, sum(right), len(true)),
            **metrics.with_ends(
                MetricName.EVAL_MACRO_F1, metrics.macro_f1(said, true), metrics.macro_f1_interval(said, true)
            ),
            MetricName.EVAL_CALIBRATION_ERROR: calibration_error([entry[1] for entry in predicted], right),
        }


def _example(texts: Texts, encoded: Encoded, label: str) -> Example:
    return Example(
        tokens=encoded.tokens,
        group=digest_of(*texts),
        digest=digest_of(*texts, label),
        label=label,
        truncated=encoded.truncated,
        segments=encoded.segments,
    )


def balanced_weights(labels: Sequence[str]) -> dict[str, float]:
    """The weight of each class, so that all classes weigh the same and the mean over these rows is 1."""
    counts = Counter(labels)
    return {label: len(labels) / (len(counts) * count) for label, count in sorted(counts.items())}


PROBLEM_TYPES = {
    "single_label_classification": "single_label",
    "multi_label_classification": "multi_label",
    "regression": "regression",
}
"""What transformers calls a kind of classes, and what the specification does."""
Kind = Classification | MultiLabel | Regression


def _objective(setup: Setup) -> Kind:
    settings, wanted = read_settings(Settings, setup.settings), setup.hyperparameters
    refuse = setup.too_long == REFUSE
    before = PROBLEM_TYPES.get(setup.problem_type, "regression" if setup.labels == (OUTPUT,) else "")
    if setup.labels and before:
        wanted_type = f"{before}, as the version was trained"
        check(settings.problem_type == before, SpecField.PROBLEM_TYPE, wanted_type, settings.problem_type)
    if settings.problem_type == "single_label":
        return Classification(
            setup.tokenizer,
            wanted.max_seq_length,
            wanted.micro_batch_size,
            setup.device,
            setup.labels,
            refuse,
            settings.class_weights == "balanced",
        )
    reader = TextReader(setup.tokenizer, wanted.max_seq_length, refuse)
    if settings.problem_type == "multi_label":
        return MultiLabel(reader, wanted.micro_batch_size, setup.device, setup.labels)
    return Regression(reader, wanted.micro_batch_size, setup.device)


def _fitted(objective: Kind, examples: Sequence[Example]) -> Kind:
    """With the classes of the training rows, in code point order, where the model brings none; and their weights."""
    if isinstance(objective, Regression):
        return objective
    if isinstance(objective, MultiLabel):
        return with_labels(objective, examples)
    labels = objective.labels or tuple(sorted({example.label for example in examples}))
    if len(labels) < 2:
        raise TrainerError(
            FailureCode.TOO_FEW_LABELS,
            f"the training rows have {len(labels)} labels; classification needs 2 or more",
            {FailureNumber.LABELS: len(labels)},
        )
    weights = balanced_weights([example.label for example in examples]) if objective.balanced else {}
    return replace(objective, labels=labels, weights=weights)


def _load(model_dir: str, objective: Kind, device: torch.device) -> Base:
    tokenizer = objective.tokenizer if isinstance(objective, Classification) else objective.reader.tokenizer
    pad = int(tokenizer.pad_token_id)
    match objective:
        case Regression():
            return load_classifier(model_dir, (OUTPUT,), pad, device, "regression")
        case MultiLabel():
            return load_classifier(model_dir, objective.labels, pad, device, "multi_label_classification")
    return load_classifier(model_dir, objective.labels, pad, device)


METHOD = TrainingMethod(name=Method.CLASSIFICATION, objective=_objective, fitted=_fitted, load=_load, padded=True)
