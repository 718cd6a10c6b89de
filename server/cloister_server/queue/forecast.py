# SPDX-License-Identifier: Apache-2.0
"""When waiting jobs would start if nothing changed: a simulation of hosts that take one job after the other.

It knows neither jobs that will come, nor how fair share moves as jobs run, nor how long these very jobs take.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

NEVER = float("inf")
"""A time that nobody knows, in the heap: after every known one."""


def forecast_starts(now: int, free_at: Sequence[int | None], duration: int | None, waiting: int) -> list[int | None]:
    """Starts of `waiting` jobs in their order; None where nothing is known of it.

    `free_at` has for each host when it takes its next job (None: unknown), `duration` is how long a job holds a host.
    All in milliseconds; what lies before `now` counts as now, so no start is in the past.  Starts never go down from
    one job to the next.
    """
    hosts: list[float] = [NEVER if at is None else max(at, now) for at in free_at]
    heapq.heapify(hosts)
    starts: list[int | None] = []
    for _ in range(waiting if hosts else 0):
        start = hosts[0]
        heapq.heapreplace(hosts, NEVER if duration is None else start + duration)
        starts.append(None if start == NEVER else int(start))
    return starts or [None] * waiting
