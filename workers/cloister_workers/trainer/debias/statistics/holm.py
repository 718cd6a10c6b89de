# SPDX-License-Identifier: Apache-2.0
"""Holm's step-down adjustment (Holm 1979): the error over all hypotheses together stays at the nominal level."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Adjusted p-values in the order given: the k-th smallest of m times (m - k + 1), never falling, at most 1.

    NaN (nothing was tested) counts as 1.
    """
    known = np.nan_to_num(np.asarray(p_values, dtype=np.float64), nan=1.0)
    order = np.argsort(known, kind="stable")
    stepped = known[order] * np.arange(len(known), 0, -1)
    adjusted = np.empty_like(known)
    adjusted[order] = np.minimum(np.maximum.accumulate(stepped), 1.0)
    return tuple(float(value) for value in adjusted)
