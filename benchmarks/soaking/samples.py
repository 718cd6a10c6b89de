# SPDX-License-Identifier: Apache-2.0
"""Memory and descriptors of running processes, and whether they grow."""

from __future__ import annotations

import statistics
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

PROC = Path("/proc")
MIB = 1 << 20
MEASURES = ("memory", "descriptors", "threads")


@dataclass(frozen=True)
class Sample:
    """One look at one process."""

    seconds: float
    """Since the start of the soak."""
    memory: float
    """Resident set, MiB (VmRSS)."""
    descriptors: int
    threads: int


def look(pid: int, seconds: float) -> Sample:
    """What /proc says now.  Raises OSError where the process has ended."""
    status = dict(line.split(":", 1) for line in (PROC / str(pid) / "status").read_text().splitlines())
    memory = int(status["VmRSS"].split()[0]) * 1024 / MIB
    return Sample(seconds, memory, len(list((PROC / str(pid) / "fd").iterdir())), int(status["Threads"]))


@dataclass
class Sampler:
    """Looks at processes every so often, from a thread of its own."""

    pids: Mapping[str, int]
    every: float
    clock: Callable[[], float]
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    died: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        start = self.clock()
        while not self._stop.wait(self.every):
            for name, pid in self.pids.items():
                try:
                    self.samples.setdefault(name, []).append(look(pid, self.clock() - start))
                except OSError:
                    self.died.append(name)
                    return


@dataclass(frozen=True)
class Trend:
    """How one measure of one process went after the warm-up."""

    start: float
    end: float
    peak: float
    growth: float
    """Slope times the time measured: what was gained, in the measure's unit."""
    bound: float

    @property
    def is_flat(self) -> bool:
        return self.growth <= self.bound


def trend(samples: list[Sample], measure: str, warm_up: float) -> Trend:
    """Slope after the warm-up by Theil and Sen (the median of all slopes between two samples), which single peaks
    do not move.
    """
    used = [sample for sample in samples if sample.seconds >= warm_up]
    step = max(1, len(used) // 300)
    points = [(sample.seconds, float(getattr(sample, measure))) for sample in used[::step]]
    slopes = [
        (later[1] - earlier[1]) / (later[0] - earlier[0])
        for number, earlier in enumerate(points)
        for later in points[number + 1 :]
    ]
    values = [value for _, value in points]
    tenth = max(1, len(values) // 10)
    growth = statistics.median(slopes) * (points[-1][0] - points[0][0]) if slopes else 0.0
    first, last = statistics.median(values[:tenth]), statistics.median(values[-tenth:])
    return Trend(first, last, max(values), growth, bound(measure, first))


def bound(measure: str, start: float) -> float:
    """How much a service may gain in the whole time measured: 5 % of its memory, one descriptor, one thread."""
    return 0.05 * start if measure == "memory" else 1.0
