# SPDX-License-Identifier: Apache-2.0
"""Where waiting jobs stand and when they would start: computed once for a pool, however many jobs of it are shown.

What a team is told of its job depends on others' jobs, but is a number and a time: nobody is named.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from google.protobuf import json_format
from sqlalchemy import Connection, select

from cloister.api.v1 import jobs_pb2
from cloister_server.database import tables
from cloister_server.database.engine import now_ms
from cloister_server.database.rows import JobRow
from cloister_server.operations import maintenance, quotas, workers
from cloister_server.queue import order
from cloister_server.queue.forecast import forecast_starts
from cloister_server.queue.states import LEASED, LOST, WAITING

RECENT_ATTEMPTS = 50
"""Of so many ended attempts of a pool the mean duration is taken; one whose worker was lost says nothing."""

_JOB = tables.job
_ATTEMPT = tables.job_attempt


@dataclass(frozen=True)
class Place:
    """Of one job."""

    jobs_ahead: int = 0
    forecast_start: int = 0
    """Milliseconds since 1970; 0 where none can be told."""


NOWHERE = Place()
"""Of a job that does not wait."""


class Outlook:
    """Places in the queues, as one connection sees them now.  Made anew for each call."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._pools: dict[str, Mapping[str, Place]] = {}

    def place(self, job: JobRow) -> Place:
        """Of one job."""
        if job.state not in WAITING:
            return NOWHERE
        if job.pool not in self._pools:
            self._pools[job.pool] = _places(self._connection, job.pool)
        return self._pools[job.pool].get(job.id, NOWHERE)


def _places(connection: Connection, pool: str) -> Mapping[str, Place]:
    rows = list(connection.execute(order.waiting(connection, pool).add_columns(_JOB.c.team)))
    # A team that runs as many as it may waits for its own jobs: others pass, and nothing is told of when.
    limited = quotas.teams_at_running_limit(connection)
    starting = [row.id for row in rows if row.team not in limited]
    now = int(connection.execute(select(now_ms(connection))).scalar_one())
    duration = _mean_duration(connection, pool)
    # In maintenance no lease is given, and only an admin knows until when.
    free = [] if maintenance.find(connection) else _free_at(connection, pool, duration, now)
    starts = dict(zip(starting, forecast_starts(now, free, duration, len(starting)), strict=True))
    return {row.id: Place(ahead, starts.get(row.id) or 0) for ahead, row in enumerate(rows)}


def _mean_duration(connection: Connection, pool: str) -> int | None:
    """Milliseconds that an attempt of the pool holds a host; None where none has ended."""
    query = (
        select(_ATTEMPT.c.leased_at, _ATTEMPT.c.ended_at)
        .where(_ATTEMPT.c.pool == pool, _ATTEMPT.c.ended_at > 0, _ATTEMPT.c.outcome != LOST)
        .order_by(_ATTEMPT.c.leased_at.desc())
        .limit(RECENT_ATTEMPTS)
    )
    lengths = [row.ended_at - row.leased_at for row in connection.execute(query)]
    return sum(lengths) // len(lengths) if lengths else None


def _free_at(connection: Connection, pool: str, duration: int | None, now: int) -> list[int | None]:
    """When each host that takes work is free; now for one that runs nothing, None where nobody knows."""
    running = (
        select(_JOB.c.worker, _JOB.c.progress, _ATTEMPT.c.leased_at)
        .join(_ATTEMPT, (_ATTEMPT.c.job_id == _JOB.c.id) & (_ATTEMPT.c.attempt == _JOB.c.attempt))
        .where(_JOB.c.lease_until > 0, _JOB.c.state.in_(LEASED), _JOB.c.pool == pool)
    )
    busy = {row.worker: _ends_at(row.progress, row.leased_at, duration, now) for row in connection.execute(running)}
    return [busy.get(host, now) for host in workers.taking_work(connection, pool)]


def _ends_at(progress: str, leased_at: int, duration: int | None, now: int) -> int | None:
    """The trainer's own estimate, where this attempt gave one; else the mean, which may be over already."""
    if progress:
        told = json_format.Parse(progress, jobs_pb2.Progress())
        told_at = told.updated_at.ToMilliseconds()
        if told.eta_seconds > 0 and told_at >= leased_at:
            return max(now, told_at + int(told.eta_seconds * 1000))
    return None if duration is None else max(now, leased_at + duration)
