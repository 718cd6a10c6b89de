# SPDX-License-Identifier: Apache-2.0
"""Exact limits and tests, for where a bootstrap has too little to draw from.

A bootstrap of no event gives [0, 0], however few items there were. These do not:

    clopper_pearson   limits of a share
    share_limits      the same for clustered items: effective number of items from the design effect, degrees of
                      freedom after Korn and Graubard 1998, and never closer than what unseen clusters could hide
    unseen            the largest share of clusters of which none need have been seen
    mcnemar           exact p for paired 0/1 items (McNemar 1947: binomial on the discordant pairs)
    sign_flip         p when before and after of whole clusters are exchanged: all 2^C ways or random ones
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from scipy import stats

from cloister_workers.trainer.debias.kinds import FloatArray
from cloister_workers.trainer.debias.statistics.bootstrap import Clusters, chunks

_TIE = 1e-9
"""Statistics that differ by less, relative to the largest, count as equal."""


def clopper_pearson(events: float, items: float, alpha: float) -> tuple[float, float]:
    """Two-sided limits of a share of `events` in `items`; both may be fractions (effective numbers)."""
    if items <= 0:
        return 0.0, 1.0
    low = stats.beta.ppf(alpha / 2, events, items - events + 1) if events > 0 else 0.0
    high = stats.beta.ppf(1 - alpha / 2, events + 1, items - events) if events < items else 1.0
    return float(low), float(high)


def unseen(clusters: float, alpha: float) -> float:
    """The largest share of a kind of cluster that `clusters` draws all miss with probability alpha / 2 or more."""
    return float(1 - (alpha / 2) ** (1 / clusters)) if clusters > 0 else 1.0


def share_limits(values: FloatArray, clusters: Clusters, alpha: float) -> tuple[float, float]:
    """Limits of the share of ones among clustered 0/1 `values` [n].

    With no variance between clusters to estimate (no event, or nothing else) a cluster counts as one item. With
    few events the estimate says little, so the limits keep the distance from the share that `unseen` gives: more
    events can never make the upper limit lower than none would.
    """
    items, share = len(values), float(values.mean())
    kish = clusters.effective()
    effective = kish if share in (0.0, 1.0) else min(items, _effective(values, clusters, alpha))
    low, high = clopper_pearson(share * effective, effective, alpha)
    hidden = unseen(kish, alpha)
    return min(low, share * (1 - hidden)), max(high, share + (1 - share) * hidden)


def mcnemar(only_before: int, only_after: int) -> float:
    """Two-sided exact p for pairs that are 1 before alone and after alone."""
    discordant = only_before + only_after
    if discordant == 0:
        return 1.0
    return min(1.0, 2 * float(stats.binom.cdf(min(only_before, only_after), discordant, 0.5)))


def sign_flip(statistic: Callable[[FloatArray], FloatArray], clusters: int, draws: int, seed: int, width: int) -> float:
    """Two-sided p of `statistic` (signs [b, clusters] of +1 and -1 to [b]) under random signs.

    Its absolute value under all +1 is compared with all 2^clusters ways where these are at most `draws`, else with
    `draws` random ones and itself (Phipson and Smyth 2010: never 0). `width` is how many numbers the statistic holds
    for each row of signs; it bounds memory. A statistic that is NaN counts as extreme.
    """
    seen = abs(float(statistic(np.ones((1, clusters)))[0]))
    if np.isnan(seen):
        return 1.0
    every = clusters < 63 and 2**clusters <= draws
    extreme = total = 0
    for signs in _every_sign(clusters, width) if every else _random_signs(clusters, draws, seed, width):
        values = np.abs(statistic(signs))
        extreme += int(np.count_nonzero(~(values < seen - _TIE * max(seen, 1e-300))))
        total += len(signs)
    return extreme / total if every else (extreme + 1) / (total + 1)


def _effective(values: FloatArray, clusters: Clusters, alpha: float) -> float:
    """Items that are worth what the clustered ones are: n over the design effect, less for few degrees of freedom."""
    items, share, count = len(values), float(values.mean()), clusters.count
    if count < 2:
        return 1.0
    residuals = clusters.sums(values - share)
    variance = count / (count - 1) * float((residuals**2).sum()) / items**2
    simple = share * (1 - share) / max(items - 1, 1)
    worth = items / max(variance / simple, 1.0)
    narrower = float(stats.t.ppf(1 - alpha / 2, max(items - 1, 1)) / stats.t.ppf(1 - alpha / 2, count - 1)) ** 2
    return worth * narrower


def _every_sign(clusters: int, width: int) -> Iterator[FloatArray]:
    start = 0
    for rows in chunks(2**clusters, max(width, clusters)):
        numbers = np.arange(start, start + rows, dtype=np.int64)[:, None]
        yield 1.0 - 2.0 * ((numbers >> np.arange(clusters)) & 1).astype(np.float64)
        start += rows


def _random_signs(clusters: int, draws: int, seed: int, width: int) -> Iterator[FloatArray]:
    random = np.random.Generator(np.random.PCG64(seed))
    for rows in chunks(draws, max(width, clusters)):
        yield random.integers(0, 2, size=(rows, clusters)).astype(np.float64) * 2 - 1
