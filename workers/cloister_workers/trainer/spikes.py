# SPDX-License-Identifier: Apache-2.0
"""Steps whose loss stands out, and the rows that made it: numbers of rows, never what they say.

A step stands out where its loss is no finite number, or above the median of the last `WINDOW` steps by more than
`FACTOR` times their scaled median absolute deviation, and by half the median as well (a flat curve has next to no
deviation). Its odd rows are those whose loss, a weight's share of it, is no finite number or more than twice the
median of the step's rows.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

WINDOW = 64
LEAST = 16
"""Steps before anything can stand out."""
FACTOR = 6.0
MAX_ROWS = 8
_NORMAL = 1.4826  # a normal distribution's standard deviation in median absolute deviations


@dataclass(frozen=True)
class RowLoss:
    """What one example of a step lost: `row` is its number in its file, from 1; `replayed`: that is the replay file."""

    row: int
    loss: float
    replayed: bool = False


@dataclass
class Spikes:
    """Remembers the losses of the last steps."""

    _recent: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW))

    def stands_out(self, loss: float) -> bool:
        """Whether this step's loss does, against those before it; it is remembered if it is a number, so that a loss
        that stays on a new level soon is the usual one. A few odd steps move no median.
        """
        if not math.isfinite(loss):
            return True
        odd = len(self._recent) >= LEAST and loss > self._limit()
        self._recent.append(loss)
        return odd

    def _limit(self) -> float:
        middle = statistics.median(self._recent)
        spread = statistics.median(abs(loss - middle) for loss in self._recent)
        return middle + max(FACTOR * _NORMAL * spread, 0.5 * abs(middle))


def odd_rows(losses: Sequence[RowLoss]) -> tuple[RowLoss, ...]:
    """Of a step that stands out: the rows that made it so, worst first, at most `MAX_ROWS`."""
    finite = [entry.loss for entry in losses if math.isfinite(entry.loss)]
    limit = 2 * statistics.median(finite) if finite else -math.inf
    found = [entry for entry in losses if not entry.loss <= limit]
    return tuple(sorted(found, key=_badness, reverse=True)[:MAX_ROWS])


def _badness(entry: RowLoss) -> float:
    return entry.loss if math.isfinite(entry.loss) else math.inf
