# SPDX-License-Identifier: Apache-2.0
"""What a person is told of a job that waits: how many go first, and about when it would start."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloister.cli.options import now
from cloister.cli.output import duration

if TYPE_CHECKING:
    from cloister.api.v1.jobs_pb2 import Job

_SOON_SECONDS = 60


def starts_in(found: Job) -> str:
    """Say "soon" or "in about 14 min"; empty where the control plane tells no time."""
    if not found.HasField("forecast_start"):
        return ""
    left = found.forecast_start.seconds - now()
    return "soon" if left < _SOON_SECONDS else f"in about {duration(left)}"


def waiting_words(found: Job) -> str:
    """Say "2 jobs ahead, starts in about 14 min"; empty for a job of which nothing is told."""
    count, start = found.jobs_ahead, starts_in(found)
    ahead = f"{count} {'job' if count == 1 else 'jobs'} ahead" if count else ""
    return ", ".join(part for part in (ahead, f"starts {start}" if start else "") if part)
