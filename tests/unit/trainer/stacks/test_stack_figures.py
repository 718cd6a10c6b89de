# SPDX-License-Identifier: Apache-2.0
"""Figures of answers, against derivations by hand."""

from __future__ import annotations

from array import array
from typing import Any

import pytest

from cloister_workers.messages import MetricName
from cloister_workers.trainer.answers import answer_metrics, exact_match, word_f1
from cloister_workers.trainer.example import Example
from cloister_workers.trainer.metrics import ratio_interval
from cloister_workers.trainer.stack.exam import with_interval


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
    assert (exact, f1) == (exact_match(answer, [reference]), word_f1(answer, [reference]))


def test_the_best_reference_counts():
    """Of several references the one nearest to the answer decides, and intervals stay within 0 and 1."""
    found = answer_metrics(["red", "red car"], [["blue", "Red"], ["car", "bus"]])
    assert 0.5 == found[MetricName.EVAL_EXACT_MATCH]
    assert (1 + 2 / 3) / 2 == pytest.approx(found[MetricName.EVAL_F1])
    assert 1.0 == found[MetricName.EVAL_F1_CI_HIGH]
    low, high = found[MetricName.EVAL_EXACT_MATCH_CI_LOW], found[MetricName.EVAL_EXACT_MATCH_CI_HIGH]
    assert 0 < low < 0.5 < high < 1


def test_the_interval_of_a_loss_is_that_of_its_ratio():
    """A loss that is the mean over the weights of its examples gets their interval; another one gets none."""
    weights = {b"a": 1, b"b": 3}

    class Weighing:
        def weight(self, example):
            return weights[example.group]

    weighing: Any = Weighing()
    examples = [Example(tokens=array("i", [1]), group=group, digest=group) for group in weights]
    sums = [2.0, 3.0]
    found = with_interval(weighing, {MetricName.EVAL_LOSS: 1.25}, examples, sums)
    expected = ratio_interval(sums, [1, 3], [b"a", b"b"])
    assert expected == (found[MetricName.EVAL_LOSS_CI_LOW], found[MetricName.EVAL_LOSS_CI_HIGH])
    assert {MetricName.EVAL_LOSS: 2.0} == with_interval(weighing, {MetricName.EVAL_LOSS: 2.0}, examples, sums)
    assert {MetricName.EVAL_LOSS: 2.0} == with_interval(weighing, {MetricName.EVAL_LOSS: 2.0}, examples[:1], sums[:1])
