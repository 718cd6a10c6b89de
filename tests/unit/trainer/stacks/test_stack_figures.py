# SPDX-License-Identifier: Apache-2.0
"""Figures of answers and intervals of losses, against derivations by hand."""

from __future__ import annotations

import math

import pytest

from cloister_workers.messages import MetricName
from cloister_workers.trainer.intervals import ratio_interval
from cloister_workers.trainer.stack.matching import answer_metrics, exact_match, word_f1


@pytest.mark.parametrize(
    ("answer", "reference", "exact", "f1"),
    [
        ("The  Eiffel Tower.", "eiffel tower", 1.0, 1.0),
        ("the red house", "a red car", 0.0, 0.5),
        ("red red red", "red", 0.0, 0.5),
        ("", "", 1.0, 1.0),
        ("", "red", 0.0, 0.0),
        ("blue", "red", 0.0, 0.0),
    ],
)
def test_answers_are_compared_as_squad_compares_them(answer, reference, exact, f1):
    """Case, punctuation, articles and white space do not count; F1 is that of shared words with their number."""
    assert (exact, f1) == (exact_match(answer, reference), word_f1(answer, reference))


def test_the_best_reference_counts():
    """Of several references the one nearest to the answer decides, and intervals stay within 0 and 1."""
    found = answer_metrics(["red", "red car"], [["blue", "Red"], ["car", "bus"]])
    assert 0.5 == found[MetricName.EVAL_EXACT_MATCH]
    assert (1 + 2 / 3) / 2 == pytest.approx(found[MetricName.EVAL_F1])
    assert 1.0 == found[MetricName.EVAL_F1_CI_HIGH]
    low, high = found[MetricName.EVAL_EXACT_MATCH_CI_LOW], found[MetricName.EVAL_EXACT_MATCH_CI_HIGH]
    assert 0 < low < 0.5 < high < 1


def test_equal_weights_give_the_interval_of_a_mean():
    """With weights of 1 the ratio's interval is the mean's: 1.96 standard errors to both sides."""
    values = [1.0, 2.0, 4.0, 9.0]
    mean = sum(values) / 4
    error = math.sqrt(sum((value - mean) ** 2 for value in values) / 3 / 4)
    expected = (mean - 1.959963984540054 * error, mean + 1.959963984540054 * error)
    assert expected == pytest.approx(ratio_interval(values, [1, 1, 1, 1]))


def test_unequal_weights_are_the_ratio_estimator():
    """An example whose loss is the ratio times its weight adds no spread; one example alone has none."""
    low, high = ratio_interval([2.0, 4.0, 6.0], [1, 2, 3])
    assert (2.0, 2.0) == (low, high)
    assert (3.0, 3.0) == ratio_interval([6.0], [2])
    # residuals -2 and 2, so the variance is 2 / 1 * (4 + 4) / 4^2 = 1
    assert (2 - 1.959963984540054, 2 + 1.959963984540054) == pytest.approx(ratio_interval([2.0, 6.0], [2, 2]))
