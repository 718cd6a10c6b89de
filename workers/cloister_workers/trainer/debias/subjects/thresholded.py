# SPDX-License-Identifier: Apache-2.0
"""A classifier of two classes that decides with thresholds by group: `thresholds.json` beside unchanged weights.

    {"axis": "gender", "groups": {"female": {"p_ignore", "constant", "steps": [[share, above, threshold], ...]}}}

For the log-odds s of the second class, P(second class) = p_ignore * constant + (1 - p_ignore) * sum of share *
[s > threshold] (`above` true) or [s < threshold]. This is fairlearn's interpolated threshold. Where it is neither 0
nor 1, the decision is drawn from the SHA-256 of the text, so the same text of the same group always gets the same one.
A row without a group, or of a group that was not fitted, is decided by the larger logit.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from cloister_workers.errors import TrainerError
from cloister_workers.messages import FailureCode
from cloister_workers.trainer.debias.kinds import FloatArray, IntArray
from cloister_workers.trainer.debias.labelled import group_of
from cloister_workers.trainer.debias.shapes import Labelled
from cloister_workers.trainer.debias.subjects import Classifies

FILE = "thresholds.json"


@dataclass(frozen=True)
class Rule:
    """How one group is decided."""

    p_ignore: float
    constant: float
    steps: tuple[tuple[float, bool, float], ...]

    def chance(self, odds: FloatArray) -> FloatArray:
        """P(second class) for each of the log-odds [n]: float64 [n]."""
        found = np.zeros_like(odds)
        for share, above, threshold in self.steps:
            found += share * ((odds > threshold) if above else (odds < threshold))
        return self.p_ignore * self.constant + (1 - self.p_ignore) * found


@dataclass(frozen=True)
class ThresholdedSubject:
    """A classifier with rules by group. `logits` are those of the classifier itself."""

    inner: Classifies
    axis: str
    rules: Mapping[str, Rule]

    @property
    def model(self) -> torch.nn.Module:
        """The classifier, which is unchanged."""
        return self.inner.model

    @property
    def tokenizer(self) -> Any:  # noqa: ANN401 - transformers' own type is dynamic
        """The classifier's."""
        return self.inner.tokenizer

    @property
    def device(self) -> torch.device:
        """The classifier's."""
        return self.inner.device

    @property
    def labels(self) -> tuple[str, ...]:
        """The classifier's."""
        return self.inner.labels

    def logits(self, texts: Sequence[str]) -> FloatArray:
        return self.inner.logits(texts)

    def decisions(self, rows: Sequence[Labelled]) -> IntArray:
        """int64 [n], 0 or 1."""
        odds = log_odds(self.inner.logits([row.text for row in rows]))
        found = (odds > 0).astype(np.int64)
        for number, row in enumerate(rows):
            rule = self.rules.get(group_of(row, self.axis))
            if rule is not None:
                found[number] = int(_drawn(row.text) < rule.chance(odds[number : number + 1])[0])
        return found


def with_thresholds(subject: Classifies, files: Mapping[str, bytes]) -> Classifies | ThresholdedSubject:
    """The subject as a version's files have it: with rules by group where they hold `thresholds.json`.

    Raises TrainerError MODEL_INVALID where that file is damaged.
    """
    if FILE not in files:
        return subject
    try:
        table = json.loads(files[FILE])
        rules = {
            str(group): Rule(
                float(rule["p_ignore"]),
                float(rule["constant"]),
                tuple((float(share), bool(above), float(threshold)) for share, above, threshold in rule["steps"]),
            )
            for group, rule in table["groups"].items()
        }
        return ThresholdedSubject(subject, str(table["axis"]), rules)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise TrainerError(
            FailureCode.MODEL_INVALID, f"{FILE} of the version cannot be read; make the version anew"
        ) from error


def to_json(axis: str, rules: Mapping[str, Rule]) -> bytes:
    """The content of `thresholds.json`."""
    groups = {
        group: {"p_ignore": rule.p_ignore, "constant": rule.constant, "steps": [[*step] for step in rule.steps]}
        for group, rule in rules.items()
    }
    return (json.dumps({"axis": axis, "groups": groups}, indent=2, sort_keys=True, allow_nan=False) + "\n").encode()


def log_odds(logits: FloatArray) -> FloatArray:
    """Of the second class: float64 [n] from [n, 2]."""
    odds: FloatArray = logits[:, 1] - logits[:, 0]
    return odds


def _drawn(text: str) -> float:
    """A number in [0, 1) that the text alone decides."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big") / 2**48
