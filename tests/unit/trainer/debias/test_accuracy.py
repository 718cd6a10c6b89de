# SPDX-License-Identifier: Apache-2.0
"""Accuracy and macro F1 of a classifier, with scikit-learn as the oracle."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score

from cloister_workers.trainer.debias.measure import Items, Missing
from cloister_workers.trainer.debias.shapes import Labelled
from cloister_workers.trainer.debias.utilities.accuracy import UTILITIES
from tiny_classifier import Scripted, part_of

ACCURACY, MACRO = UTILITIES
LABELS = ("p", "q", "r")


def drawn(seed, count=80):
    """Rows, and two classifiers of which the second knows less."""
    random = np.random.default_rng(seed)
    rows = [Labelled(f"text {number}", LABELS[random.integers(3)]) for number in range(count)]
    tables = []
    for strength in (2.0, 0.5):
        hint = {row.text: random.normal(size=3) + strength * (np.array(LABELS) == row.label) for row in rows}
        tables.append(Scripted({text: logits.tolist() for text, logits in hint.items()}, LABELS))
    return rows, *tables


def chosen(utility, rows):
    items = utility.items(part_of(*rows))
    assert isinstance(items, Items)
    return items


def said_of(rows, subject):
    return [LABELS[place] for place in subject.logits([row.text for row in rows]).argmax(axis=1)]


@pytest.mark.parametrize("seed", range(3))
def test_levels_equal_scikit_learn_under_any_weights(seed):
    """Accuracy and macro F1 are scikit-learn's, with and without weights."""
    rows, subject, _ = drawn(seed)
    items = chosen(ACCURACY, rows)
    true, said = [row.label for row in rows], said_of(rows, subject)
    weights = np.random.default_rng(seed).integers(0, 3, size=(4, len(rows))).astype(float)
    weights[0] = 1.0
    accuracy = ACCURACY.level(items, ACCURACY.score(subject, items), weights)
    macro = MACRO.level(items, MACRO.score(subject, items), weights)
    for number, draw in enumerate(weights):
        assert accuracy[number] == pytest.approx(accuracy_score(true, said, sample_weight=draw), abs=1e-12)
        assert macro[number] == pytest.approx(f1_score(true, said, average="macro", sample_weight=draw), abs=1e-12)


@pytest.mark.parametrize("utility", UTILITIES, ids=lambda utility: utility.name)
def test_what_is_lost_is_before_minus_after(utility):
    """A worse model has a loss above 0, the other way round it is the same below 0, and no change is 0."""
    rows, good, bad = drawn(1)
    items = chosen(utility, rows)
    before, after = utility.score(good, items), utility.score(bad, items)
    weights = np.ones((1, len(rows)))
    loss = utility.loss(items, before, after, weights)
    assert loss[0] > 0.1
    assert loss[0] == pytest.approx(
        utility.level(items, before, weights)[0] - utility.level(items, after, weights)[0], abs=1e-12
    )
    assert utility.loss(items, after, before, weights)[0] == -loss[0]
    assert utility.loss(items, before, before, weights)[0] == 0.0


def test_a_class_that_nobody_has_or_says_does_not_count():
    """Macro F1 is the mean over the classes that occur, as in the plain classification job."""
    rows = [Labelled("one", "p"), Labelled("two", "q")]
    subject = Scripted({"one": [1.0, 0.0, 0.0], "two": [0.0, 1.0, 0.0]}, LABELS)
    items = chosen(MACRO, rows)
    assert MACRO.level(items, MACRO.score(subject, items), np.ones((1, 2)))[0] == 1.0


def test_without_labelled_rows_nothing_is_measured():
    """No labelled rows: missing, and it says so."""
    assert isinstance(ACCURACY.items(part_of()), Missing)


def test_a_draw_without_weight_has_no_level():
    """All weights 0 give NaN rather than a number."""
    rows, subject, _ = drawn(2)
    items = chosen(ACCURACY, rows)
    for utility in UTILITIES:
        assert np.isnan(utility.level(items, utility.score(subject, items), np.zeros((1, len(rows))))[0])
