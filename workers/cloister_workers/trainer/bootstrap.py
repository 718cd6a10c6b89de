# SPDX-License-Identifier: Apache-2.0
"""Confidence intervals by resampling rows (Efron 1979; percentile interval)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

_RESAMPLES = 1000
_SEED = 20260101  # an interval is a function of the rows alone
_SOME = 64  # resamples at one time: bounds the memory

Sums = NDArray[np.float64]


def row_interval(counts: Sequence[Sequence[float]], statistic: Callable[[Sums], Sums]) -> tuple[float, float]:
    """The 95 % interval of a statistic of summed counts. `counts` has a line for each row; `statistic` gets sums over
    resampled rows, [resamples, columns], and gives [resamples].
    """
    table = np.asarray(counts, dtype=np.float64)
    drawn = np.random.default_rng(_SEED)
    found = []
    for start in range(0, _RESAMPLES, _SOME):
        size = (min(_SOME, _RESAMPLES - start), len(table))
        found.append(statistic(table[drawn.integers(0, len(table), size)].sum(1)))
    low, high = np.quantile(np.concatenate(found), (0.025, 0.975))
    return float(low), float(high)


def resampled_mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """The 95 % interval of a mean over rows."""
    return row_interval([[value] for value in values], lambda sums: sums[:, 0] / len(values))
