# SPDX-License-Identifier: Apache-2.0
"""How predicted numbers go with the true ones."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.stats import rankdata


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
