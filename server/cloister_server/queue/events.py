# SPDX-License-Identifier: Apache-2.0
"""Events of a job: numbered without gaps, from 1, in the transaction of what they tell."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Connection, insert, select, update

from cloister.api.v1 import jobs_pb2
from cloister_server.database import tables
from cloister_server.database.engine import now_ms
from cloister_server.database.rows import figures, to_text
from cloister_server.pages import timestamp

_JOB = tables.job
_EVENT = tables.job_event
_STEP = tables.job_step

LEVELS = ("info", "warn", "error")
REPORTED_TYPES = ("step", "rows", "progress", "evaluation", "checkpoint", "message")


def add(
    connection: Connection,
    job_id: str,
    event_type: str,
    message: str,
    *,
    attempt: int,
    level: str = "info",
    data: Mapping[str, float] | None = None,
) -> None:
    """Append one event."""
    # The row's counter is the lock: two writers of one job get two numbers.
    counted = update(_JOB).where(_JOB.c.id == job_id).values(event_seq=_JOB.c.event_seq + 1)
    seq = connection.execute(counted.returning(_JOB.c.event_seq)).scalar_one()
    connection.execute(
        insert(_EVENT).values(
            job_id=job_id,
            seq=seq,
            created_at=now_ms(connection),
            attempt=attempt,
            level=level,
            type=event_type,
            message=message,
            data=to_text(dict(data or {})),
        )
    )


def after(connection: Connection, job_id: str, seq: int, limit: int) -> list[jobs_pb2.JobEvent]:
    """Events with a greater number, in order."""
    query = select(_EVENT).where(_EVENT.c.job_id == job_id, _EVENT.c.seq > seq).order_by(_EVENT.c.seq).limit(limit)
    return [
        jobs_pb2.JobEvent(
            seq=row.seq,
            created_at=timestamp(row.created_at),
            level=row.level,
            type=row.type,
            message=row.message,
            data=figures(row.data),
            attempt=row.attempt,
        )
        for row in connection.execute(query)
    ]


def set_step(connection: Connection, job_id: str, name: str, status: str) -> None:
    """Record that a stage started, finished or failed."""
    now = now_ms(connection)
    values: dict[str, object] = {"status": status}
    if status == "started":
        values |= {"started_at": now, "finished_at": 0}
    else:
        values |= {"finished_at": now}
    known = (_STEP.c.job_id == job_id) & (_STEP.c.name == name)
    if connection.execute(update(_STEP).where(known).values(**values)).rowcount == 0:
        row = {"job_id": job_id, "name": name, "started_at": now, "finished_at": 0, **values}
        connection.execute(insert(_STEP).values(**row))


def end_open_steps(connection: Connection, job_id: str) -> None:
    """Whatever still runs when an attempt ends has failed."""
    open_steps = (_STEP.c.job_id == job_id) & (_STEP.c.status == "started")
    connection.execute(update(_STEP).where(open_steps).values(status="failed", finished_at=now_ms(connection)))


def steps(connection: Connection, job_id: str) -> list[jobs_pb2.JobStep]:
    """Stages so far, oldest first."""
    query = select(_STEP).where(_STEP.c.job_id == job_id).order_by(_STEP.c.started_at, _STEP.c.name)
    return [
        jobs_pb2.JobStep(
            name=row.name,
            status=row.status,
            started_at=timestamp(row.started_at),
            finished_at=timestamp(row.finished_at),
        )
        for row in connection.execute(query)
    ]
