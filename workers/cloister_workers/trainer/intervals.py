# SPDX-License-Identifier: Apache-2.0
"""95 % intervals of losses."""

from __future__ import annotations

import math
from collections.abc import Sequence

_Z95 = 1.959963984540054  # the standard normal's 97.5 % point


def ratio_interval(sums: Sequence[float], weights: Sequence[int]) -> tuple[float, float]:
    """Of sum(sums) / sum(weights), examples drawn independently, by the ratio estimator's linearised variance
    (Cochran, Sampling Techniques, 3rd ed., 6.4): n / (n - 1) * sum (s_i - r w_i)^2 / (sum w)^2.

    One example has no spread: its interval is the value itself.
    """
    total, count = sum(weights), len(sums)
    ratio = sum(sums) / total
    if count < 2:
        return ratio, ratio
    squares = sum((value - ratio * weight) ** 2 for value, weight in zip(sums, weights, strict=True))
    spread = _Z95 * math.sqrt(count / (count - 1) * squares) / total
    return ratio - spread, ratio + spread
