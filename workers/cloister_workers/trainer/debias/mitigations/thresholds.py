# SPDX-License-Identifier: Apache-2.0
"""Thresholds by group (Hardt, Price and Srebro 2016, arXiv:1610.02413), found by fairlearn's ThresholdOptimizer on
the validation part.

No weight changes: `thresholds.json` is left beside the model (`subjects.thresholded` says how it is read), and only
who applies it gets its effect. Deciding by it needs the group of each person at the time of the decision, which the
law often forbids, so it is off unless `allow_group_at_inference: yes`. Some decisions near a threshold are drawn;
the draw is a function of the text.

The validation rows must be like the people who are decided on, with labels that can be trusted: thresholds fitted on
skewed labels make the skew's gap look closed there and wider elsewhere.

`constraint: equalized_odds` (equal rates of right and of wrong choices) or `demographic_parity` (equal rates of
choice), each at the highest accuracy.

Fits classifiers of two classes, one axis or intersection at a time. Refused where it is not allowed, where more than
one axis is asked for, and where a group of the validation part lacks a label or has fewer than 25 rows.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cloister_workers.messages import FailureNumber, RefusalReason
from cloister_workers.trainer.debias.classifying import layer_of
from cloister_workers.trainer.debias.kinds import FloatArray, ModelKind
from cloister_workers.trainer.debias.labelled import group_of, groups_of
from cloister_workers.trainer.debias.mitigation import Case, Mitigated, Refused
from cloister_workers.trainer.debias.shapes import Labelled
from cloister_workers.trainer.debias.subjects.thresholded import FILE, Rule, log_odds, to_json
from cloister_workers.trainer.export import export_files

MIN_ROWS = 25  # of a group, below which its threshold would follow single rows


@dataclass(frozen=True)
class Thresholds:
    """No settings; the options say whether, and what is made equal."""

    name: str = "thresholds"
    title: str = "Thresholds by group"
    kinds: frozenset[ModelKind] = frozenset({ModelKind.CLASSIFIER})
    trained: bool = False
    defaults: Mapping[str, float] = field(default_factory=dict)
    choices: Mapping[str, tuple[str, ...]] = field(
        default_factory=lambda: {
            "allow_group_at_inference": ("no", "yes"),
            "constraint": ("equalized_odds", "demographic_parity"),
        }
    )
    source: str = "Hardt, Price and Srebro 2016, arXiv:1610.02413; fairlearn 0.15 ThresholdOptimizer"

    def refuse(self, case: Case) -> None:
        if case.options.get("allow_group_at_inference", "no") != "yes":
            raise Refused(
                RefusalReason.NOT_ALLOWED,
                "thresholds by group need everybody's group when they are decided on; "
                "where that is lawful, set options.allow_group_at_inference: yes",
            )
        if len(case.axes) != 1:
            raise Refused(
                RefusalReason.NOT_ALLOWED,
                f"thresholds are set on one axis or intersection at a time, not on {len(case.axes)}; name one",
            )
        if len(case.subject.labels) != 2:
            raise Refused(
                RefusalReason.MODEL_KIND,
                f"thresholds need a classifier of two classes; this one has {len(case.subject.labels)}",
                {FailureNumber.LABELS: len(case.subject.labels)},
            )
        _refuse_few(_stated(case), case.axes[0], case.subject.labels)

    def apply(self, case: Case) -> Mitigated:
        self.refuse(case)
        rows, axis = _stated(case), case.axes[0]
        odds = log_odds(case.subject.logits([row.text for row in rows]))
        rules = fitted(
            odds,
            [row.label == case.subject.labels[1] for row in rows],
            [group_of(row, axis) for row in rows],
            case.options.get("constraint", "equalized_odds"),
        )
        model = case.subject.model
        files = export_files(model, case.subject.tokenizer, case.model_name, case.scratch)
        notes = {"rows": float(len(rows)), "groups": float(len(rules))}
        notes["drawn"] = float(sum(_drawn(rule, odds) for rule in rules.values())) / len(rules)
        return Mitigated(layer=layer_of(model), files=files | {FILE: to_json(axis, rules)}, notes=notes)


def fitted(odds: FloatArray, true: Sequence[bool], groups: Sequence[str], constraint: str) -> dict[str, Rule]:
    """A rule for each group, from log-odds [n] of the second class, and whether it is right."""
    from fairlearn.postprocessing import ThresholdOptimizer

    optimiser = ThresholdOptimizer(
        estimator=first_feature(),
        constraints=constraint,
        objective="accuracy_score",
        prefit=True,
        predict_method="predict",
    )
    optimiser.fit(odds[:, None], np.array(true, dtype=np.int64), sensitive_features=np.array(groups))
    found: Mapping[str, Any] = optimiser.interpolated_thresholder_.interpolation_dict
    return {str(group): _rule(entry) for group, entry in sorted(found.items())}


def first_feature() -> Any:  # noqa: ANN401 - scikit-learn has no types
    """An estimator whose score is its only feature, so that fairlearn takes ours as they are."""
    from sklearn.base import BaseEstimator

    class FirstFeature(BaseEstimator):  # type: ignore[misc]
        def __sklearn_is_fitted__(self) -> bool:
            return True

        def fit(self, values: FloatArray, true: FloatArray) -> FirstFeature:
            return self

        def predict(self, values: FloatArray) -> FloatArray:
            return values[:, 0]

    return FirstFeature()


def _rule(entry: Any) -> Rule:  # noqa: ANN401 - scikit-learn's Bunch
    steps = ((entry.p0, entry.operation0), (entry.p1, entry.operation1))
    limit = sys.float_info.max  # JSON has no infinity
    return Rule(
        float(entry.get("p_ignore", 0.0)),
        float(entry.get("prediction_constant", 0.0)),
        tuple(
            (float(share), bool(operation.operator == ">"), float(np.clip(operation.threshold, -limit, limit)))
            for share, operation in steps
            if share > 0
        ),
    )


def _drawn(rule: Rule, odds: FloatArray) -> float:
    """The share of scores that this rule decides by a draw."""
    chance = rule.chance(odds)
    return float(np.mean((chance > 1e-9) & (chance < 1 - 1e-9)))


def _stated(case: Case) -> tuple[Labelled, ...]:
    rows = case.validation.rows.of(Labelled)
    return tuple(row for row in rows if group_of(row, case.axes[0]) and row.label in case.subject.labels)


def _refuse_few(rows: Sequence[Labelled], axis: str, labels: Sequence[str]) -> None:
    groups = groups_of(rows, axis)
    if len(groups) < 2:
        raise Refused(
            RefusalReason.NO_GROUPS,
            f"the validation part states {len(groups)} groups; give validation rows of two groups or more",
        )
    for group in groups:
        mine = [row.label for row in rows if group_of(row, axis) == group]
        if len(mine) < MIN_ROWS or len(set(mine)) < len(labels):
            raise Refused(
                RefusalReason.TOO_FEW_ROWS,
                f"a group has {len(mine)} validation rows with {len(set(mine))} labels; "
                f"each needs {MIN_ROWS} rows and both labels",
                {FailureNumber.ROWS: len(mine)},
            )


MITIGATION = Thresholds()
