# SPDX-License-Identifier: Apache-2.0
"""The queue: jobs that no host can ever take, and leases that are lost again and again."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Connection, func, select

from cloister.evidence.roster import Roster
from cloister.findings import Finding, failure, ok, warning
from cloister_server.database import tables
from cloister_server.database.engine import now_ms
from cloister_server.queue.states import LOST, WAITING
from cloister_server.recipients import pool_key_ids

WINDOW_MS = 24 * 3600 * 1000
FLAPPING = 3
"""So many lost leases of one host in the window are no accident."""
_JOB = tables.job
_ATTEMPT = tables.job_attempt
_NAMED = 5


def check_stuck(connection: Connection, roster: Roster, now: int) -> Iterable[Finding]:
    """Waiting jobs whose inputs no certified host of their pool holds wraps of; `now` is Unix seconds."""
    waiting = list(
        connection.execute(select(_JOB.c.id, _JOB.c.pool).where(_JOB.c.state.in_(WAITING)).order_by(_JOB.c.id))
    )
    capable = {pool: set(pool_key_ids(roster, pool, now)) for pool in {job.pool for job in waiting}}
    stuck = [job.id for job in waiting if not _holders(connection, job.id, capable[job.pool])]
    if stuck:
        more = f" and {len(stuck) - _NAMED} more" if len(stuck) > _NAMED else ""
        yield failure(
            f"{len(stuck)} waiting jobs that no certified host can open: {', '.join(stuck[:_NAMED])}{more}",
            "certify a host of their pool again, or cancel them and have their datasets sealed for another one",
        )
    else:
        yield ok(f"{len(waiting)} jobs wait, each can be taken by a certified host")


def check_lost_leases(connection: Connection) -> Iterable[Finding]:
    """Hosts that lost leases several times in the last day."""
    since = now_ms(connection) - WINDOW_MS
    query = (
        select(_ATTEMPT.c.worker, func.count().label("lost"))
        .where(_ATTEMPT.c.outcome == LOST, _ATTEMPT.c.ended_at > since)
        .group_by(_ATTEMPT.c.worker)
        .order_by(_ATTEMPT.c.worker)
    )
    rows = list(connection.execute(query))
    for row in rows:
        if row.lost >= FLAPPING:
            yield warning(
                f"host {row.worker} lost {row.lost} leases in a day",
                "look at its agent's log, its memory and its network; run `cloister-worker doctor` there",
            )
    if all(row.lost < FLAPPING for row in rows):
        yield ok(f"{sum(row.lost for row in rows)} leases were lost in the last day")


def _holders(connection: Connection, job_id: str, holders: set[str]) -> set[str]:
    """Key ids among `holders` with a wrap of every input."""
    grant, job_input = tables.object_grant, tables.job_input
    left = set(holders)
    for object_id in connection.execute(select(job_input.c.object_id).where(job_input.c.job_id == job_id)).scalars():
        wrapped = select(grant.c.recipient_key_id).where(grant.c.object_id == object_id)
        left &= set(connection.execute(wrapped).scalars())
    return left
