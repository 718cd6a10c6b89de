# SPDX-License-Identifier: Apache-2.0
"""Exact limits and tests against scipy and against counting by hand."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from cloister_workers.trainer.debias.statistics.bootstrap import Clusters
from cloister_workers.trainer.debias.statistics.exact import (
    clopper_pearson,
    mcnemar,
    share_limits,
    sign_flip,
    unseen,
)

ALPHAS = st.sampled_from([0.01, 0.05, 0.1])


def clusters_of(sizes: list[int]) -> Clusters:
    return Clusters.of([str(number) for number, size in enumerate(sizes) for _ in range(size)])


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 400), st.floats(0, 1), ALPHAS)
def test_limits_of_a_share_equal_scipy(items: int, part: float, alpha: float) -> None:
    """Clopper-Pearson limits are those of scipy, and independent items of size one get exactly these."""
    events = round(items * part)
    known = stats.binomtest(events, items).proportion_ci(1 - alpha, method="exact")
    assert (known.low, known.high) == pytest.approx(clopper_pearson(events, items, alpha))
    values = np.repeat([1.0, 0.0], [events, items - events])
    assert (known.low, known.high) == pytest.approx(share_limits(values, clusters_of([1] * items), alpha))


def test_no_flip_is_not_no_doubt() -> None:
    """0 of 183 independent texts reach up to 2 % and 0 of 182 beyond it."""
    assert share_limits(np.zeros(183), clusters_of([1] * 183), 0.05)[1] <= 0.02 < unseen(182, 0.05)


def test_items_of_a_cluster_that_say_the_same_are_one() -> None:
    """Without any event 600 texts of 25 templates say as much as 25 texts."""
    assert (0.0, unseen(25, 0.05)) == pytest.approx(share_limits(np.zeros(600), clusters_of([24] * 25), 0.05))
    assert (1 - unseen(25, 0.05), 1.0) == pytest.approx(share_limits(np.ones(600), clusters_of([24] * 25), 0.05))


def test_limits_of_whole_clusters_by_hand() -> None:
    """Where clusters agree within themselves, the effective number is theirs, less for the degrees of freedom."""
    count, size, events = 40, 5, 12
    values = np.repeat(np.r_[np.ones(events), np.zeros(count - events)], size)
    p, n = events / count, count * size
    design = (count / (count - 1) * count * size**2 * p * (1 - p) / n**2) / (p * (1 - p) / (n - 1))
    effective = n / design * (stats.t.ppf(0.975, n - 1) / stats.t.ppf(0.975, count - 1)) ** 2
    low = stats.beta.ppf(0.025, p * effective, effective * (1 - p) + 1)
    high = stats.beta.ppf(0.975, p * effective + 1, effective * (1 - p))
    assert (low, high) == pytest.approx(share_limits(values, clusters_of([size] * count), 0.05))
    assert effective == pytest.approx(count, rel=0.08)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(1, 8), min_size=2, max_size=30), st.integers(0, 2**32 - 1), st.floats(0, 1), ALPHAS)
def test_events_never_make_it_surer(sizes: list[int], seed: int, rate: float, alpha: float) -> None:
    """Limits hold the share, and the upper one is never below that of no event at all."""
    clusters = clusters_of(sizes)
    values = (np.random.default_rng(seed).random(sum(sizes)) < rate).astype(float)
    low, high = share_limits(values, clusters, alpha)
    assert 0 <= low <= values.mean() <= high <= 1
    assert high >= share_limits(np.zeros(sum(sizes)), clusters, alpha)[1] - 1e-12


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 40), st.integers(0, 40))
def test_mcnemar_is_the_binomial_test(before: int, after: int) -> None:
    """The p of discordant pairs is scipy's two-sided binomial p at one half."""
    known = stats.binomtest(before, before + after, 0.5).pvalue if before + after else 1.0
    assert known == pytest.approx(mcnemar(before, after))


def test_sign_flip_counts_every_way() -> None:
    """With few clusters p is the share of all sign patterns, as scipy counts them."""
    steps = np.array([0.4, -0.1, 0.9, 0.3, 0.25, -0.05, 0.7])
    exact = sign_flip(lambda signs: signs @ steps, len(steps), 2000, 1, len(steps))
    known = stats.permutation_test((steps,), np.sum, permutation_type="samples", n_resamples=np.inf)
    assert known.pvalue == pytest.approx(exact)
    by_hand = [abs(np.dot(signs, steps)) >= abs(steps.sum()) - 1e-9 for signs in product([1, -1], repeat=len(steps))]
    assert np.mean(by_hand) == exact


def test_sign_flip_of_many_clusters_is_drawn() -> None:
    """Random signs come near the exact p, never give 0, and the same seed gives the same p."""
    random = np.random.default_rng(3)
    steps = random.normal(0.35, 1, size=14)
    exact = sign_flip(lambda signs: signs @ steps, 14, 2**14, 1, 14)
    drawn = sign_flip(lambda signs: signs @ steps, 14, 2**14 - 1, 1, 14)
    assert exact == pytest.approx(drawn, abs=4 * np.sqrt(exact * (1 - exact) / 2**14))
    certain = np.full(60, 1.0)
    assert 1 / 1001 == sign_flip(lambda signs: signs @ certain, 60, 1000, 5, 60)


def test_sign_flip_without_a_figure() -> None:
    """A statistic that is not there gives p = 1, and one that is lost under some signs counts as extreme there."""
    assert 1.0 == sign_flip(lambda signs: np.full(len(signs), np.nan), 8, 1000, 1, 8)
    steps = np.ones(4)
    lost = sign_flip(lambda signs: np.where(signs[:, 0] < 0, np.nan, signs @ steps), 4, 100, 1, 4)
    assert 9 / 16 == lost


def test_equal_before_and_after_is_no_change() -> None:
    """Where nothing moved every way is as extreme as what was seen."""
    assert 1.0 == sign_flip(lambda signs: signs @ np.zeros(5), 5, 1000, 1, 5)


def test_no_clusters_no_certainty() -> None:
    """Nothing drawn can hide everything, and a share of no items lies anywhere."""
    assert 1.0 == unseen(0, 0.05)
    assert (0.0, 1.0) == clopper_pearson(0, 0, 0.05)
