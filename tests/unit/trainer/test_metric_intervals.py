# SPDX-License-Identifier: Apache-2.0
"""Intervals of figures that are no means: what they are on all draws of rows that there are, or by a plain loop."""

from __future__ import annotations

import itertools
import math
import random
from array import array

import numpy as np
import pytest
import torch
from scipy import stats

from cloister_workers.messages import MetricName
from cloister_workers.trainer import metrics
from cloister_workers.trainer.bootstrap import row_intervals
from cloister_workers.trainer.correlation import pearson, regression_intervals, rmse, spearman, spearman_interval
from cloister_workers.trainer.objectives.multi_label import Labelled, MultiLabel
from cloister_workers.trainer.ranking import rank_metrics
from cloister_workers.trainer.text_metrics import rouge_l, text_metrics

CPU = torch.device("cpu")


def looped(figure, rows, draws=1000, seed=5):
    """The percentile interval of a figure of rows, one draw after the other."""
    drawn = random.Random(seed)
    found = [figure(drawn.choices(rows, k=len(rows))) for _ in range(draws)]
    return tuple(np.quantile(found, (0.025, 0.975)))


def scattered(count, seed=2):
    """Pairs of predicted and true numbers that go together, but not all the way."""
    drawn = random.Random(seed)
    true = [drawn.gauss(50, 10) for _ in range(count)]
    return [(value + drawn.gauss(0, 6), value) for value in true]


def test_macro_f1_has_the_interval_of_rows_drawn_anew():
    """Drawing pairs of classes by how often they occur is drawing rows: the interval is that of a plain loop."""
    drawn = random.Random(1)
    rows = [(true if drawn.random() < 0.7 else drawn.randrange(4), true) for true in drawn.choices(range(4), k=300)]
    found = metrics.macro_f1_interval(*zip(*rows, strict=True))
    assert looped(lambda some: metrics.macro_f1(*zip(*some, strict=True)), rows) == pytest.approx(found, abs=0.012)
    assert found[0] < metrics.macro_f1(*zip(*rows, strict=True)) < found[1]
    assert found == metrics.macro_f1_interval(*zip(*rows, strict=True))
    assert (1.0, 1.0) == metrics.macro_f1_interval([2, 3, 2], [2, 3, 2])


def test_f1_of_several_classes_has_the_interval_of_rows_drawn_anew():
    """Micro and macro F1 of rows with several classes have the intervals that a plain loop finds."""
    drawn = random.Random(1)
    objective = MultiLabel(None, 1, CPU, ("a", "b", "c"))  # type: ignore[arg-type]  # nothing is read here
    rows = [([drawn.randrange(2) for _ in range(3)], [drawn.randrange(2) for _ in range(3)]) for _ in range(200)]

    examples = [
        Labelled(tokens=array("i"), group=b"", digest=b"", classes=tuple(itertools.compress("abc", true)))
        for _, true in rows
    ]
    found = objective.score(examples, [0.0] * len(rows), [said for said, _ in rows])

    def f1(pairs):
        both, either = sum(p & t for p, t in pairs), sum(p + t for p, t in pairs)
        return 2 * both / either

    def micro(some):
        return f1([pair for said, true in some for pair in zip(said, true, strict=True)])

    def macro(some):
        return sum(f1([(said[place], true[place]) for said, true in some]) for place in range(3)) / 3

    for name, figure in ((MetricName.EVAL_MICRO_F1, micro), (MetricName.EVAL_MACRO_F1, macro)):
        low, high = (found[MetricName(f"{name}_ci_{end}")] for end in ("low", "high"))
        assert figure(rows) == pytest.approx(found[name])
        assert looped(figure, rows, 500) == pytest.approx((low, high), abs=0.02)


def test_error_and_correlation_have_the_intervals_of_rows_drawn_anew():
    """The intervals of RMSE and of Pearson's correlation, from sums, are those of the figures of drawn rows."""
    rows = scattered(120)
    errors, together = regression_intervals(*zip(*rows, strict=True))
    assert looped(lambda some: rmse(*zip(*some, strict=True)), rows) == pytest.approx(errors, rel=0.03)
    assert looped(lambda some: pearson(*zip(*some, strict=True)), rows) == pytest.approx(together, abs=0.012)
    assert (0.0, 0.0) == regression_intervals([1e9 + 1] * 9, list(range(9)))[1]


def test_the_interval_of_ranks_covers_as_often_as_it_says():
    """Of samples with a known correlation, about 95 % of Spearman's intervals hold the true one."""
    drawn, true = np.random.default_rng(3), 0.6
    hits = 0
    for _ in range(400):
        x, y = drawn.multivariate_normal([0, 0], [[1, true], [true, 1]], 60).T
        low, high = spearman_interval(spearman(x, y), 60)
        hits += low <= 6 / math.pi * math.asin(true / 2) <= high
    assert stats.binom.ppf(0.001, 400, 0.95) <= hits
    assert (-1.0, 1.0) == spearman_interval(0.5, 3)
    assert (1.0, 1.0) == spearman_interval(1.0, 9)


def test_texts_have_the_intervals_of_rows_drawn_anew():
    """BLEU and ROUGE-L have the interval that a plain loop over drawn rows finds."""
    drawn = random.Random(4)
    right = [" ".join(drawn.choices("abcdefg", k=9)) for _ in range(40)]
    said = [" ".join(word if drawn.random() < 0.9 else "x" for word in text.split()) for text in right]
    rows = list(zip(said, right, strict=True))
    found = text_metrics(said, [[text] for text in right])
    rouge = [found[name] for name in (MetricName.EVAL_ROUGE_L_CI_LOW, MetricName.EVAL_ROUGE_L_CI_HIGH)]
    bleu = [found[name] for name in (MetricName.EVAL_BLEU_CI_LOW, MetricName.EVAL_BLEU_CI_HIGH)]

    def mean(some):
        return sum(rouge_l(text, other) for text, other in some) / len(some)

    def corpus(some):
        from sacrebleu.metrics.bleu import BLEU

        return BLEU().corpus_score([text for text, _ in some], [[other for _, other in some]]).score

    assert looped(mean, rows) == pytest.approx(rouge, abs=0.7)
    assert looped(corpus, rows, 100) == pytest.approx(bleu, abs=4)
    assert bleu[0] < found[MetricName.EVAL_BLEU] < bleu[1]


def test_reciprocal_ranks_have_an_interval():
    """The mean reciprocal rank stands within its interval, which has no width where all ranks are the same."""
    found = rank_metrics([1, 2, 4, 0, 1, 3] * 5, 3)
    assert found[MetricName.EVAL_MRR_CI_LOW] < found[MetricName.EVAL_MRR] < found[MetricName.EVAL_MRR_CI_HIGH]
    same = rank_metrics([2] * 6, 3)
    assert [0.5, 0.5] == [same[MetricName.EVAL_MRR_CI_LOW], same[MetricName.EVAL_MRR_CI_HIGH]]


def test_every_interval_has_both_ends_and_a_figure():
    """For each name of an end there is the other end and the figure, so that a reader may join them by name."""
    ends = {name for name in MetricName if name.endswith(("_ci_low", "_ci_high"))}
    figures = {name.removesuffix("_ci_low").removesuffix("_ci_high") for name in ends}
    assert figures <= set(MetricName)
    assert ends == {f"{figure}_ci_{end}" for figure in figures for end in ("low", "high")}


def test_kinds_of_rows_stand_for_rows():
    """A line that stands for many rows has the interval of that many equal rows."""
    rows = [[1.0]] * 300 + [[0.0]] * 100
    ((low, high),) = row_intervals(rows, lambda sums: [sums[:, 0] / 400])
    ((few, many),) = row_intervals([[1.0], [0.0]], lambda sums: [sums[:, 0] / 400], [300, 100])
    assert (low, high) == pytest.approx((few, many), abs=0.01)
