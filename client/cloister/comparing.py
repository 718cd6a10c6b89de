# SPDX-License-Identifier: Apache-2.0
"""Jobs side by side: what was asked of each, and what their hosts measured."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from cloister.api.v1 import jobs_pb2

LOW, HIGH = "_ci_low", "_ci_high"
_NOT_COMPARED = ("suffix", "metadata")


@dataclass(frozen=True)
class Compared:
    """One job."""

    job: jobs_pb2.Job
    name: str
    """Of the model that it made, or the job's id."""
    before: Mapping[str, float]
    after: Mapping[str, float]
    signed: bool
    """Whether the figures are those that the host signed, rather than what the control plane shows."""

    @property
    def seconds(self) -> int:
        """How long it ran; 0 where it has not ended."""
        began, ended = self.job.started_at.seconds, self.job.finished_at.seconds
        return max(0, ended - began) if began and ended else 0


@dataclass(frozen=True)
class Figure:
    """A metric of one job, with its 95 % interval where the host gave one."""

    value: float
    low: float | None
    high: float | None


def metrics_of(jobs: Sequence[Compared]) -> list[str]:
    """Every metric that a job has after training, in alphabetical order."""
    names = {name for compared in jobs for name in compared.after}
    return sorted(name for name in names if not name.endswith((LOW, HIGH)))


def figure(metrics: Mapping[str, float], name: str) -> Figure | None:
    """The metric of this name; None where the job has none."""
    if name not in metrics:
        return None
    return Figure(metrics[name], metrics.get(name + LOW), metrics.get(name + HIGH))


def differences(jobs: Sequence[Compared]) -> list[tuple[str, list[str]]]:
    """Fields of the specifications, by their path, that are not the same in all jobs, with each job's value."""
    tables = [dict(_flat(json.loads(compared.job.spec))) for compared in jobs]
    paths = sorted({path for table in tables for path in table})
    found = [(path, [table.get(path, "") for table in tables]) for path in paths]
    return [(path, values) for path, values in found if len(set(values)) > 1]


def _flat(table: Mapping[str, object], path: str = "") -> Iterator[tuple[str, str]]:
    for name, value in table.items():
        if not path and name in _NOT_COMPARED:
            continue
        where = f"{path}.{name}" if path else name
        if isinstance(value, Mapping) and value:
            yield from _flat(value, where)
        else:
            yield where, "" if isinstance(value, Mapping) else str(value)
