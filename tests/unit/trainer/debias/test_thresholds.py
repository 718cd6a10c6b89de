# SPDX-License-Identifier: Apache-2.0
"""Thresholds by group, with fairlearn as the oracle of what they decide."""

from __future__ import annotations

import json

import fairlearn.metrics as fair
import numpy as np
import pytest
from fairlearn.postprocessing import ThresholdOptimizer

from cloister_workers.errors import TrainerError
from cloister_workers.messages import FailureCode, RefusalReason
from cloister_workers.trainer.debias.mitigation import Layer, Refused
from cloister_workers.trainer.debias.mitigations.thresholds import MITIGATION, first_feature, fitted
from cloister_workers.trainer.debias.shapes import Labelled
from cloister_workers.trainer.debias.subjects.load import weights_digest
from cloister_workers.trainer.debias.subjects.thresholded import (
    FILE,
    Rule,
    ThresholdedSubject,
    to_json,
    with_thresholds,
)
from tiny_classifier import Scripted, adapted_subject, case_of, skewed_rows

# peft still asks transformers for an attribute under its old name
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
ALLOWED = {"allow_group_at_inference": "yes"}


def drawn(seed, count=600):
    """Log-odds that lean to one group, labels and groups."""
    random = np.random.default_rng(seed)
    groups = np.array(["f", "m"])[random.integers(2, size=count)]
    true = random.random(count) < 0.5
    odds = random.normal(size=count) + 1.5 * (true - 0.5) + 1.2 * ((groups == "m") - 0.5)
    return odds, true, groups


@pytest.mark.parametrize("constraint", ["equalized_odds", "demographic_parity"])
@pytest.mark.parametrize("seed", range(3))
def test_chances_equal_fairlearn(seed, constraint):
    """The rules give each new score the chance that fairlearn's own predictor gives it, after a trip through JSON."""
    odds, true, groups = drawn(seed)
    optimiser = ThresholdOptimizer(
        estimator=first_feature(),
        constraints=constraint,
        objective="accuracy_score",
        prefit=True,
        predict_method="predict",
    )
    optimiser.fit(odds[:, None], true.astype(int), sensitive_features=groups)
    rules = fitted(odds, true.tolist(), groups.tolist(), constraint)
    subject = with_thresholds(Scripted({}), {FILE: to_json("gender", rules)})
    assert isinstance(subject, ThresholdedSubject)
    fresh = np.concatenate([np.random.default_rng(9).normal(size=200) * 3, odds[:50]])
    for group in ("f", "m"):
        expected = optimiser._pmf_predict(fresh[:, None], sensitive_features=np.full(len(fresh), group))[:, 1]
        np.testing.assert_allclose(subject.rules[group].chance(fresh), expected, atol=1e-12)


def test_the_gap_is_smaller_on_new_rows():
    """On rows that were not fitted, equalised odds differ less by group than with one threshold for all."""
    odds, true, groups = drawn(1, 2000)
    rules = fitted(odds, true.tolist(), groups.tolist(), "equalized_odds")
    odds, true, groups = drawn(2, 2000)
    rows = [
        Labelled(f"text {i}", "yes" if y else "no", {"gender": g})
        for i, (y, g) in enumerate(zip(true, groups, strict=True))
    ]
    plain = Scripted({row.text: [0.0, value] for row, value in zip(rows, odds, strict=True)})
    said = ThresholdedSubject(plain, "gender", rules).decisions(rows)
    before = fair.equalized_odds_difference(true, odds > 0, sensitive_features=groups)
    after = fair.equalized_odds_difference(true, said, sensitive_features=groups)
    assert before > 0.3
    assert after < 0.1


def test_a_decision_is_always_the_same():
    """A drawn decision depends on the text and the group alone; about as many are drawn as the chance says."""
    rules = {"f": Rule(1.0, 0.3, ())}
    rows = [Labelled(f"text {number}", "no", {"gender": "f"}) for number in range(2000)]
    subject = ThresholdedSubject(Scripted({row.text: [0.0, 1.0] for row in rows}), "gender", rules)
    first, second = subject.decisions(rows), subject.decisions(rows[::-1])[::-1]
    np.testing.assert_array_equal(first, second)
    assert abs(first.mean() - 0.3) < 0.04


def test_rows_without_a_known_group_are_decided_by_the_logits():
    """No group, or one that was not fitted: the larger logit, as without thresholds."""
    never = {"f": Rule(0.0, 0.0, ((1.0, True, 1e9),))}
    rows = [Labelled("one", "no"), Labelled("two", "no", {"gender": "x"}), Labelled("three", "no", {"gender": "f"})]
    table = {"one": [0.0, 1.0], "two": [1.0, 0.0], "three": [0.0, 1.0]}
    subject = ThresholdedSubject(Scripted(table), "gender", never)
    assert subject.decisions(rows).tolist() == [1, 0, 0]
    np.testing.assert_array_equal(subject.logits(["one"]), [[0.0, 1.0]])


def test_weights_stay_and_a_file_is_added(bert_dir, tmp_path):
    """The version is the model as it was with thresholds.json beside it, which names the axis and both groups."""
    subject = adapted_subject(bert_dir)
    digest = weights_digest(subject)
    made = MITIGATION.apply(case_of(subject, tmp_path, (), skewed_rows(120), options=ALLOWED))
    assert weights_digest(subject) == digest
    assert made.layer is Layer.ADAPTER
    assert made.steps == 0
    table = json.loads(made.files[FILE])
    assert table["axis"] == "gender"
    assert set(table["groups"]) == {"female", "male"}
    assert isinstance(with_thresholds(subject, made.files), ThresholdedSubject)
    assert with_thresholds(subject, {}) is subject


@pytest.mark.parametrize(
    ("changes", "rows", "reason"),
    [
        ({"options": {}}, skewed_rows(120), RefusalReason.NOT_ALLOWED),
        ({"options": {"allow_group_at_inference": "no"}}, skewed_rows(120), RefusalReason.NOT_ALLOWED),
        ({"axes": ("gender", "age")}, skewed_rows(120), RefusalReason.NOT_ALLOWED),
        ({"subject": Scripted({}, ("p", "q", "r"))}, skewed_rows(120), RefusalReason.MODEL_KIND),
        ({}, (), RefusalReason.NO_GROUPS),
        ({}, [Labelled(row.text, row.label) for row in skewed_rows(120)], RefusalReason.NO_GROUPS),
        ({}, skewed_rows(40), RefusalReason.TOO_FEW_ROWS),
        ({}, skewed_rows(120, skew=1.0), RefusalReason.TOO_FEW_ROWS),
    ],
    ids=["by default", "said no", "two axes", "three classes", "no rows", "no groups", "few rows", "one label a group"],
)
def test_it_is_off_unless_asked_and_refuses_thin_material(tmp_path, changes, rows, reason):
    """Without leave, and without enough validation rows of every group and label, nothing is fitted."""
    given = {"subject": Scripted({}), "options": ALLOWED, **changes}
    with pytest.raises(Refused) as caught:
        MITIGATION.refuse(case_of(given.pop("subject"), tmp_path, (), rows, **given))
    assert caught.value.reason is reason


def test_damaged_thresholds_are_refused():
    """A file that is no table of rules stops the job with a closed code."""
    for content in (b"", b"[]", b'{"axis": "gender"}', b'{"axis": "gender", "groups": {"f": {"steps": [[1]]}}}'):
        with pytest.raises(TrainerError) as caught:
            with_thresholds(Scripted({}), {FILE: content})
        assert caught.value.code is FailureCode.MODEL_INVALID
