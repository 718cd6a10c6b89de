# SPDX-License-Identifier: Apache-2.0
"""Intervals from a bootstrap that draws whole clusters, the same ones before and after.

A draw takes C of C clusters with replacement: cluster counts are multinomial, and an item's weight is the count of
its cluster. Figures are computed under weights, so a difference of two columns of one drawing is a paired one.

The interval is the hull of three (Efron and Tibshirani 1993, chapters 13 and 14; Hesterberg 2015, arXiv:1411.5279):

    percentile, expanded    quantiles at the level of Student's t with C - 1 degrees times sqrt(C / (C - 1)), which
                            mends that a bootstrap of few clusters is too narrow
    BCa, expanded           corrects median bias and skewness; acceleration from a jackknife over clusters
    basic, expanded         mirrors the percentile interval; its lower end corrects what max-min is too large by

None of them is right alone: the percentile interval misses the long tail of skewed figures, BCa and basic fall short
above where a figure has a kink (a gap near 0). The hull errs wide; `benchmarks/debias_gate.py` shows how they cover.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from cloister_workers.trainer.debias.kinds import FloatArray, IntArray
from cloister_workers.trainer.debias.results import Estimate

MAX_WEIGHTS = 2**20
"""Weights that are held at a time, 8 MiB of them."""
MAX_LEFT_OUT = 200
"""Jackknife blocks: beyond as many clusters, several are left out together."""

Columns = Callable[[FloatArray], FloatArray]
"""Weights [b, n] to figures [b, m]."""


@dataclass(frozen=True)
class Clusters:
    """Which independent unit each of n items belongs to."""

    index: IntArray
    """[n], from 0 to count - 1."""
    count: int

    @classmethod
    def of(cls, names: Sequence[str]) -> Clusters:
        """Number the names."""
        unique, index = np.unique(np.asarray(names), return_inverse=True)
        return cls(index.astype(np.int64), len(unique))

    def sums(self, values: FloatArray) -> FloatArray:
        """Sum of `values` [n] in each cluster."""
        found: FloatArray = np.bincount(self.index, weights=values, minlength=self.count).astype(np.float64)
        return found

    def effective(self, chosen: FloatArray | None = None) -> float:
        """How many clusters of equal size the chosen items (0/1 [n]; all) are worth: Kish's (sum m)^2 / sum m^2."""
        sizes = self.sums(np.ones(len(self.index)) if chosen is None else chosen)
        return float(sizes.sum() ** 2 / max((sizes**2).sum(), 1e-300))


@dataclass(frozen=True)
class Sample:
    """One figure: its value, its bootstrap draws and its jackknife values; NaN where there was nothing to take."""

    value: float
    draws: FloatArray
    left_out: FloatArray
    clusters: int

    def with_(self, combine: Callable[..., FloatArray], *others: Sample) -> Sample:
        """A figure computed from this one and others of the same drawing."""
        every = (self, *others)
        value = combine(*(np.array([sample.value]) for sample in every))
        return Sample(
            float(value[0]),
            combine(*(sample.draws for sample in every)),
            combine(*(sample.left_out for sample in every)),
            self.clusters,
        )

    def interval(self, alpha: float) -> Estimate:
        """The hull of the three intervals, each of error `alpha`, two-sided.

        A draw without a figure counts as below the lower end and above the upper one, so many of them make it
        infinite; so does a single cluster.
        """
        if self.clusters < 2 or np.isnan(self.value):
            return Estimate(self.value, -np.inf, np.inf)
        half = float(stats.t.ppf(1 - alpha / 2, self.clusters - 1)) * np.sqrt(self.clusters / (self.clusters - 1))
        ends = np.array([-half, half])
        percentile = self._quantiles(stats.norm.cdf(ends))
        basic = 2 * self.value - percentile[::-1]
        both = np.stack([percentile, basic, self._quantiles(self._corrected(ends))])
        return Estimate(self.value, float(both[:, 0].min()), float(both[:, 1].max()))

    def p_of_zero(self) -> float:
        """Two-sided p of a true value of 0: twice the smaller share of draws on a side of 0, each with one added."""
        lost = np.isnan(self.draws)
        sides = [1 + np.count_nonzero(lost | (self.draws <= 0)), 1 + np.count_nonzero(lost | (self.draws >= 0))]
        return min(1.0, 2 * min(sides) / (len(self.draws) + 1))

    def _quantiles(self, levels: FloatArray) -> FloatArray:
        """The lower quantile with lost draws at -inf, the upper with them at +inf; never between two draws."""
        low = np.quantile(np.nan_to_num(self.draws, nan=-np.inf), levels[0], method="lower")
        high = np.quantile(np.nan_to_num(self.draws, nan=np.inf), levels[1], method="higher")
        return np.array([low, high])

    def _corrected(self, ends: FloatArray) -> FloatArray:
        """Levels of BCa for normal deviates `ends`."""
        kept = self.draws[~np.isnan(self.draws)]
        below = np.count_nonzero(kept < self.value) + 0.5 * np.count_nonzero(kept == self.value)
        shift = stats.norm.ppf((below + 0.5) / (len(kept) + 1))
        moved = shift + ends
        bent = np.maximum(1 - self._acceleration() * moved, 1e-3)
        levels: FloatArray = stats.norm.cdf(shift + moved / bent)
        return levels

    def _acceleration(self) -> float:
        kept = self.left_out[~np.isnan(self.left_out)]
        if len(kept) < 3:
            return 0.0
        away = kept.mean() - kept
        spread = float((away**2).sum())
        return float((away**3).sum() / (6 * spread**1.5)) if spread > 0 else 0.0


def drawing(columns: Columns, clusters: Clusters, draws: int, seed: int) -> list[Sample]:
    """Draw `draws` times and compute all columns each time; one Sample a column. The same seed, the same draws."""
    random = np.random.Generator(np.random.PCG64(seed))
    value = columns(np.ones((1, len(clusters.index))))[0]
    drawn = np.concatenate([columns(weights) for weights in _draws(random, clusters, draws)])
    left = np.concatenate([columns(weights) for weights in _left_out(random, clusters)])
    return [Sample(float(value[m]), drawn[:, m], left[:, m], clusters.count) for m in range(len(value))]


def _draws(random: np.random.Generator, clusters: Clusters, draws: int) -> Iterator[FloatArray]:
    count = clusters.count
    for rows in chunks(draws, len(clusters.index)):
        chosen = random.integers(count, size=(rows, count)) + count * np.arange(rows)[:, None]
        times = np.bincount(chosen.ravel(), minlength=rows * count).reshape(rows, count)
        yield times.astype(np.float64)[:, clusters.index]


def _left_out(random: np.random.Generator, clusters: Clusters) -> Iterator[FloatArray]:
    if clusters.count < 2:
        yield np.ones((1, len(clusters.index)))  # there is nothing to leave out, and no interval either
        return
    blocks = min(clusters.count, MAX_LEFT_OUT)
    block = random.permutation(np.arange(clusters.count) % blocks)[clusters.index]
    start = 0
    for rows in chunks(blocks, len(clusters.index)):
        yield (block[None, :] != np.arange(start, start + rows)[:, None]).astype(np.float64)
        start += rows


def chunks(rows: int, items: int) -> Iterator[int]:
    """Cut `rows` rows of `items` numbers into pieces that fit in MAX_WEIGHTS; at least a row each."""
    most = max(1, MAX_WEIGHTS // max(items, 1))
    for start in range(0, rows, most):
        yield min(most, rows - start)
