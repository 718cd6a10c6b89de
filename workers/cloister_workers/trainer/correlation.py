# SPDX-License-Identifier: Apache-2.0
"""How predicted numbers go with the true ones."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.stats import rankdata

from cloister_workers.trainer.bootstrap import Interval, Sums, row_intervals
from cloister_workers.trainer.metrics import Z95


def rmse(predicted: Sequence[float], true: Sequence[float]) -> float:
    """Root of the mean squared error, in the unit of the numbers."""
    return math.sqrt(math.fsum((p - t) ** 2 for p, t in zip(predicted, true, strict=True)) / len(true))


def pearson(predicted: Sequence[float], true: Sequence[float]) -> float:
    """Correlation, -1 to 1; 0 where either side is constant, as nothing then goes with anything."""
    x, y = np.asarray(predicted, dtype=np.float64), np.asarray(true, dtype=np.float64)
    x, y = x - x.mean(), y - y.mean()
    scale = math.sqrt(float(x @ x)) * math.sqrt(float(y @ y))
    return float(np.clip(x @ y / scale, -1.0, 1.0)) if scale > 0 else 0.0


def spearman(predicted: Sequence[float], true: Sequence[float]) -> float:
    """Correlation of ranks, ties at their mean rank (Spearman 1904)."""
    return pearson(rankdata(predicted), rankdata(true))


def regression_intervals(predicted: Sequence[float], true: Sequence[float]) -> list[Interval]:
    """The 95 % intervals of `rmse` and `pearson`, by drawing rows anew."""
    said, are = np.asarray(predicted, dtype=np.float64), np.asarray(true, dtype=np.float64)
    x, y = said - said.mean(), are - are.mean()  # so that the sums of squares below lose no digits

    def scores(sums: Sums) -> list[Sums]:
        sx, sy, sxx, syy, sxy, errors = sums.T / len(are)
        scale = np.sqrt((sxx - sx**2).clip(min=0)) * np.sqrt((syy - sy**2).clip(min=0))
        together = np.divide(sxy - sx * sy, scale, out=np.zeros_like(scale), where=scale > 0)
        return [np.sqrt(errors), together.clip(-1.0, 1.0)]

    return row_intervals(np.stack([x, y, x * x, y * y, x * y, (said - are) ** 2], axis=1), scores)


def spearman_interval(correlation: float, rows: int) -> Interval:
    """The 95 % interval of `spearman` by Fisher's z with the variance (1 + r^2 / 2) / (n - 3) (Bonett and Wright 2000,
    Psychometrika 65); a draw of rows would have ranks of its own. (-1, 1) for fewer than 4 rows.
    """
    if rows < 4:
        return -1.0, 1.0
    if abs(correlation) >= 1:
        return correlation, correlation
    middle, spread = math.atanh(correlation), Z95 * math.sqrt((1 + correlation**2 / 2) / (rows - 3))
    return math.tanh(middle - spread), math.tanh(middle + spread)
