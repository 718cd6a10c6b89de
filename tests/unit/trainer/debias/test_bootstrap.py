# SPDX-License-Identifier: Apache-2.0
"""The clustered bootstrap against formulas and against scipy's intervals of the same draws."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from cloister_workers.trainer.debias.kinds import FloatArray
from cloister_workers.trainer.debias.statistics import bootstrap
from cloister_workers.trainer.debias.statistics.bootstrap import Clusters, Sample, drawing

NORMAL = stats.norm.ppf(0.975)


def mean_of(values: FloatArray) -> bootstrap.Columns:
    return lambda weights: ((weights @ values) / weights.sum(axis=1))[:, None]


def single(count: int) -> Clusters:
    return Clusters.of([str(number) for number in range(count)])


def sample_of(draws: list[float], value: float = 1.0, clusters: int = 30) -> Sample:
    return Sample(value, np.array(draws), np.array([value]), clusters)


def test_whole_clusters_are_drawn() -> None:
    """Items of a cluster share their weight, and each draw holds as many clusters as there are."""
    clusters, seen = Clusters.of(["a", "b", "a", "c", "c", "c"]), []

    def look(weights: FloatArray) -> FloatArray:
        seen.append(weights)
        return weights[:, :1]

    drawing(look, clusters, 50, 1)
    _, drawn, left = seen
    for weights in (drawn, left):
        assert np.array_equal(weights[:, [0, 3, 3]], weights[:, [2, 4, 5]])
    assert np.array_equal(drawn[:, [0, 1, 3]].sum(axis=1), np.full(50, 3.0))
    assert 3 == len(left)
    assert {(0, 1, 1), (1, 0, 1), (1, 1, 0)} == {tuple(row) for row in left[:, [0, 1, 3]]}


def test_effective_clusters() -> None:
    """Sizes 1, 1 and 4 are worth 36 / 18 equal clusters; of chosen items only theirs count."""
    clusters = Clusters.of(["a", "b", "c", "c", "c", "c"])
    assert 2.0 == clusters.effective()
    assert 2.0 == clusters.effective(np.array([1.0, 0, 1, 0, 0, 0]))
    assert 0.0 == clusters.effective(np.zeros(6))


def test_spread_is_that_of_clusters() -> None:
    """The standard error of a mean is the formula's for clusters of equal size, not that of items."""
    random = np.random.default_rng(5)
    shared = random.normal(size=80)
    values = np.repeat(shared, 4) + 0.1 * random.normal(size=320)
    names = [str(number) for number in range(80) for _ in range(4)]
    (sample,) = drawing(mean_of(values), Clusters.of(names), 4000, 1)
    wanted = values.reshape(80, 4).mean(axis=1).std() / math.sqrt(80)
    assert wanted == pytest.approx(sample.draws.std(), rel=0.05)
    assert values.mean() == pytest.approx(sample.value)


def test_the_interval_is_the_hull_of_three() -> None:
    """At the same level, scipy's percentile, basic and BCa intervals of the same draws span ours."""
    random = np.random.default_rng(11)
    values, count = random.exponential(size=60), 60
    (sample,) = drawing(mean_of(values), single(count), 3000, 2)
    level = 2 * stats.t.sf(NORMAL * math.sqrt((count - 1) / count), count - 1)
    ours = sample.interval(level)

    class Drawn:
        bootstrap_distribution = sample.draws

    known = [
        stats.bootstrap(
            (values,), np.mean, n_resamples=0, method=method, bootstrap_result=Drawn(), confidence_level=0.95
        ).confidence_interval
        for method in ("percentile", "basic", "BCa")
    ]
    gap = 0.01 * sample.draws.std()  # ours takes a draw, scipy a point between two
    assert min(interval.low for interval in known) == pytest.approx(ours.low, abs=3 * gap)
    assert max(interval.high for interval in known) == pytest.approx(ours.high, abs=3 * gap)


def test_few_clusters_are_wider() -> None:
    """The same draws of ten clusters give a wider interval than of a thousand, by Student's t and its factor."""
    draws = list(np.random.default_rng(1).normal(1, 1, size=20_000))
    few, many = (sample_of(draws, clusters=count).interval(0.05) for count in (10, 1000))
    assert stats.t.ppf(0.975, 9) * math.sqrt(10 / 9) / NORMAL == pytest.approx(
        (few.high - few.low) / (many.high - many.low), rel=0.04
    )


def test_lost_draws_widen() -> None:
    """Some draws without a figure widen to both sides; more than the level make the interval infinite."""
    draws = list(np.random.default_rng(1).normal(1, 1, size=1000))
    whole = sample_of(draws).interval(0.05)
    some = sample_of([*draws[:-10], *[math.nan] * 10]).interval(0.05)
    many = sample_of([*draws[:-100], *[math.nan] * 100]).interval(0.05)
    assert some.low <= whole.low < whole.high <= some.high
    assert math.isfinite(some.high - some.low)
    assert (-math.inf, math.inf) == (many.low, many.high)
    lost = sample_of([math.nan] * 10).interval(0.05)
    assert (-math.inf, math.inf) == (lost.low, lost.high)


def test_nothing_is_known_of_one_cluster() -> None:
    """A single cluster, or a figure that is not there, has no interval."""
    (alone,) = drawing(mean_of(np.arange(9.0)), Clusters.of(["a"] * 9), 100, 1)
    missing = sample_of([1.0] * 50, value=math.nan)
    for sample in (alone, missing):
        estimate = sample.interval(0.05)
        assert (-math.inf, math.inf) == (estimate.low, estimate.high)


def test_a_constant_has_no_width() -> None:
    """Where every draw is the same, so are both limits."""
    (sample,) = drawing(mean_of(np.full(30, 0.25)), single(30), 200, 1)
    estimate = sample.interval(0.05)
    assert (0.25, 0.25) == pytest.approx((estimate.low, estimate.high))


def test_p_counts_the_smaller_side() -> None:
    """Two of nine draws at or above 0, one added: 2 * 3 / 10; a lost one counts on both sides."""
    draws = [-1.0, -2.0, -1.5, -0.5, -0.2, -0.1, 0.4, 0.0]
    assert 2 * 3 / 9 == pytest.approx(sample_of(draws).p_of_zero())
    assert 2 * 4 / 10 == pytest.approx(sample_of([*draws, math.nan]).p_of_zero())
    assert 2 / 101 == pytest.approx(sample_of([-1.0] * 100).p_of_zero())


def test_pieces_and_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A seed gives its draws again, cut into pieces or not; another seed gives others."""
    values = np.random.default_rng(2).normal(size=40)
    (first,), (other,) = (drawing(mean_of(values), single(40), 300, seed) for seed in (1, 2))
    monkeypatch.setattr(bootstrap, "MAX_WEIGHTS", 40 * 7)
    (pieces,) = drawing(mean_of(values), single(40), 300, 1)
    assert first.draws == pytest.approx(pieces.draws)
    assert first.left_out == pytest.approx(pieces.left_out)
    assert not np.array_equal(first.draws, other.draws)


def test_many_clusters_are_left_out_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the limit blocks of clusters are left out, each cluster once."""
    monkeypatch.setattr(bootstrap, "MAX_LEFT_OUT", 8)
    seen = []

    def look(weights: FloatArray) -> FloatArray:
        seen.append(weights)
        return weights[:, :1]

    drawing(look, single(30), 10, 1)
    assert 8 == len(seen[-1])
    assert np.array_equal(np.full(30, 7.0), seen[-1].sum(axis=0))


def test_columns_of_one_drawing_are_paired() -> None:
    """The difference of two columns that move together has no spread of its own."""
    values = np.random.default_rng(2).normal(size=50)
    both = np.stack([values, values + 1], axis=1)
    first, second = drawing(lambda w: (w @ both) / w.sum(axis=1, keepdims=True), single(50), 200, 1)
    step = first.with_(lambda b, a: a - b, second)
    assert np.ones(200) == pytest.approx(step.draws)
    assert 1.0 == pytest.approx(step.value)
    assert 50 == step.clusters
