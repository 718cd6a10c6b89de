# SPDX-License-Identifier: Apache-2.0
"""How far confidences are from shares of right answers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_BINS = 15


def calibration_error(confidences: Sequence[float], right: Sequence[bool]) -> float:
    """Expected calibration error over 15 bins of equal mass (Naeini et al. 2015, AAAI): the mean over bins, weighted
    by their rows, of |mean confidence - share right|, 0 to 1. Fewer rows than bins: a bin each. Equal confidences
    stay in the order of the rows.
    """
    order = np.argsort(np.asarray(confidences), kind="stable")
    bins = np.array_split(order, min(_BINS, len(order)))
    said, true = np.asarray(confidences, dtype=np.float64), np.asarray(right, dtype=np.float64)
    return float(sum(abs(said[part].sum() - true[part].sum()) for part in bins) / len(order))
