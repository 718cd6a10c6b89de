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


Interval = tuple[float, float]


def row_intervals(
    counts: Sequence[Sequence[float]] | Sums,
    statistic: Callable[[Sums], Sequence[Sums]],
    often: Sequence[int] | None = None,
) -> list[Interval]:
    """The 95 % interval of each figure that a statistic makes of summed counts. `counts` has a line for each row, or
    for each kind of row with how many of them there are in `often`; `statistic` gets sums over resampled rows,
    [resamples, columns], and gives [resamples] for each figure.
    """
    table = np.asarray(counts, dtype=np.float64)
    drawn = np.random.default_rng(_SEED)
    found: list[Sequence[Sums]] = []
    for start in range(0, _RESAMPLES, _SOME):
        many = min(_SOME, _RESAMPLES - start)
        if often is None:
            places = drawn.integers(0, len(table), (many, len(table)))
            times = np.stack([np.bincount(line, minlength=len(table)) for line in places])
        else:
            times = drawn.multinomial(sum(often), np.asarray(often) / sum(often), many)
        found.append(statistic(times.astype(np.float64) @ table))
    figures = [np.concatenate(parts) for parts in zip(*found, strict=True)]
    return [(float(low), float(high)) for low, high in (np.quantile(figure, (0.025, 0.975)) for figure in figures)]


def row_interval(counts: Sequence[Sequence[float]], statistic: Callable[[Sums], Sums]) -> Interval:
    """`row_intervals` of one figure."""
    (found,) = row_intervals(counts, lambda sums: [statistic(sums)])
    return found


def resampled_mean_interval(values: Sequence[float]) -> Interval:
    """The 95 % interval of a mean over rows."""
    return row_interval([[value] for value in values], lambda sums: sums[:, 0] / len(values))
