# SPDX-License-Identifier: Apache-2.0
"""Whether a group tells the label: Cramér's V of two columns of names, with its interval.

V = sqrt(chi2 / (n (min(r, c) - 1))) is 0 where group and label are independent and 1 where one tells the other. The
interval inverts the non-central chi-square distribution (Smithson 2003, doi:10.4135/9781412983761): chi2 of n rows is
about that with non-centrality n (min(r, c) - 1) V^2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.stats import ncx2


@dataclass(frozen=True)
class Link:
    """V in the rows at hand, and the interval of V in what they were drawn from."""

    value: float
    low: float
    high: float


def cramers_v(first: Sequence[str], second: Sequence[str], alpha: float = 0.05) -> Link:
    """V of two columns of equal length, two-sided interval; all 0 where one of them holds a single name."""
    a, b = (np.unique(np.array(column), return_inverse=True)[1] for column in (first, second))
    r, c = (int(column.max(initial=0)) + 1 for column in (a, b))
    if min(r, c) < 2:
        return Link(0.0, 0.0, 0.0)
    table = np.zeros((r, c))
    np.add.at(table, (a, b), 1)
    expected = np.outer(table.sum(1), table.sum(0)) / len(a)
    chi2 = float(((table - expected) ** 2 / expected).sum())
    freedom, full = (r - 1) * (c - 1), len(a) * (min(r, c) - 1)
    low, high = (_noncentrality(chi2, freedom, share) for share in (1 - alpha / 2, alpha / 2))
    value, low, high = (min(1.0, float(np.sqrt(number / full))) for number in (chi2, low, high))
    return Link(value, low, high)


def _noncentrality(chi2: float, freedom: int, share: float) -> float:
    """The non-centrality under which a share `share` of draws lies below `chi2`; 0 where even 0 is too much."""

    def excess(noncentrality: float) -> float:
        return float(ncx2.cdf(chi2, freedom, noncentrality)) - share

    if excess(1e-9) <= 0:
        return 0.0
    top = 1.0
    while excess(top) > 0:
        top *= 2
    return float(brentq(excess, 1e-9, top))
